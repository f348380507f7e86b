"""XRANGE and its like: fresh, in Redis' shapes, bounded; and XREAD that waits."""

from __future__ import annotations

import pytest

from riverbus.commands import NEWEST, Exec, Multi, Ping, Publish, XInfoStream, XLen, XRange, XRead
from riverbus.core.clients import history_commands, reads
from riverbus.core.state.rules import ChannelRule, Rules
from riverbus.fields import encode_fields
from riverbus.keyspace_commands import Del, Expire, XAdd, XDel
from riverbus.messages import ID_MAX, ID_MIN, Kind, MessageId, NotAccepted
from tests.core.fakes import FakeClient, FakeNode, error_text


def publish(channel: bytes, *payloads: bytes) -> Publish:
    return Publish(channel, Kind.PUBLISH, list(payloads), "id")


def xadd(channel: bytes, *fields: bytes) -> Publish:
    return Publish(channel, Kind.XADD, [encode_fields(fields)], "id")


def xread(
    *channels: bytes, after: MessageId | None = ID_MIN, limit: int | None = None, block: int | None = None
) -> XRead:
    return XRead(channels, (after,) * len(channels), limit, block)


def everything(channel: bytes, limit: int | None = None, reverse: bool = False) -> XRange:
    return XRange(channel, ID_MIN, ID_MAX, limit, reverse)


def as_id(data: bytes) -> MessageId:
    ms, seq = data.split(b"-")
    return MessageId(int(ms), int(seq))


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def client(node: FakeNode) -> FakeClient:
    return node.connect()


def test_ranges_of_messages_that_came_in_both_ways(node: FakeNode, client: FakeClient) -> None:
    one, two = client.do(publish(b"c", b"1", b"2"))
    three = client.do(xadd(b"c", b"f", b"v", b"g", b"w"))
    entries = [[one, [b"message", b"1"]], [two, [b"message", b"2"]], [three, [b"f", b"v", b"g", b"w"]]]
    assert client.do(everything(b"c")) == entries
    assert client.do(everything(b"c", reverse=True)) == entries[::-1]
    assert client.do(everything(b"c", limit=2)) == entries[:2]
    assert client.do(everything(b"c", limit=2, reverse=True)) == entries[:0:-1]
    assert client.do(XRange(b"c", as_id(two), as_id(two), None, False)) == entries[1:2]
    assert client.do(everything(b"c", limit=0)) is None
    assert client.do(everything(b"never")) == []
    assert client.do(everything(b"never", limit=0)) == []
    assert client.do(XLen(b"c")) == 3
    assert client.do(XLen(b"never")) == 0


def test_long_ranges_are_read_by_pages(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_commands, "_PAGE", 3)
    payloads = [b"%d" % at for at in range(10)]
    client.do(publish(b"c", *payloads))
    assert [item[1][1] for item in client.do(everything(b"c"))] == payloads
    assert [item[1][1] for item in client.do(everything(b"c", reverse=True))] == payloads[::-1]
    assert [item[1][1] for item in client.do(everything(b"c", limit=7))] == payloads[:7]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_long_reply_is_made_over_several_turns_and_is_of_one_moment(
    monkeypatch: pytest.MonkeyPatch, is_stream: bool, reverse: bool
) -> None:
    monkeypatch.setattr(history_commands, "_PAGE", 3)
    node = FakeNode(Rules(channels=(ChannelRule("c", count=10),)))
    client, other = node.connect(), node.connect()
    add = xadd if is_stream else publish
    ids = [other.do(add(b"c", b"f", b"%d" % at) if is_stream else add(b"c", b"%d" % at)) for at in range(10)]
    client.send(everything(b"c", reverse=reverse), Ping(None))
    node.release_reads()
    disturbances = [
        add(b"c", b"f", b"new"),
        XDel(b"c", tuple(map(as_id, ids[2:8]))) if is_stream else add(b"c", b"new"),
    ]
    for disturbance in disturbances:
        other.send(Ping(None), disturbance)
        assert other.read()[-1] == b"PONG"
        assert client.read() == []
        node.commit()
    node.settle()
    other.read()
    entries, pong = client.read()
    assert [entry[0] for entry in entries] == (ids[::-1] if reverse else ids)
    assert pong == b"PONG"
    assert len(other.do(everything(b"c"))) == (5 if is_stream else 10)


def test_whoever_reads_many_channels_at_length_gets_all_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_commands, "_PAGE", 3)
    node = FakeNode()
    client = node.connect()
    for name, count in ((b"a", 7), (b"b", 2), (b"c", 9)):
        client.do(publish(name, *[b"%d" % at for at in range(count)]))
    for version in (2, 3):
        for command in (xread(b"a", b"none", b"b", b"c"), xread(b"a", b"none", b"b", b"c", block=0)):
            found = dict(node.connect(version).do(command))
            sizes = {name: len(entries) for name, entries in found.items()}
            assert sizes == {b"a": 7, b"b": 2, b"c": 9}, (version, command)
    assert [len(found) for _, found in client.do(Multi(), xread(b"a", b"c"), everything(b"b"), Exec())[-1][0]] == [7, 9]


