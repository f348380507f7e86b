"""What keyspace commands answer: Redis' own words, and entries made of pieces.

A reply that holds messages is `Deferred`: applying an entry finds the pieces, which never change, and only the node
that somebody waits on makes the reply of them. `effect` is what of it goes into the running hash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

import msgspec

from riverbus.core.state.entries import message_fields
from riverbus.core.state.pieces import Piece
from riverbus.messages import NULL_ARRAY, Entries, EntryRun, ErrorReply, Message, MessageId, Reply, Status

OK = Status("OK")
WRONG_TYPE = ErrorReply("WRONGTYPE Operation against a key holding the wrong kind of value")
NO_SUCH_KEY = ErrorReply("ERR no such key")
SYNTAX = ErrorReply("ERR syntax error")
BUSY_GROUP = ErrorReply("BUSYGROUP Consumer Group name already exists")
NO_KEY_FOR_GROUP = ErrorReply(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option "
    "to create an empty stream automatically."
)
ID_TOO_SMALL = ErrorReply("ERR The ID specified in XADD is equal or smaller than the target stream top item")
ID_ZERO = ErrorReply("ERR The ID specified in XADD must be greater than 0-0")
EXHAUSTED = ErrorReply("ERR The stream has exhausted the last possible ID, unable to add more items")
SETID_BELOW_DELETED = ErrorReply("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id")
SETID_BELOW_GIVEN_DELETED = ErrorReply(
    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id"
)
SETID_BELOW_TOP = ErrorReply("ERR The ID specified in XSETID is smaller than the target stream top item")
SETID_ADDED_BELOW_LENGTH = ErrorReply(
    "ERR The entries_added specified in XSETID is smaller than the target stream length"
)
TOO_MANY_GROUPS = ErrorReply("ERR too many groups of one stream")
TOO_MANY_CONSUMERS = ErrorReply("ERR too many consumers of one group: see XGROUP DELCONSUMER")
NO_FREQUENCY = ErrorReply(
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching "
    "between policies at runtime LRU and LFU data will take some time to adjust."
)
FORGOTTEN = ErrorReply(
    "UNKNOWN the sequence is older than the idempotency window: the message may be in the channel already"
)
ENTRY_BYTES = 48  # of framing around an entry's fields, about


class Deferred(NamedTuple):
    """`render` makes the reply, once; nothing that it refers to may change."""

    render: Callable[[], Reply]
    effect: tuple[int, ...]


Outcome = Reply | Deferred


def _unencodable(value: object) -> object:
    assert value is NULL_ARRAY, f"{value!r} is no reply"
    return None


_encode = msgspec.msgpack.Encoder(enc_hook=_unencodable).encode


def effect_of(outcome: Outcome) -> tuple[int, ...]:
    """What goes into the running hash."""
    if isinstance(outcome, Deferred):
        return outcome.effect
    try:
        return (crc32(_encode(outcome)),)
    except UnicodeEncodeError:  # an error's text with a name in it that is no UTF-8
        return (crc32(ascii(outcome).encode()),)


def text(name: bytes) -> str:
    """A name within an error."""
    return name.decode("utf-8", "surrogateescape").replace("\r", " ").replace("\n", " ")


def no_group(key: bytes, group: bytes) -> ErrorReply:
    return ErrorReply(f"NOGROUP No such key '{text(key)}' or consumer group '{text(group)}'")


def no_group_in_key(key: bytes, group: bytes) -> ErrorReply:
    return ErrorReply(f"NOGROUP No such consumer group '{text(group)}' for key name '{text(key)}'")


def no_group_to_read(key: bytes, group: bytes) -> ErrorReply:
    return ErrorReply(
        f"NOGROUP No such key '{text(key)}' or consumer group '{text(group)}' in XREADGROUP with GROUP option"
    )


def invalid_expire(command: str) -> ErrorReply:
    return ErrorReply(f"ERR invalid expire time in '{command}' command")


def entry(message: Message) -> Reply:
    return [message.id.to_bytes(), message_fields(message.kind, message.body)]


class Part(NamedTuple):
    """`keep` messages of a piece, from its `skip` on."""

    piece: Piece
    keep: int

    def ids(self) -> list[MessageId]:
        ms, seq = self.piece.ms, self.piece.seq + self.piece.skip
        return [MessageId(ms, at) for at in range(seq, seq + self.keep)]

    def run(self) -> EntryRun:
        piece = self.piece
        return EntryRun(MessageId(piece.ms, piece.seq + piece.skip), piece.kind, piece.payloads(self.keep))

    def entries(self) -> list[list[Reply]]:
        piece = self.piece
        kind, ms, seq = piece.kind, piece.ms, piece.seq + piece.skip
        return [
            [b"%d-%d" % (ms, at), message_fields(kind, body)] for at, body in enumerate(piece.payloads(self.keep), seq)
        ]


def joined(runs: list[EntryRun]) -> Entries:
    """What lies in many small pieces, as few runs: a run costs its reader more than an entry does."""
    found: list[EntryRun] = []
    end: MessageId | None = None
    kind = -1
    for run in runs:
        if run.first == end and run.kind == kind:
            found[-1].bodies.extend(run.bodies)
        else:
            found.append(run)
            kind = run.kind
        end = run.first.plus(len(run.bodies))
    return Entries(tuple(found))
