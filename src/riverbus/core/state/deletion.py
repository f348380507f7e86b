"""Takes single messages out of the middle of a channel (XDEL): the chunk that has them is written anew without them.

A chunk is small, so that costs some ten microseconds; one that a large run made is cut into smaller ones then, so that
to take many out of it one by one does not copy it each time. From the front, messages are dropped as a window drops
them, which is cheaper. Either way a message that was deleted is no gap: `dropped_id` stays.

Rejected: a set of deleted ids beside the chunks. Every read, count and trim had to look there, and memory would not
come back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from riverbus.core.state.channels import Channel
from riverbus.core.state.history import NOTHING, first_id_of
from riverbus.core.state.pieces import (
    CHUNK_COST,
    CHUNK_LARGE_BYTES,
    FIRST_ID,
    PIECE,
    PIECE_BYTES,
    TRAILER,
    Piece,
    lengths_of,
    summarize,
    walk,
)
from riverbus.messages import MessageId

Id = tuple[int, int]


def first_id(channel: Channel) -> MessageId:
    """Of the oldest message there is; 0-0 if there is none."""
    if not channel.length:
        return MessageId(0, 0)
    head = channel.head or NOTHING
    ms, seq = FIRST_ID.unpack_from(channel.oldest_chunk(), head.offset)
    return MessageId(ms, seq + head.skip)


def delete_messages(channel: Channel, ids: Sequence[Id], garbage: list[bytes | None]) -> tuple[list[Id], int]:
    """`ids` rise strictly. Returns those that there were, and the memory given back (it may be negative)."""
    found: list[Id] = []
    freed = 0
    at = 0
    while at < len(ids) and channel.length:
        id_ = ids[at]
        if id_ == first_id(channel):
            dropped = channel.dropped_ms, channel.dropped_seq
            freed += channel.drop_messages(1, garbage)
            channel.dropped_ms, channel.dropped_seq = dropped
            found.append(id_)
            at += 1
            continue
        index, end = _chunk_of(channel, id_)
        stop = at + 1
        while stop < len(ids) and (end is None or ids[stop] < end):
            stop += 1
        here, freed_here = _rewrite(channel, index, ids[at:stop], garbage)
        found += here
        freed += freed_here
        at = stop
    return found, freed


def _chunk_of(channel: Channel, id_: Id) -> tuple[int, Id | None]:
    """Number of the chunk that has the id, if any has (that of the tail is one above); where the next begins."""
    chunks: list[bytes | None] = channel.chunks or []
    tail_id = FIRST_ID.unpack_from(channel.tail) if channel.tail else None
    if not chunks or (tail_id is not None and tail_id <= id_):
        return len(chunks), None
    index = max(bisect_right(chunks, id_, channel.base, len(chunks), key=first_id_of) - 1, channel.base)
    if index + 1 < len(chunks):
        return index, first_id_of(chunks[index + 1])
    return index, tail_id


def _rewrite(channel: Channel, index: int, ids: Sequence[Id], garbage: list[bytes | None]) -> tuple[list[Id], int]:
    chunks: list[bytes | None] = channel.chunks or []
    is_tail = index == len(chunks)
    chunk = channel.tail if is_tail else chunks[index]
    assert chunk is not None
    is_oldest = index == (channel.base if chunks else 0)
    head = (channel.head if is_oldest else None) or NOTHING
    pieces = list(walk(chunk, head.offset, head.skip, len(chunk) if is_tail else summarize(chunk).end))
    found, parts, count, size = _without(pieces, ids)
    if not found:
        return found, 0
    channel.length -= len(found)
    channel.retained_bytes -= _bytes_of(pieces) - size
    if is_oldest:
        channel.head = None
    if is_tail:
        channel.tail = b"".join(part for part, _ in parts)
        channel.tail_count, channel.tail_bytes = count, size
        return found, len(chunk) - len(channel.tail)
    new = _chunks(parts)
    garbage.append(chunk)
    chunks[index : index + 1] = new
    if channel.base == len(chunks):
        channel.chunks = None
        channel.base = 0
    freed = len(chunk) + CHUNK_COST - sum(map(len, new)) - CHUNK_COST * len(new)
    return found, freed


def _bytes_of(pieces: Sequence[Piece]) -> int:
    return sum(sum(piece.lengths()) if piece.skip else piece.body_bytes for piece in pieces)


Part = tuple[bytes, tuple[int, int, int, int]]  # a piece's bytes; its last id, count and bytes


def _without(pieces: Sequence[Piece], ids: Sequence[Id]) -> tuple[list[Id], list[Part], int, int]:
    """(ids that there were, the pieces without them, their messages, their bytes)."""
    found: list[Id] = []
    parts: list[Part] = []
    at = 0
    for piece in pieces:
        last = piece.ms, piece.last_seq
        start = piece.skip
        while at < len(ids) and ids[at] <= last:
            ms, seq = ids[at]
            at += 1
            if ms != piece.ms or seq < piece.seq + piece.skip:
                continue
            found.append((ms, seq))
            parts += _parts(piece, start, seq - piece.seq)
            start = seq - piece.seq + 1
        parts += _parts(piece, start, piece.count)
    return found, parts, sum(each[2] for _, each in parts), sum(each[3] for _, each in parts)


def _parts(piece: Piece, start: int, stop: int) -> list[Part]:
    """Messages start ... stop - 1 of a piece, as pieces that are not large, unless a message is."""
    if start >= stop:
        return []
    step = stop - start
    if piece.body_bytes > CHUNK_LARGE_BYTES:
        step = max(1, piece.count * CHUNK_LARGE_BYTES // piece.body_bytes)
    return [_part(piece, at, min(at + step, stop)) for at in range(start, stop, step)]


def _part(piece: Piece, start: int, stop: int) -> Part:
    """Messages start ... stop - 1 of a piece, as a piece."""
    if start == 0 and stop == piece.count:
        whole = piece.chunk[piece.offset : piece.next_offset]
        return whole, (piece.ms, piece.last_seq, piece.count, piece.body_bytes)
    lengths = lengths_of(piece.chunk, piece.offset, piece.count)
    body_at = piece.offset + PIECE_BYTES + 4 * piece.count + sum(lengths[:start])
    size = sum(lengths[start:stop])
    header = PIECE.pack(piece.ms, piece.seq + start, piece.kind, stop - start, size)
    data = b"".join((header, lengths[start:stop].cast("B"), piece.chunk[body_at : body_at + size]))
    return data, (piece.ms, piece.seq + stop - 1, stop - start, size)


def _chunks(parts: Sequence[Part]) -> list[bytes]:
    """Chunks that are small enough to be written anew again."""
    chunks: list[bytes] = []
    gathered: list[Part] = []
    size = 0
    for part in parts:
        if gathered and size + len(part[0]) > CHUNK_LARGE_BYTES:
            chunks.append(_chunk(gathered))
            gathered, size = [], 0
        gathered.append(part)
        size += len(part[0])
    if gathered:
        chunks.append(_chunk(gathered))
    return chunks


def _chunk(parts: Sequence[Part]) -> bytes:
    if len(parts) == 1:
        return parts[0][0]
    last_ms, last_seq, _, _ = parts[-1][1]
    totals = TRAILER.pack(last_ms, last_seq, sum(each[2] for _, each in parts), sum(each[3] for _, each in parts))
    return b"".join((*(data for data, _ in parts), totals))