def test_a_client_that_leaves_in_the_middle_of_a_long_reply_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_commands, "_PAGE", 3)
    node = FakeNode()
    client = node.connect()
    client.do(publish(b"c", *[b"x"] * 10))
    client.send(everything(b"c"))
    node.release_reads()
    node.end_turn()
    client.disconnect()
    node.settle()
    assert client.read() == []


def test_a_reply_too_large_is_an_error_that_says_what_to_do(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "OUTBOX_REPLIES_BYTES_MAX", 300)
    client.do(publish(b"c", *[b"x" * 100] * 4))
    for command in (everything(b"c"), xread(b"c")):
        assert "COUNT" in error_text(client.do(command))
    assert len(client.do(everything(b"c", limit=2))) == 2


def test_reads_wait_until_the_replica_is_fresh_and_fail_without_a_majority(node: FakeNode, client: FakeClient) -> None:
    client.send(XLen(b"c"), Ping(None))
    assert client.read() == []
    node.release_reads()
    node.end_turn()
    assert client.read() == [0, b"PONG"]
    node.refusal = NotAccepted("no majority")
    for command in (XLen(b"c"), everything(b"c"), xread(b"c"), xread(b"c", block=0), XInfoStream(b"c", False, 10)):
        assert error_text(client.do(command)) == "CLUSTERDOWN no majority"


def test_xread_shapes_in_both_protocols(node: FakeNode, client: FakeClient) -> None:
    one = client.do(publish(b"a", b"1"))
    two, three = client.do(publish(b"b", b"2", b"3"))
    expected_a, expected_b = [[one, [b"message", b"1"]]], [[two, [b"message", b"2"]], [three, [b"message", b"3"]]]
    assert client.do(xread(b"a", b"none", b"b")) == [[b"a", expected_a], [b"b", expected_b]]
    assert node.connect(3).do(xread(b"a", b"none", b"b")) == {b"a": expected_a, b"b": expected_b}
    assert client.do(xread(b"b", limit=1)) == [[b"b", expected_b[:1]]]
    assert client.do(xread(b"b", limit=0)) == [[b"b", expected_b]]
    assert client.do(xread(b"b", after=as_id(two))) == [[b"b", expected_b[1:]]]
    for version in (2, 3):
        other = node.connect(version)
        assert other.do(xread(b"none")) is None
        assert other.do(xread(b"a", after=None)) is None
        found = other.do(xread(b"a", after=NEWEST))
        assert (dict(found) if version == 2 else found).keys() == {b"a"}


def test_nothing_comes_after_the_last_id(client: FakeClient) -> None:
    client.do(XAdd(b"c", encode_fields([b"f", b"v"]), ID_MAX))
    for after in (None, ID_MAX):
        assert client.do(xread(b"c", after=after)) is None
        assert client.do(Multi(), xread(b"c", after=after), Exec())[-1] == [None]
    assert client.do(xread(b"c", after=NEWEST)) == [[b"c", [[str(ID_MAX).encode(), [b"f", b"v"]]]]]
    client.do(XDel(b"c", (ID_MAX,)))
    assert client.do(xread(b"c", after=NEWEST)) is None
    assert client.do(xread(b"c", after=None, block=10)) == []  # it waits


def test_xread_block_answers_at_once_if_there_is_something(client: FakeClient) -> None:
    one = client.do(publish(b"a", b"1"))
    assert client.do(xread(b"a", block=1000)) == [[b"a", [[one, [b"message", b"1"]]]]]


def test_blocked_reads_wake_in_order_of_arrival_for_each_kind(node: FakeNode, client: FakeClient) -> None:
    readers = [node.connect() for _ in range(3)]
    woken: list[int] = []
    for at, reader in enumerate(readers):
        reader.do(xread(b"other", b"c", after=None, block=0))
        reader.output.on_write = lambda at=at: woken.append(at)
    node.sessions.by_id = dict(reversed(node.sessions.by_id.items()))
    one = client.do(xadd(b"c", b"f", b"v"))
    assert woken == [0, 1, 2]
    assert [reader.read() for reader in readers] == [[[[b"c", [[one, [b"f", b"v"]]]]]]] * 3
    readers[0].do(xread(b"c", after=None, block=0))
    client.do(Publish(b"c", Kind.SPUBLISH, [b"s"]))
    assert readers[0].read()[0][0][1][0][1] == [b"message", b"s"]
    assert not node.sessions.blocked.waiting


