"""Subscribers with a durable name: what they missed comes first, then live, no gap; and little twice."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from riverbus.commands import (
    ClientSetName,
    Hello,
    Publish,
    Reset,
    Subscribe,
    Unsubscribe,
)
from riverbus.core.state.rules import ChannelRule, Rules
from riverbus.messages import Kind, NotAccepted
from tests.core.fakes import FakeClient, FakeNode, error_text

NAME = b"durable:billing"


def publish(channel: bytes, *payloads: bytes, kind: Kind = Kind.PUBLISH) -> Publish:
    return Publish(channel, kind, list(payloads))


def come_back(node: FakeNode, *subscriptions: Subscribe, name: bytes = NAME, version: int = 2) -> FakeClient:
    client = node.connect(version)
    client.do(ClientSetName(name))
    if subscriptions:
        client.do(*subscriptions)
    return client


def messages(items: list[Any]) -> list[bytes]:
    return [item[-1] for item in items if isinstance(item, list) and item[0].endswith(b"message")]


def received(client: FakeClient) -> list[bytes]:
    client.node.settle()
    return messages(client.read())


def test_what_was_missed_follows_the_confirmation_and_live_messages_follow_that() -> None:
    node = FakeNode()
    publisher = node.connect()
    client = node.connect()
    client.do(ClientSetName(NAME))
    assert client.do(Subscribe("channel", (b"c",))) == [b"subscribe", b"c", 1]
    publisher.do(publish(b"c", b"1"))
    assert received(client) == [b"1"]
    client.disconnect()
    publisher.do(publish(b"c", b"2", b"3"))
    other = node.connect()
    other.do(ClientSetName(NAME))
    replies = other.do(Subscribe("channel", (b"c",)))
    assert replies == [[b"subscribe", b"c", 1], [b"message", b"c", b"2"], [b"message", b"c", b"3"]]
    publisher.do(publish(b"c", b"4"))
    assert received(other) == [b"4"]


def test_the_first_time_a_name_subscribes_it_gets_nothing_old() -> None:
    node = FakeNode()
    node.connect().do(publish(b"c", b"old"))
    node.advance(1)
    client = come_back(node, Subscribe("channel", (b"c",)), Subscribe("pattern", (b"*",)))
    node.connect().do(publish(b"c", b"new"))
    assert received(client) == [b"new", b"new"]


@pytest.mark.parametrize("space", ["channel", "pattern", "shard"])
def test_each_space_has_cursors(space: str) -> None:
    node = FakeNode()
    kind = Kind.SPUBLISH if space == "shard" else Kind.PUBLISH
    name = b"c*" if space == "pattern" else b"c1"
    publisher = node.connect()
    client = come_back(node, Subscribe(space, (name,)))
    publisher.do(publish(b"c1", b"1", kind=kind))
    assert received(client) == [b"1"]
    client.disconnect()
    node.settle()
    node.advance(1)
    publisher.do(publish(b"c1", b"2", kind=kind), publish(b"c2", b"3", kind=kind))
    node.advance(1)
    client = node.connect()
    client.do(ClientSetName(NAME))
    items = client.do(Subscribe(space, (name,)))
    assert messages(items) == ([b"2", b"3"] if space == "pattern" else [b"2"])


def test_what_the_kernel_has_not_acknowledged_comes_again_and_nothing_else() -> None:
    node = FakeNode()
    publisher = node.connect()
    client = come_back(node, Subscribe("channel", (b"c",)), Subscribe("pattern", (b"*",)))
    publisher.do(publish(b"c", b"1"))
    node.advance(1)
    publisher.do(publish(b"c", b"2"))
    node.settle()
    client.output.lose(10)  # the end of the last message, the pattern's
    assert messages(client.read()) == [b"1", b"1", b"2"]
    client.disconnect()
    node.settle()
    client = node.connect()
    client.do(ClientSetName(NAME))
    items = client.do(Subscribe("channel", (b"c",)), Subscribe("pattern", (b"*",)))
    # Both were delivered by one write, and the channel's part was whole; but what is not counted apart comes again.
    assert [item for item in items if item[0] == b"pmessage"] == [[b"pmessage", b"*", b"c", b"2"]]
    assert messages(items).count(b"1") == 0


def test_nothing_acknowledged_since_the_last_save_is_an_overlap_and_never_a_gap() -> None:
    """The client's machine died: the node learns it much later, and the kernel says what never arrived."""
    node = FakeNode()
    publisher = node.connect()
    client = come_back(node, Subscribe("channel", (b"c",)))
    client.output.is_silent = True
    for at in range(5):
        publisher.do(publish(b"c", b"%d" % at))
        node.advance(1)
    again = node.connect()
    again.do(ClientSetName(NAME))
    assert messages(again.do(Subscribe("channel", (b"c",)))) == [b"0", b"1", b"2", b"3", b"4"]


