"""Frames: every noun comes back equal, however its bytes are cut; damaged bytes raise FrameError and nothing else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from riverbus.wire.frames import BULK, HANDSHAKE, LINK, REASON_BYTES_MAX, FrameDecoder, FrameError, Phase, encode

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
shards = st.integers(0, SHARDS_MAX - 1)
data = st.binary(max_size=300)
reasons = st.text(max_size=100)


def hexes(count: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=count, max_size=count).map(bytes.hex)


nodes = st.sets(u32, min_size=1, max_size=NODES_MAX).map(lambda ids: tuple(sorted(ids)))
known = st.dictionaries(u32, hexes(16), min_size=1, max_size=NODES_MAX).map(
    lambda record: tuple(sorted(record.items()))
)
cluster_ids = hexes(16).filter(lambda text: text != "0" * 32)
records = st.one_of(st.just(("", ())), st.tuples(cluster_ids, known))
hellos = st.builds(
    lambda record, **rest: Hello(cluster_id=record[0], known=record[1], **rest),
    records,
    role=st.sampled_from([Role.LINK, Role.BULK]).map(int),
    node_id=u32,
    to=u32,
    shards=st.integers(0, 65535),
    incarnation=hexes(16),
    process=hexes(8),
    nonce=st.binary(min_size=32, max_size=32),
    members=nodes,
)
handshake_frames = st.one_of(
    hellos,
    st.builds(Proof, st.binary(min_size=32, max_size=32)),
    st.just(Accepted()),
    st.builds(Refused, st.sampled_from(Refusal).map(int), reasons),
)
link_frames = st.one_of(
    st.builds(RaftMessage, shards, data),
    st.builds(Forward, shards, u64, u64, data),
    st.builds(Proposed, shards, u64, u64, u64),
    st.builds(Rejected, shards, u64, st.text(max_size=20), reasons),
    st.builds(Ask, u64, data),
    st.builds(Answer, u64, data),
    st.builds(SnapshotStatus, shards, st.booleans()),
    st.builds(Health, st.booleans()),
    st.builds(Received, shards, u64, u64),
    st.builds(Held, shards, u64, u64),
    st.builds(Recall, shards),
    st.builds(Recalled, shards, u64, u64),
    st.builds(Ping, u64),
    st.builds(Pong, u64),
    st.builds(lambda cluster_id, record: Founded(cluster_id, record), hexes(16), known),
)
bulk_frames = st.one_of(
    st.builds(BulkRequest, shards, u64),
    st.builds(BulkOffer, u64, st.binary(min_size=16, max_size=16)),
    st.builds(BulkMissing, reasons),
    st.builds(BulkStart, u64),
    st.builds(BulkChunk, u64, u64, data),
)
conversations = st.one_of(
    st.tuples(st.just(HANDSHAKE), st.lists(handshake_frames, max_size=4)),
    st.tuples(st.just(LINK), st.lists(link_frames, max_size=8)),
    st.tuples(st.just(BULK), st.lists(bulk_frames, max_size=8)),
)
few = settings(max_examples=150, deadline=None)


def decode(phase: Phase, stream: bytes, cuts: list[int]) -> list[Frame]:
    decoder = FrameDecoder(phase)
    frames: list[Frame] = []
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)})
    start = 0
    for end in ends:
        decoder.feed(stream[start:end])
        frames += decoder.drain()
        assert decoder.buffered_bytes <= phase.bytes_max
        start = end
    return frames


@few
@given(conversations, st.lists(st.integers(0, 3000), max_size=20))
def test_frames_cut_anywhere_come_back_equal(conversation: tuple[Phase, list[Frame]], cuts: list[int]) -> None:
    phase, frames = conversation
    assert decode(phase, b"".join(map(encode, frames)), cuts) == frames


@few
@given(conversations, st.data())
def test_mutated_bytes_raise_frame_error_or_decode(
    conversation: tuple[Phase, list[Frame]], draw: st.DataObject
) -> None:
    phase, frames = conversation
    stream = bytearray(b"".join(map(encode, frames)))
    for _ in range(draw.draw(st.integers(0, 4))):
        if stream:
            stream[draw.draw(st.integers(0, len(stream) - 1))] = draw.draw(st.integers(0, 255))
    try:
        decode(phase, bytes(stream), draw.draw(st.lists(st.integers(0, 500), max_size=5)))
    except FrameError:
        pass


@few
@given(st.sampled_from([HANDSHAKE, LINK, BULK]), st.integers(0, 80), st.binary(max_size=200))
def test_any_body_of_any_kind_raises_frame_error_or_decodes(phase: Phase, kind: int, body: bytes) -> None:
    try:
        decode(phase, struct.pack("<IB", 1 + len(body), kind) + body, [])
    except FrameError:
        pass


@few
@given(handshake_frames)
def test_what_decodes_encodes_to_the_same_bytes(frame: Frame) -> None:
    (again,) = decode(HANDSHAKE, encode(frame), [])
    assert encode(again) == encode(frame)


def test_empty_chunks_and_single_bytes_are_fine() -> None:
    stream = encode(Ping(1)) + encode(Ask(2, b"x"))
    decoder = FrameDecoder(LINK)
    frames = []
    for byte in stream:
        decoder.feed(b"")
        decoder.feed(bytes((byte,)))
        frames += decoder.drain()
    assert frames == [Ping(1), Ask(2, b"x")]
    assert decoder.buffered_bytes == 0


def test_a_large_frame_in_small_chunks_takes_linear_time() -> None:
    body = bytes(8 << 20)
    stream = encode(RaftMessage(3, body))
    decoder = FrameDecoder(LINK)
    frames: list[Frame] = []
    for start in range(0, len(stream), 4096):
        assert frames == []
        decoder.feed(stream[start : start + 4096])
        frames = decoder.drain()
    assert frames == [RaftMessage(3, body)]


def test_before_the_handshake_only_small_handshake_frames_are_understood() -> None:
    for stream in (encode(RaftMessage(0, b"x")), encode(Ping(1)), encode(BulkRequest(0, 1))):
        with pytest.raises(FrameError, match="no place here"):
            decode(HANDSHAKE, stream, [])
    with pytest.raises(FrameError, match="is the most"):
        decode(HANDSHAKE, struct.pack("<IB", HANDSHAKE_FRAME_BYTES_MAX + 1, 1), [])


def test_after_the_handshake_its_frames_have_no_place() -> None:
    with pytest.raises(FrameError, match="no place here"):
        decode(LINK, encode(Accepted()), [])


@pytest.mark.parametrize("length", [0, PEER_FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_at_the_head(length: int) -> None:
    with pytest.raises(FrameError, match="is the most"):
        decode(LINK, struct.pack("<IB", length, 16), [])


def test_a_frame_over_its_limit_is_not_encoded() -> None:
    with pytest.raises(FrameError, match="longer than a frame may be"):
        encode(RaftMessage(0, bytes(PEER_FRAME_BYTES_MAX)))


def test_a_shard_that_cannot_be_is_refused() -> None:
    with pytest.raises(FrameError, match="no shard 64"):
        decode(LINK, encode(RaftMessage(SHARDS_MAX, b"x")), [])


def test_another_version_is_told_apart_from_garbage() -> None:
    hello = Hello(1, 1, 2, 8, "0" * 32, "1" * 16, bytes(32), "", (1, 2), ())
    stream = bytearray(encode(hello))
    stream[9] = 7
    assert decode(HANDSHAKE, bytes(stream), []) == [OtherVersion(7)]
    with pytest.raises(FrameError, match="not a Riverbus peer"):
        decode(HANDSHAKE, struct.pack("<IB", 5, 1) + b"HTTP", [])


def test_the_largest_hello_fits_a_handshake_frame() -> None:
    members = tuple(range(NODES_MAX))
    record = tuple((node, "ab" * 16) for node in members)
    hello = Hello(1, 1, 2, 8, "0" * 32, "1" * 16, bytes(32), "cd" * 16, members, record)
    assert decode(HANDSHAKE, encode(hello), []) == [hello]


def test_a_long_reason_is_cut_between_characters() -> None:
    (refused,) = decode(HANDSHAKE, encode(Refused(Refusal.SECRET, "é" * REASON_BYTES_MAX)), [])
    assert refused == Refused(Refusal.SECRET, "é" * (REASON_BYTES_MAX // 2))
