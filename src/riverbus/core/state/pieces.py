"""How a channel's messages lie in memory: runs as packed pieces, pieces gathered in chunks. Little endian.

    piece := u64 ms, u64 seq, u8 kind, u32 count, u32 body_bytes, u32 lengths[count], bodies
    chunk := piece | piece+ trailer            trailer := u64 last_ms, u64 last_seq, u32 count, u32 bytes

A chunk is one immutable `bytes`: the cyclic collector never sees it, a snapshot shares it and writes it verbatim, and
its first id is at offset 0, where `bisect` finds it. A chunk of one piece needs no trailer: the header says the same.
All messages of a piece share kind and milliseconds; their sequence numbers are consecutive. Rejected: an object per
message (some 200 bytes each, and the collector's work), and arrays per channel (they must be copied for a snapshot).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

import msgspec

from riverbus.core.state.entries import LENGTH, split

PIECE = Struct("<QQBII")
PIECE_BYTES = PIECE.size
TRAILER = Struct("<QQII")
FIRST_ID = Struct("<QQ")
CHUNK_BYTES = 2048  # small pieces are gathered up to this: the larger, the more is copied for each message
CHUNK_FEW_BYTES = 16 * 1024  # ... or up to this, while a chunk holds fewer than CHUNK_FEW messages
CHUNK_FEW = 4
CHUNK_LARGE_BYTES = 8192  # ... or up to this in a channel of more than LARGE_LENGTH messages: to freeze it for a
LARGE_LENGTH = 32_768  # snapshot takes some 50 ns a chunk, at once
CHUNK_COST = 64  # a chunk's object header, its place in a list, and the allocator's rounding


class Summary(msgspec.Struct, gc=False):
    """What a whole chunk holds; `end` is where its pieces end."""

    last_ms: int
    last_seq: int
    count: int
    bytes: int
    end: int


class Piece(msgspec.Struct, gc=False):
    """Messages skip ... count - 1 of the piece at `offset` of `chunk`; `ms` and `seq` are those of message 0."""

    ms: int
    seq: int
    kind: int
    count: int
    body_bytes: int
    skip: int
    chunk: bytes
    offset: int
    next_offset: int

    @property
    def last_seq(self) -> int:
        return self.seq + self.count - 1

    def payloads(self, keep: int | None = None) -> list[bytes]:
        """The first `keep` messages from `skip` on, or all."""
        return split(self.chunk, self.offset + PIECE_BYTES, self.count, self.skip, keep)

    def lengths(self) -> memoryview:
        """Of the messages from `skip` on."""
        return lengths_of(self.chunk, self.offset, self.count)[self.skip :]


def lengths_of(chunk: bytes, offset: int, count: int) -> memoryview:
    start = offset + PIECE_BYTES
    return memoryview(chunk)[start : start + 4 * count].cast("I")


def summarize(chunk: bytes) -> Summary:
    ms, seq, _, count, body_bytes = PIECE.unpack_from(chunk)
    size = len(chunk)
    if PIECE_BYTES + 4 * count + body_bytes == size:
        return Summary(ms, seq + count - 1, count, body_bytes, size)
    end = size - TRAILER.size
    last_ms, last_seq, messages, size = TRAILER.unpack_from(chunk, end)
    return Summary(last_ms, last_seq, messages, size, end)


def walk(chunk: bytes, offset: int, skip: int, end: int) -> Iterator[Piece]:
    """Pieces from `offset` to `end`; `skip` messages of the first are not wanted."""
    while offset < end:
        ms, seq, kind, count, body_bytes = PIECE.unpack_from(chunk, offset)
        next_offset = offset + PIECE_BYTES + 4 * count + body_bytes
        yield Piece(ms, seq, kind, count, body_bytes, skip, chunk, offset, next_offset)
        offset = next_offset
        skip = 0


def newest(data: bytes, lengths_at: int, count: int, body_bytes: int, keep: int) -> tuple[int, bytes]:
    """Of `u32 lengths[count], bodies` at `lengths_at`, the last `keep` messages: (their bytes, the same packed)."""
    body_at = lengths_at + 4 * count
    skipped = sum(memoryview(data)[lengths_at : body_at - 4 * keep].cast("I"))
    bodies = data[body_at + skipped : body_at + body_bytes]
    return len(bodies), data[body_at - 4 * keep : body_at] + bodies


assert LENGTH.size == 4
assert CHUNK_BYTES < CHUNK_LARGE_BYTES < CHUNK_FEW_BYTES
assert PIECE_BYTES + LENGTH.size > TRAILER.size, "`Channel` tells the end of the pieces by that"
