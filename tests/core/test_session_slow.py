"""Slow subscribers hold a cursor, not a copy: no gap without a marker, no duplicate, in order, whatever happens."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from riverbus import limits
from riverbus.commands import BusSubscribe, Command, Hello, Publish, Subscribe, Unsubscribe
from riverbus.core.state.entries import BatchBuilder, encode_entry
from riverbus.core.state.rules import ChannelRule, Rules
from riverbus.core.state.snapshot import BusRestore
from riverbus.limits import BEHIND_READ_BYTES, BEHIND_VISITS_MAX
from riverbus.messages import ID_MIN, Kind
from riverbus.wire.parsing import GAP_CHANNEL
from tests.core.fakes import FakeClient, FakeNode

CHANNELS = [b"a", b"b", b"ab"]
PATTERNS = [b"a*", b"*"]
SMALL = Rules(default=ChannelRule(count=6))


def publish(channel: bytes, *payloads: bytes, kind: Kind = Kind.PUBLISH) -> Publish:
    return Publish(channel, kind, list(payloads))


class Reader:
    """A subscriber that checks what it gets. Messages of (channel, kind) are numbered from 1, as published."""

    def __init__(self, client: FakeClient) -> None:
        self.client = client
        self.is_blocked = False
        self.last: dict[tuple[str, bytes, bytes | None, str], int] = {}  # by subscription and kind: the last number
        self.has_marker: dict[tuple[str, bytes, bytes | None], bool] = defaultdict(bool)

    def check_arrivals(self) -> None:
        for item in self.client.read():
            kind = item[0].decode() if isinstance(item, list) else ""
            if kind == "bus.gap":
                self.has_marker["bus", item[1], None] = True
            elif kind == "bus.message":
                self._on_message(("bus", item[1], None), item[3])
            elif kind in ("message", "smessage"):
                self._on_plain("shard" if kind == "smessage" else "channel", None, item[1], item[2])
            elif kind == "pmessage":
                self._on_plain("pattern", item[1], item[2], item[3])

    def _on_plain(self, space: str, pattern: bytes | None, channel: bytes, payload: bytes) -> None:
        if channel == GAP_CHANNEL:
            self.has_marker[space, payload.split(b" ")[0], pattern] = True
        else:
            self._on_message((space, channel, pattern), payload)

    def _on_message(self, key: tuple[str, bytes, bytes | None], payload: bytes) -> None:
        kind, _, number_text = payload.partition(b":")
        number = int(number_text)
        place = (*key, kind.decode())
        assert place in self.last, "delivered without a subscription"
        assert number > self.last[place], f"{place}: {number} again, or out of order"
        if number != self.last[place] + 1:
            assert self.has_marker[key], f"{place}: silent gap from {self.last[place]} to {number}"
        self.last[place] = number
        if key[0] != "bus":  # the two kinds of a bus subscription share a marker
            self.has_marker[key] = False


class SlowSubscribers(RuleBasedStateMachine):
    """Commits, turns, full and drained sockets, subscriptions and snapshot installs in any order."""

    @initialize(versions=st.lists(st.sampled_from([2, 3]), min_size=2, max_size=3))
    def start(self, versions: list[int]) -> None:
        limits.BEHIND_READ_BYTES, limits.BEHIND_VISITS_MAX = 12, 2
        self.node = FakeNode(SMALL)
        self.publisher = self.node.connect(name="publisher")
        self.readers = [Reader(self.node.connect(version)) for version in versions]
        self.numbers: dict[tuple[bytes, str], int] = defaultdict(int)
        for reader, space in zip(self.readers, ("channel", "pattern", "bus"), strict=False):
            name = b"a*" if space == "pattern" else b"a"
            session = reader.client.session
            session.handle([BusSubscribe(name, None) if space == "bus" else Subscribe(space, (name,))])
            self._begin(reader, space, name)
        self.node.end_turn()

    def teardown(self) -> None:
        limits.BEHIND_READ_BYTES, limits.BEHIND_VISITS_MAX = BEHIND_READ_BYTES, BEHIND_VISITS_MAX
        if hasattr(self, "node"):
            self.check_complete()

    def _payloads(self, channel: bytes, kind: Kind, count: int) -> list[bytes]:
        name = "p" if kind is Kind.PUBLISH else "s"
        start = self.numbers[channel, name]
        self.numbers[channel, name] += count
        return [b"%s:%d" % (name.encode(), start + at + 1) for at in range(count)]

    @rule(
        channel=st.sampled_from(CHANNELS),
        kind=st.sampled_from([Kind.PUBLISH, Kind.PUBLISH, Kind.SPUBLISH]),
        count=st.integers(1, 4),
        ms=st.sampled_from([0, 0, 1]),
        is_turn=st.booleans(),
    )
    def publish_some(self, channel: bytes, kind: Kind, count: int, ms: int, is_turn: bool) -> None:
        """Applied at once; written at the end of the turn."""
        self.node.now += ms / 1000
        self.publisher.session.handle([publish(channel, *self._payloads(channel, kind, count), kind=kind)])
        self.node.commit(self.node.shard_of(channel))
        if is_turn:
            self.end_turn()

    @rule()
    def end_turn(self) -> None:
        self.node.fire_timers()
        self.node.end_turn()

    @rule(which=st.integers(0, 2))
    def block(self, which: int) -> None:
        reader = self.readers[which % len(self.readers)]
        reader.client.session.on_blocked()
        reader.is_blocked = True

    @rule(which=st.integers(0, 2))
    def unblock(self, which: int) -> None:
        reader = self.readers[which % len(self.readers)]
        if reader.is_blocked:
            reader.client.session.on_writable()
            reader.is_blocked = False

    @rule(which=st.integers(0, 2), runs=st.lists(st.tuples(st.sampled_from(CHANNELS), st.integers(1, 3)), max_size=4))
    def fall_behind_and_drain(self, which: int, runs: list[tuple[bytes, int]]) -> None:
        self.block(which)
        for channel, count in runs:
            self.publish_some(channel, Kind.PUBLISH, count, 0, True)
        self.unblock(which)
        self.end_turn()

    def _begin(self, reader: Reader, space: str, name: bytes) -> None:
        """What is published so far is not for this subscription, unless it asks for history."""
        for channel in CHANNELS:
            if space == "pattern" and (name == b"*" or channel.startswith(b"a")):
                self._expect_from(reader, ("pattern", channel, name), "p")
            elif space != "pattern" and name == channel:
                for kind in {"channel": "p", "shard": "s", "bus": "ps"}[space]:
                    self._expect_from(reader, (space, channel, None), kind)

    def _expect_from(self, reader: Reader, key: tuple[str, bytes, bytes | None], kind: str) -> None:
        reader.last[(*key, kind)] = self.numbers[key[1], kind]
        reader.has_marker[key] = False

    @rule(which=st.integers(0, 2), subscription=st.sampled_from(["channel", "shard", "pattern"]), at=st.integers(0, 2))
    def subscribe(self, which: int, subscription: str, at: int) -> None:
        reader = self.readers[which % len(self.readers)]
        names = PATTERNS if subscription == "pattern" else CHANNELS
        name = names[at % len(names)]
        session = reader.client.session
        if name not in session.subscribed[subscription]:
            session.handle([Subscribe(subscription, (name,))])
            reader.check_arrivals()
            self._begin(reader, subscription, name)

    @rule(which=st.integers(0, 2), at=st.integers(0, 2), from_start=st.booleans())
    def bus_subscribe(self, which: int, at: int, from_start: bool) -> None:
        reader = self.readers[which % len(self.readers)]
        channel = CHANNELS[at]
        if channel not in reader.client.session.subscribed["bus"]:
            reader.client.session.handle([BusSubscribe(channel, ID_MIN if from_start else None)])
            reader.check_arrivals()
            self._begin(reader, "bus", channel)
            if from_start:
                reader.last["bus", channel, None, "p"] = reader.last["bus", channel, None, "s"] = 0

    @rule(which=st.integers(0, 2), subscription=st.sampled_from(["channel", "shard", "pattern"]))
    def unsubscribe(self, which: int, subscription: str) -> None:
        """Those of a space; then what was on its way has arrived, or was given up."""
        reader = self.readers[which % len(self.readers)]
        reader.client.session.handle([Unsubscribe(subscription, ())])
        self.node.end_turn()
        reader.check_arrivals()
        for place in [place for place in reader.last if place[0] == subscription]:
            del reader.last[place]

    @rule(which=st.integers(0, 2), version=st.sampled_from([2, 3]))
    def change_protocol(self, which: int, version: int) -> None:
        session = self.readers[which % len(self.readers)].client.session
        if session.protocol == 3:
            session.handle([Hello(version, None, None, None)])

    @rule(shard=st.integers(0, 1), counts=st.lists(st.integers(0, 8), min_size=3, max_size=3))
    def install_snapshot(self, shard: int, counts: list[int]) -> None:
        """The shard's state jumps ahead over messages that were never applied here one by one."""
        old = self.node.buses[shard]
        writer = old.begin_snapshot()
        restore = BusRestore(SMALL)
        while (piece := writer.next_slice(1 << 16)) is not None:
            restore.feed(piece)
        new = restore.finish()
        builder = BatchBuilder(9)
        for channel, count in zip(CHANNELS, counts, strict=True):
            if count and self.node.shard_of(channel) == shard:
                builder.add_run(channel, Kind.PUBLISH, self._payloads(channel, Kind.PUBLISH, count))
        new.apply(new.applied_index + 1, encode_entry(self.node.wall_ms(), [builder.finish(1)]))
        self.node.buses[shard] = new
        self.node.sessions.on_state_replaced(shard, old, new)

    @invariant()
    def arrivals_are_right(self) -> None:
        for reader in getattr(self, "readers", []):
            reader.check_arrivals()

    def check_complete(self) -> None:
        """Once every socket has drained, everyone has everything, or was told."""
        for reader in self.readers:
            if reader.is_blocked:
                reader.client.session.on_writable()
                reader.is_blocked = False
        self.node.settle()
        for reader in self.readers:
            reader.check_arrivals()
            session = reader.client.session
            assert session.lag is None or session.lag.is_empty
            for (space, channel, pattern, kind), number in reader.last.items():
                if number != self.numbers[channel, kind]:
                    assert reader.has_marker[space, channel, pattern], (space, channel, pattern, kind)