def test_blocked_reads_time_out_and_hold_up_their_own_connection_only(node: FakeNode, client: FakeClient) -> None:
    reader = node.connect()
    reader.do(xread(b"c", b"c", after=None, block=500), Ping(None), publish(b"x", b"1"))
    assert reader.read() == []
    assert client.do(XLen(b"x")) == 0
    node.advance(0.4)
    assert reader.read() == []
    node.advance(0.2)
    node.settle()
    assert reader.read()[:2] == [None, b"PONG"]
    assert client.do(XLen(b"x")) == 1


def test_a_stream_that_has_expired_is_gone_before_an_entry_frees_it(node: FakeNode, client: FakeClient) -> None:
    old = client.do(xadd(b"c", b"f", b"old"))
    client.do(publish(b"log", b"no key, and stays"))
    client.do(Expire(b"c", 1000, False))
    node.now += 2
    assert node.bus(b"c").length(b"c") == 1, "nothing has freed it"
    for limit in (None, 0, 5):
        assert client.do(everything(b"c", limit=limit)) == []
    assert client.do(everything(b"c", reverse=True)) == []
    assert client.do(XLen(b"c")) == 0
    assert client.do(xread(b"c")) is None
    assert client.do(xread(b"c", after=NEWEST)) is None
    assert len(client.do(everything(b"log"))) == 1
    reader = node.connect()
    reader.do(xread(b"c", block=0))
    assert reader.read() == []
    new = client.do(xadd(b"c", b"f", b"new"))
    assert as_id(new) > as_id(old)
    assert reader.read() == [[[b"c", [[new, [b"f", b"new"]]]]]]
    assert client.do(everything(b"c")) == [[new, [b"f", b"new"]]]


def test_dollar_of_a_stream_that_was_deleted_is_the_beginning(node: FakeNode, client: FakeClient) -> None:
    client.do(XAdd(b"c", encode_fields([b"f", b"v"]), MessageId(500, 0)), Del((b"c",)))
    readers = [node.connect(), node.connect()]
    for reader in readers:
        reader.do(xread(b"c", after=None, block=0))
    assert client.do(XAdd(b"c", encode_fields([b"f", b"w"]), MessageId(1, 0))) == b"1-0"
    assert [reader.read() for reader in readers] == [[[[b"c", [[b"1-0", [b"f", b"w"]]]]]]] * 2
    reader.do(xread(b"c", after=None, block=0))
    assert reader.read() == []


def test_dollar_is_taken_behind_the_barrier(node: FakeNode, client: FakeClient) -> None:
    reader = node.connect()
    client.send(publish(b"c", b"acked before"))
    reader.send(xread(b"c", after=None, block=0))
    node.commit()
    node.settle()
    assert reader.read() == []
    client.do(publish(b"c", b"next"))
    assert reader.read()[0][0][1][0][1] == [b"message", b"next"]


def test_xread_in_a_transaction_never_blocks(client: FakeClient) -> None:
    assert client.do(Multi(), xread(b"c", after=None, block=0), Exec()) == [b"OK", b"QUEUED", [None]]


def test_a_disconnect_ends_a_blocked_read(node: FakeNode, client: FakeClient) -> None:
    reader = node.connect()
    reader.do(xread(b"c", after=None, block=100))
    reader.disconnect()
    assert node.sessions.blocked.count == 0
    client.do(publish(b"c", b"1"))
    node.advance(1)
    waiting_for_barrier = node.connect()
    waiting_for_barrier.send(xread(b"c", after=None, block=0), xread(b"c"))
    waiting_for_barrier.disconnect()
    node.settle()


def test_xinfo_stream(node: FakeNode, client: FakeClient) -> None:
    assert error_text(client.do(XInfoStream(b"c", False, 10))) == "ERR no such key"
    one = client.do(publish(b"c", b"1"))
    two = client.do(xadd(b"c", b"f", b"v"))
    reader = node.connect(3)
    entries = [[one, [b"message", b"1"]], [two, [b"f", b"v"]]]
    common = {
        b"length": 2,
        b"radix-tree-keys": 1,
        b"radix-tree-nodes": 2,
        b"last-generated-id": two,
        b"max-deleted-entry-id": b"0-0",
        b"entries-added": 2,
        b"recorded-first-entry-id": one,
    }
    assert reader.do(XInfoStream(b"c", False, 10)) == common | {
        b"groups": 0,
        b"first-entry": entries[0],
        b"last-entry": entries[1],
    }
    assert reader.do(XInfoStream(b"c", True, 1)) == common | {b"entries": entries[:1], b"groups": []}
    assert client.do(XInfoStream(b"c", False, 10))[:2] == [b"length", 2]


def test_a_log_without_messages_that_only_publish_has_made_is_no_key() -> None:
    node = FakeNode(Rules(default=ChannelRule(count=0)))
    client = node.connect(3)
    client.do(publish(b"c", b"1"))
    assert error_text(client.do(XInfoStream(b"c", False, 10))) == "ERR no such key"
