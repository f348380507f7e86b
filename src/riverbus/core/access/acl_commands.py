"""ACL, and logging in: AUTH and HELLO's AUTH.

SETUSER and DELUSER are replicated (acl_state.py, in shard 0); what only this node can know is asked here before:
whether a rule names a command that exists, and whether the user is the configuration's. USERS, LIST and GETUSER are
read behind a barrier, so that every node says the same; LOG is this node's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from riverbus.access_commands import (
    AclDelUser,
    AclDryRun,
    AclGenPass,
    AclGetUser,
    AclList,
    AclLog,
    AclSetUser,
    AclUsers,
    AclWhoAmI,
)
from riverbus.core.access.acl import (
    RuleError,
    Selector,
    User,
    check_names_in_turn,
    check_size,
    checked_name,
    merged,
    one_line,
    text_of,
)
from riverbus.core.access.acl_state import DEFAULT
from riverbus.core.access.acl_users import USERS_SHARD
from riverbus.core.clients.inflight import Order
from riverbus.core.clients.key_commands import write_to
from riverbus.core.clients.outbox import NOTHING, PendingReply, error_reply
from riverbus.core.clients.reads import read_shards
from riverbus.core.clients.refusals import WRONG_PASS
from riverbus.limits import PASSWORD_BYTES_MAX
from riverbus.messages import BusError, ErrorReply, Reply, Status

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session

_DEFAULT_STAYS = ErrorReply("ERR The 'default' user cannot be removed")


# --- logging in -------------------------------------------------------------------------------------------------------


def log_in(session: Session, user: bytes | None, password: bytes, command: bytes, then: Callable[[], Reply]) -> Reply:
    """The refusal, or what `then` answers once the session is that user's; `NOTHING` while a slow check goes on."""
    users = session.registry.users
    name = DEFAULT if user is None else user.decode("utf-8", "replace")
    wait_s = users.failures.wait_s(session.address, session.backend.time())
    if wait_s:
        return ErrorReply(f"ERR too many failed logins from this address: try again in {wait_s} seconds")
    if len(password) > PASSWORD_BYTES_MAX:
        password = b""
        name = "\0"  # nobody's: it fails as any other, after the same work
    pending: PendingReply | None = None
    answers: list[Reply] = []

    def answer(reply: Reply) -> None:
        if pending is None:
            answers.append(reply)
        else:
            pending.resolve(reply)

    def checked(is_right: bool) -> None:
        if session.is_closed:
            return
        if is_right:
            users.on_log_in(session, name)
            answer(then())
        else:
            users.on_failed_login(session, text_of(user) if user is not None else DEFAULT, command)
            answer(WRONG_PASS)

    def caught_up(error: BusError | None) -> None:
        if session.is_closed:
            return
        if error is not None:
            answer(error_reply(error))
        else:
            users.is_current = True
            users.check_password(name, password, checked)

    if users.is_current or users.is_configured(name):
        users.check_password(name, password, checked)
    else:
        session.backend.fresh_shards((USERS_SHARD,), caught_up)
    if answers:
        return answers[0]
    pending = PendingReply(session.pipeline.owner, Order.FREE)
    if session.pipeline.execution is None:
        session.pipeline.expect_alone(pending)
    else:
        session.pipeline.expect(pending)
    return NOTHING


# --- what there is ----------------------------------------------------------------------------------------------------


def who_am_i(session: Session, _: AclWhoAmI) -> Reply:
    return session.user


def users(session: Session, _: AclUsers) -> Reply:
    return read_shards(session, (USERS_SHARD,), lambda: session.registry.users.names())


def list_(session: Session, _: AclList) -> Reply:
    return read_shards(session, (USERS_SHARD,), lambda: session.registry.users.lines())


def get_user(session: Session, command: AclGetUser) -> Reply:
    def produce() -> Reply:
        user = session.registry.users.get(text_of(command.name))
        if user is None:
            return None
        return {
            b"flags": frozenset(user.flags()) if session.protocol == 3 else user.flags(),
            b"passwords": list(user.hashes),
            **_described(user.root),
            b"selectors": [_described(each) for each in user.selectors],
        }

    return read_shards(session, (USERS_SHARD,), produce)


def _described(selector: Selector) -> dict[Reply, Reply]:
    return {
        b"commands": selector.describe_commands(),
        b"keys": selector.describe_keys(),
        b"channels": selector.describe_channels(),
    }


def gen_pass(session: Session, command: AclGenPass) -> Reply:
    digits = command.digits
    return session.backend.access().random_bytes((digits + 1) // 2).hex()[:digits]


def log(session: Session, command: AclLog) -> Reply:
    entries = session.registry.users.log
    if command.limit is None:
        entries.clear()
        return Status("OK")
    return entries.reply(command.limit, session.backend.time())


def dry_run(session: Session, command: AclDryRun) -> Reply:
    known = session.registry.users
    name = text_of(command.user)
    if known.get(name) is None:
        return ErrorReply(f"ERR User '{one_line(name)}' not found")
    if command.wrong is not None:
        return command.wrong
    rights = known.rights(name)
    denial = None if rights is None else rights.denial(command.command)
    return Status("OK") if denial is None else denial.describe(name)


# --- changes ----------------------------------------------------------------------------------------------------------


def set_user(session: Session, command: AclSetUser) -> Reply:
    known = session.registry.users
    try:
        name = checked_name(command.name)
        check_size(sum(map(len, command.rules)))  # the work of a command, too, is bounded
        rules = merged(command.rules)
        texts = [text_of(rule) for rule in rules]
        check_names_in_turn(known.get(name) or User(name), texts, known)
    except RuleError as error:
        return ErrorReply(error.describe())
    if known.is_configured(name):
        return _of_configuration(name)
    return write_to(session, USERS_SHARD, AclSetUser(command.name, tuple(rules)))


def del_user(session: Session, command: AclDelUser) -> Reply:
    known = session.registry.users
    for name in map(text_of, command.names):
        if name == DEFAULT:
            return _DEFAULT_STAYS
        if known.is_configured(name):
            return _of_configuration(name)
    return write_to(session, USERS_SHARD, command)


def _of_configuration(name: str) -> ErrorReply:
    return ErrorReply(
        f"ERR user '{name}' is the configuration file's: change it there ([[user]]) and restart the nodes one by one"
    )