SlowSubscribers.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSlowSubscribers = SlowSubscribers.TestCase


# --- stories ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def node() -> FakeNode:
    return FakeNode(Rules(default=ChannelRule(count=100)))


def test_a_blocked_subscriber_costs_a_cursor_and_catches_up(node: FakeNode) -> None:
    slow, publisher = node.connect(), node.connect()
    slow.do(Subscribe("channel", (b"c",)))
    slow.session.on_blocked()
    for at in range(50):
        publisher.do(publish(b"c", b"%d" % at))
    assert slow.output.data == b""
    assert slow.session.outbox.unsent == []
    slow.session.on_writable()
    node.settle()
    assert [item[2] for item in slow.read()] == [b"%d" % at for at in range(50)]
    publisher.do(publish(b"c", b"live"))
    assert slow.read() == [[b"message", b"c", b"live"]]
    assert slow.session.outbox.inbox is slow.session.outbox.unsent
    assert node.sessions.counters.delivered_messages == 51


def test_one_that_the_window_has_passed_is_told(node: FakeNode) -> None:
    clients = [node.connect(3) for _ in range(2)]
    clients[0].do(Subscribe("channel", (b"c",)))
    clients[1].do(BusSubscribe(b"c", None))
    publisher = node.connect()
    for client in clients:
        client.session.on_blocked()
    for at in range(150):
        publisher.do(publish(b"c", b"%d" % at))
    for client in clients:
        client.session.on_writable()
    node.settle()
    first, *rest = clients[0].read()
    assert first[:2] == [b"message", GAP_CHANNEL]
    assert [item[2] for item in rest] == [b"%d" % at for at in range(50, 150)]
    first, *rest = clients[1].read()
    assert first[:2] == [b"bus.gap", b"c"]
    assert [item[3] for item in rest] == [b"%d" % at for at in range(50, 150)]
    assert node.sessions.counters.dropped["window_passed"] == 2


