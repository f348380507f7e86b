"""The format of a Raft log entry: what is proposed, replicated, and applied by `bus.py`. Little endian throughout.

    entry := u8 version, u64 time_ms, u32 batch_count, batch*
    batch := u64 origin, u64 seq, u32 ops_bytes, u32 op_count, op*       made by the origin node, never changed after
    op    := u8 1 (RUN), u8 kind, u16 channel_bytes, u32 count, u32 body_bytes, channel, u32 lengths[count], bodies
           | u8 2 (RULES), u32 bytes, rules                              canonical JSON of `rules.py`
           | u8 3 (WRITE), u8 code, u32 bytes, fields                    a keyspace command: `keyspace/codes.py`

Invariants: a decoded entry is wholly valid (each length adds up, each opcode and kind is known), or nothing of it is
returned. What a newer node wrote is `UnknownEntry`: a node that cannot read a committed entry stops, it never skips.
A run is the unit of work: all messages of one channel and kind that arrived together. Its messages get consecutive
ids. Nothing here costs Python work per message but `Run.payloads`; the rest is join, map and compare in C.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise
from struct import Struct
from typing import TypeAlias

import msgspec

from riverbus.core.state.keyspace.codes import DamagedNoun, Noun, UnknownNoun, decode_noun, encode_noun
from riverbus.core.state.rules import Rules, rules_from_bytes
from riverbus.fields import DamagedFields, decode_fields, encode_fields
from riverbus.limits import CHANNEL_BYTES_MAX
from riverbus.messages import Kind

assert sys.byteorder == "little", "lengths are read and written in place, as little-endian machine words"

ENTRY_VERSION = 1
OPCODE_RUN = 1
OPCODE_RULES = 2
OPCODE_WRITE = 3
ENTRY = Struct("<BQI")
BATCH = Struct("<QQII")
RUN = Struct("<BBHII")
RULES_OP = Struct("<BI")
WRITE = Struct("<BBI")
LENGTH = Struct("<I")
RUN_BYTES_MAX = 2**31  # the lengths of a run add up to a u32
KINDS = frozenset(int(kind) for kind in Kind)
_XADD = int(Kind.XADD)


class DamagedEntry(Exception):
    """The bytes are not an entry: a length or a count does not add up."""


class UnknownEntry(Exception):
    """The entry is of a version, opcode or kind that this node does not know: it was written by a newer one."""


class Run(msgspec.Struct, gc=False):
    """Messages of one channel and kind. It refers to the entry's bytes: to keep a run is to keep the whole entry."""

    channel: bytes
    kind: int
    count: int
    body_bytes: int
    data: bytes
    lengths_at: int  # in `data`: u32 lengths[count], then the bodies

    @classmethod
    def of(cls, channel: bytes, kind: int, payloads: Sequence[bytes]) -> Run:
        lengths = array("I", map(len, payloads))
        return cls(channel, kind, len(payloads), sum(lengths), lengths.tobytes() + b"".join(payloads), 0)

    @property
    def lengths(self) -> bytes:
        """The u32 lengths, packed."""
        return self.data[self.lengths_at : self.lengths_at + 4 * self.count]

    @property
    def body(self) -> bytes:
        """All payloads, one after the other."""
        start = self.lengths_at + 4 * self.count
        return self.data[start : start + self.body_bytes]

    def payloads(self) -> list[bytes]:
        return split(self.data, self.lengths_at, self.count)


class RulesOp(msgspec.Struct, gc=False):
    """Replaces the channel rules of a shard."""

    rules: Rules


class WriteOp(msgspec.Struct, gc=False):
    """A command of keyspace_commands.py."""

    noun: Noun


Op: TypeAlias = Run | RulesOp | WriteOp


class Batch(msgspec.Struct):
    origin: int
    seq: int
    ops: list[Op]


class Entry(msgspec.Struct):
    time_ms: int
    batches: list[Batch]


