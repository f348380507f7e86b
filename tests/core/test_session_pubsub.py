"""Subscriptions as clients see them: confirmations, counts, when they take effect, and PUBSUB over the cluster."""

from __future__ import annotations

import pytest

from riverbus.commands import (
    BusSubscribe,
    BusUnsubscribe,
    Ping,
    Publish,
    PubsubChannels,
    PubsubNumpat,
    PubsubNumsub,
    Subscribe,
    Unsubscribe,
)
from riverbus.core.clients import census
from riverbus.messages import ID_MIN, Kind, MessageId, NotAccepted
from tests.core.fakes import FakeClient, FakeNode, error_text


def publish(channel: bytes, *payloads: bytes, kind: Kind = Kind.PUBLISH, style: str = "receivers") -> Publish:
    return Publish(channel, kind, list(payloads), style)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def client(node: FakeNode) -> FakeClient:
    return node.connect()


def test_confirmations_count_channels_and_patterns_together_and_shards_apart(client: FakeClient) -> None:
    assert client.do(Subscribe("channel", (b"a", b"b", b"a"))) == [
        [b"subscribe", b"a", 1],
        [b"subscribe", b"b", 2],
        [b"subscribe", b"a", 2],
    ]
    assert client.do(Subscribe("pattern", (b"p*",))) == [b"psubscribe", b"p*", 3]
    assert client.do(Subscribe("shard", (b"s",))) == [b"ssubscribe", b"s", 1]
    assert client.do(Unsubscribe("channel", (b"a", b"never"))) == [
        [b"unsubscribe", b"a", 2],
        [b"unsubscribe", b"never", 2],
    ]
    assert client.do(Unsubscribe("channel", ())) == [b"unsubscribe", b"b", 1]
    assert client.do(Unsubscribe("channel", ())) == [b"unsubscribe", None, 1]
    assert client.do(Unsubscribe("pattern", ())) == [b"punsubscribe", b"p*", 0]
    assert client.do(Unsubscribe("shard", ())) == [b"sunsubscribe", b"s", 0]
    assert client.do(Unsubscribe("shard", ())) == [b"sunsubscribe", None, 0]
    assert client.do(Ping(None)) == b"PONG"


def test_each_kind_of_message_goes_to_its_subscribers(node: FakeNode, client: FakeClient) -> None:
    client.do(Subscribe("channel", (b"c",)), Subscribe("pattern", (b"?", b"x*")), Subscribe("shard", (b"c",)))
    publisher = node.connect()
    assert publisher.do(publish(b"c", b"1")) == 2
    assert client.read() == [[b"message", b"c", b"1"], [b"pmessage", b"?", b"c", b"1"]]
    assert publisher.do(publish(b"c", b"2", kind=Kind.SPUBLISH)) == 1
    assert client.read() == [[b"smessage", b"c", b"2"]]
    publisher.do(publish(b"c", b"\x02\0\0\0\x01\0\0\0\x01\0\0\0fv", kind=Kind.XADD, style="id"))
    assert client.read() == []


def test_replies_in_each_style(node: FakeNode, client: FakeClient) -> None:
    assert client.do(publish(b"c", b"1", b"2")) == [0, 0]
    ids = client.do(publish(b"c", b"1", b"2", style="id"))
    assert ids == [str(node.bus(b"c").last_id(b"c")._replace(seq=seq)).encode() for seq in (2, 3)]
    node.refusal = NotAccepted("no\r\nmajority")
    errors = client.do(publish(b"c", b"1", b"2", style="id"))
    assert [error_text(each) for each in errors] == ["CLUSTERDOWN no  majority"] * 2


def test_a_publisher_that_subscribes_sees_its_message_after_the_reply(node: FakeNode) -> None:
    client = node.connect(3)
    client.do(Subscribe("channel", (b"a", b"b")))
    assert node.shard_of(b"a") != node.shard_of(b"b")
    client.send(publish(b"a", b"1"), publish(b"b", b"2"), Ping(None))
    node.commit(node.shard_of(b"b"))
    node.end_turn()
    assert client.read() == []  # b's message is known here, but its reply has to wait for a's
    node.settle()
    assert client.read() == [1, 1, b"PONG", [b"message", b"b", b"2"], [b"message", b"a", b"1"]]


