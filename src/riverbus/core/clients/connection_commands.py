"""The commands about the connection and the node: HELLO, AUTH, PING, RESET, CLIENT, INFO, CONFIG GET, TIME."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverbus.commands import (
    Answered,
    Auth,
    ClientGetName,
    ClientId,
    ClientInfo,
    ClientKill,
    ClientList,
    ClientNoEvict,
    ClientNoTouch,
    ClientReply,
    ClientSetInfo,
    ClientSetName,
    ConfigGet,
    Hello,
    Info,
    Malformed,
    Ping,
    Quit,
    Reset,
    Time,
)
from riverbus.core.access.acl import one_line, text_of
from riverbus.core.access.acl_commands import log_in
from riverbus.core.clients import introspection
from riverbus.core.clients.outbox import NOTHING
from riverbus.core.clients.pubsub_commands import unsubscribe_all
from riverbus.core.clients.refusals import AUTH_WITHOUT_USERS, HELLO_NO_AUTH, NO_SUCH_CLIENT
from riverbus.messages import ErrorReply, Reply, Status, Verbatim

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session

_OK = Status("OK")
_PONG = Status("PONG")


def answered(_: Session, command: Answered) -> Reply:
    return command.reply


def malformed(session: Session, command: Malformed) -> Reply:
    session.close_when_answered()
    return command.reply


def hello(session: Session, command: Hello) -> Reply:
    """https://redis.io/commands/hello: log in, then the name, then the protocol, or none of them."""
    if command.password is not None:
        return log_in(session, command.user, command.password, b"HELLO", lambda: _greet(session, command))
    return _greet(session, command)


def _greet(session: Session, command: Hello) -> Reply:
    if not session.is_authenticated:
        return HELLO_NO_AUTH
    if command.name is not None and (refusal := session.registry.durable.rename(session, command.name)) is not None:
        return refusal
    if command.version is not None:
        session.use_protocol(command.version)
    return {
        b"server": b"redis",
        b"version": introspection.REDIS_VERSION.encode(),
        b"proto": session.protocol,
        b"id": session.id,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
    }


def auth(session: Session, command: Auth) -> Reply:
    if command.user is None and session.registry.users.is_passwordless():
        return AUTH_WITHOUT_USERS
    return log_in(session, command.user, command.password, b"AUTH", lambda: _OK)


def ping(session: Session, command: Ping) -> Reply:
    if session.protocol == 2 and session.is_subscriber:
        return [b"pong", command.text or b""]
    return _PONG if command.text is None else command.text


def quit_(session: Session, _: Quit) -> Reply:
    session.close_when_answered()
    return _OK


def reset(session: Session, _: Reset) -> Reply:
    unsubscribe_all(session)
    if session.durable is not None:
        session.durable.give_back()
    session.forget_client()
    return Status("RESET")


def time(session: Session, _: Time) -> Reply:
    seconds, ms = divmod(session.backend.wall_ms(), 1000)
    return [b"%d" % seconds, b"%d" % (ms * 1000)]


def info(session: Session, command: Info) -> Reply:
    return Verbatim(introspection.info_text(session.registry, command.sections))


def config_get(session: Session, command: ConfigGet) -> Reply:
    return introspection.config_matching(introspection.settings_of(session.registry), command.patterns)


# --- CLIENT -----------------------------------------------------------------------------------------------------------


def set_name(session: Session, command: ClientSetName) -> Reply:
    return session.registry.durable.rename(session, command.name) or _OK


def get_name(session: Session, _: ClientGetName) -> Reply:
    return session.name or None


def set_info(session: Session, command: ClientSetInfo) -> Reply:
    session.library[command.attribute] = command.value
    return _OK


def client_id(session: Session, _: ClientId) -> Reply:
    return session.id


def client_info(session: Session, command: ClientInfo) -> Reply:
    return Verbatim(introspection.client_line(session, command) + "\n")


def client_list(session: Session, command: ClientList) -> Reply:
    sessions = session.registry.by_id
    if command.ids is None:
        chosen = list(sessions.values())
    else:
        chosen = [sessions[id_] for id_ in command.ids if id_ in sessions]
    if command.type is not None:
        chosen = [each for each in chosen if introspection.client_type(each) == command.type]
    lines = [introspection.client_line(each, command if each is session else each.last_command) for each in chosen]
    return Verbatim("".join(line + "\n" for line in lines))


def client_kill(session: Session, command: ClientKill) -> Reply:
    if command.user is not None and session.registry.users.get(text_of(command.user)) is None:
        return ErrorReply(f"ERR No such user '{one_line(text_of(command.user))}'")
    killed = [each for each in session.registry.by_id.values() if _is_meant(each, session, command)]
    for each in killed:
        if each is session:
            session.close_when_answered()
        else:
            each.disconnect(None)
    if command.old_form:
        return _OK if killed else NO_SUCH_CLIENT
    return len(killed)


def _is_meant(session: Session, killer: Session, command: ClientKill) -> bool:
    if session is killer and command.skip_me and not command.old_form:
        return False
    return (
        (command.address is None or session.address.encode() == command.address)
        and (command.local_address is None or session.local_address.encode() == command.local_address)
        and (command.id is None or session.id == command.id)
        and (command.user is None or session.user.encode() == command.user)
        and (command.type is None or introspection.client_type(session) == command.type)
    )


def client_reply(session: Session, command: ClientReply) -> Reply:
    """ON answers; OFF and SKIP don't, and SKIP doesn't end OFF."""
    if command.mode == "on" or session.pipeline.reply_mode != "off":
        session.pipeline.reply_mode = command.mode
        session.pipeline.update_plain()
    return _OK if command.mode == "on" else NOTHING


def wish(session: Session, command: ClientNoEvict | ClientNoTouch) -> Reply:
    """What has no meaning here, as no client is evicted and no access times are kept; CLIENT LIST shows it."""
    flag = "e" if isinstance(command, ClientNoEvict) else "T"
    if command.on:
        session.wishes.add(flag)
    else:
        session.wishes.discard(flag)
    return _OK
