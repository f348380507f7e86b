"""Parsers of the commands about the connection and the server: arguments in, a noun of commands.py out.

Each takes the whole argument list, its name included, of checked arity. Raises CommandError with Redis' text.
"""

from __future__ import annotations

from riverbus import commands
from riverbus.commands import Answered, Command
from riverbus.limits import CLIENT_NAME_BYTES_MAX, CLIENT_PAUSE_S_MAX
from riverbus.messages import Status
from riverbus.wire.parsing import (
    SYNTAX_ERROR,
    CommandError,
    integer,
    text_of,
    timeout_ms,
    wrong_arity,
    wrong_subcommand_use,
)

OK = Status("OK")
_CLIENT_TYPES = {"normal": "normal", "pubsub": "pubsub", "master": "master", "replica": "replica", "slave": "replica"}


def parse_hello(args: list[bytes]) -> Command:
    """HELLO [protover [AUTH user password] [SETNAME name]]"""
    version = None
    if len(args) > 1:
        version = integer(args[1], "ERR Protocol version is not an integer or out of range")
        if version not in (2, 3):
            raise CommandError("NOPROTO unsupported protocol version")
    user = password = name = None
    at = 2
    while at < len(args):
        option = args[at].upper()
        if option == b"AUTH" and at + 2 < len(args):
            user, password = args[at + 1], args[at + 2]
            at += 3
        elif option == b"SETNAME" and at + 1 < len(args):
            name = _checked_name(args[at + 1])
            at += 2
        else:
            raise CommandError(f"ERR Syntax error in HELLO option '{text_of(args[at])}'")
    return commands.Hello(version, user, password, name)


def parse_auth(args: list[bytes]) -> Command:
    """AUTH [user] password"""
    if len(args) > 3:
        raise CommandError(SYNTAX_ERROR)
    return commands.Auth(None if len(args) == 2 else args[1], args[-1])


def parse_ping(args: list[bytes]) -> Command:
    if len(args) > 2:
        raise wrong_arity("ping")
    return commands.Ping(args[1] if len(args) == 2 else None)


def parse_echo(args: list[bytes]) -> Command:
    return Answered(args[1], "echo")


def parse_select(args: list[bytes]) -> Command:
    """SELECT index: there is one database."""
    if integer(args[1]) != 0:
        raise CommandError("ERR DB index is out of range")
    return Answered(OK, "select")


def parse_info(args: list[bytes]) -> Command:
    return commands.Info(tuple(section.lower() for section in args[1:]))


def parse_config_get(args: list[bytes]) -> Command:
    return commands.ConfigGet(tuple(args[2:]))


def parse_config_set(args: list[bytes]) -> Command:
    """CONFIG SET name value [name value ...]"""
    if len(args) % 2:
        raise CommandError(SYNTAX_ERROR)
    return commands.ConfigSet(tuple(zip(args[2::2], args[3::2], strict=True)))


def parse_wait(args: list[bytes]) -> Command:
    """WAIT numreplicas timeout"""
    return commands.Wait(integer(args[1]), timeout_ms(args[2]))


