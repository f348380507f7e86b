"""One channel: its window of messages, where they begin, and what was dropped before them.

Messages are appended at the tail and dropped at the head, by count and by bytes exactly; both cost a few operations a
run, whatever it holds. Who decides when (rules, age, memory) is `store.py`; `history.py` reads; neither a clock nor
an id is made here.

Invariants:
- chunks[base:] then `tail` hold the messages in order of id; chunks below `base` are None, freed already. `chunks`
  is None if there would be none.
- `head`, if not None, says what of the oldest chunk (or of the tail, if there is none other) is dropped already.
- dropped id < every retained id <= last id; `length` and `retained_bytes` count what is retained, to the message.
- No field refers back to the channel, so it needs no cyclic collector (`gc=False`): a million channels cost it nothing.
"""

from __future__ import annotations

from copy import copy
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING

import msgspec

from riverbus.core.state.pieces import (
    CHUNK_BYTES,
    CHUNK_COST,
    CHUNK_FEW,
    CHUNK_FEW_BYTES,
    CHUNK_LARGE_BYTES,
    LARGE_LENGTH,
    PIECE,
    PIECE_BYTES,
    TRAILER,
    lengths_of,
    summarize,
    walk,
)
from riverbus.messages import MessageId

if TYPE_CHECKING:
    from riverbus.core.state.keyspace.keys import StreamKey
    from riverbus.core.state.store import Window

CHANNEL_COST = 320  # a channel's own objects and its places in the registry, as benchmarks/memory.py measures them
FEW_DROPPED = 8  # up to so many messages are dropped without a look at how many the chunk has
BASE_MAX = 64  # freed places at the front of `chunks` before they are cut away, if they are half of it


class Head(msgspec.Struct, gc=False):
    """What is dropped of the oldest chunk: all pieces before `offset`, and `skip` messages of the one there."""

    offset: int
    skip: int
    count: int  # messages dropped of this chunk
    bytes: int  # ... and their bytes