def test_catching_up_takes_turns(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BEHIND_READ_BYTES", 250)
    slow, publisher = node.connect(), node.connect()
    slow.do(Subscribe("pattern", (b"*",)))
    slow.session.on_blocked()
    for channel in (b"c", b"d"):
        for _ in range(10):
            publisher.do(publish(channel, b"x" * 100))
    slow.session.on_writable()
    writes: list[int] = []
    slow.output.on_write = lambda: writes.append(len(slow.read()))
    node.settle()
    assert sum(writes) == 20
    assert max(writes) <= 3


def test_lagging_in_too_many_channels_disconnects(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BEHIND_CURSORS_MAX", 10)
    slow, other, publisher = node.connect(), node.connect(), node.connect()
    for client in (slow, other):
        client.do(Subscribe("pattern", (b"*",)))
    slow.session.on_blocked()
    for at in range(11):
        publisher.do(publish(b"%d" % at, b"x"))
    assert slow.output.is_aborted
    assert node.sessions.counters.dropped["too_many_cursors"] == 1
    assert len(other.read()) == 11


def test_channels_that_are_subscribed_may_all_lag(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BEHIND_CURSORS_MAX", 3)
    names = [b"%d" % at for at in range(11)]
    client, publisher = node.connect(3), node.connect()
    client.session.on_blocked()
    client.send(*(BusSubscribe(name, ID_MIN) for name in names), Subscribe("channel", tuple(names)))
    publisher.do(*(publish(name, b"x") for name in names))
    client.session.on_writable()
    node.settle()
    heard = [(item[0], item[1]) for item in client.read() if item[0] in (b"bus.message", b"message")]
    assert sorted(heard) == sorted((kind, name) for kind in (b"bus.message", b"message") for name in names)
    client.session.invariants()


@pytest.mark.parametrize(
    "command",
    [
        Subscribe("channel", (b"x", b"y")),
        Unsubscribe("pattern", ()),
        BusSubscribe(b"x", None),
        Hello(2, None, None, None),
    ],
)
def test_a_command_that_finds_its_own_session_lagging_too_much(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setattr(limits, "BEHIND_CURSORS_MAX", 0)
    slow = node.connect(3)
    slow.do(Subscribe("pattern", (b"*", b"a*")))
    slow.session.on_blocked()
    node.connect().send(publish(b"abc", b"1"))
    node.commit()
    slow.send(command, Subscribe("shard", (b"s",)))
    assert slow.output.is_aborted
    assert set(node.sessions.fanout.sizes().values()) == {0}


def test_unsubscribing_while_behind_is_counted(node: FakeNode) -> None:
    slow = node.connect(3)
    slow.do(Subscribe("channel", (b"c", b"d")), Subscribe("pattern", (b"c*",)))
    slow.session.on_blocked()
    node.connect().do(publish(b"c", b"1"), publish(b"d", b"1"))
    slow.do(Unsubscribe("channel", (b"c",)), Unsubscribe("pattern", ()))
    assert node.sessions.counters.dropped["unsubscribed_behind"] == 2
    slow.session.on_writable()
    node.settle()
    assert [item for item in slow.read() if item[0] == b"message"] == [[b"message", b"d", b"1"]]


def test_a_slow_neighbour_changes_nothing_for_others(node: FakeNode) -> None:
    clients: list[Any] = [node.connect() for _ in range(5)]
    for client in clients:
        client.do(Subscribe("channel", (b"c",)))
    clients[2].session.on_blocked()
    publisher = node.connect()
    for at in range(3):
        publisher.do(publish(b"c", b"%d" % at))
    for client in clients[:2] + clients[3:]:
        assert [item[2] for item in client.read()] == [b"0", b"1", b"2"]