def test_subscribe_does_not_receive_what_its_connection_published_before(node: FakeNode) -> None:
    client = node.connect(3)
    client.send(publish(b"c", b"1"), Subscribe("channel", (b"c",)), publish(b"c", b"2"))
    node.settle()
    assert client.read() == [0, [b"subscribe", b"c", 1], 1, [b"message", b"c", b"2"]]


def test_messages_before_an_unsubscription_come_before_its_confirmation(node: FakeNode, client: FakeClient) -> None:
    client.do(Subscribe("channel", (b"c",)))
    publisher = node.connect()
    publisher.send(publish(b"c", b"1"))
    node.commit()  # the turn goes on: applied, not yet written
    client.session.handle([Unsubscribe("channel", ())])
    late = node.connect()
    late.session.handle([Subscribe("channel", (b"c",))])
    node.settle()
    assert client.read() == [[b"message", b"c", b"1"], [b"unsubscribe", b"c", 0]]
    assert late.read() == [[b"subscribe", b"c", 1]]


def test_a_disconnect_takes_effect_at_once(node: FakeNode, client: FakeClient) -> None:
    client.do(Subscribe("channel", (b"c",)), Subscribe("pattern", (b"*",)))
    client.send(publish(b"c", b"never"))
    client.session.on_closed()
    assert node.connect().do(publish(b"c", b"1"), PubsubChannels(None, False), PubsubNumpat()) == [0, [], 0]
    client.session.on_closed()


def test_publishes_of_a_dead_connection_are_dropped_before_they_are_proposed(node: FakeNode) -> None:
    client = node.connect()
    client.send(publish(b"c", b"1"))
    client.disconnect()
    node.settle()
    assert node.abandoned == 1
    assert node.bus(b"c").length(b"c") == 0


def test_pubsub_counts_the_whole_cluster(node: FakeNode, client: FakeClient) -> None:
    other = FakeNode()
    node.peers = [other]
    here, there = node.connect(), other.connect()
    here.do(Subscribe("channel", (b"news.a", b"b")), Subscribe("pattern", (b"x*",)), Subscribe("shard", (b"s",)))
    there.do(Subscribe("channel", (b"b", b"news.c")), Subscribe("pattern", (b"x*", b"y*")))
    there.do(BusSubscribe(b"news.d", None))
    assert client.do(PubsubChannels(None, False)) == [b"b", b"news.a", b"news.c", b"news.d"]
    assert client.do(PubsubChannels(b"news.[ac]", False)) == [b"news.a", b"news.c"]
    assert client.do(PubsubChannels(None, True)) == [b"s"]
    assert client.do(PubsubNumsub((b"b", b"none", b"news.d"), False)) == [b"b", 2, b"none", 0, b"news.d", 1]
    assert client.do(PubsubNumsub((b"s",), True)) == [b"s", 1]
    assert client.do(PubsubNumsub((), False)) == []
    assert client.do(PubsubNumpat()) == 2


def test_questions_and_answers_that_make_no_sense_are_left_out(node: FakeNode) -> None:
    assert node.sessions.answer(b"") == b""
    assert node.sessions.answer(b"\x81\xa4type\xa3Odd") == b""
    assert node.sessions.answer(census.encode(census.Numsub([b"c"], False))) != b""
    answers = [b"", b"\xc0", b"junk", census._encoder.encode(census.Counts([3]))]
    assert census.decode_answers(answers, census.Counts) == [census.Counts([3])]


def test_a_list_too_long_for_an_answer_is_an_error(
    node: FakeNode, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "ANSWER_BYTES_MAX", 20)
    node.connect().do(Subscribe("channel", (b"a" * 10, b"b" * 10)))
    assert error_text(client.do(PubsubChannels(None, False))).startswith("ERR a node has too many names")
    assert client.do(PubsubChannels(b"a*", False)) == [b"a" * 10]


