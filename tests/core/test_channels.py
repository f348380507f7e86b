"""One channel: chunks, the head that moves through them, and what a snapshot's copy shares."""

from __future__ import annotations

import random

from riverbus.core.state.channels import Channel
from riverbus.core.state.entries import Run
from riverbus.core.state.pieces import (
    CHUNK_BYTES,
    CHUNK_FEW,
    CHUNK_FEW_BYTES,
    CHUNK_LARGE_BYTES,
    LARGE_LENGTH,
    summarize,
)
from riverbus.core.state.rules import ChannelRule
from riverbus.core.state.store import Window
from riverbus.messages import MessageId

WINDOW = Window(ChannelRule(), 0)


def empty_channel() -> Channel:
    return Channel(0, b"c", WINDOW, WINDOW, 0, 0, 0, 0, 0)


def append(channel: Channel, ms: int, payloads: list[bytes], kind: int = 0) -> int:
    run = Run.of(b"c", kind, payloads)
    return channel.append(ms, 0, kind, run.count, run.body_bytes, run.lengths + run.body)


def sealed(channel: Channel) -> list[bytes]:
    return [chunk for chunk in channel.chunks or () if chunk is not None]


def test_a_large_run_is_a_chunk_of_its_own_without_a_trailer() -> None:
    channel = empty_channel()
    append(channel, 1, [b"x" * 100] * 256)
    [chunk] = sealed(channel)
    assert channel.tail == b""
    assert summarize(chunk).end == len(chunk)
    assert (summarize(chunk).count, summarize(chunk).last_seq) == (256, 255)


def test_small_messages_are_gathered() -> None:
    channel = empty_channel()
    for ms in range(1, 200):
        append(channel, ms, [b"x" * 100])
    assert all(CHUNK_BYTES <= len(chunk) < CHUNK_BYTES + 200 for chunk in sealed(channel))
    channel.invariants()


def test_messages_of_some_kilobytes_share_chunks_too() -> None:
    channel = empty_channel()
    for ms in range(1, 50):
        append(channel, ms, [b"x" * 3000])
    assert all(len(chunk) < CHUNK_FEW_BYTES + 3100 for chunk in sealed(channel))
    assert all(summarize(chunk).count >= CHUNK_FEW for chunk in sealed(channel))


def test_a_long_channel_has_larger_chunks() -> None:
    channel = empty_channel()
    for ms in range(1, LARGE_LENGTH + 1000):
        append(channel, ms, [b"x"])
    assert len(sealed(channel)[-1]) >= CHUNK_LARGE_BYTES
    channel.invariants()


def test_memory_given_back_is_what_was_taken() -> None:
    chance = random.Random(3)
    channel = empty_channel()
    before = held = channel.memory()
    for ms in range(1, 400):
        held += append(channel, ms, [b"x" * chance.choice([0, 1, 90, 5000])] * chance.choice([1, 1, 30]))
        if chance.random() < 0.5:
            held -= channel.drop_messages(chance.randint(0, channel.length), [])
        if chance.random() < 0.3:
            held -= channel.drop_bytes(chance.randint(0, channel.retained_bytes), [])
        if chance.random() < 0.1:
            held -= channel.drop_older(ms - chance.randint(0, 5), [], 100)
        assert held == channel.memory()
        channel.invariants()
    assert held - channel.drop_all([]) == before


def test_dropping_by_bytes_stops_at_the_first_message_that_makes_room() -> None:
    channel = empty_channel()
    append(channel, 1, [b"12345", b"", b"123", b""])
    channel.drop_bytes(5, [])
    assert (channel.length, channel.retained_bytes, channel.dropped_id) == (3, 3, MessageId(1, 0))
    channel.drop_bytes(1, [])
    assert (channel.length, channel.retained_bytes, channel.dropped_id) == (1, 0, MessageId(1, 2))


def test_dropped_chunks_are_handed_over_to_be_freed_later() -> None:
    channel = empty_channel()
    for ms in range(1, 300):
        append(channel, ms, [b"x" * 3000])
    chunks = sealed(channel)
    garbage: list[bytes | None] = []
    channel.drop_messages(280, garbage)
    assert garbage == chunks[: len(garbage)]
    assert len(garbage) == 280 // summarize(chunks[0]).count
    assert channel.chunks is not None
    assert len(channel.chunks) < len(chunks)
    channel.invariants()


def test_a_frozen_copy_does_not_change_with_its_channel() -> None:
    channel = empty_channel()
    for ms in range(1, 60):
        append(channel, ms, [b"x" * 200])
    channel.drop_messages(3, [])
    frozen = channel.frozen()
    expected = frozen.length, frozen.retained_bytes, frozen.dropped_id, frozen.last_id, frozen.memory()
    for ms in range(60, 120):
        append(channel, ms, [b"y" * 200])
        channel.drop_messages(1, [])
    frozen.invariants()
    assert (frozen.length, frozen.retained_bytes, frozen.dropped_id, frozen.last_id, frozen.memory()) == expected
