"""MULTI and EXEC as redis-py's pipelines send them, and WATCH."""

from __future__ import annotations

import pytest

from riverbus import limits
from riverbus.commands import (
    Answered,
    Discard,
    Exec,
    Monitor,
    Multi,
    Ping,
    Publish,
    PubsubNumpat,
    Quit,
    Reset,
    Subscribe,
    Unwatch,
    Watch,
    XLen,
    XRange,
)
from riverbus.fields import encode_fields
from riverbus.messages import ID_MAX, ID_MIN, ErrorReply, Kind, NotAccepted
from riverbus.wire.command_table import noun_of
from tests.core.fakes import FakeClient, FakeNode, error_text

UNKNOWN = Answered(ErrorReply("ERR unknown command 'x', with args beginning with: "))


def xadd(channel: bytes) -> Publish:
    return Publish(channel, Kind.XADD, [encode_fields([b"f", b"v"])], "id")


def publish(channel: bytes, *payloads: bytes, style: str = "receivers") -> Publish:
    return Publish(channel, Kind.PUBLISH, list(payloads), style)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def client(node: FakeNode) -> FakeClient:
    return node.connect()


def test_a_pipeline_of_redis_py_is_answered_by_one_array(node: FakeNode, client: FakeClient) -> None:
    client.send(Multi(), publish(b"a", b"1", b"2"), publish(b"b", b"3", style="id"), Ping(None), XLen(b"a"), Exec())
    assert client.read() == [b"OK", *[b"QUEUED"] * 5]
    node.commit(node.shard_of(b"a"))
    node.end_turn()
    assert client.read() == []
    node.settle()
    [[first, second, id_, pong, length]] = client.read()
    assert (first, second, pong, length) == (0, 0, b"PONG", 2)
    assert id_ == str(node.bus(b"b").last_id(b"b")).encode()


def test_publishes_of_a_transaction_keep_their_order(node: FakeNode, client: FakeClient) -> None:
    client.do(Multi(), publish(b"a", b"1"), publish(b"b", b"x"), publish(b"a", b"2", b"3"), XLen(b"a"), Exec())
    client.do(publish(b"a", b"4"))
    entries = client.do(XRange(b"a", ID_MIN, ID_MAX, None, False))
    assert [fields[1] for _, fields in entries] == [b"1", b"2", b"3", b"4"]


def test_nothing_of_the_connection_overtakes_a_transaction(node: FakeNode, client: FakeClient) -> None:
    client.send(Multi(), publish(b"a", b"1"), Exec(), Ping(None), publish(b"a", b"2"))
    assert client.read() == [b"OK", b"QUEUED"]
    node.settle()
    assert client.read() == [[0], b"PONG", 0]
    assert client.do(Multi(), Exec()) == [b"OK", []]


def test_own_messages_come_behind_the_array(node: FakeNode) -> None:
    client = node.connect(3)
    client.do(Subscribe("channel", (b"a",)))
    client.send(Multi(), publish(b"a", b"1"), publish(b"b", b"2"), Exec(), Ping(None))
    node.commit(node.shard_of(b"a"))
    node.end_turn()
    assert client.read() == [b"OK", b"QUEUED", b"QUEUED"]
    node.settle()
    assert client.read() == [[1, 0], [b"message", b"a", b"1"], b"PONG"]


def test_subscribe_in_a_transaction(node: FakeNode, client: FakeClient) -> None:
    client.do(Multi(), publish(b"a", b"0"), Subscribe("channel", (b"a", b"b")), Exec())
    assert node.connect().do(publish(b"a", b"1")) == 1
    assert client.read() == [[b"message", b"a", b"1"]]
    pushes = node.connect(3)
    replies = pushes.do(Multi(), Subscribe("channel", (b"a",)), publish(b"a", b"2"), Exec())
    assert replies[2:] == [b"QUEUED", [[b"subscribe", b"a", 1], 2], [b"message", b"a", b"2"]]


def test_errors_at_queue_time_abort_it(client: FakeClient) -> None:
    replies = client.do(Multi(), UNKNOWN, Ping(None), Exec())
    assert error_text(replies[1]).startswith("ERR unknown command")
    assert error_text(replies[3]) == "EXECABORT Transaction discarded because of previous errors."
    assert client.do(Ping(None)) == b"PONG"


def test_errors_that_do_not_abort_it(client: FakeClient) -> None:
    replies = client.do(Multi(), Multi(), Watch((b"a",)), Ping(None), Answered(ErrorReply("ERR late"), "xlen"), Exec())
    assert error_text(replies[1]) == "ERR MULTI calls can not be nested"
    assert error_text(replies[2]) == "ERR WATCH inside MULTI is not allowed"
    assert replies[5][0] == b"PONG"
    assert error_text(replies[5][1]) == "ERR late"


def test_exec_that_is_refused_ends_the_transaction(node: FakeNode, client: FakeClient) -> None:
    aborted = "EXECABORT Transaction discarded because of: "
    wrong = noun_of([b"EXEC", b"x"])
    replies = client.do(Watch((b"a",)), Multi(), publish(b"a", b"1"), wrong, XLen(b"a"))
    assert error_text(replies[3]) == aborted + "wrong number of arguments for 'exec' command"
    assert replies[4] == 0
    assert not client.session.watched
    assert error_text(client.do(wrong)).startswith(aborted)
    client.do(Subscribe("channel", (b"a",)))
    assert error_text(client.do(Exec())).startswith(aborted + "Can't execute 'exec': only ")
    node.users = {"default": b"secret"}
    assert error_text(node.connect().do(Exec())) == aborted + "NOAUTH Authentication required."