def test_saves_are_batched_and_no_more_frequent_than_their_interval() -> None:
    node = FakeNode(shards=1)
    publisher = node.connect()
    clients = [come_back(node, Subscribe("channel", (b"c",)), name=b"durable:%d" % at) for at in range(20)]
    node.advance(1)
    before = node.sessions.durable.saves
    for at in range(100):
        publisher.do(publish(b"c", b"%d" % at))
        node.advance(0.01)
    node.settle()
    assert all(len(received(client)) == 100 for client in clients)
    assert node.sessions.durable.saves - before <= 1 + 1000 / node.sessions.durable.save_ms


def test_a_trimmed_history_is_a_marker_in_place() -> None:
    node = FakeNode(Rules(default=ChannelRule(count=2)))
    publisher = node.connect()
    come_back(node, Subscribe("channel", (b"c",))).disconnect()
    publisher.do(publish(b"c", b"1", b"2", b"3"))
    client = node.connect()
    client.do(ClientSetName(NAME))
    items = client.do(Subscribe("channel", (b"c",)))
    assert [item[1] for item in items] == [b"c", b"__riverbus__:gap", b"c", b"c"]
    assert items[1][2].startswith(b"c 0-0 ")
    assert messages(items)[1:] == [b"2", b"3"]


def test_the_marker_may_be_a_message_of_the_channel_itself() -> None:
    node = FakeNode(Rules(default=ChannelRule(count=1)))
    node.sessions.durable.marker = b"#gap"
    publisher = node.connect()
    come_back(node, Subscribe("pattern", (b"c*",))).disconnect()
    node.advance(1)
    publisher.do(publish(b"c", b"1", b"2"))
    client = node.connect()
    client.do(ClientSetName(NAME))
    items = client.do(Subscribe("pattern", (b"c*",)))
    assert items[1][:3] == [b"pmessage", b"c*", b"c"]
    assert items[1][3].startswith(b"#gap ")
    assert items[2] == [b"pmessage", b"c*", b"c", b"2"]


def test_a_pattern_is_told_of_channels_that_lost_all_they_had() -> None:
    node = FakeNode(Rules(default=ChannelRule(age_ms=1000)), shards=1)
    publisher = node.connect()
    come_back(node, Subscribe("pattern", (b"c*",))).disconnect()
    node.advance(1)
    publisher.do(publish(b"c1", b"lost"))
    node.advance(5)
    publisher.do(publish(b"x", b""))
    publisher.do(publish(b"x", b""))
    assert node.buses[0].channel(b"c1") is None
    client = node.connect()
    client.do(ClientSetName(NAME))
    items = client.do(Subscribe("pattern", (b"c*",)))
    assert [item[2] for item in items[1:]] == [b"__riverbus__:gap"]
    assert items[1][3].startswith(b"c1 ")


def test_unsubscribe_gives_the_cursor_up_and_reset_does_not() -> None:
    node = FakeNode()
    publisher = node.connect()
    client = come_back(node, Subscribe("channel", (b"a", b"b")))
    client.do(Unsubscribe("channel", (b"a",)))
    client.do(Reset())
    node.settle()
    publisher.do(publish(b"a", b"1"), publish(b"b", b"1"))
    node.settle()
    assert messages(client.read()) == []
    client.do(ClientSetName(NAME))
    items = client.do(Subscribe("channel", (b"a", b"b")))
    assert [item for item in items if item[0] == b"message"] == [[b"message", b"b", b"1"]]


def test_two_connections_of_one_name_share_the_past_and_not_each_others_cursor() -> None:
    node = FakeNode()
    publisher = node.connect()
    come_back(node, Subscribe("channel", (b"c",))).disconnect()
    publisher.do(publish(b"c", b"1"))
    one = node.connect()
    one.do(ClientSetName(NAME))
    assert messages(one.do(Subscribe("channel", (b"c",)))) == [b"1"]
    two = come_back(node, Subscribe("channel", (b"c",)))
    publisher.do(publish(b"c", b"2"))
    assert received(one) == received(two) == [b"2"]
    node.advance(1)
    one.disconnect()
    publisher.do(publish(b"c", b"3"))
    assert received(two) == [b"3"]
    node.advance(1)
    again = node.connect()
    again.do(ClientSetName(NAME))
    assert messages(again.do(Subscribe("channel", (b"c",)))) == [b"3"]


