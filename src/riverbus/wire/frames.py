"""Frames: the bytes that nodes say to each other. Pure: nouns in, bytes out, and back.

    frame := u32 length, u8 kind, body          little endian; `length` counts kind and body

A connection has two phases. Until the handshake is over only its own small frames are understood, so that a stranger
can make a node hold HANDSHAKE_FRAME_BYTES_MAX and no more. Then it is a link, or carries a snapshot's bulk.

Left to others: what a handshake means (runtime/handshake.py), sockets, flow control. Not compressed and, but for bulk
chunks, not checksummed: TCP and TLS do that, and what reaches a log or a snapshot file has checksums of its own there.

Invariants: whatever bytes come, a decoder raises nothing but FrameError and buffers less than one frame of its phase's
limit beyond the chunk it was last fed; every noun decodes to an equal one; a noun has one encoding (proofs need that).
It is one file: the table of kinds, with both ways of each, and the decoder that walks by it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

from riverbus.limits import HANDSHAKE_FRAME_BYTES_MAX, NODES_MAX, PEER_FRAME_BYTES_MAX, SHARDS_MAX
from riverbus.peer_messages import (
    Answer,
    Ask,
    Forward,
    Health,
    Held,
    Proposed,
    RaftMessage,
    Recall,
    Recalled,
    Received,
    Rejected,
    Relay,
    SnapshotStatus,
)
from riverbus.wire.frame_nouns import (
    Accepted,
    BulkChunk,
    BulkMissing,
    BulkOffer,
    BulkRequest,
    BulkStart,
    Founded,
    Frame,
    Hello,
    OtherVersion,
    Ping,
    Pong,
    Proof,
    Refusal,
    Refused,
    Role,
)

PROTOCOL_VERSION: Final = 1
MAGIC: Final = b"RBUS"
REASON_BYTES_MAX: Final = 1024


class FrameError(Exception):
    """The peer sent what is no frame, or not one of this phase. Its connection is of no more use."""


class Phase(NamedTuple):
    """What a connection understands now: kinds of frames, and how long one may be."""

    kinds: range
    bytes_max: int


HANDSHAKE: Final = Phase(range(1, 16), HANDSHAKE_FRAME_BYTES_MAX)
LINK: Final = Phase(range(16, 64), PEER_FRAME_BYTES_MAX)
BULK: Final = Phase(range(64, 80), PEER_FRAME_BYTES_MAX)

# --- encoding ---------------------------------------------------------------------------------------------------------

_HEAD = Struct("<IB")
_RAFT_HEAD = Struct("<IBH")  # with the shard
_RAFT_HEAD_BYTES = _RAFT_HEAD.size
_new = tuple.__new__  # a noun without the call of its own `__new__`
_HELLO = Struct("<4sBBIIH16s8s32s16s")  # magic, version, role, node, to, shards, then the four texts
_U8 = Struct("<B")
_U16 = Struct("<H")
_U32 = Struct("<I")
_U64 = Struct("<Q")
_MEMBER = Struct("<I16s")
_FORWARD = Struct("<HQQ")
_PROPOSED = Struct("<HQQQ")
_REJECTED = Struct("<HQB")
_PLACE = Struct("<HQQ")
_SHARD_INDEX = Struct("<HQ")
_SHARD_FLAG = Struct("<HB")
_OFFER = Struct("<Q16s")
_CHUNK = Struct("<QQ")
_NO_CLUSTER = bytes(16)


def encode(frame: Frame) -> bytes:
    parts: list[bytes] = []
    encode_into(parts, frame)
    return b"".join(parts)


def encode_into(parts: list[bytes], frame: Frame) -> int:
    """Append a frame's bytes, a long body uncopied; return their number. Raises FrameError over the limit."""
    if type(frame) is RaftMessage and (size := len(frame.data)) < PEER_FRAME_BYTES_MAX - 3:
        parts.append(_RAFT_HEAD.pack(3 + size, _RAFT_KIND, frame.shard))  # a link's bulk
        parts.append(frame.data)
        return 7 + size
    kind, encoder = _ENCODERS[type(frame)]
    fixed, tail = encoder(frame)
    length = 1 + len(fixed) + len(tail)
    if length > (HANDSHAKE_FRAME_BYTES_MAX if kind in HANDSHAKE.kinds else PEER_FRAME_BYTES_MAX):
        raise FrameError(f"a {type(frame).__name__} of {length} bytes is longer than a frame may be")
    parts.append(_HEAD.pack(length, kind) + fixed)
    if tail:
        parts.append(tail)
    return 4 + length