class BatchBuilder:
    """Gathers what one node wants in a shard's log in one turn."""

    __slots__ = ("_body_bytes", "_channel", "_kind", "_origin", "_parts", "_payloads", "_results", "_rules", "_size")

    def __init__(self, origin: int) -> None:
        self._origin = origin
        self._clear()

    def _clear(self) -> None:
        self._parts: list[bytes] = []
        self._payloads: list[bytes] = []
        self._channel = b""
        self._kind = -1
        self._body_bytes = 0
        self._rules = 0
        self._results = 0
        self._size = BATCH.size

    @property
    def size(self) -> int:
        """Bytes that `finish` would return."""
        return self._size

    @property
    def is_empty(self) -> bool:
        return self._results + self._rules == 0

    def add_run(self, channel: bytes, kind: int, payloads: Sequence[bytes]) -> tuple[int, int]:
        """Returns where they are: (index among the results of this batch, index of the first in that run)."""
        count = len(payloads)
        body_bytes = len(payloads[0]) if count == 1 else sum(map(len, payloads))
        open_payloads = self._payloads
        if channel == self._channel and kind == self._kind and self._body_bytes + body_bytes < RUN_BYTES_MAX:
            offset = len(open_payloads)
            open_payloads += payloads
            self._body_bytes += body_bytes
            self._size += body_bytes + 4 * count
            return self._results - 1, offset
        assert len(channel) <= CHANNEL_BYTES_MAX, "the front checks names"
        assert count, "a run holds a message"
        if open_payloads:
            self._close_run()
        self._channel = channel
        self._kind = kind
        self._payloads = list(payloads)
        self._body_bytes = body_bytes
        self._size += RUN.size + len(channel) + body_bytes + 4 * count
        run = self._results
        self._results = run + 1
        return run, 0

    def add_write(self, noun: Noun) -> int:
        """Returns its index among the results of this batch, which has runs and writes in order."""
        return self.add_encoded(*encode_noun(noun))

    def add_encoded(self, code: int, fields: bytes) -> int:
        """`add_write` of what `encode_noun` made."""
        self._close_run()
        self._parts += (WRITE.pack(OPCODE_WRITE, code, len(fields)), fields)
        self._size += WRITE.size + len(fields)
        self._results += 1
        return self._results - 1

    def add_rules(self, rules: bytes) -> None:
        self._close_run()
        self._parts += (RULES_OP.pack(OPCODE_RULES, len(rules)), rules)
        self._rules += 1
        self._size += RULES_OP.size + len(rules)

    def finish(self, seq: int) -> bytes:
        """The batch; the builder is empty again."""
        self._close_run()
        header = BATCH.pack(self._origin, seq, self._size - BATCH.size, self._results + self._rules)
        batch = b"".join((header, *self._parts))
        assert len(batch) == self._size
        self._clear()
        return batch

    def _close_run(self) -> None:
        payloads = self._payloads
        if payloads:
            count = len(payloads)
            header = RUN.pack(OPCODE_RUN, self._kind, len(self._channel), count, self._body_bytes)
            if count == 1:
                self._parts += (header, self._channel, LENGTH.pack(self._body_bytes), payloads[0])
            else:
                self._parts += (header, self._channel, array("I", map(len, payloads)).tobytes())
                self._parts += payloads
            self._payloads = []
        self._channel = b""
        self._kind = -1
        self._body_bytes = 0


def encode_entry(time_ms: int, batches: Sequence[bytes]) -> bytes:
    return b"".join((ENTRY.pack(ENTRY_VERSION, time_ms, len(batches)), *batches))


def decode_entry(data: bytes) -> Entry:
    """Raises DamagedEntry, UnknownEntry."""
    try:
        version, time_ms, batch_count = ENTRY.unpack_from(data)
        if version != ENTRY_VERSION:
            raise UnknownEntry(f"entry of version {version}; this node knows {ENTRY_VERSION}")
        at = ENTRY.size
        batches = []
        for _ in range(batch_count):
            batch, at = _decode_batch(data, at)
            batches.append(batch)
    except struct.error as error:
        raise DamagedEntry(f"entry of {len(data)} bytes ends too early: {error}") from error
    if at != len(data):
        raise DamagedEntry(f"entry has {len(data) - at} bytes after its last batch")
    return Entry(time_ms, batches)


def decode_batch(data: bytes) -> Batch:
    """What a leader does with a batch from a peer before it goes into the log. Raises DamagedEntry, UnknownEntry."""
    try:
        batch, at = _decode_batch(data, 0)
    except struct.error as error:
        raise DamagedEntry(f"batch of {len(data)} bytes ends too early: {error}") from error
    if at != len(data):
        raise DamagedEntry(f"batch has {len(data) - at} bytes after its end")
    return batch


