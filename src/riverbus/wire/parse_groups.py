"""Parsers of consumer groups: XGROUP, XREADGROUP, XACK, XPENDING, XCLAIM, XAUTOCLAIM, XINFO GROUPS and CONSUMERS.

Each takes the whole argument list, its name included, of checked arity. Raises CommandError with Redis' text. Where
Redis looks at the data before it looks at an argument, the argument's error comes first here: a noun is well-formed.
"""

from __future__ import annotations

from riverbus import keyspace_commands as keyspace
from riverbus.commands import Command
from riverbus.messages import MessageId
from riverbus.wire.parsing import (
    SYNTAX_ERROR,
    CommandError,
    checked_channel,
    integer,
    range_start,
    range_stop,
    stream_id,
    text_of,
    timeout_ms,
    writable_key,
    wrong_subcommand_use,
)

_DOLLAR = (
    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by "
    "specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set."
)

# --- XGROUP -----------------------------------------------------------------------------------------------------------


def parse_xgroup_create(args: list[bytes]) -> Command:
    """XGROUP CREATE key group id|$ [MKSTREAM] [ENTRIESREAD entries-read]"""
    mkstream, entries_read = _group_options(args, is_create=True)
    if len(args) > 8:
        raise wrong_subcommand_use("xgroup", args[1])
    after = None if args[4] == b"$" else stream_id(args[4])
    return keyspace.XGroupCreate(writable_key(args[2]), checked_channel(args[3]), after, mkstream, entries_read)


def parse_xgroup_setid(args: list[bytes]) -> Command:
    """XGROUP SETID key group id|$ [ENTRIESREAD entries-read]"""
    _, entries_read = _group_options(args, is_create=False)
    if len(args) > 7:
        raise wrong_subcommand_use("xgroup", args[1])
    after = None if args[4] == b"$" else range_start(args[4]) if args[4] in (b"-", b"+") else stream_id(args[4])
    return keyspace.XGroupSetId(checked_channel(args[2]), checked_channel(args[3]), after, entries_read)


def _group_options(args: list[bytes], *, is_create: bool) -> tuple[bool, int | None]:
    mkstream, entries_read = False, None
    at = 5
    while at < len(args):
        option = args[at].upper()
        if is_create and option == b"MKSTREAM":
            mkstream = True
            at += 1
        elif option == b"ENTRIESREAD" and at + 1 < len(args):
            count = integer(args[at + 1])
            if count < -1:
                raise CommandError("ERR value for ENTRIESREAD must be positive or -1")
            entries_read = None if count == -1 else count
            at += 2
        else:
            raise wrong_subcommand_use("xgroup", args[1])
    return mkstream, entries_read


def parse_xgroup_destroy(args: list[bytes]) -> Command:
    return keyspace.XGroupDestroy(checked_channel(args[2]), checked_channel(args[3]))


def parse_xgroup_createconsumer(args: list[bytes]) -> Command:
    return keyspace.XGroupCreateConsumer(*map(checked_channel, args[2:5]))


def parse_xgroup_delconsumer(args: list[bytes]) -> Command:
    return keyspace.XGroupDelConsumer(*map(checked_channel, args[2:5]))


# --- reading and acknowledging ----------------------------------------------------------------------------------------


def parse_xreadgroup(args: list[bytes]) -> Command:
    """XREADGROUP GROUP group consumer [COUNT n] [BLOCK ms] [NOACK] [CLAIM min-idle] STREAMS key [...] id [...]"""
    group = consumer = None
    limit = block_ms = claim_ms = None
    no_ack = False
    at = 1
    while True:
        more = len(args) - 1 - at
        if more < 0:
            raise CommandError(SYNTAX_ERROR)
        match args[at].upper():
            case b"BLOCK" if more:
                block_ms = timeout_ms(args[at + 1])
                at += 2
            case b"COUNT" if more:
                limit = max(0, integer(args[at + 1])) or None
                at += 2
            case b"CLAIM" if more:
                claim_ms = integer(args[at + 1], "ERR min-idle-time is not an integer or out of range")
                if claim_ms < 0:
                    raise CommandError("ERR min-idle-time must be a positive integer")
                at += 2
            case b"GROUP" if more >= 2:
                group, consumer = args[at + 1 : at + 3]
                at += 3
            case b"NOACK":
                no_ack = True
                at += 1
            case b"STREAMS" if more:
                break
            case _:
                raise CommandError(SYNTAX_ERROR)
    names = args[at + 1 :]
    if len(names) % 2:
        raise CommandError(
            "ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID or '>' must be specified."
        )
    if group is None or consumer is None:
        raise CommandError("ERR Missing GROUP option for XREADGROUP")
    half = len(names) // 2
    after = tuple(map(_group_position, names[half:]))
    keys = tuple(map(checked_channel, names[:half]))
    group, consumer = checked_channel(group), checked_channel(consumer)
    return keyspace.XReadGroup(group, consumer, keys, after, limit, block_ms, no_ack, claim_ms)