def _hello_bytes(hello: Hello) -> tuple[bytes, bytes]:
    fixed = _HELLO.pack(
        MAGIC, PROTOCOL_VERSION, hello.role, hello.node_id, hello.to, hello.shards, bytes.fromhex(hello.incarnation),
        bytes.fromhex(hello.process), hello.nonce, bytes.fromhex(hello.cluster_id) or _NO_CLUSTER,
    )  # fmt: skip
    members = b"".join(map(_U32.pack, hello.members))
    return fixed, _U8.pack(len(hello.members)) + members + _known_bytes(hello.known)


def _known_bytes(known: tuple[tuple[int, str], ...]) -> bytes:
    return _U8.pack(len(known)) + b"".join(_MEMBER.pack(node, bytes.fromhex(text)) for node, text in known)


def _rejected_bytes(rejected: Rejected) -> tuple[bytes, bytes]:
    code = rejected.code.encode()
    return _REJECTED.pack(rejected.shard, rejected.seq, len(code)) + code, _text_bytes(rejected.reason)


def _text_bytes(text: str) -> bytes:
    """At most REASON_BYTES_MAX of it, cut between two characters."""
    return text.encode()[:REASON_BYTES_MAX].decode(errors="ignore").encode()


# --- decoding ---------------------------------------------------------------------------------------------------------


