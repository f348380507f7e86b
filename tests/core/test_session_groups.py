"""XREADGROUP on a node: over shards, blocked and woken in order of arrival, unblocked by what ends its wait."""

from __future__ import annotations

import pytest

from riverbus.commands import ClientUnblock, Exec, Info, Multi, Ping, Publish
from riverbus.fields import encode_fields
from riverbus.keyspace_commands import (
    Del,
    FlushAll,
    Rename,
    SetString,
    XAck,
    XGroupCreate,
    XGroupDestroy,
    XPending,
    XReadGroup,
)
from riverbus.messages import ID_MIN, Kind, NotAccepted, OutcomeUnknown
from tests.core.fakes import FakeClient, FakeNode, error_text

ENTRY = [b"f", b"v"]


def xadd(channel: bytes) -> Publish:
    return Publish(channel, Kind.XADD, [encode_fields(ENTRY)], "id")


def create(key: bytes, group: bytes = b"g") -> XGroupCreate:
    return XGroupCreate(key, group, ID_MIN, mkstream=True)


def read(*keys: bytes, consumer: bytes = b"c", limit: int | None = 1, block: int | None = None) -> XReadGroup:
    return XReadGroup(b"g", consumer, keys, (None,) * len(keys), limit, block)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def client(node: FakeNode) -> FakeClient:
    client = node.connect()
    client.do(create(b"a"), create(b"b"))
    return client


def waiting(node: FakeNode, count: int, *keys: bytes, limit: int | None = 1, block: int = 0) -> list[FakeClient]:
    readers = [node.connect() for _ in range(count)]
    for at, reader in enumerate(readers):
        assert reader.do(read(*keys, consumer=b"c%d" % at, limit=limit, block=block)) == []
    return readers


def test_keys_of_several_shards_are_read_apart_and_joined(node: FakeNode, client: FakeClient) -> None:
    assert node.shard_of(b"a") != node.shard_of(b"b")
    first, second = client.do(xadd(b"b"), xadd(b"a"))
    assert client.do(read(b"a", b"b")) == [[b"a", [[second, ENTRY]]], [b"b", [[first, ENTRY]]]]
    assert client.do(read(b"a", b"b")) is None
    assert error_text(client.do(read(b"a", b"none"))).startswith("NOGROUP")
    assert node.connect(3).do(xadd(b"a"), read(b"a", b"b"))[1].keys() == {b"a"}


def test_each_message_wakes_one_reader_in_order_of_arrival(node: FakeNode, client: FakeClient) -> None:
    readers = waiting(node, 3, b"a")
    ids = []
    for _ in range(2):
        client.send(xadd(b"a"))
        node.commit()
        node.end_turn()
        assert sum(map(len, node.queues)) == 1, "one reader looks"
        node.settle()
        ids += client.read()
    answers = [reader.read() for reader in readers]
    assert answers == [[[[b"a", [[ids[0], ENTRY]]]]], [[[b"a", [[ids[1], ENTRY]]]]], []]
    assert client.do(XPending(b"a", b"g"))[3] == [[b"c0", b"1"], [b"c1", b"1"]]
    assert node.sessions.blocked.count == 1


def test_several_messages_at_once_wake_as_many(node: FakeNode, client: FakeClient) -> None:
    readers = waiting(node, 3, b"a")
    client.do(Publish(b"a", Kind.XADD, [encode_fields(ENTRY)] * 2, "id"))
    assert [len(reader.read()) for reader in readers] == [1, 1, 0]