def _group_position(argument: bytes) -> MessageId | None:
    if argument == b">":
        return None
    if argument == b"$":
        raise CommandError(_DOLLAR)
    return stream_id(argument)


def parse_xack(args: list[bytes]) -> Command:
    """XACK key group id [id ...]"""
    return keyspace.XAck(checked_channel(args[1]), checked_channel(args[2]), tuple(map(stream_id, args[3:])))


# --- who has what -----------------------------------------------------------------------------------------------------


def parse_xpending(args: list[bytes]) -> Command:
    """XPENDING key group [[IDLE min-idle] start end count [consumer]]"""
    key, group = checked_channel(args[1]), checked_channel(args[2])
    if len(args) == 3:
        return keyspace.XPending(key, group)
    if not 6 <= len(args) <= 9:
        raise CommandError(SYNTAX_ERROR)
    at, min_idle_ms = 3, 0
    if args[3].upper() == b"IDLE":
        min_idle_ms = integer(args[4])
        if len(args) < 8:
            raise CommandError(SYNTAX_ERROR)
        at = 5
    limit = max(0, integer(args[at + 2]))
    first, last = range_start(args[at]), range_stop(args[at + 1])
    consumer = checked_channel(args[at + 3]) if at + 3 < len(args) else None
    return keyspace.XPending(key, group, first, last, limit, consumer, min_idle_ms)


def parse_xclaim(args: list[bytes]) -> Command:
    """XCLAIM key group consumer min-idle id [id ...] [IDLE ms] [TIME ms] [RETRYCOUNT n] [FORCE] [JUSTID] [LASTID id]"""
    min_idle_ms = max(0, integer(args[4], "ERR Invalid min-idle-time argument for XCLAIM"))
    ids: list[MessageId] = []
    at = 5
    while at < len(args):
        try:
            ids.append(stream_id(args[at]))
        except CommandError:
            break
        at += 1
    key, group, consumer = map(checked_channel, args[1:4])
    noun = keyspace.XClaim(key, group, consumer, min_idle_ms, tuple(ids))
    while at < len(args):
        option = args[at].upper()
        if option == b"FORCE":
            noun = noun._replace(force=True)
        elif option == b"JUSTID":
            noun = noun._replace(just_id=True)
        elif option in (b"IDLE", b"TIME", b"RETRYCOUNT", b"LASTID") and at + 1 < len(args):
            noun = _claim_option(noun, option, args[at + 1])
            at += 1
        else:
            raise CommandError(f"ERR Unrecognized XCLAIM option '{text_of(args[at])}'")
        at += 1
    return noun


def _claim_option(noun: keyspace.XClaim, option: bytes, value: bytes) -> keyspace.XClaim:
    if option == b"LASTID":
        return noun._replace(last_id=stream_id(value))
    number = integer(value, f"ERR Invalid {option.decode()} option argument for XCLAIM")
    if option == b"IDLE":
        return noun._replace(idle_ms=number, time_ms=None)
    if option == b"TIME":
        return noun._replace(time_ms=number, idle_ms=None)
    return noun._replace(retry_count=number)


def parse_xautoclaim(args: list[bytes]) -> Command:
    """XAUTOCLAIM key group consumer min-idle start [COUNT count] [JUSTID]"""
    min_idle_ms = max(0, integer(args[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM"))
    start = range_start(args[5])
    limit, just_id = 100, False
    at = 6
    while at < len(args):
        option = args[at].upper()
        if option == b"COUNT" and at + 1 < len(args):
            limit = integer(args[at + 1], "ERR COUNT must be > 0", at_least=1)
            if limit > 2**59:  # Redis' LONG_MAX / sizeof(streamID)
                raise CommandError("ERR COUNT must be > 0")
            at += 1
        elif option == b"JUSTID":
            just_id = True
        else:
            raise CommandError(SYNTAX_ERROR)
        at += 1
    key, group, consumer = map(checked_channel, args[1:4])
    return keyspace.XAutoClaim(key, group, consumer, min_idle_ms, start, limit, just_id)


def parse_xinfo_groups(args: list[bytes]) -> Command:
    return keyspace.XInfoGroups(checked_channel(args[2]))


def parse_xinfo_consumers(args: list[bytes]) -> Command:
    return keyspace.XInfoConsumers(checked_channel(args[2]), checked_channel(args[3]))