def test_a_half_open_connection_does_not_hold_the_cursor_back() -> None:
    node = FakeNode()
    publisher = node.connect()
    dead = come_back(node, Subscribe("channel", (b"c",)))
    publisher.do(publish(b"c", b"1"))
    node.advance(1)
    dead.output.data.clear()
    dead.output.lose(0)
    client = come_back(node, Subscribe("channel", (b"c",)))
    for at in (b"2", b"3"):
        publisher.do(publish(b"c", at))
        node.advance(1)
    assert received(client) == [b"2", b"3"]
    client.disconnect()
    dead.disconnect()  # the node learns at last
    node.settle()
    again = node.connect()
    again.do(ClientSetName(NAME))
    assert messages(again.do(Subscribe("channel", (b"c",)))) == []


def test_names_are_per_user() -> None:
    node = FakeNode()
    publisher = node.connect()
    come_back(node, Subscribe("channel", (b"c",))).disconnect()
    publisher.do(publish(b"c", b"1"))
    client = node.connect()
    client.session.user = "somebody else"
    client.do(ClientSetName(NAME))
    assert messages([client.do(Subscribe("channel", (b"c",)))]) == []


@pytest.mark.parametrize("name", [b"durable:", b"durable:" + b"x" * 129])
def test_a_bad_durable_name_is_refused(name: bytes) -> None:
    client = FakeNode().connect()
    assert "a durable name is" in error_text(client.do(ClientSetName(name)))
    assert "a durable name is" in error_text(client.do(Hello(3, None, None, name)))
    assert client.session.name == b""


def test_a_name_does_not_become_durable_under_a_subscription() -> None:
    node = FakeNode()
    client = node.connect(3)
    client.do(Subscribe("channel", (b"c",)))
    assert "with subscriptions" in error_text(client.do(ClientSetName(NAME)))
    client.do(Unsubscribe("channel", ()))
    client.do(ClientSetName(NAME))
    client.do(Subscribe("channel", (b"c",)))
    assert "with subscriptions" in error_text(client.do(ClientSetName(b"plain")))
    client.do(Unsubscribe("channel", ()))
    client.do(ClientSetName(b"plain"))
    assert client.session.durable is None
    client.do(Subscribe("channel", (b"c",)))
    node.connect().do(publish(b"c", b"1"))
    assert received(client) == [b"1"]


def test_without_a_leader_a_subscribe_waits_and_then_goes_elsewhere() -> None:
    node = FakeNode()
    client = come_back(node)
    node.refusal = NotAccepted("no leader")
    client.send(Subscribe("channel", (b"c",)))
    node.advance(1)
    node.refusal = None
    node.advance(1)
    node.settle()
    assert client.read() == [[b"subscribe", b"c", 1]]
    node.refusal = NotAccepted("no leader")
    client.send(Subscribe("channel", (b"d",)))
    for _ in range(70):
        node.advance(0.1)
    assert client.output.is_aborted
    assert node.sessions.counters.dropped["durable_unavailable"] == 1


def test_a_cursor_expires() -> None:
    node = FakeNode()
    publisher = node.connect()
    come_back(node, Subscribe("channel", (b"c",))).disconnect()
    node.settle()
    publisher.do(publish(b"c", b"1"))
    node.now += node.sessions.durable.keep_ms / 1000 + 1
    client = come_back(node)
    assert messages([client.do(Subscribe("channel", (b"c",)))]) == []


def test_a_closed_connection_leaves_nothing_for_a_garbage_collector() -> None:
    node = FakeNode()
    client = come_back(node, Subscribe("channel", (b"c",)), Subscribe("pattern", (b"*",)))
    node.connect().do(publish(b"c", b"1"))
    named = come_back(node)
    gc.collect()
    gc.disable()
    try:
        gone = [weakref.ref(client.session.durable.lag), weakref.ref(named.session.durable.lag)]  # type: ignore[union-attr]
        named.do(ClientSetName(b"plain"))
        client.disconnect()
        node.settle()
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()


def test_a_quiet_connection_keeps_its_cursor() -> None:
    node = FakeNode()
    publisher = node.connect()
    client = come_back(node, Subscribe("channel", (b"c",)))
    for _ in range(40):
        node.advance(node.sessions.durable.keep_ms / 1000 / 10)
        node.settle()
    client.disconnect()
    node.settle()
    publisher.do(publish(b"c", b"1"))
    client = come_back(node)
    assert messages(client.do(Subscribe("channel", (b"c",)))) == [b"1"]