def _decode_batch(data: bytes, at: int) -> tuple[Batch, int]:
    origin, seq, ops_bytes, op_count = BATCH.unpack_from(data, at)
    at += BATCH.size
    end = at + ops_bytes
    if end > len(data):
        raise DamagedEntry(f"batch of {ops_bytes} bytes at {at} in {len(data)}")
    ops: list[Op] = []
    unpack_run = RUN.unpack_from  # a hot loop: one turn a run, where runs may be single messages
    unpack_length = LENGTH.unpack_from
    kinds = KINDS
    while at < end:
        if data[at] != OPCODE_RUN:
            op, at = _decode_rare_op(data, at, end)
            ops.append(op)
            continue
        _, kind, channel_bytes, count, body_bytes = unpack_run(data, at)
        channel_at = at + 12
        lengths_at = channel_at + channel_bytes
        body_at = lengths_at + 4 * count
        at = body_at + body_bytes
        if at > end or not count:
            raise DamagedEntry(f"run of {count} messages and {body_bytes} bytes does not fit its batch, or is empty")
        if kind not in kinds:
            raise UnknownEntry(f"message of kind {kind}")
        if count == 1:
            if unpack_length(data, lengths_at)[0] != body_bytes:
                raise DamagedEntry("length of a message is not that of its run")
        elif not _adds_up(data, lengths_at, body_at, body_bytes):
            raise DamagedEntry("lengths of messages do not add up to that of their run")
        ops.append(Run(data[channel_at:lengths_at], kind, count, body_bytes, data, lengths_at))
    if at != end or len(ops) != op_count:
        raise DamagedEntry(f"batch announces {op_count} operations and holds {len(ops)}")
    return Batch(origin, seq, ops), at


def _decode_rare_op(data: bytes, at: int, end: int) -> tuple[RulesOp | WriteOp, int]:
    opcode = data[at]
    if opcode == OPCODE_WRITE:
        return _decode_write(data, at, end)
    if opcode != OPCODE_RULES:
        raise UnknownEntry(f"operation {opcode}")
    _, size = RULES_OP.unpack_from(data, at)
    at += RULES_OP.size
    if at + size > end:
        raise DamagedEntry("rules do not fit their batch")
    try:
        return RulesOp(rules_from_bytes(data[at : at + size])), at + size
    except ValueError as error:
        raise DamagedEntry(f"rules cannot be read: {error}") from error


def _decode_write(data: bytes, at: int, end: int) -> tuple[WriteOp, int]:
    _, code, size = WRITE.unpack_from(data, at)
    at += WRITE.size
    if at + size > end:
        raise DamagedEntry("a command does not fit its batch")
    try:
        return WriteOp(decode_noun(code, data[at : at + size])), at + size
    except UnknownNoun as error:
        raise UnknownEntry(str(error)) from error
    except DamagedNoun as error:
        raise DamagedEntry(f"a command cannot be read: {error}") from error


def _adds_up(data: bytes, lengths_at: int, body_at: int, body_bytes: int) -> bool:
    lengths = data[lengths_at:body_at]
    count = len(lengths) // 4
    if body_bytes % count == 0 and lengths == LENGTH.pack(body_bytes // count) * count:
        return True  # messages of equal length, the common case: one memcmp
    return sum(memoryview(lengths).cast("I")) == body_bytes


def split(data: bytes, lengths_at: int, count: int, skip: int = 0, keep: int | None = None) -> list[bytes]:
    """Messages skip ... skip + keep of `u32 lengths[count], bodies` at `lengths_at`."""
    body_at = lengths_at + 4 * count
    if count == 1:
        return [data[body_at : body_at + LENGTH.unpack_from(data, lengths_at)[0]]]
    lengths = memoryview(data)[lengths_at:body_at].cast("I")
    if skip:
        body_at += sum(lengths[:skip])
    stop = count if keep is None else skip + keep
    return [data[a:b] for a, b in pairwise(accumulate(lengths[skip:stop], initial=body_at))]


def message_fields(kind: int, body: bytes) -> list[bytes]:
    """A message as a stream entry: flat list of fields and values. Raises DamagedFields."""
    return decode_fields(body) if kind == _XADD else [b"message", body]


__all__ = [
    "Batch",
    "BatchBuilder",
    "DamagedEntry",
    "DamagedFields",
    "Entry",
    "Op",
    "RulesOp",
    "Run",
    "UnknownEntry",
    "WriteOp",
    "decode_batch",
    "decode_entry",
    "decode_fields",
    "encode_entry",
    "encode_fields",
    "message_fields",
]