def test_what_would_come_between_the_replies_is_refused_in_a_transaction(node: FakeNode, client: FakeClient) -> None:
    replies = client.do(Multi(), Monitor(), Subscribe("shard", (b"a",)), Ping(None), Exec())[-1]
    assert error_text(replies[0]) == "ERR MONITOR isn't allowed for DENY BLOCKING client"
    assert error_text(replies[1]) == "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client"
    assert replies[2] == b"PONG"
    assert not node.sessions.monitors.are_on
    assert not client.session.is_subscriber


def test_exec_and_discard_without_multi(client: FakeClient) -> None:
    assert error_text(client.do(Exec())) == "ERR EXEC without MULTI"
    assert error_text(client.do(Discard())) == "ERR DISCARD without MULTI"
    assert client.do(Multi(), publish(b"a", b"1"), Discard(), XLen(b"a")) == [b"OK", b"QUEUED", b"OK", 0]


def test_a_publish_that_fails_is_an_error_in_the_array(node: FakeNode, client: FakeClient) -> None:
    client.do(Multi(), publish(b"a", b"1", b"2"), Ping(None))
    node.refusal = NotAccepted("no majority")
    replies = client.do(Exec())
    assert [error_text(each) for each in replies[:2]] == ["CLUSTERDOWN no majority"] * 2
    assert replies[2] == b"PONG"


def test_watch_aborts_if_a_key_changed(node: FakeNode, client: FakeClient) -> None:
    other = node.connect()
    assert node.shard_of(b"a") == node.shard_of(b"c")
    assert client.do(Watch((b"a", b"c")), Multi(), Ping(None), Exec()) == [b"OK", b"OK", b"QUEUED", [b"PONG"]]
    client.do(Watch((b"a", b"c")))
    other.do(xadd(b"c"))
    assert client.do(Multi(), publish(b"a", b"x"), Exec()) == [b"OK", b"QUEUED", None]
    assert client.do(Multi(), Ping(None), Exec())[-1] == [b"PONG"]
    client.do(Watch((b"a",)))
    other.do(xadd(b"a"))
    assert client.do(Unwatch(), Multi(), Ping(None), Exec())[-1] == [b"PONG"]
    client.do(Watch((b"a",)))
    client.do(xadd(b"a"))
    assert client.do(Multi(), Ping(None), Exec())[-1] is None
    assert other.do(XLen(b"a")) == 2


def test_publishing_changes_no_key(node: FakeNode, client: FakeClient) -> None:
    client.do(Watch((b"a",)))
    node.connect().do(publish(b"a", b"1"))
    assert client.do(Multi(), Ping(None), Exec())[-1] == [b"PONG"]


def test_watch_is_looked_at_in_the_order_of_the_log(node: FakeNode, client: FakeClient) -> None:
    client.do(Watch((b"a",)))
    node.connect().send(xadd(b"a"))
    client.send(Multi(), Ping(None), Exec())
    node.commit()
    node.settle()
    assert client.read()[-1] is None
    client.do(Watch((b"a",)))
    node.refusal = NotAccepted("no majority")
    assert error_text(client.do(Multi(), Ping(None), Exec())[-1]) == "CLUSTERDOWN no majority"
    node.refusal = None
    assert client.do(Ping(None)) == b"PONG"


def test_questions_in_a_transaction(node: FakeNode, client: FakeClient) -> None:
    node.peers = [FakeNode()]
    assert client.do(Multi(), PubsubNumpat(), publish(b"a", b"1"), Exec())[-1] == [0, 0]


def test_a_transaction_has_limits(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRANSACTION_COMMANDS_MAX", 3)
    replies = client.do(Multi(), publish(b"a", b"1", b"2"), publish(b"a", b"3", b"4"), Exec())
    assert [error_text(each)[:3] for each in replies[3:5]] == ["ERR"] * 2
    assert error_text(replies[5]).startswith("EXECABORT")
    monkeypatch.setattr(limits, "SESSION_INFLIGHT_BYTES_MAX", 1000)
    assert error_text(client.do(Multi(), publish(b"a", b"x" * 1000), Discard())[1]).startswith("ERR transaction")


def test_the_array_has_a_limit(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OUTBOX_REPLIES_BYTES_MAX", 5000)
    client.do(publish(b"a", b"x" * 1500))
    all_of_it = XRange(b"a", ID_MIN, ID_MAX, None, False)
    replies = client.do(Multi(), *[all_of_it] * 5, Exec())[-1]
    assert [isinstance(reply, list) for reply in replies] == [True, True, True, False, False]


def test_quit_reset_and_disconnect_in_the_middle(node: FakeNode, client: FakeClient) -> None:
    assert client.do(Multi(), Reset(), Exec())[1] == b"RESET"
    assert client.do(Multi(), Quit()) == [b"OK", b"OK"]
    assert client.output.is_closed
    gone = node.connect()
    gone.send(Multi(), publish(b"a", b"1"), XLen(b"a"), Exec())
    gone.disconnect()
    node.settle()
    assert node.bus(b"a").length(b"a") == 0
