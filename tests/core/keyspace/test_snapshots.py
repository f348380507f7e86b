"""The keyspace in snapshots: taken in the middle of traffic, restored equal; old ones; damage."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from xxhash import xxh3_64_intdigest, xxh3_128

from riverbus.commands import XInfoStream
from riverbus.core.state.bus import Bus
from riverbus.core.state.entries import BatchBuilder, encode_entry
from riverbus.core.state.keyspace import pending, records
from riverbus.core.state.keyspace.codes import Noun
from riverbus.core.state.rules import ChannelRule, Rules
from riverbus.core.state.snapshot import BusRestore, DamagedSnapshot
from riverbus.core.state.snapshot_writer import END, FRAME, HEAD, MAGIC_WITHOUT_KEYS, RECORD, RECORD_END, RECORD_HEAD
from riverbus.keyspace_commands import (
    Del,
    Expire,
    FlushAll,
    Keys,
    PublishOnce,
    Rename,
    SetString,
    Transaction,
    Trim,
    Ttl,
    XAck,
    XAdd,
    XAutoClaim,
    XClaim,
    XDel,
    XGroupCreate,
    XGroupDelConsumer,
    XPending,
    XReadGroup,
    XTrim,
)
from riverbus.messages import ID_MAX, ID_MIN, MessageId
from tests.core.keyspace.shard import START_MS, body, plain

NAMES = [b"a", b"b", b"c", b"d"]
GROUPS = [b"g", b"h"]
CONSUMERS = [b"ann", b"bob"]
RULES = Rules(default=ChannelRule(age_ms=2000))


def some_noun(dice: random.Random, bus: Bus) -> Noun:
    key, group, consumer = dice.choice(NAMES), dice.choice(GROUPS), dice.choice(CONSUMERS)
    known = [message.id for message in bus.range(key, ID_MIN, ID_MAX, 40)] or [MessageId(1, 1)]
    ids = tuple(dice.choices(known, k=dice.randint(1, 8)))
    producer = dice.choice([None, None, b"p", b"q"])
    trim = dice.choice([None, None, Trim(maxlen=30), Trim(maxlen=10, is_approximate=True, node_entries=4)])
    rare = [Del((key,)), Rename(key, dice.choice(NAMES)), XGroupDelConsumer(key, group, consumer)]
    return dice.choice(
        [
            XAdd(key, body(b"x" * dice.randint(0, 300)), trim=trim, producer=producer),
            XAdd(key, body(b"x"), producer=producer, idempotent_id=b"%d" % dice.randint(0, 5)),
            XGroupCreate(key, group, dice.choice([None, ID_MIN]), mkstream=True),
            XReadGroup(group, consumer, (key,), (None,), dice.choice([None, 1, 20])),
            XReadGroup(group, consumer, (key,), (ID_MIN,), 5),
            XAck(key, group, ids),
            XClaim(key, group, consumer, 0, ids, force=True),
            XAutoClaim(key, group, consumer, 50, ID_MIN, 10),
            XDel(key, ids),
            XTrim(key, Trim(maxlen=dice.randint(0, 50))),
            SetString(key, b"v" * dice.randint(0, 50), dice.choice([None, 300])),
            Expire(key, dice.choice([-1, 500, 3000]), False),
            PublishOnce(key, 0, b"once", b"%d" % dice.randint(0, 20)),
            Transaction((), (SetString(b"t", b"v"), XAdd(key, body(b"in transaction")))),
            *(rare if dice.random() < 0.2 else []),
            *([FlushAll()] if dice.random() < 0.02 else []),
        ]
    )


def some_entry(dice: random.Random, bus: Bus, at_ms: int) -> bytes:
    builder = BatchBuilder(1)
    for _ in range(dice.randint(1, 4)):
        if dice.random() < 0.3:
            builder.add_run(dice.choice(NAMES), dice.choice([0, 2]), [body(b"plain")] * dice.randint(1, 5))
        else:
            builder.add_write(some_noun(dice, bus))
    return encode_entry(at_ms, [builder.finish(1)])


def visible(bus: Bus) -> object:
    """What queries say of everything."""
    now_ms = bus.time_ms
    names = bus.query(Keys(b"*"), now_ms)
    assert isinstance(names, list)
    found: list[object] = [bus.running_hash, bus.memory_bytes, bus.key_count, sorted(names)]
    for name in (*NAMES, b"t"):
        found.append([name, bus.version(name, now_ms), plain(bus.query(Ttl(name, False), now_ms))])
        found.append(plain(bus.query(XInfoStream(name, True, 0), now_ms)))
        found += [plain(bus.query(XPending(name, group, limit=10**6), now_ms)) for group in GROUPS]
        found += [bus.last_id(name), bus.range(name, ID_MIN, ID_MAX)]
    return found


def restore(slices: Sequence[bytes]) -> Bus:
    restoring = BusRestore(Rules())
    for each in slices:
        restoring.feed(each)
    bus = restoring.finish()
    bus.invariants()
    return bus


@pytest.mark.parametrize("seed", range(12))
def test_a_snapshot_in_the_middle_of_traffic_is_the_state_where_it_began(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "BLOCK_ENTRIES", 8)
    monkeypatch.setattr(records, "BLOCK_ENTRIES", 8)
    monkeypatch.setattr(records, "ITEMS_PER_RECORD", 3)
    dice = random.Random(seed)
    bus = Bus(RULES)
    at_ms = START_MS
    kept: list[bytes] = []
    for _ in range(60):
        at_ms += dice.choice([0, 1, 40, 200])
        bus.apply(bus.applied_index + 1, some_entry(dice, bus, at_ms))
        bus.invariants()
    for turn in range(3):
        expected = visible(bus)
        writer = bus.begin_snapshot()
        slices: list[bytes] = []
        later: list[bytes] = []
        while (framed := writer.next_slice(dice.choice([200, 2000]))) is not None:
            slices.append(framed)
            at_ms += dice.choice([0, 1, 40])
            later.append(some_entry(dice, bus, at_ms))
            bus.apply(bus.applied_index + 1, later[-1])
            bus.invariants()
            if turn == 1 and len(slices) == 3:
                writer.abort()
                break
        if turn == 1:
            continue
        restored = restore(slices)
        assert visible(restored) == expected
        for each in later:
            restored.apply(restored.applied_index + 1, each)
            restored.invariants()
        assert visible(restored) == visible(bus)
        kept = slices
    assert kept


def test_two_replicas_that_apply_the_same_agree_in_every_reply() -> None:
    dice = random.Random(7)
    buses = Bus(RULES), Bus(RULES)
    at_ms = START_MS
    for index in range(1, 200):
        at_ms += dice.choice([0, 1, 40, 200])
        data = some_entry(dice, buses[0], at_ms)
        first, second = (bus.apply(index, data) for bus in buses)
        assert first.events == second.events
        for one, other in zip(first.results[0].results, second.results[0].results, strict=True):
            assert plain(getattr(one, "reply", None)) == plain(getattr(other, "reply", None))
            assert getattr(one, "events", None) == getattr(other, "events", None)
        assert buses[0].running_hash == buses[1].running_hash
    assert visible(buses[0]) == visible(buses[1])


def small_bus() -> Bus:
    bus = Bus(Rules())
    builder = BatchBuilder(1)
    for noun in (
        XAdd(b"s", body(b"x"), producer=b"p", idempotent_id=b"i"),
        XAdd(b"s", body(b"y")),
        XGroupCreate(b"s", b"g", ID_MIN),
        XReadGroup(b"g", b"ann", (b"s",), (None,)),
        SetString(b"k", b"v", 1000),
        PublishOnce(b"c", 0, b"once", b"key"),
    ):
        builder.add_write(noun)
    bus.apply(1, encode_entry(START_MS, [builder.finish(1)]))
    return bus


def slices_of(bus: Bus, bytes_max: int = 10_000) -> list[bytes]:
    writer = bus.begin_snapshot()
    return list(iter(lambda: writer.next_slice(bytes_max), None))


def test_every_flipped_bit_is_found() -> None:
    [framed] = slices_of(small_bus())
    for at in range(len(framed)):
        damaged = bytearray(framed)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(DamagedSnapshot):
            restore([bytes(damaged)])


def test_damage_below_the_checksum_is_found_too() -> None:
    """A writer that is wrong, not a disk: the checksums are right."""
    [framed] = slices_of(small_bus())
    payload = framed[FRAME.size :]
    for at in range(len(payload)):
        damaged = bytearray(payload)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(DamagedSnapshot):
            restore([FRAME.pack(len(damaged), xxh3_64_intdigest(bytes(damaged))) + damaged])


def test_a_snapshot_of_before_there_were_keys_is_read_and_its_streams_get_keys() -> None:
    bus = Bus(Rules())
    builder = BatchBuilder(1)
    builder.add_run(b"c", 0, [b"implicit"])
    builder.add_run(b"s", 2, [body(b"explicit")] * 3)
    bus.apply(1, encode_entry(START_MS, [builder.finish(1)]))
    restored = restore([as_version_1(slices_of(bus)[0], bus)])
    for name in (b"c", b"s"):
        assert restored.range(name, ID_MIN, ID_MAX) == bus.range(name, ID_MIN, ID_MAX)
    assert restored.query(Keys(b"*"), START_MS) == [b"s"]
    assert restored.memory_bytes == bus.memory_bytes


def as_version_1(framed: bytes, bus: Bus) -> bytes:
    """The format before the keyspace: its records are missing, and its memory in the totals."""
    payload = framed[FRAME.size :]
    parts: list[bytes] = []
    at = 0
    while at < len(payload):
        kind, size = RECORD.unpack_from(payload, at)
        record = payload[at : at + RECORD.size + size]
        at += len(record)
        if kind == RECORD_HEAD:
            fields = list(HEAD.unpack_from(record, RECORD.size))
            held = bus._store.keyspace.memory
            fields[0] = MAGIC_WITHOUT_KEYS
            fields[9:11] = fields[9] - held, fields[10] - held
            parts.append(RECORD.pack(kind, size) + HEAD.pack(*fields) + record[RECORD.size + HEAD.size :])
        elif kind == RECORD_END:
            tombstones, chunks, _ = END.unpack_from(record, RECORD.size)
            digest = xxh3_128(b"".join(parts)).digest()
            parts.append(RECORD.pack(kind, size) + END.pack(tombstones, chunks, digest))
        elif kind not in records.RECORDS:
            parts.append(record)
    old = b"".join(parts)
    return FRAME.pack(len(old), xxh3_64_intdigest(old)) + old