class Channel(msgspec.Struct, gc=False, order=True):
    """Compared by (queued, name), both unique together: `store.py` keeps channels in heaps, and the compare is in C."""

    queued: int  # key in the heap of `home`: never above `key()`, so that a channel is looked at in time
    name: bytes
    rule: Window  # whose limits hold; stale after a change of rules, until the next append
    home: Window | None  # in whose heap it is; None for an explicit stream once that was seen
    epoch: int  # of the last snapshot that has it (or does not want it)
    last_ms: int
    last_seq: int
    dropped_ms: int
    dropped_seq: int
    length: int = 0
    retained_bytes: int = 0
    added: int = 0  # ever, in this life of the channel
    tail: bytes = b""
    tail_count: int = 0
    tail_bytes: int = 0
    chunks: list[bytes | None] | None = None
    base: int = 0
    head: Head | None = None
    is_explicit: bool = False
    stream: StreamKey | None = None  # an explicit one's key: its groups, its expiry

    @property
    def last_id(self) -> MessageId:
        return MessageId(self.last_ms, self.last_seq)

    @property
    def dropped_id(self) -> MessageId:
        """Of the newest message that was dropped (0-0 if none ever was)."""
        return MessageId(self.dropped_ms, self.dropped_seq)

    @property
    def has_chunks(self) -> bool:
        return self.chunks is not None

    def key(self) -> int:
        """Milliseconds of the newest message of the oldest chunk: what is dropped first, by age or for memory."""
        if self.has_chunks:
            return summarize(self.oldest_chunk()).last_ms
        return self.last_ms

    def oldest_chunk(self) -> bytes:
        """The tail, if there is none other."""
        if self.chunks is None:
            return self.tail
        chunk = self.chunks[self.base]
        assert chunk is not None
        return chunk

    def memory(self) -> int:
        """Bytes held, with what bookkeeping costs. Takes time by the number of chunks."""
        held = CHANNEL_COST + len(self.name) + len(self.tail)
        for chunk in (self.chunks or ())[self.base :]:
            assert chunk is not None
            held += len(chunk) + CHUNK_COST
        return held

    def append(self, ms: int, seq: int, kind: int, count: int, body_bytes: int, packed: bytes | memoryview) -> int:
        """Adds messages ms-seq ... ms-(seq + count - 1), given as u32 lengths and bodies. Returns the memory taken."""
        tail = self.tail
        piece_bytes = PIECE_BYTES + len(packed)
        size = len(tail) + piece_bytes
        header = PIECE.pack(ms, seq, kind, count, body_bytes)
        self.last_ms = ms
        self.last_seq = seq + count - 1
        self.length += count
        self.retained_bytes += body_bytes
        self.added += count
        if (
            size < CHUNK_BYTES
            or (size < CHUNK_LARGE_BYTES and self.length > LARGE_LENGTH)
            or (size < CHUNK_FEW_BYTES and self.tail_count + count < CHUNK_FEW)
        ):
            self.tail = b"".join((tail, header, packed))
            self.tail_count += count
            self.tail_bytes += body_bytes
            return piece_bytes
        if tail:
            totals = TRAILER.pack(ms, seq + count - 1, self.tail_count + count, self.tail_bytes + body_bytes)
            chunk = b"".join((tail, header, packed, totals))
            self.tail = b""
            self.tail_count = self.tail_bytes = 0
        else:
            chunk = b"".join((header, packed))
        if self.chunks is None:
            self.chunks = [chunk]
        else:
            self.chunks.append(chunk)
        return len(chunk) - len(tail) + CHUNK_COST

    def skip(self, ms: int, seq: int, count: int) -> None:
        """As if messages ms-seq ... were appended to an empty channel, and dropped at once."""
        assert not self.length
        self.last_ms = self.dropped_ms = ms
        self.last_seq = self.dropped_seq = seq + count - 1
        self.added += count

    def drop_messages(self, count: int, garbage: list[bytes | None]) -> int:
        """Drops the `count` oldest messages. Returns the memory given back; freed chunks go to `garbage`."""
        freed = 0
        while count:
            before = self.length
            if count > FEW_DROPPED and count >= self._oldest_count():
                freed += self.drop_chunk(garbage)
            else:
                freed += self._drop_in_chunk(count, garbage)
            count -= before - self.length
        return freed

    def drop_bytes(self, excess: int, garbage: list[bytes | None]) -> int:
        """Drops the oldest messages until `excess` bytes or more are gone. Returns the memory given back."""
        freed = 0
        while excess > 0 and self.length:
            whole = self._oldest_bytes()
            if excess <= whole:
                return freed + self._drop_bytes_in_chunk(excess, garbage)
            freed += self.drop_chunk(garbage)
            excess -= whole
        return freed

    def drop_older(self, cut_ms: int, garbage: list[bytes | None], chunks_max: int) -> int:
        """Drops messages of cut_ms and before; `chunks_max` whole chunks at most. Returns the memory given back."""
        freed = 0
        while self.length and self.key() <= cut_ms:
            if not chunks_max:
                return freed
            chunks_max -= 1
            freed += self.drop_chunk(garbage)
        if not self.length:
            return freed
        count = 0
        chunk = self.oldest_chunk()
        head = self.head or Head(0, 0, 0, 0)
        for piece in walk(chunk, head.offset, head.skip, len(chunk)):
            if piece.ms > cut_ms:
                break
            count += piece.count - piece.skip
        return freed + (self._drop_in_chunk(count, garbage) if count else 0)

    def drop_chunk(self, garbage: list[bytes | None]) -> int:
        """Drops what is left of the oldest chunk; the tail, if there is none other. Returns the memory given back."""
        if not self.has_chunks:
            return self.drop_all(garbage)
        assert self.chunks is not None
        chunk = self.oldest_chunk()
        whole = summarize(chunk)
        head = self.head
        self.dropped_ms = whole.last_ms
        self.dropped_seq = whole.last_seq
        self.length -= whole.count - (head.count if head else 0)
        self.retained_bytes -= whole.bytes - (head.bytes if head else 0)
        self.head = None
        self.chunks[self.base] = None
        self.base += 1
        garbage.append(chunk)
        if self.base == len(self.chunks):
            self.chunks = None
            self.base = 0
        elif self.base >= BASE_MAX and self.base * 2 >= len(self.chunks):
            del self.chunks[: self.base]
            self.base = 0
        return len(chunk) + CHUNK_COST

    def drop_all(self, garbage: list[bytes | None]) -> int:
        """Drops every message. Returns the memory given back."""
        freed = len(self.tail)
        if self.chunks is not None:
            left = self.chunks[self.base :]
            freed += sum(map(len, filter(None, left))) + CHUNK_COST * len(left)
            garbage += left
        self.dropped_ms, self.dropped_seq = self.last_ms, self.last_seq
        self.length = self.retained_bytes = 0
        self.tail = b""
        self.tail_count = self.tail_bytes = 0
        self.chunks = None
        self.base = 0
        self.head = None
        return freed

    def _oldest_count(self) -> int:
        if not self.has_chunks:
            return self.length
        return summarize(self.oldest_chunk()).count - (self.head.count if self.head else 0)

    def _oldest_bytes(self) -> int:
        if not self.has_chunks:
            return self.retained_bytes
        return summarize(self.oldest_chunk()).bytes - (self.head.bytes if self.head else 0)

    def _drop_in_chunk(self, count: int, garbage: list[bytes | None]) -> int:
        """Drops the `count` oldest messages, or all of the oldest chunk. Returns the memory given back.

        A hot path: where messages come one by one to a full window, it runs once for each.
        """
        chunk = self.tail if self.chunks is None else self.oldest_chunk()
        head = self.head
        offset, skip = (head.offset, head.skip) if head is not None else (0, 0)
        end = len(chunk) - TRAILER.size  # nothing is left from here on: a piece is larger than a trailer
        left = count
        size = 0
        while left:
            ms, seq, _, messages, body_bytes = PIECE.unpack_from(chunk, offset)
            if left < messages - skip:
                size += sum(lengths_of(chunk, offset, messages)[skip : skip + left])
                skip += left
                last_seq = seq + skip - 1
                break
            size += body_bytes if not skip else sum(lengths_of(chunk, offset, messages)[skip:])
            last_seq = seq + messages - 1
            left -= messages - skip
            offset += PIECE_BYTES + 4 * messages + body_bytes
            skip = 0
            if offset >= end:
                return self.drop_chunk(garbage)
        return self._set_head(offset, skip, count, size, ms, last_seq)

    def _drop_bytes_in_chunk(self, excess: int, garbage: list[bytes | None]) -> int:
        """Drops the oldest messages of the oldest chunk, which has `excess` bytes, until these are gone."""
        head = self.head or Head(0, 0, 0, 0)
        chunk = self.oldest_chunk()
        dropped = size = 0
        for piece in walk(chunk, head.offset, head.skip, len(chunk)):
            left = piece.count - piece.skip
            left_bytes = sum(piece.lengths()) if piece.skip else piece.body_bytes
            if left_bytes >= excess - size:
                break
            dropped += left
            size += left_bytes
        lengths = piece.lengths()
        taken = len(list(takewhile((excess - size).__gt__, accumulate(lengths)))) + 1
        dropped += taken
        if dropped == self._oldest_count():
            return self.drop_chunk(garbage)
        skip = piece.skip + taken
        is_whole = skip == piece.count
        offset, skip_left = (piece.next_offset, 0) if is_whole else (piece.offset, skip)
        size += sum(lengths[:taken])
        return self._set_head(offset, skip_left, dropped, size, piece.ms, piece.seq + skip - 1)

    def _set_head(self, offset: int, skip: int, dropped: int, size: int, ms: int, seq: int) -> int:
        """`dropped` more messages of `size` bytes are gone, ms-seq the last. Returns the memory given back."""
        head = self.head
        self.dropped_ms = ms
        self.dropped_seq = seq
        self.length -= dropped
        self.retained_bytes -= size
        # A new one, since a snapshot may share the old one.
        if head is None:
            self.head = Head(offset, skip, dropped, size)
        else:
            self.head = Head(offset, skip, head.count + dropped, head.bytes + size)
        return 0 if self.chunks is not None or offset * 2 < len(self.tail) else self._cut_tail()

    def _cut_tail(self) -> int:
        """Frees the dropped pieces of a lone tail. Returns the memory given back."""
        head = self.head
        assert head is not None
        freed = head.offset
        in_piece = 0
        if head.skip:
            in_piece = sum(lengths_of(self.tail, freed, head.skip))
        self.tail = self.tail[freed:]
        self.tail_count -= head.count - head.skip
        self.tail_bytes -= head.bytes - in_piece
        self.head = Head(0, head.skip, head.skip, in_piece) if head.skip else None
        return freed

    def frozen(self) -> Channel:
        """A copy for a snapshot: it shares the chunks, which never change."""
        copied = copy(self)
        copied.stream = None  # written by itself
        if self.chunks is not None:
            copied.chunks = self.chunks[self.base :]
            copied.base = 0
        return copied

    def invariants(self) -> None:
        count = size = 0
        previous = (self.dropped_ms, self.dropped_seq)
        head = self.head or Head(0, 0, 0, 0)
        chunks = [chunk for chunk in (self.chunks or ())[self.base :] if chunk is not None]
        assert all(chunk is None for chunk in (self.chunks or ())[: self.base])
        assert self.chunks is None or chunks
        spans = [(chunk, summarize(chunk).end) for chunk in chunks] + [(self.tail, len(self.tail))]
        for index, (chunk, end) in enumerate(spans):
            pieces = list(walk(chunk, 0, 0, end))
            whole = sum(piece.count for piece in pieces), sum(piece.body_bytes for piece in pieces)
            if index < len(chunks):
                summary = summarize(chunk)
                assert whole == (summary.count, summary.bytes)
                assert pieces[-1].next_offset == end
                assert (pieces[-1].ms, pieces[-1].last_seq) == (summary.last_ms, summary.last_seq)
            else:
                assert whole == (self.tail_count, self.tail_bytes)
            for piece in walk(chunk, head.offset, head.skip, end) if index == 0 else pieces:
                assert previous < (piece.ms, piece.seq + piece.skip) <= (piece.ms, piece.last_seq)
                previous = (piece.ms, piece.last_seq)
                count += piece.count - piece.skip
                size += sum(piece.lengths())
        assert (count, size) == (self.length, self.retained_bytes)
        assert previous <= (self.last_ms, self.last_seq)
        assert not (self.tail or chunks) or previous == (self.last_ms, self.last_seq) or self.is_explicit
        assert self.is_explicit == (self.stream is not None)
        assert self.queued <= self.key() or self.is_explicit
