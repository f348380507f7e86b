"""Replies keep the order of their commands whatever waits, and a connection's later commands see its earlier ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus import limits
from riverbus.commands import (
    Command,
    Exec,
    Multi,
    Ping,
    Publish,
    PubsubNumpat,
    Quit,
    Subscribe,
    Unsubscribe,
    XLen,
    XRead,
)
from riverbus.messages import ID_MIN, Kind
from tests.core.fakes import FakeNode

CHANNELS = [b"a", b"b", b"c", b"d"]


def publish(channel: bytes, *payloads: bytes) -> Publish:
    return Publish(channel, Kind.PUBLISH, list(payloads), "receivers")


class Model:
    """What a server that does one command after the other would answer to a RESP3 client that is alone."""

    def __init__(self) -> None:
        self.lengths = dict.fromkeys(CHANNELS, 0)
        self.subscribed: set[bytes] = set()

    def answers(self, command: Command) -> list[Any]:
        match command:
            case Publish(channel, _, payloads, _):
                self.lengths[channel] += len(payloads)
                return [int(channel in self.subscribed)] * len(payloads)
            case XLen(channel):
                return [self.lengths[channel]]
            case Subscribe(_, (channel,)):
                self.subscribed.add(channel)
                return [[b"subscribe", channel, len(self.subscribed)]]
            case Unsubscribe(_, (channel,)):
                self.subscribed.discard(channel)
                return [[b"unsubscribe", channel, len(self.subscribed)]]
            case XRead((channel,), _, _, _):
                return [bool(self.lengths[channel])]
            case Ping(text):
                return [text]
            case PubsubNumpat():
                return [0]
        raise AssertionError(command)


channels = st.sampled_from(CHANNELS[:2])  # of two shards; few, so that commands meet
publishes = st.builds(lambda channel, count: publish(channel, *[b"x"] * count), channels, st.integers(1, 3))
reads = st.one_of(
    st.builds(XLen, channels),
    st.builds(lambda channel: XRead((channel,), (ID_MIN,), 1, None), channels),
)
subscriptions = st.one_of(
    st.builds(lambda channel: Subscribe("channel", (channel,)), channels),
    st.builds(lambda channel: Unsubscribe("channel", (channel,)), channels),
)
others = st.one_of(st.builds(Ping, st.binary(min_size=1, max_size=3)), st.just(PubsubNumpat()))
some = st.lists(st.one_of(publishes, reads, subscriptions, others), min_size=3, max_size=8)
steps = st.one_of(
    st.tuples(st.just("send"), some),
    st.tuples(st.sampled_from(["send", "transaction"]), some),
    st.tuples(st.sampled_from(["commit", "commit one"]), st.integers(0, 1)),
    st.tuples(st.sampled_from(["reads", "questions", "turn"]), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, min_size=3, max_size=20))
def test_replies_are_those_of_a_server_that_does_one_thing_after_the_other(plan: list[tuple[str, Any]]) -> None:
    node = FakeNode()
    client = node.connect(3)
    model = Model()
    expected: list[Any] = []
    for step, what in plan:
        match step:
            case "send":
                client.session.handle(what)
                for command in what:
                    expected += model.answers(command)
            case "transaction":
                client.session.handle([Multi(), *what, Exec()])
                replies = [reply for command in what for reply in model.answers(command)]
                expected += [b"OK", *[b"QUEUED"] * len(replies), replies]
            case "commit":
                node.commit(what)
            case "commit one":
                node.commit(what, most=1)
            case "reads":
                node.release_reads()
            case "questions":
                node.release_questions()
            case _:
                node.end_turn()
    node.release_reads()  # before any commit: a read that had not waited for its own publishes would miss them
    node.settle()
    replies = [_comparable(reply) for reply in client.read() if not _is_message(reply)]
    assert replies == expected


def _is_message(reply: Any) -> bool:
    return isinstance(reply, list) and reply[:1] == [b"message"]


def _comparable(reply: Any) -> Any:
    """XREAD's answer as: was there something."""
    if isinstance(reply, dict):
        return True
    if isinstance(reply, list) and reply[:1] not in ([b"subscribe"], [b"unsubscribe"]):
        return [_comparable(item) for item in reply]
    return False if reply is None else reply


def test_ten_thousand_publishes_are_in_flight_at_once() -> None:
    node = FakeNode()
    client = node.connect()
    client.send(*[publish(CHANNELS[at % 4], b"%d" % at) for at in range(10_000)])
    assert sum(map(len, node.queues)) == 10_000
    assert client.do(Ping(None)) == [0] * 10_000 + [b"PONG"]


def test_a_session_with_too_much_in_flight_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SESSION_INFLIGHT_COMMANDS_MAX", 10)
    monkeypatch.setattr(limits, "SESSION_INFLIGHT_BYTES_MAX", 1000)
    node = FakeNode()
    client = node.connect()
    client.send(publish(b"a", *[b"x"] * 9))
    assert client.session.wants_read
    client.send(publish(b"a", b"x"))
    assert not client.session.wants_read
    node.commit()
    assert client.session.is_dirty
    assert client.session.wants_read
    client.send(publish(b"a", b"x" * 1000))
    assert not client.session.wants_read
    node.settle()
    client.send(XRead((b"a",), (None,), None, 0), *[Ping(None)] * 9)
    assert client.session.wants_read is False  # the backlog counts, too
    client.disconnect()


def test_large_replies_wait_until_the_ones_before_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OUTBOX_HIGH_BYTES", 1000)
    node = FakeNode()
    client = node.connect()
    client.do(*[publish(b"a", b"x" * 600)] * 2)
    sizes: list[int] = []
    client.output.on_write = lambda: sizes.append(len(client.output.data) - sum(sizes))
    replies = client.do(*[XRead((b"a",), (ID_MIN,), None, None) for _ in range(20)], *[Ping(b"y" * 400)] * 20)
    assert len(replies) == 40
    assert max(sizes) < 3000  # one reply over the mark at most
    client.session.on_blocked()
    client.send(XRead((b"a",), (ID_MIN,), None, None))
    node.settle()
    assert client.read() == []
    client.session.on_writable()
    node.settle()
    assert len(client.read()) == 1


def test_a_client_that_never_reads_its_replies_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OUTBOX_REPLIES_BYTES_MAX", 10_000)
    node = FakeNode()
    client = node.connect()
    client.session.on_blocked()
    for _ in range(30):
        if not client.session.is_closed:
            client.send(Ping(b"x" * 1000))
    assert client.output.is_aborted
    assert client.output.written_bytes <= 11_000
    assert node.sessions.counters.dropped["replies_unread"] == 1


def test_quit_in_a_pipeline_waits_for_a_blocked_read() -> None:
    node = FakeNode()
    client = node.connect()
    client.do(XRead((b"a",), (None,), None, 1000), Quit(), Ping(None))
    assert not client.output.is_closed
    node.advance(1)
    node.settle()
    assert client.read() == [None, b"OK"]
    assert client.output.is_closed
