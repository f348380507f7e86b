"""A publish that is answered early: once, in its place in line, and what waits for writes goes on waiting."""

from __future__ import annotations

from typing import Any

import pytest

from riverbus.commands import Exec, Multi, Publish, XLen
from riverbus.core.counters import MEMORY_UNCONFIRMED
from riverbus.core.state.rules import ChannelRule, Rules
from riverbus.messages import Kind, NotAccepted, OutcomeUnknown
from tests.core.fakes import FakeClient, FakeNode

MEMORY = Rules(channels=(ChannelRule("ticks.*", durability="memory"),))


def publish(*payloads: bytes, channel: bytes = b"ticks.a", style: str = "receivers") -> Publish:
    return Publish(channel, Kind.PUBLISH, list(payloads), style)


class Early(FakeNode):
    """Publishes wait until the test says what becomes of them."""

    def __init__(self) -> None:
        super().__init__(MEMORY)
        self.early: list[Any] = []

    def publish_early(self, channel: bytes, kind: int, payloads: list[bytes], waiter: Any) -> None:
        self.early.append(waiter)
        self.publish(channel, kind, payloads, waiter)


@pytest.fixture
def node() -> Early:
    return Early()


@pytest.fixture
def client(node: Early) -> FakeClient:
    return node.connect()


def held(node: Early, receivers: int = 0) -> None:
    """A majority has all that was published so far."""
    early, node.early = node.early, []
    for waiter in early:
        waiter.held(receivers)
    node.end_turn()


def test_it_is_answered_before_the_log_and_once(node: Early, client: FakeClient) -> None:
    client.send(publish(b"1", b"2"), publish(b"3"))
    assert client.read() == []
    held(node, receivers=4)
    assert client.read() == [4, 4, 4]
    node.settle()
    assert client.read() == []
    assert node.sessions.counters.early_answers == node.sessions.counters.published_messages == 3
    assert client.do(XLen(b"ticks.a")) == 3


def test_one_that_is_applied_first_is_answered_by_that(node: Early, client: FakeClient) -> None:
    assert client.do(publish(b"1")) == 0
    assert node.sessions.counters.early_answers == 0


@pytest.mark.parametrize(
    "command", [publish(b"1", style="id"), publish(b"1", channel=b"other"), Publish(b"ticks.a", Kind.XADD, [b""], "id")]
)
def test_what_answers_with_an_id_or_is_of_another_rule_waits_for_the_log(
    node: Early, client: FakeClient, command: Publish
) -> None:
    client.send(command)
    assert node.early == []


def test_publishes_of_a_transaction_wait_for_the_log(node: Early, client: FakeClient) -> None:
    client.send(Multi(), publish(b"1"), Exec())
    node.settle()
    assert node.early == []
    assert client.read()[-1] == [0]


def test_replies_keep_the_order_of_their_commands(node: Early, client: FakeClient) -> None:
    client.send(publish(b"1"), publish(b"2", channel=b"other"), publish(b"3"))
    held(node, receivers=7)
    assert client.read() == [7]
    node.settle()
    assert client.read() == [0, 7]


def test_a_read_behind_it_on_its_connection_sees_it(node: Early, client: FakeClient) -> None:
    client.send(publish(b"1"), XLen(b"ticks.a"))
    held(node)
    assert client.read() == [0]
    node.release_reads()
    node.end_turn()
    assert client.read() == []
    node.settle()
    assert client.read() == [1]


def test_a_transaction_behind_it_waits_for_it(node: Early, client: FakeClient) -> None:
    client.send(publish(b"1"), Multi(), publish(b"2"))
    held(node)
    assert client.read() == [0, b"OK", b"QUEUED"]
    client.send(Exec())
    assert len(node.queues[0] + node.queues[1]) == 1
    node.settle()
    assert client.read() == [[0]]


@pytest.mark.parametrize("error", [NotAccepted("the leader changed"), OutcomeUnknown("not in time")])
def test_a_failure_after_the_answer_is_counted_and_not_told(
    node: Early, client: FakeClient, error: NotAccepted | OutcomeUnknown
) -> None:
    client.send(publish(b"1", b"2"))
    [waiter] = node.early
    held(node)
    node.queues = [[] for _ in node.queues]
    waiter.failed(error)
    node.end_turn()
    assert client.read() == [0, 0]
    assert node.sessions.counters.dropped[MEMORY_UNCONFIRMED] == 2
    assert client.do(publish(b"3")) == 0  # the connection goes on


def test_a_failure_before_the_answer_is_told(node: Early, client: FakeClient) -> None:
    client.send(publish(b"1"))
    [waiter] = node.early
    node.queues = [[] for _ in node.queues]
    waiter.failed(NotAccepted("no leader"))
    node.end_turn()
    assert "no leader" in str(client.read()[0])
    assert node.sessions.counters.dropped[MEMORY_UNCONFIRMED] == 0


def test_a_connection_that_is_gone_is_not_answered(node: Early, client: FakeClient) -> None:
    client.send(publish(b"1"), publish(b"2"))
    first, second = node.early
    first.held(0)
    node.end_turn()
    client.disconnect()
    second.held(0)
    node.settle()
    assert node.sessions.counters.early_answers == 1