def test_who_finds_nothing_waits_on_in_its_place(node: FakeNode, client: FakeClient) -> None:
    first, second = waiting(node, 2, b"a")
    client.send(xadd(b"a"), read(b"a", consumer=b"quick"))
    node.settle()
    assert len(client.read()) == 2
    assert first.read() == second.read() == []
    client.do(xadd(b"a"))
    assert (len(first.read()), len(second.read())) == (1, 0)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (Del((b"a",)), "NOGROUP No such key 'a' or consumer group 'g' in XREADGROUP with GROUP option"),
        (Rename(b"a", b"c"), "NOGROUP No such key 'a' or consumer group 'g' in XREADGROUP with GROUP option"),
        (FlushAll(), "NOGROUP No such key 'a' or consumer group 'g' in XREADGROUP with GROUP option"),
        (XGroupDestroy(b"a", b"g"), "NOGROUP No such key 'a' or consumer group 'g' in XREADGROUP with GROUP option"),
        (SetString(b"a", b"v"), "WRONGTYPE Operation against a key holding the wrong kind of value"),
    ],
)
def test_what_ends_a_group_ends_the_wait_for_it(node: FakeNode, client: FakeClient, change: Del, error: str) -> None:
    readers = waiting(node, 2, b"a")
    client.do(change)
    assert [error_text(reply) for reader in readers for reply in reader.read()] == [error, error]
    assert not node.sessions.blocked.waiting


def test_timeout_unblock_and_a_lost_connection(node: FakeNode, client: FakeClient) -> None:
    late, other, gone, last = waiting(node, 4, b"a", block=1000)
    info = client.do(Info((b"clients",)))
    assert all(line in info for line in (b"blocked_clients:4", b"total_blocking_keys:1", b"blocking_keys_on_nokey:1"))
    assert client.do(ClientUnblock(other.session.id, True), ClientUnblock(99, True)) == [1, 0]
    assert error_text(other.read()[0]) == "UNBLOCKED client unblocked via CLIENT UNBLOCK"
    gone.disconnect()
    node.advance(1.5)
    node.settle()
    assert late.read() == last.read() == [None]
    assert late.do(Ping(None)) == b"PONG"
    assert node.sessions.blocked.count == 0


def test_a_message_that_the_first_does_not_take_goes_to_the_next(node: FakeNode, client: FakeClient) -> None:
    first, second = waiting(node, 2, b"a")
    client.send(xadd(b"a"))
    node.commit()
    node.end_turn()
    first.disconnect()
    node.settle()
    assert len(second.read()) == 1


def test_a_refusal_while_it_waits_is_tried_again(node: FakeNode, client: FakeClient) -> None:
    (reader,) = waiting(node, 1, b"a")
    client.send(xadd(b"a"))
    node.commit()
    node.refusal = NotAccepted("no majority")
    node.end_turn()
    node.settle()
    assert reader.read() == []
    node.refusal = None
    node.advance(0.2)
    node.settle()
    assert len(reader.read()) == 1
    (reader,) = waiting(node, 1, b"a")
    client.send(xadd(b"a"))
    node.commit()
    node.refusal = OutcomeUnknown("who knows")
    node.end_turn()
    node.settle()
    assert error_text(reader.read()[0]) == "UNKNOWN who knows"


def test_a_blocked_read_that_was_answered_while_it_waited_to_ask_again_does_not_ask(
    node: FakeNode, client: FakeClient
) -> None:
    """Else the entry would be pending for who was told that there is none; found by the simulator."""
    (reader,) = waiting(node, 1, b"a", block=50)
    client.send(xadd(b"a"))
    node.commit()
    node.refusal = NotAccepted("no majority")
    node.end_turn()
    node.settle()
    node.refusal = None
    node.advance(0.06)
    assert reader.read() == [None]
    node.advance(0.2)
    node.settle()
    assert reader.read() == []
    client.read()
    assert client.do(XPending(b"a", b"g"))[0] == 0


def test_the_first_question_of_a_blocking_read_may_be_refused(node: FakeNode, client: FakeClient) -> None:
    node.refusal = NotAccepted("no majority")
    assert error_text(client.do(read(b"a", block=0))) == "CLUSTERDOWN no majority"
    node.refusal = None
    assert error_text(client.do(read(b"none", block=0))).startswith("NOGROUP")


def test_in_a_transaction_it_does_not_wait(client: FakeClient) -> None:
    assert client.do(Multi(), read(b"a", block=0), Exec())[-1] == [None]


def test_a_blocked_read_over_two_shards(node: FakeNode, client: FakeClient) -> None:
    (reader,) = waiting(node, 1, b"a", b"b")
    id_ = client.do(xadd(b"b"))
    assert reader.read() == [[[b"b", [[id_, ENTRY]]]]]
    assert client.do(XAck(b"b", b"g", ())) == 0
