"""Keys and strings on a node: what one shard answers, what is put together of several, events, WATCH and EXEC."""

from __future__ import annotations

import pytest

from riverbus import limits
from riverbus.commands import (
    NEWEST,
    ClientUnblock,
    ConfigGet,
    ConfigResetStat,
    ConfigSet,
    Exec,
    Info,
    Multi,
    Ping,
    Publish,
    Subscribe,
    Wait,
    Watch,
    XRange,
    XRead,
)
from riverbus.fields import encode_fields
from riverbus.keyspace_commands import (
    DbSize,
    Del,
    Exists,
    Expire,
    FlushAll,
    GetString,
    Keys,
    RandomKey,
    Rename,
    Scan,
    SetString,
    Trim,
    Ttl,
    Type,
    XAdd,
    XTrim,
)
from riverbus.messages import ID_MAX, ID_MIN, Kind, MessageId, NotAccepted
from tests.core.fakes import FakeClient, FakeNode, error_text

NAMES = tuple(b"key:%d" % at for at in range(20))


def xadd(channel: bytes, kind: Kind = Kind.XADD) -> Publish:
    return Publish(channel, kind, [encode_fields([b"f", b"v"])], "id")


def set_(key: bytes, value: bytes = b"v") -> SetString:
    return SetString(key, value)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode(shards=3)


@pytest.fixture
def client(node: FakeNode) -> FakeClient:
    return node.connect()


def test_commands_of_many_keys_are_split_by_shard_and_put_together(node: FakeNode, client: FakeClient) -> None:
    for name in NAMES:
        assert client.do(set_(name)) == b"OK"
    assert {node.shard_of(name) for name in NAMES} == {0, 1, 2}
    assert client.do(DbSize()) == 20
    assert client.do(Exists((*NAMES, NAMES[0], b"none"))) == 21
    assert sorted(client.do(Keys(b"key:?"))) == sorted(NAMES[:10])
    assert client.do(RandomKey(0)) in NAMES
    assert client.do(Del((*NAMES[:5], b"none"))) == 5
    assert client.do(Del(NAMES[5:6])) == 1
    assert client.do(DbSize()) == 14
    assert client.do(FlushAll()) == b"OK"
    assert (client.do(DbSize()), client.do(RandomKey(0)), client.do(Keys(b"*"))) == (0, None, [])


def test_scan_goes_through_all_shards(client: FakeClient) -> None:
    for name in NAMES:
        client.do(set_(name))
    client.do(xadd(b"stream"))
    found: list[bytes] = []
    cursor, steps = 0, 0
    while True:
        reply, some = client.do(Scan(cursor, limit=3, type=b"string"))
        found += some
        cursor, steps = int(reply), steps + 1
        if not cursor:
            break
    assert sorted(set(found)) == sorted(NAMES)
    assert steps > 3
    assert client.do(Scan(2**64 - 1)) == [client.do(Scan(2**64 - 1))[0], []]


