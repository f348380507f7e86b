"""Parsers of keys, their expiry, and strings: arguments in, a noun out.

Each takes the whole argument list, its name included, of checked arity. Raises CommandError with Redis' text. Where
Redis looks at the data before it looks at an argument, the argument's error comes first here: a noun is well-formed.
"""

from __future__ import annotations

from collections.abc import Callable

from riverbus import keyspace_commands as keyspace
from riverbus.commands import Command
from riverbus.messages import SEQ_MAX
from riverbus.wire.parsing import (
    INT64_MAX,
    INT64_MIN,
    SYNTAX_ERROR,
    CommandError,
    checked_body,
    checked_channel,
    checked_pattern,
    integer,
    text_of,
    writable_key,
)

_SECOND_MS = 1000

# --- keys -------------------------------------------------------------------------------------------------------------


def parse_del(args: list[bytes]) -> Command:
    return keyspace.Del(tuple(map(checked_channel, args[1:])))


def parse_unlink(args: list[bytes]) -> Command:
    return keyspace.Del(tuple(map(checked_channel, args[1:])), "unlink")


def parse_exists(args: list[bytes]) -> Command:
    return keyspace.Exists(tuple(map(checked_channel, args[1:])))


def parse_touch(args: list[bytes]) -> Command:
    return keyspace.Exists(tuple(map(checked_channel, args[1:])), "touch")


def parse_type(args: list[bytes]) -> Command:
    return keyspace.Type(checked_channel(args[1]))


def parse_keys(args: list[bytes]) -> Command:
    return keyspace.Keys(checked_pattern(args[1]))


