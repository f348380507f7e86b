"""Fan-out by itself: runs are joined, bytes are made once, order is kept, and nobody's subscription costs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.core.clients import fanout as fanout_module
from riverbus.core.clients.blocked import BlockedReads
from riverbus.core.clients.fanout import Fanout
from riverbus.core.clients.outbox import Outbox
from riverbus.core.clients.session import Session
from riverbus.core.counters import Counters
from riverbus.core.state.entries import Run
from riverbus.messages import Kind, MessageId, Reply


class CountingEncoder:
    """Writes a delivery as text, and keeps count of how often it was asked to."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.calls: list[str] = []

    def encode(self, reply: Reply) -> bytes:
        raise NotImplementedError

    def deliver(
        self, space: str, channel: bytes, pattern: bytes | None, first: MessageId, payloads: Sequence[bytes]
    ) -> bytes:
        text = (
            f"{self.key} {space} {channel.decode()} {(pattern or b'-').decode()} {first} {b''.join(payloads).decode()}"
        )
        self.calls.append(text)
        return text.encode() + b"\n"

    def gap(self, space: str, channel: bytes, pattern: bytes | None, after: MessageId, until: MessageId) -> bytes:
        raise NotImplementedError


class Member:
    """As much of a session as fan-out touches."""

    def __init__(self, encoder: CountingEncoder) -> None:
        self.outbox = Outbox(cast(Session, self), encoder)

    def lines(self) -> list[str]:
        self.outbox.is_dirty = False
        return [line.partition(" ")[2] for line in self.outbox.take().decode().splitlines()]