def test_scan_of_few_keys_is_one_call(client: FakeClient) -> None:
    assert client.do(Scan(0)) == [b"0", []]
    for name in NAMES:
        client.do(set_(name))
    end, found = client.do(Scan(0, limit=len(NAMES) + 1))
    assert (end, sorted(found)) == (b"0", sorted(NAMES))
    none = b"nothing matches"
    cursor, found = client.do(Scan(0, none, limit=len(NAMES) // 2))
    assert found == []
    assert cursor != b"0", "it looked at no more than it was asked to"


def test_a_part_that_fails_fails_the_whole(node: FakeNode, client: FakeClient) -> None:
    client.do(set_(b"a"), set_(b"b"))
    client.send(Del((b"a", b"b", b"c")))
    queue = node.queues[node.shard_of(b"b")]
    queue.pop()[-1].failed(NotAccepted("no majority"))
    node.settle()
    assert [error_text(each) for each in client.read()] == ["CLUSTERDOWN no majority"]


def test_rename_stays_within_a_shard(node: FakeNode, client: FakeClient) -> None:
    client.do(set_(b"a"))
    assert node.shard_of(b"a") != node.shard_of(b"b")
    assert error_text(client.do(Rename(b"a", b"b"))).startswith("CROSSSLOT Keys in request don't hash to the same slot")
    assert client.do(Rename(b"a", b"d")) == b"OK"
    assert client.do(GetString(b"d")) == b"v"


def test_pipelined_writes_and_reads_keep_their_order(client: FakeClient) -> None:
    replies = client.do(
        set_(b"k", b"1"), GetString(b"k"), set_(b"k", b"2"), GetString(b"k"), Del((b"k",)), GetString(b"k")
    )
    assert replies == [b"OK", b"1", b"OK", b"2", 1, None]


def test_reads_of_history_refuse_a_string(client: FakeClient) -> None:
    client.do(set_(b"k"))
    wrong = "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert error_text(client.do(XRange(b"k", ID_MIN, ID_MAX, None, False))) == wrong
    assert error_text(client.do(XRead((b"k",), (ID_MIN,), None, None))) == wrong
    assert error_text(client.do(xadd(b"k"))) == wrong
    assert client.do(Type(b"k")) == b"string"


def test_who_waits_for_a_stream_is_not_told_of_a_string(node: FakeNode, client: FakeClient) -> None:
    client.send(XRead((b"k",), (None,), None, 0))
    node.settle()
    other = node.connect()
    other.do(set_(b"k"), Del((b"k",)))
    assert client.read() == []
    id_ = other.do(xadd(b"k"))
    assert client.read() == [[[b"k", [[id_, [b"f", b"v"]]]]]]


def test_who_waits_for_several_is_told_of_a_string_once_there_is_something(node: FakeNode, client: FakeClient) -> None:
    client.send(XRead((b"k", b"s"), (None, None), None, 0))
    node.settle()
    other = node.connect()
    other.do(set_(b"k"))
    assert client.read() == []
    other.do(xadd(b"s"))
    assert [error_text(reply)[:10] for reply in client.read()] == ["WRONGTYPE "]


def test_trimming_by_nodes_uses_the_setting_of_the_node(node: FakeNode, client: FakeClient) -> None:
    assert client.do(ConfigSet(((b"stream-node-max-entries", b"2"),))) == b"OK"
    for _ in range(7):
        client.do(xadd(b"s"))
    assert client.do(XTrim(b"s", Trim(maxlen=3, is_approximate=True))) == 4
    assert client.do(ConfigGet((b"stream-*",)))[:2] == [b"stream-node-max-entries", b"2"]
    assert error_text(client.do(ConfigSet(((b"no", b"1"),)))).startswith("ERR Unknown option or number of arguments")
    assert "can't set immutable config" in error_text(client.do(ConfigSet(((b"databases", b"1"),))))
    assert "duplicate parameter" in error_text(client.do(ConfigSet(((b"stream-node-max-entries", b"1"),) * 2)))


# --- events -----------------------------------------------------------------------------------------------------------


def test_keyspace_events_reach_local_subscribers_as_plain_messages(node: FakeNode, client: FakeClient) -> None:
    listener = node.connect()
    listener.do(Subscribe("pattern", (b"__key*__:*",)))
    client.do(set_(b"k"))
    assert listener.read() == []
    client.do(ConfigSet(((b"notify-keyspace-events", b"KEA"),)))
    client.do(set_(b"k"), Expire(b"k", 1000, False), xadd(b"s"))
    channels = [(message[2], message[3]) for message in listener.read()]
    assert [one for one in channels if b"xadd" not in one[0] + one[1]] == [
        (b"__keyspace@0__:k", b"set"),
        (b"__keyevent@0__:set", b"k"),
        (b"__keyspace@0__:k", b"expire"),
        (b"__keyevent@0__:expire", b"k"),
    ]
    assert [one for one in channels if b"xadd" in one[0] + one[1]] == [
        (b"__keyspace@0__:s", b"xadd"),
        (b"__keyevent@0__:xadd", b"s"),
    ]
    node.advance(2)
    client.do(GetString(b"k"), set_(b"n"))
    assert (b"__keyevent@0__:expired", b"k") in [(message[2], message[3]) for message in listener.read()]
    client.do(ConfigSet(((b"notify-keyspace-events", b"Kg"),)))
    listener.read()
    client.do(set_(b"k"), Del((b"k",)))
    assert [message[2:] for message in listener.read()] == [[b"__keyspace@0__:k", b"del"]]


def test_events_of_who_does_not_read_are_counted(node: FakeNode, client: FakeClient) -> None:
    client.do(ConfigSet(((b"notify-keyspace-events", b"EA"),)))
    listener = node.connect()
    listener.do(Subscribe("channel", (b"__keyevent@0__:set",)))
    listener.session.on_blocked()
    client.do(set_(b"k"))
    listener.session.on_writable()
    client.do(set_(b"k"))
    assert listener.read() == [[b"message", b"__keyevent@0__:set", b"k"]]
    assert node.sessions.counters.dropped["events_unread"] == 1


# --- EXEC -------------------------------------------------------------------------------------------------------------


def test_exec_of_writes_is_one_operation_with_local_commands_in_their_places(
    node: FakeNode, client: FakeClient
) -> None:
    client.do(Subscribe("channel", (b"k",)))
    other = node.connect(3)
    other.do(Subscribe("channel", (b"k",)))
    other.send(
        Multi(), set_(b"k"), Ping(None), Publish(b"k", Kind.PUBLISH, [b"1", b"2"]), GetString(b"k"), DbSize(), Exec()
    )
    assert [len(queue) for queue in node.queues] == [1 if shard == node.shard_of(b"k") else 0 for shard in range(3)]
    node.settle()
    replies = other.read()
    assert replies[7] == [b"OK", b"PONG", 2, 2, b"v", 1]
    assert [message[2] for message in replies[8:]] == [b"1", b"2"]


def test_exec_over_shards_is_refused_before_anything_is_done(node: FakeNode, client: FakeClient) -> None:
    assert error_text(client.do(Multi(), set_(b"a"), set_(b"b"), Exec())[-1]).startswith("CROSSSLOT ")
    assert error_text(client.do(Watch((b"a",)), Multi(), xadd(b"b"), Exec())[-1]).startswith("CROSSSLOT ")
    assert client.do(DbSize()) == 0
    assert client.do(Multi(), xadd(b"a"), xadd(b"b"), FlushAll(), Exec())[-1].args[0].startswith("CROSSSLOT")
    assert client.do(Multi(), FlushAll(), DbSize(), Exec())[-1] == [b"OK", 0]
    assert len(client.do(Multi(), xadd(b"a"), xadd(b"b"), Exec())[-1]) == 2


def test_exec_that_is_not_accepted_says_so(node: FakeNode, client: FakeClient) -> None:
    node.refusal = NotAccepted("no majority")
    assert error_text(client.do(Multi(), set_(b"a"), Exec())[-1]) == "CLUSTERDOWN no majority"
    node.refusal = None
    assert client.do(Ping(None)) == b"PONG"


def test_an_operation_has_a_limit(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRANSACTION_BYTES_MAX", 1000)
    assert error_text(client.do(Multi(), set_(b"a", b"x" * 1000), Exec())[-1]).startswith(
        "ERR transaction is too large"
    )


def test_blocking_reads_do_not_wait_in_a_transaction(client: FakeClient) -> None:
    id_ = client.do(xadd(b"s"))
    replies = client.do(
        Multi(), set_(b"v"), XRead((b"s",), (NEWEST,), None, 0), XRead((b"s",), (None,), None, 0), Exec()
    )
    assert replies[-1] == [b"OK", [[b"s", [[id_, [b"f", b"v"]]]]], None]


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_wait_counts_the_nodes_that_have_applied_as_much(node: FakeNode, client: FakeClient) -> None:
    behind = FakeNode(shards=3)
    node.peers = [behind, behind]
    assert client.do(Wait(0, 100)) == 2
    client.do(set_(b"a"))
    client.send(Wait(1, 100))
    node.release_questions()
    node.end_turn()
    assert client.read() == []
    assert b"blocked_clients:1" in node.connect().do(Info((b"clients",)))
    node.advance(0.2)
    node.settle()
    assert client.read() == [0]
    behind.buses = node.buses
    assert client.do(Wait(5, 0), ClientUnblock(1, False)) == []
    assert node.connect().do(ClientUnblock(client.session.id, False)) == 1
    assert client.read() == [2, 0]


def test_info_tells_the_keys(node: FakeNode, client: FakeClient) -> None:
    assert b"db0" not in client.do(Info((b"keyspace",)))
    client.do(set_(b"a"), SetString(b"b", b"v", 1000))
    assert b"db0:keys=2,expires=1,avg_ttl=0" in client.do(Info((b"keyspace",)))
    assert 0 < client.do(Ttl(b"b", False)) <= 1000
    assert b"used_memory:%d\r\n" % sum(bus.memory_bytes for bus in node.buses) in client.do(Info((b"memory",)))
    assert b"expired_keys:0" in client.do(Info((b"stats",)))
    node.advance(2)
    assert client.do(Exists((b"b",)), set_(b"b"))[0] == 0
    assert b"expired_keys:1" in client.do(Info((b"stats",)))
    assert b"expired_keys:0" in client.do(ConfigResetStat(), Info((b"stats",)))[1]


def test_xadd_with_an_id(client: FakeClient) -> None:
    assert client.do(XAdd(b"s", encode_fields([b"f", b"v"]), MessageId(5, 1))) == b"5-1"
    assert error_text(client.do(XAdd(b"s", encode_fields([b"f", b"v"]), MessageId(5, 1)))).startswith("ERR The ID")