def parse_scan(args: list[bytes]) -> Command:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]"""
    if not args[1].isdigit() or len(args[1]) > 20 or int(args[1]) > SEQ_MAX:
        raise CommandError("ERR invalid cursor")
    noun = keyspace.Scan(int(args[1]))
    for at in range(2, len(args), 2):
        if at + 1 == len(args):
            raise CommandError(SYNTAX_ERROR)
        value = args[at + 1]
        match args[at].upper():
            case b"COUNT":
                noun = noun._replace(limit=integer(value))
                if noun.limit < 1:
                    raise CommandError(SYNTAX_ERROR)
            case b"MATCH":
                noun = noun._replace(pattern=checked_pattern(value))
            case b"TYPE":
                noun = noun._replace(type=value.lower())
            case _:
                raise CommandError(SYNTAX_ERROR)
    return noun


def parse_flushall(args: list[bytes]) -> Command:
    return _flush(args, "flushall")


def parse_flushdb(args: list[bytes]) -> Command:
    return _flush(args, "flushdb")


def _flush(args: list[bytes], command: str) -> Command:
    """FLUSHALL | FLUSHDB [ASYNC | SYNC]: there is one database"""
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandError(SYNTAX_ERROR)
    return keyspace.FlushAll(command)


def parse_rename(args: list[bytes]) -> Command:
    return keyspace.Rename(checked_channel(args[1]), writable_key(args[2]))


def parse_renamenx(args: list[bytes]) -> Command:
    return keyspace.Rename(checked_channel(args[1]), writable_key(args[2]), True)


def parse_object(args: list[bytes]) -> Command:
    return keyspace.Object(args[1].lower().decode(), checked_channel(args[2]))


# --- expiry -----------------------------------------------------------------------------------------------------------


def _expire(command: str, unit_ms: int, *, is_absolute: bool) -> Callable[[list[bytes]], Command]:
    def parse(args: list[bytes]) -> Command:
        condition = _expire_condition(args[3:])
        ms = integer(args[2])
        if not INT64_MIN <= ms * unit_ms <= INT64_MAX:
            raise _bad_expire_time(command)
        return keyspace.Expire(checked_channel(args[1]), ms * unit_ms, is_absolute, condition, command)

    return parse


parse_expire = _expire("expire", _SECOND_MS, is_absolute=False)
parse_pexpire = _expire("pexpire", 1, is_absolute=False)
parse_expireat = _expire("expireat", _SECOND_MS, is_absolute=True)
parse_pexpireat = _expire("pexpireat", 1, is_absolute=True)


def _expire_condition(options: list[bytes]) -> str:
    """NX | XX | GT | LT, of which XX goes with GT and with LT."""
    given = {option.upper() for option in options}
    for option in options:
        if option.upper() not in (b"NX", b"XX", b"GT", b"LT"):
            raise CommandError(f"ERR Unsupported option {text_of(option)}")
    if b"NX" in given and len(given) > 1:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in given and b"LT" in given:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    return b"".join(name for name in (b"NX", b"XX", b"GT", b"LT") if name in given).decode().lower()


def _bad_expire_time(command: str) -> CommandError:
    return CommandError(f"ERR invalid expire time in '{command}' command")


def parse_ttl(args: list[bytes]) -> Command:
    return keyspace.Ttl(checked_channel(args[1]), True)


def parse_pttl(args: list[bytes]) -> Command:
    return keyspace.Ttl(checked_channel(args[1]), False)


def parse_expiretime(args: list[bytes]) -> Command:
    return keyspace.Ttl(checked_channel(args[1]), True, True)


def parse_pexpiretime(args: list[bytes]) -> Command:
    return keyspace.Ttl(checked_channel(args[1]), False, True)


def parse_persist(args: list[bytes]) -> Command:
    return keyspace.Persist(checked_channel(args[1]))


# --- strings ----------------------------------------------------------------------------------------------------------

_EXPIRY = {b"EX": (_SECOND_MS, False), b"PX": (1, False), b"EXAT": (_SECOND_MS, True), b"PXAT": (1, True)}


class _StringOptions:
    """The options of SET and GETEX."""

    def __init__(self, args: list[bytes], at: int, *, is_set: bool) -> None:
        self.given: set[bytes] = set()
        self.expire: tuple[bytes, bytes] | None = None  # the option and its value
        while at < len(args):
            option = args[at].upper()
            if option in _EXPIRY and at + 1 < len(args) and self._may_expire_by(option):
                self.expire = (option, args[at + 1])
                at += 1
            elif not self._may_be(option, is_set):
                raise CommandError(SYNTAX_ERROR)
            self.given.add(option)
            at += 1

    def _may_expire_by(self, option: bytes) -> bool:
        others = {b"KEEPTTL", b"PERSIST", *_EXPIRY} - {option}
        return not others & self.given

    def _may_be(self, option: bytes, is_set: bool) -> bool:
        match option:
            case b"NX":
                return is_set and b"XX" not in self.given
            case b"XX":
                return is_set and b"NX" not in self.given
            case b"GET":
                return is_set
            case b"KEEPTTL":
                return is_set and not self.given & {*_EXPIRY, b"PERSIST"}
            case b"PERSIST":
                return not is_set and not self.given & {*_EXPIRY, b"KEEPTTL"}
            case _:
                return False

    def expiry(self, command: str) -> tuple[int | None, bool]:
        """(milliseconds, whether that is Unix time)"""
        if self.expire is None:
            return None, False
        option, value = self.expire
        unit_ms, is_absolute = _EXPIRY[option]
        return _positive_ms(value, unit_ms, command), is_absolute


def _positive_ms(value: bytes, unit_ms: int, command: str) -> int:
    amount = integer(value)
    if amount <= 0 or amount * unit_ms > INT64_MAX:
        raise _bad_expire_time(command)
    return amount * unit_ms


def parse_set(args: list[bytes]) -> Command:
    """SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]"""
    key, value = writable_key(args[1]), checked_body(args[2])
    if len(args) == 3:
        return keyspace.SetString(key, value)
    options = _StringOptions(args, 3, is_set=True)
    expire_ms, is_absolute = options.expiry("set")
    given = options.given
    return keyspace.SetString(
        key,
        value,
        expire_ms,
        is_absolute,
        keep_ttl=b"KEEPTTL" in given,
        nx=b"NX" in given,
        xx=b"XX" in given,
        get=b"GET" in given,
    )


def parse_setex(args: list[bytes]) -> Command:
    """SETEX key seconds value"""
    expire_ms = _positive_ms(args[2], _SECOND_MS, "setex")
    return keyspace.SetString(writable_key(args[1]), checked_body(args[3]), expire_ms, command="setex")


def parse_psetex(args: list[bytes]) -> Command:
    """PSETEX key milliseconds value"""
    expire_ms = _positive_ms(args[2], 1, "psetex")
    return keyspace.SetString(writable_key(args[1]), checked_body(args[3]), expire_ms, command="psetex")


def parse_setnx(args: list[bytes]) -> Command:
    return keyspace.SetString(writable_key(args[1]), checked_body(args[2]), nx=True, command="setnx")


def parse_get(args: list[bytes]) -> Command:
    return keyspace.GetString(checked_channel(args[1]))


def parse_strlen(args: list[bytes]) -> Command:
    return keyspace.StrLen(checked_channel(args[1]))


def parse_getdel(args: list[bytes]) -> Command:
    return keyspace.GetDel(checked_channel(args[1]))


def parse_getex(args: list[bytes]) -> Command:
    """GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]"""
    options = _StringOptions(args, 2, is_set=False)
    expire_ms, is_absolute = options.expiry("getex")
    if expire_ms is None and not options.given:
        return keyspace.GetString(checked_channel(args[1]), "getex")
    return keyspace.GetEx(checked_channel(args[1]), expire_ms, is_absolute, b"PERSIST" in options.given)
