"""FLUSHALL takes all keys away at once, and frees them in many entries: nothing pauses, and nobody sees that."""

from __future__ import annotations

import gc
import random
import time

import pytest

from riverbus.commands import XInfoStream, XLen, XRange
from riverbus.core.state.bus import Bus
from riverbus.core.state.entries import BatchBuilder, encode_entry
from riverbus.core.state.keyspace import keyspace
from riverbus.core.state.rules import Rules
from riverbus.core.state.snapshot import BusRestore
from riverbus.core.state.snapshot_writer import SnapshotWriter
from riverbus.keyspace_commands import DbSize, Del, Exists, FlushAll, Rename, SetString, XAdd, XGroupCreate
from riverbus.messages import ID_MAX, ID_MIN, Kind, MessageId
from tests.core.keyspace.shard import FOREVER, START_MS, Shard, body, entry

KEYS = 1_000_000
ENTRY_S_MAX = 0.020
SLICE_BYTES = 1 << 20


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry frees one partition."""
    monkeypatch.setattr(keyspace, "FLUSH_STEPS", 1)


def whole(name: bytes) -> XRange:
    return XRange(name, ID_MIN, ID_MAX, None, False)


def filled(count: int) -> Shard:
    shard = Shard()
    for number in range(count):
        shard.add(b"s%d" % number, "1-0 2-0")
        shard.do(SetString(b"k%d" % number, b"v", 10_000 if number % 2 else None))
    shard.publish(b"log", b"kept")
    return shard


def settle(shard: Shard) -> int:
    entries = 0
    while shard.bus.is_flushing:
        assert shard.bus.next_expiry_ms is not None
        assert shard.bus.next_expiry_ms <= shard.at_ms, "the leader goes on at once"
        shard.tick(1)
        entries += 1
    return entries


def test_a_flush_hides_all_keys_at_once_and_frees_them_later(slow: None) -> None:
    shard = filled(20)
    shard.do(XGroupCreate(b"s1", b"g", ID_MIN))
    assert shard.do(FlushAll()) == "OK"
    assert shard.bus.is_flushing
    memory = shard.bus.memory_bytes
    assert shard.ask(DbSize()) == 0
    assert shard.bus.length(b"log") == 1
    for number in range(20):
        name = b"s%d" % number
        assert shard.ask(Exists((name, b"k%d" % number))) == 0
        assert (shard.ask(XLen(name)), shard.ask(whole(name))) == (0, [])
        assert shard.ask(XInfoStream(name, False, 0)) == "ERR no such key"
        assert (shard.bus.length(name), shard.bus.range(name, ID_MIN, ID_MAX)) == (0, [])
        assert shard.bus.read_after(name, ID_MIN).runs == []
        assert shard.bus.stream_info(name)["is_explicit"] is False
    assert settle(shard) > 10
    assert shard.bus.memory_bytes < memory
    assert shard.bus.length(b"log") == 1


def test_a_name_that_was_flushed_is_free_at_once(slow: None) -> None:
    shard = filled(8)
    shard.do(FlushAll())
    assert shard.do(XAdd(b"s0", body(b"new"), MessageId(1, 1))) == b"1-1"
    assert shard.do(SetString(b"s1", b"a string")) == "OK"
    assert isinstance(shard.publish(b"s2", b"message"), MessageId)
    assert isinstance(shard.publish(b"s3", body(b"of a publisher"), kind=Kind.XADD), MessageId)
    assert shard.do(SetString(b"k4", b"renamed")) == "OK"
    assert shard.do(Rename(b"k4", b"s4")) == "OK"
    assert shard.do(Del((b"s5",))) == 0
    for _ in range(2):
        assert shard.ask(whole(b"s0")) == [entry("1-1", b"new")]
        assert shard.ask(XLen(b"s2")) == shard.ask(XLen(b"s3")) == 1
        assert shard.ask(DbSize()) == 4
        settle(shard)


def test_an_id_of_the_future_binds_nobody_after_a_flush(slow: None) -> None:
    shard = filled(4)
    shard.add(b"s0", "99999999999-0")
    shard.do(FlushAll())
    assert shard.bus.last_id(b"s0").ms <= shard.at_ms
    settle(shard)
    first = shard.publish(b"s0", b"now")
    assert isinstance(first, MessageId)
    assert first.ms == shard.at_ms


def test_a_flush_within_a_flush(slow: None) -> None:
    shard = filled(10)
    shard.do(FlushAll())
    for number in range(10):
        shard.add(b"s%d" % number, "5-0")
    shard.do(FlushAll())
    assert shard.ask(DbSize()) == 0
    shard.add(b"s3", "1-0")
    settle(shard)
    assert shard.ask(DbSize()) == 1
    assert shard.ask(whole(b"s3")) == [entry("1-0")]


def finish(writer: SnapshotWriter, slices: list[bytes]) -> Bus:
    while (framed := writer.next_slice(500)) is not None:
        slices.append(framed)
    restoring = BusRestore(Rules())
    for framed in slices:
        restoring.feed(framed)
    restored = restoring.finish()
    restored.invariants()
    return restored


@pytest.mark.parametrize("before", [0, 3, 8])
def test_a_snapshot_under_way_has_what_was_flushed_since(slow: None, before: int) -> None:
    """And a replica that comes of it, whose partitions have another order, goes the same way as the others."""
    shard = filled(30)
    shard.do(SetString(b"k1", b"changed"))
    begun = shard.bus.applied_index
    writer, slices = shard.bus.begin_snapshot(), []
    for _ in range(before):
        framed = writer.next_slice(500)
        assert framed is not None
        slices.append(framed)
    shard.do(SetString(b"k2", b"changed since"))
    shard.do(FlushAll())
    shard.do(SetString(b"k3", b"another life"))
    restored = finish(writer, slices)
    assert restored.query(DbSize(), START_MS) == 60
    settle(shard)
    for index in range(begun + 1, shard.bus.applied_index + 1):
        restored.apply(index, shard.entries[index - 1])
        restored.invariants()
    assert restored.running_hash == shard.bus.running_hash


def test_a_snapshot_that_is_given_up_lets_go_of_what_was_flushed(slow: None) -> None:
    shard = filled(30)
    writer = shard.bus.begin_snapshot()
    shard.do(FlushAll())
    writer.abort()
    settle(shard)
    while shard.bus._store.aborted:
        shard.tick(1)
    assert not writer._key_partitions
    finish(shard.bus.begin_snapshot(), [])


@pytest.mark.parametrize("seed", range(8))
def test_replicas_agree_through_any_flushes(slow: None, seed: int) -> None:
    dice = random.Random(seed)
    shard = Shard()
    followers: list[Bus] = []
    names = [b"n%d" % number for number in range(12)]
    for _ in range(150):
        shard.at_ms += dice.choice((0, 1, 50))
        name = dice.choice(names)
        match dice.randrange(7):
            case 0:
                shard.do(FlushAll())
            case 1:
                shard.do(SetString(name, b"v", dice.choice((None, 30))))
            case 2:
                shard.do(Del((name,)))
            case 3:
                shard.publish(name, b"p")
            case 4:
                shard.do(Rename(name, dice.choice(names)))
            case _:
                shard.do(XAdd(name, body(b"x")))
        for bus in followers:
            bus.apply(bus.applied_index + 1, shard.entries[-1])
            assert bus.running_hash == shard.bus.running_hash
        if not shard.bus.is_flushing and len(followers) < 4 and dice.random() < 0.2:
            followers.append(finish(shard.bus.begin_snapshot(), []))
    assert followers


@pytest.mark.parametrize("has_snapshot", [False, True])
def test_no_entry_is_long_in_a_flush_of_a_million_keys(has_snapshot: bool) -> None:
    bus = Bus(FOREVER)
    space = bus._store.keyspace
    worst_s, entries = 0.0, 0

    def apply(builder: BatchBuilder) -> None:
        nonlocal worst_s, entries
        data = encode_entry(START_MS, [builder.finish(1)])
        begun = time.thread_time()
        bus.apply(bus.applied_index + 1, data)
        worst_s, entries = max(worst_s, time.thread_time() - begun), entries + 1

    gc.collect()
    gc.disable()
    try:
        for number in range(KEYS):
            key = space.new_string(b"key:%d" % number, b"v")
            if number % 2:
                space.set_expiry(key, START_MS * 2 + number)
        space.events.clear()
        writer = bus.begin_snapshot() if has_snapshot else None
        builder = BatchBuilder(1)
        builder.add_write(FlushAll())
        apply(builder)
        assert bus.query(DbSize(), START_MS) == 0
        while space.has_flushed or writer is not None:
            begun = time.thread_time()
            if writer is not None and writer.next_slice(SLICE_BYTES) is None:
                writer = None
            worst_s = max(worst_s, time.thread_time() - begun)
            apply(BatchBuilder(1))
    finally:
        gc.enable()
    print(f"{entries} entries, the longest {worst_s * 1000:.1f} ms")
    assert worst_s < ENTRY_S_MAX