def parse_function_flush(args: list[bytes]) -> Command:
    """FUNCTION FLUSH [ASYNC | SYNC]: there are no functions, so they are flushed. Test suites send it."""
    if len(args) > 3:
        raise wrong_subcommand_use("function", args[1])
    if len(args) == 3 and args[2].upper() not in (b"ASYNC", b"SYNC"):
        raise CommandError("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
    return Answered(OK, "function|flush")


def parse_script_flush(args: list[bytes]) -> Command:
    """SCRIPT FLUSH [ASYNC | SYNC]"""
    if len(args) > 3 or (len(args) == 3 and args[2].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandError("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
    return Answered(OK, "script|flush")


# --- CLIENT -----------------------------------------------------------------------------------------------------------


def parse_client_setname(args: list[bytes]) -> Command:
    return commands.ClientSetName(_checked_name(args[2]))


def parse_client_setinfo(args: list[bytes]) -> Command:
    """CLIENT SETINFO LIB-NAME | LIB-VER value"""
    attribute = args[2].lower()
    if attribute not in (b"lib-name", b"lib-ver"):
        raise CommandError(f"ERR Unrecognized option '{text_of(args[2])}'")
    if not _is_printable(args[3]):
        raise CommandError(f"ERR {text_of(args[2])} cannot contain spaces, newlines or special characters.")
    return commands.ClientSetInfo(attribute.decode(), args[3])


def parse_client_list(args: list[bytes]) -> Command:
    """CLIENT LIST [TYPE type] [ID id ...]: one of them"""
    option = args[2].upper() if len(args) > 2 else b""
    if option == b"TYPE" and len(args) == 4:
        return commands.ClientList(None, _client_type(args[3]))
    if option == b"ID" and len(args) > 3:
        return commands.ClientList(tuple(integer(arg, "ERR Invalid client ID") for arg in args[3:]), None)
    if len(args) > 2:
        raise CommandError(SYNTAX_ERROR)
    return commands.ClientList(None, None)


def parse_client_kill(args: list[bytes]) -> Command:
    """CLIENT KILL address | option value [option value ...]"""
    if len(args) == 3:
        return commands.ClientKill(address=args[2], skip_me=False, old_form=True)
    kill = commands.ClientKill()
    for at in range(2, len(args), 2):
        option, value = args[at], args[at + 1] if at + 1 < len(args) else None
        if value is None:
            raise CommandError(SYNTAX_ERROR)
        match option.upper():
            case b"ID":
                kill = kill._replace(id=integer(value, "ERR client-id should be greater than 0", at_least=1))
            case b"TYPE":
                kill = kill._replace(type=_client_type(value))
            case b"ADDR":
                kill = kill._replace(address=value)
            case b"LADDR":
                kill = kill._replace(local_address=value)
            case b"USER":
                kill = kill._replace(user=value)
            case b"SKIPME" if value.upper() in (b"YES", b"NO"):
                kill = kill._replace(skip_me=value.upper() == b"YES")
            case _:
                raise CommandError(SYNTAX_ERROR)
    return kill


def parse_client_no_evict(args: list[bytes]) -> Command:
    return commands.ClientNoEvict(_on_or_off(args[2]))


def parse_client_no_touch(args: list[bytes]) -> Command:
    return commands.ClientNoTouch(_on_or_off(args[2]))


def parse_client_pause(args: list[bytes]) -> Command:
    """CLIENT PAUSE timeout [WRITE | ALL]"""
    if len(args) > 4:
        raise wrong_subcommand_use("client", args[1])
    mode = args[3].upper() if len(args) == 4 else b"ALL"
    if mode not in (b"WRITE", b"ALL"):
        raise CommandError("ERR CLIENT PAUSE mode must be WRITE or ALL")
    ms = timeout_ms(args[2])
    if ms > CLIENT_PAUSE_S_MAX * 1000:
        raise CommandError(f"ERR timeout is out of range: the limit is {CLIENT_PAUSE_S_MAX} seconds")
    return commands.ClientPause(ms, mode == b"WRITE")


def parse_client_unblock(args: list[bytes]) -> Command:
    """CLIENT UNBLOCK id [TIMEOUT | ERROR]"""
    if len(args) > 4:
        raise wrong_subcommand_use("client", args[1])
    reason = args[3].upper() if len(args) == 4 else b"TIMEOUT"
    if reason not in (b"TIMEOUT", b"ERROR"):
        raise CommandError("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    return commands.ClientUnblock(integer(args[2]), reason == b"ERROR")


def parse_client_caching(args: list[bytes]) -> Command:
    """CLIENT CACHING YES | NO: there is no tracking, so there is no mode in which it means something."""
    raise CommandError(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled"
    )


def parse_client_reply(args: list[bytes]) -> Command:
    mode = args[2].lower()
    if mode not in (b"on", b"off", b"skip"):
        raise CommandError(SYNTAX_ERROR)
    return commands.ClientReply(mode.decode())


def _on_or_off(argument: bytes) -> bool:
    if argument.upper() not in (b"ON", b"OFF"):
        raise CommandError(SYNTAX_ERROR)
    return argument.upper() == b"ON"


def _client_type(argument: bytes) -> str:
    kind = _CLIENT_TYPES.get(text_of(argument).lower())
    if kind is None:
        raise CommandError(f"ERR Unknown client type '{text_of(argument)}'")
    return kind


def _checked_name(name: bytes) -> bytes:
    if not _is_printable(name):
        raise CommandError("ERR Client names cannot contain spaces, newlines or special characters.")
    if len(name) > CLIENT_NAME_BYTES_MAX:
        raise CommandError(f"ERR client name of {len(name)} bytes, the limit is {CLIENT_NAME_BYTES_MAX}")
    return name


def _is_printable(text: bytes) -> bool:
    """Redis' rule for names that stand in a line of CLIENT LIST: `!` to `~`."""
    return not text.translate(None, bytes(range(33, 127)))
