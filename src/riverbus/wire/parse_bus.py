"""Parsers of pub/sub, reads of history and transactions: arguments in, a noun of commands.py out.

Each takes the whole argument list, its name included, of checked arity. Raises CommandError with Redis' text.
"""

from __future__ import annotations

from riverbus import commands
from riverbus import keyspace_commands as keyspace
from riverbus.commands import Command
from riverbus.limits import CHANNEL_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, MESSAGE_BYTES_MAX, PUBLISH_RUN_MESSAGES_MAX
from riverbus.messages import Kind, MessageId
from riverbus.wire.parsing import (
    RESERVED_PREFIX,
    SYNTAX_ERROR,
    CommandError,
    checked_channel,
    checked_pattern,
    integer,
    range_start,
    range_stop,
    stream_id,
    timeout_ms,
    writable_key,
    wrong_subcommand_use,
)

_PUBLISH, _SPUBLISH = int(Kind.PUBLISH), int(Kind.SPUBLISH)
XINFO_FULL_COUNT_DEFAULT = 10
_new_tuple = tuple.__new__
_SEQUENCE_ERROR = "ERR sequence is not an integer of 0 or more"

# --- publishing -------------------------------------------------------------------------------------------------------


def parse_publish(args: list[bytes]) -> Command:
    """PUBLISH channel message"""
    _, channel, message = args
    if len(message) > MESSAGE_BYTES_MAX or len(channel) > CHANNEL_BYTES_MAX or channel.startswith(RESERVED_PREFIX):
        _writable(channel, len(message))
    # Half the time of Publish(...), on the hottest path (benchmarks/wire.py).
    return _new_tuple(commands.Publish, (channel, _PUBLISH, [message], "receivers"))


def parse_spublish(args: list[bytes]) -> Command:
    """SPUBLISH shardchannel message"""
    return commands.Publish(_writable(args[1], len(args[2])), _SPUBLISH, [args[2]])


def parse_bus_publish(args: list[bytes]) -> Command:
    """BUS.PUBLISH channel message [KEY key]: PUBLISH, answered with the message's id; once for each key"""
    channel = _writable(args[1], len(args[2]))
    if len(args) == 3:
        return commands.Publish(channel, _PUBLISH, [args[2]], "id")
    if len(args) != 5 or args[3].upper() != b"KEY":
        raise CommandError(SYNTAX_ERROR)
    key = args[4]
    if not 0 < len(key) <= IDEMPOTENCY_KEY_BYTES_MAX:
        raise CommandError(f"ERR idempotency key of {len(key)} bytes, 1 to {IDEMPOTENCY_KEY_BYTES_MAX} are allowed")
    return keyspace.PublishOnce(channel, _PUBLISH, args[2], key)


def parse_bus_publishrun(args: list[bytes]) -> Command:
    """BUS.PUBLISHRUN channel producer sequence message [message ...]"""
    channel, producer, sequence = args[1:4]
    payloads = tuple(args[4:])
    writable_key(channel)
    if not 0 < len(producer) <= IDEMPOTENCY_KEY_BYTES_MAX:
        raise CommandError(f"ERR producer of {len(producer)} bytes, 1 to {IDEMPOTENCY_KEY_BYTES_MAX} are allowed")
    if len(payloads) > PUBLISH_RUN_MESSAGES_MAX:
        raise CommandError(f"ERR run of {len(payloads)} messages, the limit is {PUBLISH_RUN_MESSAGES_MAX}")
    if (size := sum(map(len, payloads))) > MESSAGE_BYTES_MAX:
        what = "run" if len(payloads) > 1 else "message"
        raise CommandError(f"ERR {what} of {size} bytes, the limit is {MESSAGE_BYTES_MAX}")
    return keyspace.PublishRun(channel, producer, integer(sequence, _SEQUENCE_ERROR, 0), payloads)


def _writable(channel: bytes, message_bytes: int) -> bytes:
    if message_bytes > MESSAGE_BYTES_MAX:
        raise CommandError(f"ERR message of {message_bytes} bytes, the limit is {MESSAGE_BYTES_MAX}")
    return writable_key(channel)


# --- subscribing ------------------------------------------------------------------------------------------------------


def parse_subscribe(args: list[bytes]) -> Command:
    return commands.Subscribe("channel", tuple(map(checked_channel, args[1:])))


def parse_psubscribe(args: list[bytes]) -> Command:
    return commands.Subscribe("pattern", tuple(map(checked_pattern, args[1:])))


def parse_ssubscribe(args: list[bytes]) -> Command:
    return commands.Subscribe("shard", tuple(map(checked_channel, args[1:])))


def parse_unsubscribe(args: list[bytes]) -> Command:
    return commands.Unsubscribe("channel", tuple(args[1:]))


