"""Reads a channel's retained messages by id: from a cursor on, or a range either way.

What is too old at the time of the last applied entry is not there, whether or not its memory is freed yet: age is a
bound on ids here (`cut_ms`: messages of that millisecond and before are gone). Nothing is changed by a read.
A seek costs a bisection over the chunks; then only what is returned is touched, but for runs of unwanted kinds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from riverbus.core.state.channels import Channel, Head
from riverbus.core.state.entries import split
from riverbus.core.state.pieces import FIRST_ID, PIECE_BYTES, Piece, summarize, walk
from riverbus.messages import ID_MIN, SEQ_MAX, Message, MessageId

_new = tuple.__new__  # makes a noun in half the time

PIECES_PER_READ_MAX = 4096  # looked at by one `read_after`: bounds a read that skips kinds it does not want
STEPS_TO_NEXT_ID_MAX = 32  # pieces that `read_ids` passes over before it seeks anew
FEW_IDS = 16  # up to so many are cut out of a piece one by one
NOTHING = Head(0, 0, 0, 0)


class ReadResult(NamedTuple):
    """`gap_until`: messages in (after, gap_until] were dropped. `cursor`: read on from here; `more`: there is more."""

    gap_until: MessageId | None
    runs: list[tuple[int, MessageId, list[bytes]]]
    cursor: MessageId
    more: bool


class View(NamedTuple):
    """A channel as it is read: what is of `cut_ms` or before is too old."""

    channel: Channel
    cut_ms: int

    @property
    def body_bytes(self) -> int:
        """Of a message, on average."""
        return self.channel.retained_bytes // (self.channel.length or 1)

    def range(self, first: MessageId, last: MessageId, count: int | None, reverse: bool) -> list[Message]:
        """Messages with first <= id <= last; the oldest `count`, or with `reverse` the newest, newest first."""
        if count is not None and count <= 0:
            return []
        read = read_range_down if reverse else read_range
        return read(self.channel, self.cut_ms, first, last, count)

    def frozen(self) -> View:
        """As it is now, whatever becomes of the channel."""
        return View(self.channel.frozen(), self.cut_ms)


def pieces_from(channel: Channel, ms: int, seq: int) -> Iterator[Piece]:
    """Retained pieces from the first message at or above ms-seq; what of the first is below is in its `skip`."""
    sealed: list[bytes | None] = channel.chunks or []
    tail = channel.tail
    target = (ms, seq)
    if tail and (FIRST_ID.unpack_from(tail) <= target or not sealed):
        index = len(sealed)
    else:
        index = max(bisect_right(sealed, target, channel.base, len(sealed), key=first_id_of) - 1, channel.base)
    oldest = channel.base if channel.has_chunks else len(sealed)
    is_found = False
    while index <= len(sealed):
        chunk = sealed[index] if index < len(sealed) else tail
        assert chunk is not None
        end = summarize(chunk).end if index < len(sealed) else len(tail)
        head = (channel.head or NOTHING) if index == oldest else NOTHING
        for piece in walk(chunk, head.offset, head.skip, end):
            if is_found:
                yield piece
            elif (piece.ms, piece.last_seq) >= target:
                is_found = True
                below = seq - piece.seq if piece.ms == ms else 0
                piece.skip = max(piece.skip, below)
                yield piece
        index += 1


def pieces_down_from(channel: Channel, ms: int, seq: int) -> Iterator[Piece]:
    """Retained pieces that begin at or below ms-seq, the newest first; the first may end above it."""
    sealed: list[bytes | None] = channel.chunks or []
    target = (ms, seq)
    oldest = channel.base if channel.has_chunks else len(sealed)
    index = bisect_right(sealed, target, channel.base, len(sealed), key=first_id_of) - 1
    if channel.tail and FIRST_ID.unpack_from(channel.tail) <= target:
        index = len(sealed)
    while index >= oldest:
        chunk = sealed[index] if index < len(sealed) else channel.tail
        assert chunk is not None
        end = summarize(chunk).end if index < len(sealed) else len(chunk)
        head = (channel.head or NOTHING) if index == oldest else NOTHING
        pieces = [p for p in walk(chunk, head.offset, head.skip, end) if (p.ms, p.seq + p.skip) <= target]
        yield from reversed(pieces)
        index -= 1


def read_range(channel: Channel, cut_ms: int, first: MessageId, last: MessageId, count: int | None) -> list[Message]:
    """Messages with first <= id <= last, oldest first, `count` at most."""
    found: list[Message] = []
    first = max(first, MessageId(cut_ms + 1, 0))
    for piece in pieces_from(channel, *first):
        wanted = _upto(piece, last) - piece.skip
        if count is not None:
            wanted = min(wanted, count - len(found))
        if wanted <= 0:
            break
        found += _messages(piece, wanted)
    return found


def read_range_down(
    channel: Channel, cut_ms: int, first: MessageId, last: MessageId, count: int | None
) -> list[Message]:
    """Messages with first <= id <= last, newest first, `count` at most."""
    found: list[Message] = []
    first = max(first, MessageId(cut_ms + 1, 0))
    for piece in pieces_down_from(channel, *last):
        stop = _upto(piece, last)
        start = piece.skip
        if piece.ms == first.ms:
            start = max(start, first.seq - piece.seq)
        elif piece.ms < first.ms:
            break
        if count is not None:
            start = max(start, stop - (count - len(found)))
        if start >= stop:
            break
        piece.skip = start
        found += reversed(_messages(piece, stop - start))
    return found


def first_id_of(chunk: bytes | None) -> tuple[int, int]:
    assert chunk is not None
    ms, seq = FIRST_ID.unpack_from(chunk)
    return ms, seq


def _upto(piece: Piece, last: MessageId) -> int:
    """How many messages of the piece, from its message 0, are at or below `last`."""
    if piece.ms != last.ms:
        return piece.count if piece.ms < last.ms else 0
    return min(piece.count, last.seq - piece.seq + 1)


def _messages(piece: Piece, keep: int) -> list[Message]:
    ms, kind, seq = piece.ms, piece.kind, piece.seq + piece.skip
    bodies = enumerate(piece.payloads(keep), seq)
    return [_new(Message, (_new(MessageId, (ms, at)), kind, body)) for at, body in bodies]


def dropped_until(channel: Channel, cut_ms: int) -> MessageId:
    """Id of the newest message that is gone: dropped, or too old. 0-0 if none is."""
    if not channel.length or channel.last_ms <= cut_ms:
        return channel.last_id if channel.length else channel.dropped_id
    if cut_ms < 0:
        return channel.dropped_id
    for piece in pieces_down_from(channel, cut_ms, SEQ_MAX):
        return MessageId(piece.ms, piece.last_seq)
    return channel.dropped_id


def visible_length(channel: Channel, cut_ms: int) -> int:
    """Messages not too old. Takes time by the number of chunks that are too old and not swept yet."""
    if channel.last_ms <= cut_ms:
        return 0
    length = channel.length
    for piece in pieces_from(channel, 0, 0):
        if piece.ms > cut_ms:
            break
        length -= piece.count - piece.skip
    return length


def read_after(
    channel: Channel, cut_ms: int, after: MessageId, count: int | None, bytes_max: int | None, kinds: int | None
) -> ReadResult:
    """Messages above `after`, of the kinds in the mask; one at least if there is one, then within the bounds."""
    gone = dropped_until(channel, cut_ms)
    gap_until = gone if gone > after else None
    cursor = max(after, gone)
    runs: list[tuple[int, MessageId, list[bytes]]] = []
    if count is not None and count <= 0:
        return ReadResult(gap_until, runs, cursor, cursor < channel.last_id)
    messages_left = SEQ_MAX if count is None else count
    bytes_left = SEQ_MAX if bytes_max is None else bytes_max
    looked_at = 0
    if cursor < channel.last_id:
        for piece in pieces_from(channel, *cursor.next()):
            looked_at += 1
            if looked_at > PIECES_PER_READ_MAX:
                break
            if kinds is None or kinds >> piece.kind & 1:
                keep = fitting(piece, messages_left, bytes_left, is_first=not runs)
                if not keep:
                    break
                payloads = piece.payloads(keep)
                runs.append((piece.kind, MessageId(piece.ms, piece.seq + piece.skip), payloads))
                cursor = MessageId(piece.ms, piece.seq + piece.skip + keep - 1)
                messages_left -= keep
                bytes_left -= sum(map(len, payloads))
                if keep < piece.count - piece.skip:
                    break
            else:
                cursor = MessageId(piece.ms, piece.last_seq)
        else:
            cursor = channel.last_id  # of an explicit stream the last messages may be deleted
    return ReadResult(gap_until, runs, cursor, cursor < channel.last_id)


def read_ids(channel: Channel, ids: Sequence[MessageId]) -> dict[MessageId, Message]:
    """Those messages that there are. `ids` rise; a seek for each that is not near the one before."""
    found: dict[MessageId, Message] = {}
    pieces: Iterator[Piece] = iter(())
    piece: Piece | None = None
    bodies: list[bytes] = []
    for id_ in ids:
        steps = 0
        while piece is None or (piece.ms, piece.last_seq) < id_:
            steps += 1
            piece = next(pieces, None) if piece is not None and steps <= STEPS_TO_NEXT_ID_MAX else None
            if piece is None:
                pieces = pieces_from(channel, *id_)
                piece = next(pieces, None)
            if piece is None:
                return found
            bodies = []
        at = id_.seq - piece.seq
        if piece.ms == id_.ms and piece.skip <= at:
            if len(ids) < FEW_IDS:
                [body] = split(piece.chunk, piece.offset + PIECE_BYTES, piece.count, at, 1)
            else:
                bodies = bodies or piece.payloads()
                body = bodies[at - piece.skip]
            found[id_] = Message(id_, piece.kind, body)
    return found


def fitting(piece: Piece, messages_left: int, bytes_left: int, is_first: bool) -> int:
    """How many messages of the piece, from `skip` on, are within the bounds; one at least if it is the first."""
    available = min(piece.count - piece.skip, messages_left)
    if piece.body_bytes <= bytes_left or not available:
        return available
    fitting = bisect_right(list(accumulate(piece.lengths()[:available])), bytes_left)
    return max(fitting, 1) if is_first else fitting


assert ID_MIN == (0, 0)