class Hall:
    """A fan-out with members, and runs that follow each other."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.dirty: list[Session] = []
        self.fanout = Fanout(self.counters, self.dirty, BlockedReads())
        self.encoder = CountingEncoder("one")
        self.ms = 1

    def member(self, *subscriptions: tuple[str, bytes], encoder: CountingEncoder | None = None) -> Member:
        member = Member(encoder or self.encoder)
        for space, name in subscriptions:
            self.fanout.subscribe(space, name, member.outbox)
        return member

    def run(self, channel: bytes, *payloads: bytes, kind: int = Kind.PUBLISH, seq: int = 0) -> int:
        receivers = self.fanout.receivers(channel, kind)
        self.fanout.on_run(channel, Run.of(channel, kind, payloads), MessageId(self.ms, seq))
        return receivers


@pytest.fixture
def hall() -> Hall:
    return Hall()


def test_bytes_are_made_once_for_all_subscribers_of_a_protocol(hall: Hall) -> None:
    other = CountingEncoder("two")
    members = [hall.member(("channel", b"c")) for _ in range(5)]
    strangers = [hall.member(("channel", b"c"), encoder=other) for _ in range(2)]
    assert hall.run(b"c", b"1", b"2") == 7
    hall.fanout.spill()
    assert (len(hall.encoder.calls), len(other.calls)) == (1, 1)
    assert members[0].outbox.unsent[0] is members[4].outbox.unsent[0]
    for member in members + strangers:
        assert member.lines() == ["channel c - 1-0 12"]
    assert hall.counters.delivered_messages == 14
    assert len(hall.dirty) == 7


def test_runs_of_one_channel_are_joined_until_another_comes(hall: Hall) -> None:
    member = hall.member(("channel", b"c"), ("channel", b"d"))
    hall.run(b"c", b"1")
    hall.run(b"c", b"2", seq=1)
    hall.run(b"nobody", b"x")
    hall.run(b"c", b"3", seq=2)
    assert member.outbox.unsent == []
    hall.run(b"d", b"4")
    hall.run(b"c", b"5", seq=3)
    hall.fanout.spill()
    assert member.lines() == ["channel c - 1-0 123", "channel d - 1-0 4", "channel c - 1-3 5"]


def test_kinds_are_not_joined_and_go_to_their_own(hall: Hall) -> None:
    member = hall.member(("channel", b"c"), ("shard", b"c"), ("bus", b"c"), ("pattern", b"?"))
    assert hall.run(b"c", b"1") == 3
    assert hall.run(b"c", b"2", kind=Kind.SPUBLISH, seq=1) == 2
    assert hall.run(b"c", b"3", kind=Kind.XADD, seq=2) == 0
    hall.fanout.spill()
    assert member.lines() == [
        "channel c - 1-0 1",
        "pattern c ? 1-0 1",
        "bus c - 1-0 1",
        "shard c - 1-1 2",
        "bus c - 1-1 2",
    ]


def test_ids_of_joined_runs_are_right_for_bus_subscribers(hall: Hall) -> None:
    member = hall.member(("bus", b"c"))
    hall.run(b"c", b"1", b"2")
    hall.run(b"c", b"3", seq=2)
    hall.ms = 5
    hall.run(b"c", b"4")
    hall.fanout.spill()
    assert member.lines() == ["bus c - 1-0 123", "bus c - 5-0 4"]
    assert len(hall.dirty) == 1


def test_subscriptions_change_between_runs_never_within(hall: Hall) -> None:
    early = hall.member(("channel", b"c"))
    hall.run(b"c", b"1")
    late = hall.member(("channel", b"c"))
    hall.run(b"c", b"2", seq=1)
    hall.fanout.unsubscribe("channel", b"c", early.outbox)
    hall.run(b"c", b"3", seq=2)
    hall.fanout.spill()
    assert early.lines() == ["channel c - 1-0 1", "channel c - 1-1 2"]
    assert late.lines() == ["channel c - 1-1 2", "channel c - 1-2 3"]


def test_matching_patterns_are_remembered_in_bounded_memory(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout_module, "PATTERN_CACHE_CHANNELS_MAX", 4)
    hall.member(("pattern", b"a*"), ("pattern", b"*b"))
    for at in range(100):
        assert hall.run(b"a%d" % at, b"x") == 1
        assert hall.run(b"ab", b"x") == 2
    hall.member(("pattern", b"a?"))
    assert hall.run(b"ab", b"x") == 3
    assert len(hall.fanout._young) + len(hall.fanout._old) <= 8


def test_nothing_is_remembered_of_channels_that_nobody_hears(hall: Hall) -> None:
    member = hall.member(("channel", b"c"))
    for at in range(1000):
        assert hall.run(b"%d" % at, b"x") == 0
    hall.fanout.unsubscribe("channel", b"c", member.outbox)
    assert hall.fanout.sizes() == {"channel": 0, "pattern": 0, "shard": 0, "bus": 0}
    assert not hall.fanout._young


spaces = st.sampled_from(["channel", "pattern", "shard", "bus"])
names = st.sampled_from([b"a", b"b", b"ab", b"a*", b"*"])
events = st.one_of(
    st.tuples(st.just("toggle"), st.integers(0, 3), spaces, names),
    st.tuples(st.just("run"), st.sampled_from([b"a", b"b", b"ab"]), st.sampled_from([0, 1, 2]), st.integers(1, 3)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(events, max_size=30))
def test_everyone_gets_exactly_what_is_meant_for_them_in_order(plan: list[tuple[str, object, object, object]]) -> None:
    hall = Hall()
    members = [Member(CountingEncoder("one" if at % 2 else "two")) for at in range(4)]
    held: list[dict[tuple[str, bytes], None]] = [{} for _ in members]
    expected: list[list[tuple[str, bytes, bytes]]] = [[] for _ in members]
    number = 0
    for what, *rest in plan:
        if what == "toggle":
            at, space, name = cast(tuple[int, str, bytes], tuple(rest))
            if (space, name) in held[at]:
                del held[at][space, name]
                hall.fanout.unsubscribe(space, name, members[at].outbox)
            else:
                held[at][space, name] = None
                hall.fanout.subscribe(space, name, members[at].outbox)
            continue
        channel, kind, count = cast(tuple[bytes, int, int], tuple(rest))
        payloads = [b"<%d>" % (number + at) for at in range(count)]
        number += count
        receivers = hall.run(channel, *payloads, kind=kind, seq=number)
        assert receivers == sum(_hears(space, name, channel, kind) for one in held for space, name in one)
        for at, one in enumerate(held):
            for space, name in one:
                if _hears(space, name, channel, kind):
                    expected[at] += [(space, channel, payload) for payload in payloads]
    hall.fanout.spill()
    for member, wanted in zip(members, expected, strict=True):
        got = [(space, channel.encode(), b"<" + payload.encode()) for line in member.lines()
               for space, channel, _, _, body in [line.split(" ")] for payload in body.split("<")[1:]]  # fmt: skip
        for channel in (b"a", b"b", b"ab"):
            for space in ("channel", "shard", "bus"):
                assert [x for x in got if x[:2] == (space, channel)] == [x for x in wanted if x[:2] == (space, channel)]
        assert sorted(got) == sorted(wanted)


def _hears(space: str, name: bytes, channel: bytes, kind: int) -> bool:
    if space == "pattern":
        return kind == Kind.PUBLISH and (name in (channel, b"*") or (name == b"a*" and channel.startswith(b"a")))
    kinds = {"channel": [Kind.PUBLISH], "shard": [Kind.SPUBLISH], "bus": [Kind.PUBLISH, Kind.SPUBLISH]}[space]
    return name == channel and kind in kinds
