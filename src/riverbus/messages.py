"""The frozen nouns that every part speaks: messages, their ids, and the errors a bus can answer.

Imports nothing of Riverbus. What a client may ask (`Publish`, `Subscribe`, ...) is in `commands.py`; what it gets
back is a reply tree made of the types at the end of this file, which each protocol in `wire/` encodes its own way.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeAlias


class MessageId(NamedTuple):
    """Position of a message in its channel: `ms-seq`, as a Redis stream id. Both parts are unsigned 64 bits."""

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    def to_bytes(self) -> bytes:
        return b"%d-%d" % self

    def plus(self, count: int) -> MessageId:
        """The id `count` places later in a run, whose messages share their milliseconds."""
        return MessageId(self.ms, self.seq + count)

    def next(self) -> MessageId:
        """The smallest id above this one (raises ValueError at the very last id)."""
        if self.seq < SEQ_MAX:
            return MessageId(self.ms, self.seq + 1)
        if self.ms < SEQ_MAX:
            return MessageId(self.ms + 1, 0)
        raise ValueError("there is no id after the last")


SEQ_MAX = 2**64 - 1
ID_MIN = MessageId(0, 0)
ID_MAX = MessageId(SEQ_MAX, SEQ_MAX)


class Kind(IntEnum):
    """Which way in a message took. The numbers are in the log for ever: never reuse one."""

    PUBLISH = 0  # delivered to SUBSCRIBE and PSUBSCRIBE; an entry with the one field `message`
    SPUBLISH = 1  # delivered to SSUBSCRIBE only
    XADD = 2  # delivered to no subscriber; its body is `encode_fields` of its fields


class Message(NamedTuple):
    """One retained message. `body` is the payload, or for XADD the encoded fields (core/state/entries.py)."""

    id: MessageId
    kind: int
    body: bytes


# --- errors -----------------------------------------------------------------------------------------------------------


class BusError(Exception):
    """A command's refusal, said to its client. `code` is the first word of a Redis error; retry safety is per class."""

    code = "ERR"

    def __str__(self) -> str:
        return f"{self.code} {self.args[0] if self.args else ''}".rstrip()


class NotAccepted(BusError):
    """The command is not in the log and never will be: to retry is safe."""

    code = "CLUSTERDOWN"


class OutcomeUnknown(BusError):
    """The command may or may not be in the log: a retry may have a second effect."""

    code = "UNKNOWN"


class OutOfMemory(BusError):
    """The node's limit for retained bytes is reached and nothing may be dropped. Not accepted."""

    code = "OOM"


class WrongType(BusError):
    """The key is of another type than the command works on. Not accepted."""

    code = "WRONGTYPE"


class DiskFull(BusError):
    """The log's disk has no room. Not accepted; writes are taken again once there is room."""

    code = "MISCONF"


class Overloaded(BusError):
    """Too much is in flight. Not accepted."""

    code = "BUSY"


# --- replies ----------------------------------------------------------------------------------------------------------


class Status(NamedTuple):
    """A simple string, such as OK."""

    text: str


class ErrorReply(NamedTuple):
    """An error; `text` starts with its code, as in `ERR unknown command ...`. Never holds CR or LF."""

    text: str


class Repeated(NamedTuple):
    """`times` equal integer replies to as many pipelined commands: encoded once, multiplied."""

    value: int
    times: int


class RunIds(NamedTuple):
    """The ids of a run's `length` messages, in one reply each to as many pipelined commands."""

    first: MessageId
    length: int

    def to_bytes(self) -> list[bytes]:
        ms, seq = self.first
        return [b"%d-%d" % (ms, at) for at in range(seq, seq + self.length)]


class EntryRun(NamedTuple):
    """Messages with consecutive ids and of one kind, as entries of a stream; bodies as in `Message`."""

    first: MessageId
    kind: int
    bodies: list[bytes]


class Entries(NamedTuple):
    """An array of stream entries, [id, [name, value, ...]] each."""

    runs: tuple[EntryRun, ...]


class EncodedArray(NamedTuple):
    """An array whose `length` items are bytes of the protocol already: a long reply is made over several turns."""

    length: int
    parts: list[bytes]


class Several(NamedTuple):
    """One reply each to several pipelined commands that were collapsed into one."""

    replies: tuple[Reply, ...]


class Push(NamedTuple):
    """Out-of-band data: a RESP3 push, an array in RESP2 (pub/sub's confirmations and messages)."""

    items: tuple[Reply, ...]


class Members(NamedTuple):
    """A set in RESP3, an array in RESP2; a frozenset is, too, of what can be sorted."""

    items: tuple[Reply, ...]


class Verbatim(NamedTuple):
    """A text for people (INFO): a verbatim string in RESP3, a bulk string in RESP2."""

    text: str


NULL_ARRAY = object()  # RESP2's `*-1` (XREAD that timed out, an aborted EXEC); RESP3's `_`

# bytes and str are bulk strings, None the null bulk string; a dict is a map in RESP3 and a flat array in RESP2.
Reply: TypeAlias = object
