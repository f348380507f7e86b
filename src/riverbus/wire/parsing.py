"""What the commands' parsers share: the refusal that becomes an error reply, numbers, stream ids, names.

Texts are Redis 7.2's, byte for byte, where Redis has one: clients match on them.
"""

from __future__ import annotations

import re

from riverbus.limits import CHANNEL_BYTES_MAX, MESSAGE_BYTES_MAX, PATTERN_BYTES_MAX
from riverbus.messages import ID_MAX, ID_MIN, SEQ_MAX, MessageId

SYNTAX_ERROR = "ERR syntax error"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
INVALID_ID = "ERR Invalid stream ID specified as stream command argument"
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
BLOCK_MS_MAX = INT64_MAX - 2**42  # in Redis, what does not fit 63 bits when the time is added
RESERVED_PREFIX = b"__riverbus__:"  # channels on which the bus itself speaks: nobody may publish there
GAP_CHANNEL = RESERVED_PREFIX + b"gap"

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_STREAM_ID = re.compile(rb"([0-9]{1,40})(?:-([0-9]{1,40}))?")
_CR_LF = str.maketrans("\r\n\x00", "   ")


class CommandError(Exception):
    """This command is answered with an error, whose whole text this is; the connection goes on."""


def text_of(argument: bytes, characters_max: int = 128) -> str:
    """An argument as part of an error's text: cut, on one line, and its bytes preserved when encoded again."""
    return argument[:characters_max].decode("utf-8", "surrogateescape").translate(_CR_LF)


def wrong_arity(name: str) -> CommandError:
    return CommandError(f"ERR wrong number of arguments for '{name}' command")


def wrong_subcommand_use(container: str, subcommand: bytes) -> CommandError:
    """What Redis says from inside a subcommand that checks its own arguments."""
    name = text_of(subcommand)
    return CommandError(
        f"ERR unknown subcommand or wrong number of arguments for '{name}'. Try {container.upper()} HELP."
    )


def integer(argument: bytes, text: str = NOT_AN_INTEGER, at_least: int = INT64_MIN) -> int:
    """A canonical decimal of 64 bits. Raises CommandError(text)."""
    if not _INTEGER.fullmatch(argument) or not at_least <= (value := int(argument)) <= INT64_MAX:
        raise CommandError(text)
    return value


def timeout_ms(argument: bytes) -> int:
    """How long to block, in milliseconds; 0: for ever. Raises CommandError."""
    value = integer(argument, "ERR timeout is not an integer or out of range")
    if value < 0:
        raise CommandError("ERR timeout is negative")
    if value > BLOCK_MS_MAX:
        raise CommandError("ERR timeout is out of range")
    return value


def stream_id(argument: bytes, missing_seq: int = 0) -> MessageId:
    """`ms` or `ms-seq`. Raises CommandError."""
    match = _STREAM_ID.fullmatch(argument)
    if match is None:
        raise CommandError(INVALID_ID)
    ms = int(match[1])
    seq = missing_seq if match[2] is None else int(match[2])
    if ms > SEQ_MAX or seq > SEQ_MAX:
        raise CommandError(INVALID_ID)
    return MessageId(ms, seq)


def range_start(argument: bytes) -> MessageId:
    """The first id of a range: `-`, `+`, an id, or `(` and an id to exclude. Raises CommandError."""
    if argument[:1] == b"(" and len(argument) > 1:
        first = stream_id(argument[1:])
        if first == ID_MAX:
            raise CommandError("ERR invalid start ID for the interval")
        return first.next()
    return _range_end(argument, 0)


def range_stop(argument: bytes) -> MessageId:
    """The last id of a range, like `range_start`; a missing sequence part means the millisecond's last."""
    if argument[:1] == b"(" and len(argument) > 1:
        last = stream_id(argument[1:], SEQ_MAX)
        if last == ID_MIN:
            raise CommandError("ERR invalid end ID for the interval")
        return MessageId(last.ms, last.seq - 1) if last.seq else MessageId(last.ms - 1, SEQ_MAX)
    return _range_end(argument, SEQ_MAX)


def _range_end(argument: bytes, missing_seq: int) -> MessageId:
    if argument == b"-":
        return ID_MIN
    if argument == b"+":
        return ID_MAX
    return stream_id(argument, missing_seq)


def checked_channel(name: bytes) -> bytes:
    """A channel to subscribe to or write. Raises CommandError if its name is too long."""
    if len(name) > CHANNEL_BYTES_MAX:
        raise CommandError(f"ERR channel name of {len(name)} bytes, the limit is {CHANNEL_BYTES_MAX}")
    return name


def writable_key(name: bytes) -> bytes:
    """A key that may come to be: not one of the bus's own. Raises CommandError."""
    if name.startswith(RESERVED_PREFIX):
        raise CommandError(f"ERR channels that begin with {RESERVED_PREFIX.decode()} are the bus's own")
    return checked_channel(name)


def checked_body(body: bytes) -> bytes:
    """A message, an entry's fields or a string's value. Raises CommandError if it is too long."""
    if len(body) > MESSAGE_BYTES_MAX:
        raise CommandError(f"ERR message of {len(body)} bytes, the limit is {MESSAGE_BYTES_MAX}")
    return body


def checked_pattern(pattern: bytes) -> bytes:
    if len(pattern) > PATTERN_BYTES_MAX:
        raise CommandError(f"ERR pattern of {len(pattern)} bytes, the limit is {PATTERN_BYTES_MAX}")
    return pattern
