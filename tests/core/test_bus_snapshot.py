"""Snapshots: the state at one index, written while entries are applied, and read back equal or not at all."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.core.state import snapshot_writer, store
from riverbus.core.state.bus import Bus
from riverbus.core.state.rules import UNLIMITED, ChannelRule, Rules, rules_to_bytes
from riverbus.core.state.snapshot import BusRestore, DamagedSnapshot
from riverbus.messages import ID_MAX, ID_MIN, MessageId
from tests.core.bus_model import CHANNELS, START_MS, GivenEntry, GivenRun, entry_lists, rule_sets

FOREVER = Rules(default=ChannelRule(count=UNLIMITED, age_ms=UNLIMITED, bytes=UNLIMITED), shard_bytes_max=UNLIMITED)


def restore(slices: list[bytes]) -> Bus:
    reader = BusRestore(Rules())
    for framed in slices:
        reader.feed(framed)
    return reader.finish()


def all_slices(bus: Bus, bytes_max: int) -> list[bytes]:
    writer = bus.begin_snapshot()
    return list(iter(lambda: writer.next_slice(bytes_max), None))


def visible_state(bus: Bus) -> object:
    """All that reads can see, and what will decide the future."""
    state = [bus.running_hash, bus.applied_index, bus.time_ms, bus.rules, bus.memory_bytes, bus.retained_bytes]
    state += [bus.channel_count, bus.retained_messages, bus.dropped_messages]
    for name in CHANNELS:
        state.append(bus.range(name, ID_MIN, ID_MAX))
        state.append((bus.stream_info(name), bus.read_after(name, ID_MIN), bus.last_id(name)))
    return state


def filled_bus() -> Bus:
    bus = Bus(FOREVER)
    for index in range(1, 60):
        runs = [GivenRun(name, index % 3, [b"%d" % index * (at + index)]) for at, name in enumerate(CHANNELS)]
        bus.apply(index, GivenEntry(START_MS + index, runs).encode())
    return bus


@settings(max_examples=30, deadline=None)
@given(
    rules=rule_sets,
    other_rules=rule_sets,
    shard_bytes_max=st.sampled_from([5000, 30_000, UNLIMITED]),
    entries=entry_lists(kinds=(0, 0, 0, 0, 1, 2), entries_max=25),
    rules_at=st.sets(st.integers(0, 40), max_size=3),
    begin=st.integers(0, 20),
    slices_per_entry=st.integers(0, 3),
    bytes_max=st.sampled_from([50, 400, 5000]),
    steps=st.integers(1, 3),
)
def test_a_restored_bus_goes_on_like_the_one_that_was_written(
    rules: Rules,
    other_rules: Rules,
    shard_bytes_max: int,
    entries: list[GivenEntry],
    rules_at: set[int],
    begin: int,
    slices_per_entry: int,
    bytes_max: int,
    steps: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "TOMBSTONES_MAX", 2)
        for bound in ("SWEEP_STEPS", "EVICT_STEPS", "MIGRATE_STEPS", "CHUNKS_PER_STEP"):
            patch.setattr(store, bound, steps)
        patch.setattr(snapshot_writer, "RECORDS_PER_SLICE", 2)
        data = []
        for at, entry in enumerate(entries):
            changed = (rules, other_rules)[at % 2]
            changed = Rules(changed.channels, changed.default, shard_bytes_max)
            data.append(entry._replace(rules=rules_to_bytes(changed) if at in rules_at else None).encode())
        begin = min(begin, len(data))
        initial = Rules(rules.channels, rules.default, shard_bytes_max)
        bus, prefix = Bus(initial), Bus(initial)
        slices: list[bytes] = []
        for index, entry_data in enumerate(data[:begin], 1):
            bus.apply(index, entry_data)
            prefix.apply(index, entry_data)
        writer = bus.begin_snapshot()
        for index, entry_data in enumerate(data[begin:], begin + 1):
            for _ in range(slices_per_entry):
                slices += filter(None, [writer.next_slice(bytes_max)])
            bus.apply(index, entry_data)
            bus.invariants()
        slices += iter(lambda: writer.next_slice(bytes_max), None)
        assert all(len(framed) <= bytes_max + snapshot_writer.FRAME.size for framed in slices)
        restored = restore(slices)
        restored.invariants()
        assert visible_state(restored) == visible_state(prefix)
        for index, entry_data in enumerate(data[begin:], begin + 1):
            restored.apply(index, entry_data)
            restored.invariants()
        assert visible_state(restored) == visible_state(bus)
        assert visible_state(restore(all_slices(bus, 1000))) == visible_state(bus)


def test_every_flipped_bit_is_found() -> None:
    slices = all_slices(filled_bus(), 4000)
    assert len(slices) > 3
    chance = random.Random(1)
    for _ in range(400):
        damaged = list(slices)
        at = chance.randrange(len(slices))
        changed = bytearray(slices[at])
        bit = chance.randrange(8 * len(changed))
        changed[bit // 8] ^= 1 << bit % 8
        damaged[at] = bytes(changed)
        with pytest.raises(DamagedSnapshot):
            restore(damaged)


@pytest.mark.parametrize("bytes_max", [300, 4000])
def test_slices_lost_doubled_cut_or_out_of_order_are_found(bytes_max: int) -> None:
    slices = all_slices(filled_bus(), bytes_max)
    for at in range(len(slices)):
        variants = [
            slices[:at] + slices[at + 1 :],
            slices[:at] + slices[at : at + 1] + slices[at:],
            slices[:at],
            [*slices[:at], slices[at][:-1], *slices[at + 1 :]],
        ]
        if at:
            variants.append([*slices[: at - 1], slices[at], slices[at - 1], *slices[at + 1 :]])
        for damaged in variants:
            with pytest.raises(DamagedSnapshot):
                restore(damaged)


def test_a_message_larger_than_a_slice_spans_slices() -> None:
    bus = Bus(FOREVER)
    bus.apply(1, GivenEntry(START_MS, [GivenRun(b"a", 0, [b"x" * 100_000, b"y"])]).encode())
    slices = all_slices(bus, 8192)
    assert len(slices) == 13
    assert restore(slices).range(b"a", ID_MIN, ID_MAX) == bus.range(b"a", ID_MIN, ID_MAX)


def test_many_channels_take_many_bounded_slices() -> None:
    bus = Bus(FOREVER)
    names = [b"channel %d" % number for number in range(3000)]
    bus.apply(1, GivenEntry(START_MS, [GivenRun(name, 0, [b"x"]) for name in names]).encode())
    slices = all_slices(bus, 1 << 20)
    assert len(slices) > 3000 // snapshot_writer.RECORDS_PER_SLICE
    assert restore(slices).channel_count == 3000


def test_an_aborted_snapshot_lets_the_next_begin_and_gives_its_memory_back() -> None:
    bus = filled_bus()
    writer = bus.begin_snapshot()
    writer.next_slice(100)
    bus.apply(60, GivenEntry(START_MS + 60, [GivenRun(name, 0, [b"x"]) for name in CHANNELS]).encode())
    writer.abort()
    slices = all_slices(bus, 1000)
    bus.apply(61, GivenEntry(START_MS + 61, [GivenRun(CHANNELS[0], 0, [b"y"])]).encode())
    assert not bus._store.aborted
    assert writer.next_slice(100) is None
    assert restore(slices).applied_index == 60
    bus.invariants()


def test_an_empty_bus_is_restored_with_its_time_and_floor() -> None:
    bus = Bus(Rules(default=ChannelRule(age_ms=10)))
    bus.apply(7, GivenEntry(START_MS, [GivenRun(b"a", 0, [b"x"])]).encode())
    bus.apply(8, GivenEntry(START_MS + 10, []).encode())
    assert bus.channel_count == 0
    restored = restore(all_slices(bus, 100))
    assert (restored.applied_index, restored.time_ms, restored.running_hash) == (8, START_MS + 10, bus.running_hash)
    assert restored.last_id(b"a") == MessageId(START_MS, 0)
