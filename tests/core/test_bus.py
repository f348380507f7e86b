"""The shard's state machine against an obviously correct model, and its promises one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.core.state import store
from riverbus.core.state.bus import Bus
from riverbus.core.state.entries import DamagedEntry, Run, UnknownEntry, encode_entry
from riverbus.core.state.rules import UNLIMITED, ChannelRule, Rules, rules_to_bytes
from riverbus.messages import ID_MAX, ID_MIN, Kind, Message, MessageId, OutOfMemory
from tests.core.bus_model import CHANNELS, START_MS, GivenEntry, GivenRun, Model, entry_lists, rule_sets

FOREVER = Rules(default=ChannelRule(count=UNLIMITED, age_ms=UNLIMITED, bytes=UNLIMITED), shard_bytes_max=UNLIMITED)


def publish(bus: Bus, time_ms: int, *runs: tuple[bytes, list[bytes]], kind: int = Kind.PUBLISH) -> list[MessageId]:
    entry = GivenEntry(time_ms, [GivenRun(channel, kind, payloads) for channel, payloads in runs])
    [batch] = bus.apply(bus.applied_index + 1, entry.encode()).results
    assert all(run.error is None for run in batch.runs)
    bus.invariants()
    return [run.first for run in batch.runs if run.first is not None]


def tick(bus: Bus, time_ms: int, times: int = 1) -> None:
    for _ in range(times):
        bus.apply(bus.applied_index + 1, encode_entry(time_ms, []))
        bus.invariants()


def bodies(bus: Bus, channel: bytes) -> list[bytes]:
    return [message.body for message in bus.range(channel, ID_MIN, ID_MAX)]


def read_all(
    bus: Bus, channel: bytes, after: MessageId, count: int | None, bytes_max: int | None, kinds: int | None
) -> tuple[MessageId | None, list[Message]]:
    """Follows the cursor to the end."""
    gap = None
    found: list[Message] = []
    for turn in range(10_000):
        result = bus.read_after(channel, after, count, bytes_max, kinds)
        assert result.gap_until is None or turn == 0
        gap = gap or result.gap_until
        assert count is None or sum(len(payloads) for _, _, payloads in result.runs) <= count
        size = sum(len(payload) for _, _, payloads in result.runs for payload in payloads)
        is_single = sum(len(payloads) for _, _, payloads in result.runs) == 1
        assert bytes_max is None or size <= bytes_max or is_single
        for kind, first, payloads in result.runs:
            found += [Message(first.plus(at), kind, payload) for at, payload in enumerate(payloads)]
        if not result.more:
            return gap, found
        assert result.cursor > after
        after = result.cursor
    raise AssertionError("the read never ends")


def check_against_model(bus: Bus, model: Model, data: st.DataObject) -> None:
    for name, expected in model.channels.items():
        visible = expected.visible(model.time_ms)
        gone = expected.gone_until(model.time_ms)
        assert bus.range(name, ID_MIN, ID_MAX) == visible
        assert bus.length(name) == len(visible)
        assert bus.last_id(name) == (expected.log[-1].id if expected.log else ID_MIN)
        assert bus.range(name, ID_MIN, ID_MAX, reverse=True) == visible[::-1]
        info = bus.stream_info(name)
        assert (info["length"], info["max_deleted_id"]) == (len(visible), gone)
        assert info["first"] == (visible[0] if visible else None)
        assert info["last"] == (visible[-1] if visible else None)
    name = data.draw(st.sampled_from(CHANNELS))
    expected = model.channels[name]
    visible = expected.visible(model.time_ms)
    gone = expected.gone_until(model.time_ms)
    ids = [message.id for message in expected.log] + [ID_MIN, MessageId(START_MS + 30, 2), ID_MAX]
    after, other = data.draw(st.sampled_from(ids)), data.draw(st.sampled_from(ids))
    count = data.draw(st.sampled_from([None, 1, 3, 50]))
    bytes_max = data.draw(st.sampled_from([None, 1, 1000, 10_000]))
    kinds = data.draw(st.sampled_from([None, 1, 2, 4, 3]))
    wanted = [m for m in visible if m.id > after and (kinds is None or kinds >> m.kind & 1)]
    assert read_all(bus, name, after, count, bytes_max, kinds) == (gone if gone > after else None, wanted)
    between = [message for message in visible if after <= message.id <= other]
    assert bus.range(name, after, other, count) == between[:count]
    assert bus.range(name, after, other, count, reverse=True) == between[::-1][:count]


@settings(max_examples=60, deadline=None)
@given(rules=rule_sets, entries=entry_lists(kinds=(0, 1)), data=st.data())
def test_windows_hold_exactly_what_the_rules_say(rules: Rules, entries: list[GivenEntry], data: st.DataObject) -> None:
    bus, model = Bus(rules), Model(rules)
    for index, entry in enumerate(entries, 1):
        applied = bus.apply(index, entry.encode())
        assert [run.first for run in applied.results[0].runs] == model.apply(entry)
        bus.invariants()
    check_against_model(bus, model, data)


@settings(max_examples=40, deadline=None)
@given(rules=rule_sets, entries=entry_lists(kinds=(0, 0, 0, 2)), data=st.data())
def test_explicit_streams_keep_everything(rules: Rules, entries: list[GivenEntry], data: st.DataObject) -> None:
    bus, model = Bus(rules), Model(rules)
    for index, entry in enumerate(entries, 1):
        applied = bus.apply(index, entry.encode())
        assert [run.first for run in applied.results[0].runs] == model.apply(entry)
        bus.invariants()
        for name, expected in model.channels.items():
            assert bus.range(name, ID_MIN, ID_MAX) == expected.visible(model.time_ms)
    check_against_model(bus, model, data)


@settings(max_examples=40, deadline=None)
@given(
    entries=entry_lists(kinds=(0, 0, 1, 2)),
    shard_bytes_max=st.sampled_from([3000, 10_000, 60_000]),
    age_ms=st.sampled_from([50, 1000, UNLIMITED]),
)
def test_short_of_memory_each_channel_keeps_its_newest(
    entries: list[GivenEntry], shard_bytes_max: int, age_ms: int
) -> None:
    default = ChannelRule(count=UNLIMITED, age_ms=age_ms, bytes=UNLIMITED)
    rules = Rules(default=default, shard_bytes_max=shard_bytes_max)
    bus, model = Bus(rules), Model(rules)
    for index, entry in enumerate(entries, 1):
        results = bus.apply(index, entry.encode()).results[0].runs
        admitted = [run for run, result in zip(entry.runs, results, strict=True) if result.error is None]
        for result in results:
            assert result.error is None or isinstance(result.error, OutOfMemory)
        assert [r.first for r in results if r.first] == model.apply(GivenEntry(entry.time_ms, admitted))
        bus.invariants()
        assert bus.memory_bytes <= shard_bytes_max
        for name, expected in model.channels.items():
            messages = bus.range(name, ID_MIN, ID_MAX)
            visible = expected.visible(model.time_ms)
            assert messages == visible[len(visible) - len(messages) :]
            assert not expected.is_explicit or messages == expected.log[len(expected.log) - len(messages) :]
            gone = len(expected.log) - len(messages)
            gap = bus.read_after(name, ID_MIN).gap_until
            assert gap == (expected.log[gone - 1].id if gone else None)


@settings(max_examples=30, deadline=None)
@given(entries=entry_lists(), tombstones_max=st.integers(0, 2), steps=st.integers(1, 2))
def test_ids_rise_and_no_gap_is_silent_whatever_was_forgotten(
    entries: list[GivenEntry], tombstones_max: int, steps: int
) -> None:
    rules = Rules(default=ChannelRule(count=5, age_ms=50), shard_bytes_max=8000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "TOMBSTONES_MAX", tombstones_max)
        patch.setattr(store, "SWEEP_STEPS", steps)
        patch.setattr(store, "EVICT_STEPS", steps)
        bus, ever = Bus(rules), dict[bytes, list[MessageId]]()
        for index, entry in enumerate(entries, 1):
            for run, result in zip(entry.runs, bus.apply(index, entry.encode()).results[0].runs, strict=True):
                assert result.first is not None
                ids = ever.setdefault(run.channel, [ID_MIN])
                assert result.first > ids[-1]
                ids += [result.first.plus(at) for at in range(len(run.payloads))]
            bus.invariants()
            for name, ids in ever.items():
                assert bus.last_id(name) >= ids[-1]
                there = {message.id for message in bus.range(name, ID_MIN, ID_MAX)}
                for after in ids:
                    gap, found = read_all(bus, name, after, None, None, None)
                    missing = [each for each in ids if each > after and each not in there]
                    assert (gap or ID_MIN) >= max(missing, default=ID_MIN)
                    assert [message.id for message in found] == [each for each in ids if each > after and each in there]


# --- one promise at a time --------------------------------------------------------------------------------------------


def test_ids_go_on_when_a_new_leader_has_an_earlier_clock() -> None:
    bus = Bus(FOREVER)
    assert publish(bus, START_MS, (b"a", [b"1", b"2"])) == [MessageId(START_MS, 0)]
    assert publish(bus, START_MS - 5000, (b"a", [b"3"]), (b"b", [b"4"])) == [
        MessageId(START_MS, 2),
        MessageId(START_MS, 0),
    ]
    assert bus.time_ms == START_MS


def test_an_idle_channel_is_forgotten_and_its_reader_is_told_of_the_gap() -> None:
    bus = Bus(Rules(default=ChannelRule(age_ms=100)))
    assert bus.next_expiry_ms is None
    [first] = publish(bus, START_MS, (b"a", [b"1", b"2"]))
    assert bus.next_expiry_ms == START_MS + 100
    tick(bus, START_MS + 99)
    assert bodies(bus, b"a") == [b"1", b"2"]
    tick(bus, START_MS + 100)
    assert (bus.channel_count, bus.memory_bytes, bus.channel(b"a")) == (0, 0, None)
    assert bus.read_after(b"a", first) == (first.plus(1), [], first.plus(1), False)
    assert bus.read_after(b"a", first.plus(1)).gap_until is None
    assert bus.last_id(b"a") == first.plus(1)


def test_a_channel_that_was_forgotten_in_the_same_millisecond_gets_higher_ids() -> None:
    bus = Bus(Rules(default=ChannelRule(age_ms=0)))
    assert publish(bus, START_MS, (b"a", [b"1"])) == [MessageId(START_MS, 0)]
    assert bus.channel_count == 0
    assert publish(bus, START_MS, (b"a", [b"2"])) == [MessageId(START_MS, 1)]


def test_the_sweep_goes_on_over_entries() -> None:
    bus = Bus(Rules(default=ChannelRule(age_ms=100)))
    publish(bus, START_MS, *((b"channel %d" % number, [b"x"]) for number in range(1000)))
    tick(bus, START_MS + 200)
    assert bus.channel_count == 1000 - store.SWEEP_STEPS
    assert all(not bodies(bus, b"channel %d" % number) for number in range(1000))
    assert bus.next_expiry_ms is not None
    assert bus.next_expiry_ms <= bus.time_ms
    tick(bus, START_MS + 200, times=3)
    assert bus.channel_count == 0


def test_the_oldest_chunks_of_all_channels_go_first_when_memory_is_short() -> None:
    bus = Bus(Rules(default=FOREVER.default, shard_bytes_max=20_000))
    for number in range(6):
        publish(bus, START_MS + number, (b"%d" % number, [b"x" * 3000]))
    assert [bodies(bus, b"%d" % number) != [] for number in range(6)] == [False, True, True, True, True, True]
    publish(bus, START_MS + 10, (b"1", [b"y" * 6000]))
    # Channel 1 has the oldest message, but in a chunk that is the newest by now: 2 goes.
    assert [len(bodies(bus, b"%d" % number)) for number in range(6)] == [0, 2, 0, 1, 1, 1]


def test_xadd_beyond_the_memory_is_refused_and_leaves_nothing() -> None:
    bus = Bus(Rules(default=FOREVER.default, shard_bytes_max=10_000))
    publish(bus, START_MS, (b"s", [b"x" * 4000]), kind=Kind.XADD)
    publish(bus, START_MS, (b"c", [b"x" * 4000]))
    before = bus.running_hash
    entry = GivenEntry(
        START_MS, [GivenRun(b"new", Kind.XADD, [b"y" * 6000]), GivenRun(b"s", Kind.PUBLISH, [b"y" * 6000])]
    )
    [batch] = bus.apply(bus.applied_index + 1, entry.encode()).results
    assert [(run.first, type(run.error)) for run in batch.runs] == [(None, OutOfMemory), (None, OutOfMemory)]
    assert bus.running_hash != before
    assert bus.channel(b"new") is None
    assert len(bodies(bus, b"s")) == 1


def test_new_rules_reach_idle_channels_bit_by_bit_and_never_bring_back_what_was_too_old() -> None:
    bus = Bus(Rules(default=ChannelRule(age_ms=100)))
    names = [b"channel %d" % number for number in range(600)]
    publish(bus, START_MS, *((name, [b"old"]) for name in names))
    publish(bus, START_MS + 80, *((name, [b"1", b"2", b"3"]) for name in names))
    longer = Rules(default=ChannelRule(count=2, age_ms=10_000))
    entry = GivenEntry(START_MS + 120, [], rules_to_bytes(longer))
    bus.apply(bus.applied_index + 1, entry.encode())
    bus.invariants()
    assert bus.rules == longer
    assert all(bodies(bus, name) in ([b"1", b"2", b"3"], [b"2", b"3"]) for name in names)
    assert any(bodies(bus, name) == [b"1", b"2", b"3"] for name in names)
    assert bus.next_expiry_ms == bus.time_ms
    publish(bus, START_MS + 120, (names[-1], [b"4"]))
    assert bodies(bus, names[-1]) == [b"3", b"4"]
    tick(bus, START_MS + 1000, times=4)
    assert all(bodies(bus, name) == [b"2", b"3"] for name in names[:-1])
    assert bus.next_expiry_ms is not None
    assert bus.next_expiry_ms > bus.time_ms


def test_rules_that_follow_rules_at_once_wait_for_their_turn() -> None:
    bus = Bus(FOREVER)
    publish(bus, START_MS, *((b"%d" % number, [b"1", b"2", b"3"]) for number in range(600)))
    second, third = Rules(default=ChannelRule(count=2)), Rules(default=ChannelRule(count=1))
    for rules in (second, third):
        bus.apply(bus.applied_index + 1, GivenEntry(START_MS, [], rules_to_bytes(rules)).encode())
        bus.invariants()
    assert bus.rules == third
    tick(bus, START_MS, times=6)
    assert bus.retained_messages == 600


def test_the_first_rule_that_matches_holds() -> None:
    rules = Rules(channels=(ChannelRule("orders.*", count=3), ChannelRule("*", count=2)), default=ChannelRule(count=1))
    bus = Bus(rules)
    publish(bus, START_MS, (b"orders.1", [b"x"] * 9), (b"order", [b"x"] * 9))
    assert (bus.length(b"orders.1"), bus.length(b"order")) == (3, 2)


def test_small_messages_one_by_one_share_chunks() -> None:
    bus = Bus(FOREVER)
    for number in range(500):
        publish(bus, START_MS + number, (b"a", [b"%03d" % number]))
    channel = bus.channel(b"a")
    assert channel is not None
    assert channel.chunks is not None
    assert len(channel.chunks) < 10
    assert bodies(bus, b"a") == [b"%03d" % number for number in range(500)]


def test_a_window_of_one_message_holds_no_more_than_twice_that() -> None:
    bus = Bus(Rules(default=ChannelRule(count=1)))
    for number in range(100):
        publish(bus, START_MS + number, (b"a", [b"x" * 100] * (1 + number % 2 * 50)))
        assert bus.memory_bytes < 1000


def test_the_hash_depends_on_every_entry_and_its_time() -> None:
    hashes = set()
    for time_ms, payload in ((START_MS, b"1"), (START_MS, b"2"), (START_MS + 1, b"1")):
        bus = Bus(FOREVER)
        publish(bus, time_ms, (b"a", [payload]))
        hashes.add(bus.running_hash)
    assert len(hashes) == 3


def test_an_entry_that_cannot_be_read_changes_nothing() -> None:
    bus = Bus(FOREVER)
    good = GivenEntry(START_MS, [GivenRun(b"a", 0, [b"1"])]).encode()
    state = bus.running_hash, bus.applied_index
    with pytest.raises(DamagedEntry):
        bus.apply(1, good[:-1])
    with pytest.raises(UnknownEntry):
        bus.apply(1, b"\x02" + good[1:])
    assert (bus.running_hash, bus.applied_index, bus.channel_count) == (*state, 0)


def test_an_empty_entry_only_counts() -> None:
    bus = Bus(FOREVER, applied_index=5)
    assert bus.apply(6, b"").results == []
    assert (bus.applied_index, bus.running_hash) == (6, bytes(16))


def test_a_read_that_skips_unwanted_kinds_is_bounded_and_goes_on() -> None:
    bus = Bus(FOREVER)
    for number in range(50):
        runs = [GivenRun(b"a", at % 2, [b"x"]) for at in range(200)]
        bus.apply(number + 1, GivenEntry(START_MS + number, runs).encode())
    publish(bus, START_MS + 100, (b"a", [b"wanted"]), kind=Kind.XADD)
    first = bus.read_after(b"a", ID_MIN, kinds=1 << Kind.XADD)
    assert (first.runs, first.more) == ([], True)
    assert [message.body for message in read_all(bus, b"a", ID_MIN, None, None, 1 << Kind.XADD)[1]] == [b"wanted"]


def test_a_run_made_by_hand_reads_like_one_from_an_entry() -> None:
    run = Run.of(b"a", 0, [b"x", b"", b"yz"])
    assert (run.payloads(), run.body, len(run.lengths)) == ([b"x", b"", b"yz"], b"xyz", 12)