def test_subscriptions_of_a_session_are_bounded(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riverbus.core.clients.pubsub_commands.SUBSCRIPTIONS_PER_SESSION_MAX", 2)
    client.do(Subscribe("channel", (b"a", b"b")))
    assert error_text(client.do(Subscribe("channel", (b"c",)))).startswith("ERR too many subscriptions")
    assert client.do(Subscribe("shard", (b"c",))) == [b"ssubscribe", b"c", 1]


# --- BUS.SUBSCRIBE ----------------------------------------------------------------------------------------------------


def test_bus_subscribe_goes_from_history_to_live(node: FakeNode) -> None:
    publisher = node.connect()
    ids = publisher.do(publish(b"c", b"1", b"2", style="id"))
    publisher.do(publish(b"c", b"3", kind=Kind.SPUBLISH))
    client = node.connect(3)
    first = MessageId(*map(int, ids[0].split(b"-")))
    publisher.send(publish(b"c", b"4"))
    replies = client.do(BusSubscribe(b"c", first))
    assert replies[0] == [b"bus.subscribe", b"c", ids[0]]
    assert [item[3] for item in replies[1:]] == [b"2", b"3", b"4"]
    assert replies[1] == [b"bus.message", b"c", ids[1], b"2"]
    assert publisher.read() == [1]
    node.now += 1
    id5 = publisher.do(publish(b"c", b"5", style="id"))
    assert client.read() == [[b"bus.message", b"c", id5, b"5"]]
    assert publisher.do(publish(b"c", b"6")) == 1
    assert client.do(BusUnsubscribe(b"c"))[-1] == [b"bus.unsubscribe", b"c", 0]
    assert publisher.do(publish(b"c", b"7")) == 0


def test_bus_subscribe_without_since_says_where_it_begins(node: FakeNode) -> None:
    client, publisher = node.connect(3), node.connect()
    assert client.do(BusSubscribe(b"new", None)) == [b"bus.subscribe", b"new", b"0-0"]
    id_ = publisher.do(publish(b"c", b"1", style="id"))
    assert client.do(BusSubscribe(b"c", None)) == [b"bus.subscribe", b"c", id_]
    publisher.do(publish(b"c", b"2"), publish(b"new", b"3"))
    assert sorted(item[3] for item in client.read()) == [b"2", b"3"]


def test_bus_subscribe_in_the_middle_of_an_applied_turn_is_exact(node: FakeNode) -> None:
    client, publisher = node.connect(3), node.connect()
    publisher.send(publish(b"c", b"1"), publish(b"c", b"2"))
    node.commit()
    client.session.handle([BusSubscribe(b"c", ID_MIN)])
    node.settle()
    assert [item[3] for item in client.read()[1:]] == [b"1", b"2"]


def test_bus_subscribe_since_an_id_that_is_not_there_yet(node: FakeNode) -> None:
    client, publisher = node.connect(3), node.connect()
    ahead = MessageId(node.wall_ms() + 5_000, 0)
    client.do(BusSubscribe(b"c", ahead))
    publisher.do(publish(b"c", b"before"))
    assert client.read() == []
    node.now += 10
    publisher.do(publish(b"c", b"after"))
    publisher.do(publish(b"c", b"live"))
    assert [item[3] for item in client.read()] == [b"after", b"live"]


def test_bus_subscribe_again_begins_again(node: FakeNode) -> None:
    client = node.connect(3)
    client.do(publish(b"c", b"1", b"2"))
    client.do(BusSubscribe(b"c", None))
    assert [item[3] for item in client.do(BusSubscribe(b"c", ID_MIN))[1:]] == [b"1", b"2"]
    last = [b"bus.message", b"c", b"%d-2" % node.wall_ms(), b"3"]
    assert client.do(publish(b"c", b"3")) == [1, last]