class _Body:
    """Reads one frame's body, which is data[at:end]."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = end

    def take(self, layout: Struct) -> tuple[Any, ...]:
        start = self.at
        self.at += layout.size
        if self.at > self.end:
            raise FrameError("the frame ends too soon")
        return layout.unpack_from(self.data, start)

    def take_bytes(self, count: int) -> bytes:
        start = self.at
        self.at += count
        if self.at > self.end:
            raise FrameError("the frame ends too soon")
        return self.data[start : self.at]

    def rest(self) -> bytes:
        return self.take_bytes(self.end - self.at)

    def rest_as_text(self) -> str:
        if self.end - self.at > REASON_BYTES_MAX:
            raise FrameError("a reason is too long")
        return _text(self.rest())


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FrameError("a text is not UTF-8") from None


def _shard(shard: int) -> int:
    if shard >= SHARDS_MAX:
        raise FrameError(f"there is no shard {shard}")
    return shard


def _hello(body: _Body) -> Hello | OtherVersion:
    start = body.at
    if body.take_bytes(4) != MAGIC:
        raise FrameError("not a Riverbus peer")
    (version,) = body.take(_U8)
    if version != PROTOCOL_VERSION:
        body.at = body.end
        return OtherVersion(version)
    body.at = start
    _, _, role, node_id, to, shards, incarnation, process, nonce, cluster_id = body.take(_HELLO)
    if role not in (Role.LINK, Role.BULK):
        raise FrameError(f"there is no role {role}")
    (count,) = body.take(_U8)
    if not 1 <= count <= NODES_MAX:
        raise FrameError(f"a cluster of {count} nodes")
    members = tuple(body.take(_U32)[0] for _ in range(count))
    _check_rising(members)
    known = _known(body)
    if bool(known) != (cluster_id != _NO_CLUSTER):
        raise FrameError("a cluster's id and its record come together")
    cluster_hex = cluster_id.hex() if known else ""
    return Hello(role, node_id, to, shards, incarnation.hex(), process.hex(), nonce, cluster_hex, members, known)


def _known(body: _Body) -> tuple[tuple[int, str], ...]:
    (count,) = body.take(_U8)
    if count > NODES_MAX:
        raise FrameError(f"a record of {count} nodes")
    known = tuple((node, incarnation.hex()) for node, incarnation in (body.take(_MEMBER) for _ in range(count)))
    _check_rising(tuple(node for node, _ in known))
    return known


def _check_rising(nodes: tuple[int, ...]) -> None:
    if any(first >= second for first, second in pairwise(nodes)):
        raise FrameError("node ids are not rising")


def _founded(body: _Body) -> Founded:
    cluster_id = body.take_bytes(16).hex()
    return Founded(cluster_id, _known(body))


def _refused(body: _Body) -> Refused:
    (code,) = body.take(_U8)
    if code not in Refusal.__members__.values():
        raise FrameError(f"there is no refusal {code}")
    return Refused(code, body.rest_as_text())


def _raft(body: _Body) -> RaftMessage:
    (shard,) = body.take(_U16)
    return RaftMessage(_shard(shard), body.rest())


def _forward(body: _Body) -> Forward:
    shard, term, seq = body.take(_FORWARD)
    return Forward(_shard(shard), term, seq, body.rest())


def _proposed(body: _Body) -> Proposed:
    shard, seq, log_index, term = body.take(_PROPOSED)
    return Proposed(_shard(shard), seq, log_index, term)


def _rejected(body: _Body) -> Rejected:
    shard, seq, count = body.take(_REJECTED)
    return Rejected(_shard(shard), seq, _text(body.take_bytes(count)), body.rest_as_text())


def _place(body: _Body) -> tuple[int, int, int]:
    shard, term, log_index = body.take(_PLACE)
    return _shard(shard), term, log_index


def _snapshot_status(body: _Body) -> SnapshotStatus:
    shard, is_ok = body.take(_SHARD_FLAG)
    return SnapshotStatus(_shard(shard), _flag(is_ok))


def _flag(value: int) -> bool:
    if value > 1:
        raise FrameError("a flag is 0 or 1")
    return value == 1


def _bulk_request(body: _Body) -> BulkRequest:
    shard, index = body.take(_SHARD_INDEX)
    return BulkRequest(_shard(shard), index)


def _bulk_chunk(body: _Body) -> BulkChunk:
    offset, checksum = body.take(_CHUNK)
    return BulkChunk(offset, checksum, body.rest())


_Encoder: TypeAlias = Callable[[Any], tuple[bytes, bytes]]
_Decoder: TypeAlias = Callable[[_Body], Frame]

_RAFT_KIND: Final = 16
_TABLE: tuple[tuple[int, type[Frame], _Encoder, _Decoder], ...] = (
    (1, Hello, _hello_bytes, _hello),
    (2, Proof, lambda f: (f.digest, b""), lambda b: Proof(b.take_bytes(32))),
    (3, Accepted, lambda _: (b"", b""), lambda _: Accepted()),
    (4, Refused, lambda f: (_U8.pack(f.code), _text_bytes(f.reason)), _refused),
    (_RAFT_KIND, RaftMessage, lambda f: (_U16.pack(f.shard), f.data), _raft),
    (17, Forward, lambda f: (_FORWARD.pack(f.shard, f.term, f.seq), f.batch), _forward),
    (18, Proposed, lambda f: (_PROPOSED.pack(*f), b""), _proposed),
    (19, Rejected, _rejected_bytes, _rejected),
    (20, Ask, lambda f: (_U64.pack(f.id), f.question), lambda b: Ask(b.take(_U64)[0], b.rest())),
    (21, Answer, lambda f: (_U64.pack(f.id), f.answer), lambda b: Answer(b.take(_U64)[0], b.rest())),
    (22, SnapshotStatus, lambda f: (_SHARD_FLAG.pack(*f), b""), _snapshot_status),
    (23, Health, lambda f: (_U8.pack(f.is_writable), b""), lambda b: Health(_flag(b.take(_U8)[0]))),
    (24, Relay, lambda f: (b"", f.batch), lambda b: Relay(b.rest())),
    (25, Received, lambda f: (_PLACE.pack(*f), b""), lambda b: Received(*_place(b))),
    (26, Held, lambda f: (_PLACE.pack(*f), b""), lambda b: Held(*_place(b))),
    (27, Recall, lambda f: (_U16.pack(f.shard), b""), lambda b: Recall(_shard(b.take(_U16)[0]))),
    (28, Recalled, lambda f: (_PLACE.pack(*f), b""), lambda b: Recalled(*_place(b))),
    (32, Ping, lambda f: (_U64.pack(f.time_us), b""), lambda b: Ping(b.take(_U64)[0])),
    (33, Pong, lambda f: (_U64.pack(f.time_us), b""), lambda b: Pong(b.take(_U64)[0])),
    (34, Founded, lambda f: (bytes.fromhex(f.cluster_id), _known_bytes(f.known)), _founded),
    (64, BulkRequest, lambda f: (_SHARD_INDEX.pack(*f), b""), _bulk_request),
    (65, BulkOffer, lambda f: (_OFFER.pack(*f), b""), lambda b: BulkOffer(*b.take(_OFFER))),
    (66, BulkMissing, lambda f: (b"", _text_bytes(f.reason)), lambda b: BulkMissing(b.rest_as_text())),
    (67, BulkStart, lambda f: (_U64.pack(f.offset), b""), lambda b: BulkStart(b.take(_U64)[0])),
    (68, BulkChunk, lambda f: (_CHUNK.pack(f.offset, f.checksum), f.data), _bulk_chunk),
)
_ENCODERS: Final = {noun: (kind, encoder) for kind, noun, encoder, _ in _TABLE}
_DECODERS: Final = {kind: decoder for kind, _, _, decoder in _TABLE}


class FrameDecoder:
    """Bytes as they arrive, in; frames out. `phase` may change between two frames."""

    __slots__ = ("_at", "_buffer", "_kind", "_length", "_pending", "_pending_bytes", "phase")

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self._buffer = b""  # being read, from `_at` on
        self._at = 0
        self._pending: list[bytes] = []  # chunks after it, joined once a whole frame is there
        self._pending_bytes = 0
        self._length = 0  # of the frame whose head was read; 0: none was
        self._kind = 0

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer) - self._at + self._pending_bytes

    def feed(self, data: bytes) -> None:
        if self._at == len(self._buffer) and not self._pending:
            self._buffer = data
            self._at = 0
        else:
            self._pending.append(data)
            self._pending_bytes += len(data)

    def next(self) -> Frame | None:
        """The next whole frame. Raises FrameError, and from then on always."""
        if not self._length and not self._read_head():
            return None
        size = self._length - 1  # the head has the kind
        if not self._has(size):
            return None
        start = self._at
        end = start + size
        body = _Body(self._buffer, start, end)
        frame = _DECODERS[self._kind](body)
        if body.at != end:
            raise FrameError(f"a {type(frame).__name__} with {end - body.at} bytes too many")
        self._at = end
        self._length = 0
        if end == len(self._buffer):
            self._buffer = b""
            self._at = 0
        return frame

    def drain(self) -> list[Frame]:
        """All whole frames. Raises FrameError."""
        frames: list[Frame] = []
        while True:
            if not self._length and self.phase is LINK:
                self._drain_raft(frames)
                if self._at == len(self._buffer) and not self._pending:
                    self._buffer = b""
                    self._at = 0
                    return frames
            frame = self.next()
            if frame is None:
                return frames
            frames.append(frame)

    def _drain_raft(self, frames: list[Frame]) -> None:
        """`next` for raft messages that are whole in the buffer, inlined: a link's bulk, in a fifth of the time."""
        buffer, at = self._buffer, self._at
        have = len(buffer)
        while have - at >= _RAFT_HEAD_BYTES:
            length, kind, shard = _RAFT_HEAD.unpack_from(buffer, at)
            end = at + 4 + length
            if kind != _RAFT_KIND or shard >= SHARDS_MAX or not 3 <= length <= PEER_FRAME_BYTES_MAX or end > have:
                break  # another kind, not whole, or bad: `next` knows
            frames.append(_new(RaftMessage, (shard, buffer[at + _RAFT_HEAD_BYTES : end])))
            at = end
        self._at = at

    def _read_head(self) -> bool:
        if not self._has(_HEAD.size):
            return False
        length, kind = _HEAD.unpack_from(self._buffer, self._at)
        if kind not in self.phase.kinds or kind not in _DECODERS:
            raise FrameError(f"a frame of kind {kind} has no place here")
        if not 1 <= length <= self.phase.bytes_max:
            raise FrameError(f"a frame of {length} bytes; {self.phase.bytes_max} is the most")
        self._at += _HEAD.size
        self._length, self._kind = length, kind
        return True

    def _has(self, count: int) -> bool:
        """Are `count` bytes there, in one piece? Joins pieces at most once a frame: linear in the bytes received."""
        available = len(self._buffer) - self._at
        if available >= count:
            return True
        if available + self._pending_bytes < count:
            return False
        self._buffer = b"".join((self._buffer[self._at :], *self._pending))
        self._at = 0
        self._pending.clear()
        self._pending_bytes = 0
        return True