def parse_punsubscribe(args: list[bytes]) -> Command:
    return commands.Unsubscribe("pattern", tuple(args[1:]))


def parse_sunsubscribe(args: list[bytes]) -> Command:
    return commands.Unsubscribe("shard", tuple(args[1:]))


def parse_bus_subscribe(args: list[bytes]) -> Command:
    """BUS.SUBSCRIBE channel [SINCE id]"""
    since = None
    if len(args) > 2:
        if len(args) != 4 or args[2].upper() != b"SINCE":
            raise CommandError(SYNTAX_ERROR)
        since = stream_id(args[3])
    return commands.BusSubscribe(checked_channel(args[1]), since)


def parse_bus_unsubscribe(args: list[bytes]) -> Command:
    return commands.BusUnsubscribe(args[1])


def parse_pubsub_channels(args: list[bytes]) -> Command:
    return _pubsub_channels(args, shard=False)


def parse_pubsub_shardchannels(args: list[bytes]) -> Command:
    return _pubsub_channels(args, shard=True)


def _pubsub_channels(args: list[bytes], *, shard: bool) -> Command:
    if len(args) > 3:
        raise wrong_subcommand_use("pubsub", args[1])
    return commands.PubsubChannels(checked_pattern(args[2]) if len(args) == 3 else None, shard)


def parse_pubsub_numsub(args: list[bytes]) -> Command:
    return commands.PubsubNumsub(tuple(args[2:]), False)


def parse_pubsub_shardnumsub(args: list[bytes]) -> Command:
    return commands.PubsubNumsub(tuple(args[2:]), True)


# --- history ----------------------------------------------------------------------------------------------------------


def parse_xrange(args: list[bytes]) -> Command:
    """XRANGE key start end [COUNT count]"""
    return _xrange(args, args[2], args[3], reverse=False)


def parse_xrevrange(args: list[bytes]) -> Command:
    """XREVRANGE key end start [COUNT count]"""
    return _xrange(args, args[3], args[2], reverse=True)


def _xrange(args: list[bytes], start: bytes, stop: bytes, *, reverse: bool) -> Command:
    first, last = range_start(start), range_stop(stop)
    limit = None
    at = 4
    while at < len(args):
        if args[at].upper() != b"COUNT" or at + 1 == len(args):
            raise CommandError(SYNTAX_ERROR)
        limit = max(0, integer(args[at + 1]))
        at += 2
    return commands.XRange(checked_channel(args[1]), first, last, limit, reverse)


def parse_xlen(args: list[bytes]) -> Command:
    return commands.XLen(checked_channel(args[1]))


def parse_xread(args: list[bytes]) -> Command:
    """XREAD [COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]"""
    limit = block_ms = None
    at = 1
    while True:
        if at + 1 >= len(args):  # every option has a value, and STREAMS ends the loop
            raise CommandError(SYNTAX_ERROR)
        match args[at].upper():
            case b"COUNT":
                limit = max(0, integer(args[at + 1])) or None
            case b"BLOCK":
                block_ms = timeout_ms(args[at + 1])
            case b"STREAMS":
                break
            case (b"GROUP" | b"NOACK") as option:
                name = option.decode()
                raise CommandError(f"ERR The {name} option is only supported by XREADGROUP. You called XREAD instead.")
            case _:
                raise CommandError(SYNTAX_ERROR)
        at += 2
    names = args[at + 1 :]
    if len(names) % 2:
        raise CommandError(
            "ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must be specified."
        )
    half = len(names) // 2
    return commands.XRead(
        tuple(map(checked_channel, names[:half])), tuple(map(_read_position, names[half:])), limit, block_ms
    )


def _read_position(argument: bytes) -> MessageId | None:
    if argument == b"$":
        return None
    if argument == b"+":
        return commands.NEWEST
    if argument == b">":
        raise CommandError(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option."
        )
    return stream_id(argument)


def parse_xinfo_stream(args: list[bytes]) -> Command:
    """XINFO STREAM key [FULL [COUNT count]]"""
    limit = XINFO_FULL_COUNT_DEFAULT
    if len(args) == 3:
        return commands.XInfoStream(checked_channel(args[2]), False, limit)
    if args[3].upper() != b"FULL" or len(args) not in (4, 6):
        raise wrong_subcommand_use("xinfo", args[1])
    if len(args) == 6:
        if args[4].upper() != b"COUNT":
            raise wrong_subcommand_use("xinfo", args[1])
        limit = integer(args[5])
        if limit < 0:
            limit = XINFO_FULL_COUNT_DEFAULT
    return commands.XInfoStream(checked_channel(args[2]), True, limit)


# --- transactions -----------------------------------------------------------------------------------------------------


def parse_watch(args: list[bytes]) -> Command:
    return commands.Watch(tuple(map(checked_channel, args[1:])))
