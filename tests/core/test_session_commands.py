"""What a session answers at once: login, protocol, names, CLIENT, the states that refuse commands."""

from __future__ import annotations

import pytest

from riverbus.commands import (
    Answered,
    Auth,
    ClientGetName,
    ClientId,
    ClientInfo,
    ClientKill,
    ClientList,
    ClientNoEvict,
    ClientNoTouch,
    ClientReply,
    ClientSetInfo,
    ClientSetName,
    Command,
    ConfigGet,
    Hello,
    Info,
    Malformed,
    Multi,
    Ping,
    Publish,
    Quit,
    Reset,
    Subscribe,
    Time,
    Unsubscribe,
    XLen,
    XRead,
)
from riverbus.messages import ErrorReply, Kind
from tests.core.fakes import FakeNode, error_text


def publish(channel: bytes = b"c", *payloads: bytes) -> Publish:
    return Publish(channel, Kind.PUBLISH, list(payloads) or [b"x"])


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def guarded(node: FakeNode) -> FakeNode:
    node.users = {"default": b"secret", "bob": b"pw"}
    return node


def test_hello_switches_the_protocol_and_names_the_connection(node: FakeNode) -> None:
    client = node.connect()
    reply = client.do(Hello(3, None, None, b"worker"))
    assert reply[b"proto"] == 3
    assert reply[b"id"] == client.session.id
    assert reply[b"server"] == b"redis"
    assert reply[b"version"].startswith(b"7.2.")
    assert client.do(ClientGetName()) == b"worker"
    assert client.do(Hello(2, None, None, None))[:2] == [b"server", b"redis"]


def test_commands_before_login_are_refused_but_for_those_that_log_in(guarded: FakeNode) -> None:
    client = guarded.connect()
    for command in (Ping(None), XLen(b"c"), Subscribe("channel", (b"c",)), Multi(), Answered(b"hi", "echo")):
        assert error_text(client.do(command)) == "NOAUTH Authentication required."
    replies = client.do(publish(b"c", b"1", b"2"))
    assert [error_text(each) for each in replies] == ["NOAUTH Authentication required."] * 2
    assert error_text(client.do(Hello(3, None, None, None))).startswith("NOAUTH HELLO must be called")
    assert error_text(client.do(Answered(ErrorReply("ERR unknown command 'x'")))) == "ERR unknown command 'x'"
    assert client.do(Reset()) == b"RESET"
    assert guarded.bus(b"c").length(b"c") == 0


def test_login_with_right_and_wrong_passwords(guarded: FakeNode) -> None:
    client = guarded.connect()
    wrong = "WRONGPASS invalid username-password pair or user is disabled."
    assert error_text(client.do(Auth(None, b"no"))) == wrong
    assert error_text(client.do(Auth(b"nobody", b"pw"))) == wrong
    assert error_text(client.do(Hello(3, b"bob", b"no", b"n"))) == wrong
    assert client.session.protocol == 2
    assert client.do(Auth(None, b"secret")) == b"OK"
    assert client.do(Ping(None)) == b"PONG"
    assert client.do(Hello(3, b"bob", b"pw", None))[b"proto"] == 3
    assert b"user=bob" in client.do(ClientInfo())
    assert client.do(Reset()) == b"RESET"
    assert error_text(client.do(Ping(None))) == "NOAUTH Authentication required."


def test_auth_where_no_user_is_configured(node: FakeNode) -> None:
    client = node.connect()
    assert error_text(client.do(Auth(None, b"x"))).startswith("ERR AUTH <password> called without any password")
    assert client.do(Auth(b"default", b"x")) == b"OK"
    assert error_text(client.do(Auth(b"bob", b"x"))).startswith("WRONGPASS")


def test_a_resp2_subscriber_may_only_change_subscriptions(node: FakeNode) -> None:
    client = node.connect()
    client.do(Subscribe("channel", (b"c",)))
    assert client.do(Ping(None)) == [b"pong", b""]
    assert client.do(Ping(b"x")) == [b"pong", b"x"]
    ends = ": only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
    refused: list[tuple[Command, str]] = [
        (publish(), "publish"),
        (ClientList(None, None), "client|list"),
        (Answered(b"hi", "echo"), "echo"),
        (Multi(), "multi"),
    ]
    for command, name in refused:
        assert error_text(client.do(command)) == f"ERR Can't execute '{name}'{ends}"
    assert error_text(client.do(Answered(ErrorReply("ERR unknown command 'x'")))) == "ERR unknown command 'x'"
    client.do(Unsubscribe("channel", ()))
    assert client.do(Ping(None)) == b"PONG"


def test_a_resp3_subscriber_may_do_anything(node: FakeNode) -> None:
    client = node.connect(3)
    client.do(Subscribe("channel", (b"c",)))
    assert client.do(Ping(None)) == b"PONG"
    assert client.do(publish()) == [1, [b"message", b"c", b"x"]]


def test_reset_makes_a_new_connection(node: FakeNode) -> None:
    client = node.connect(3)
    client.do(ClientSetName(b"n"), Subscribe("channel", (b"c",)), Subscribe("pattern", (b"*",)), Multi())
    assert client.do(Reset(), Ping(None)) == [b"RESET", b"PONG"]
    assert client.do(ClientGetName()) is None
    assert client.session.protocol == 2
    assert node.connect().do(publish()) == 0


def test_quit_answers_everything_before_it_and_nothing_after(node: FakeNode) -> None:
    client = node.connect()
    client.send(publish(), Quit(), Ping(None))
    assert not client.output.is_closed
    node.settle()
    assert client.read() == [0, b"OK"]
    assert client.output.is_closed


def test_a_protocol_error_is_answered_last_and_closes(node: FakeNode) -> None:
    client = node.connect()
    client.do(publish(), Malformed(ErrorReply("ERR Protocol error: x")), Ping(None))
    assert client.output.is_closed


def test_client_setinfo_and_the_line_of_client_list(node: FakeNode) -> None:
    client = node.connect(name="77")
    client.do(ClientSetInfo("lib-name", b"redis-py"), ClientSetInfo("lib-ver", b"8"), ClientSetName(b"me"))
    client.do(Subscribe("shard", (b"s",)), Subscribe("pattern", (b"p",)), Subscribe("channel", (b"c",)))
    node.now += 3
    other = node.connect()
    line = other.do(ClientList((client.session.id,), None)).decode()
    for field in ("addr=127.0.0.1:77 ", "laddr=127.0.0.1:6380", "name=me ", "age=3 ", "idle=3 ", "flags=P "):
        assert field in line
    for field in ("sub=1 psub=1 ssub=1 multi=-1", "cmd=subscribe ", "resp=2 lib-name=redis-py lib-ver=8\n"):
        assert field in line
    assert other.do(ClientList(None, "normal")).count(b"\n") == 1
    assert other.do(ClientList(None, "pubsub")).count(b"\n") == 1
    assert other.do(ClientList(None, "replica")) == b""
    assert other.do(ClientId()) == other.session.id
    assert b"cmd=client|info" in other.do(ClientInfo())


def test_client_kill_by_each_filter(node: FakeNode) -> None:
    killer = node.connect(name="1")
    victims = [node.connect(name=str(port)) for port in range(2, 8)]
    assert killer.do(ClientKill(id=victims[0].session.id)) == 1
    assert victims[0].output.is_aborted
    assert victims[0].session.is_closed
    assert killer.do(ClientKill(id=victims[0].session.id)) == 0
    assert killer.do(ClientKill(address=b"127.0.0.1:3")) == 1
    assert killer.do(ClientKill(address=b"127.0.0.1:4", old_form=True)) == b"OK"
    assert error_text(killer.do(ClientKill(address=b"127.0.0.1:4", old_form=True))) == "ERR No such client"
    victims[3].do(Subscribe("channel", (b"c",)))
    assert killer.do(ClientKill(type="pubsub")) == 1
    assert killer.do(ClientKill(local_address=b"127.0.0.1:6380", user=b"default")) == 2
    assert killer.do(ClientKill(id=killer.session.id)) == 0
    assert killer.do(ClientKill(id=killer.session.id, skip_me=False)) == 1
    assert killer.output.is_closed
    assert node.sessions.by_id == {killer.session.id: killer.session}


def test_client_kill_of_a_user_that_there_is_not(guarded: FakeNode) -> None:
    client = guarded.connect()
    client.do(Auth(b"bob", b"pw"))
    assert error_text(client.do(ClientKill(user=b"al\nice"))) == "ERR No such user 'al ice'"
    assert client.do(ClientKill(user=b"default")) == 0


def test_client_list_shows_what_was_asked_for_though_it_has_no_effect(node: FakeNode) -> None:
    client = node.connect()
    client.do(ClientNoTouch(True), ClientNoEvict(True))
    assert b" flags=eT " in client.do(ClientInfo())
    client.do(ClientNoEvict(False))
    assert b" flags=T " in client.do(ClientInfo())
    client.do(Reset())
    assert b" flags=N " in client.do(ClientInfo())


def test_client_kill_ends_a_blocked_read(node: FakeNode) -> None:
    victim = node.connect()
    victim.do(XRead((b"c",), (None,), None, 0))
    killer = node.connect()
    assert b"blocked_clients:1" in killer.do(Info((b"clients",)))
    assert b"flags=b" in killer.do(ClientList((victim.session.id,), None))
    killer.do(ClientKill(id=victim.session.id))
    assert b"blocked_clients:0" in killer.do(Info((b"clients",)))


def test_client_reply_off_silences_replies_but_not_pushes(node: FakeNode) -> None:
    client = node.connect(3)
    assert client.do(ClientReply("off"), Ping(None), publish(), Subscribe("channel", (b"c",))) == [
        b"subscribe",
        b"c",
        1,
    ]
    node.connect().do(publish(b"c", b"y"))
    assert client.read() == [[b"message", b"c", b"y"]]
    assert client.do(ClientReply("on")) == b"OK"


def test_reset_is_answered_whatever_client_reply_said(node: FakeNode) -> None:
    client = node.connect()
    for mode in ("off", "skip"):
        assert client.do(ClientReply(mode), Reset(), Ping(None)) == [b"RESET", b"PONG"]


def test_client_reply_skip_silences_one_reply(node: FakeNode) -> None:
    client = node.connect()
    assert client.do(ClientReply("skip"), Ping(b"1"), Ping(b"2")) == b"2"
    assert client.do(ClientReply("skip"), publish(b"c", b"1", b"2", b"3"), Ping(None)) == [0, 0, b"PONG"]
    assert node.bus(b"c").length(b"c") == 3


def test_info_has_what_clients_wait_for(node: FakeNode) -> None:
    client = node.connect()
    text = client.do(Info(())).decode()
    for line in (
        *("redis_version:7.2.", "redis_mode:standalone", "process_id:", "uptime_in_seconds:", "tcp_port:", "loading:0"),
        *("used_memory:", "maxmemory_policy:noeviction", "connected_clients:", "role:master", "connected_slaves:0"),
        *("cluster_enabled:0", "riverbus_version:test"),
    ):  # what redis-py, ioredis, rq, BullMQ and Sidekiq read
        assert line in text
    assert "# Commandstats" not in text
    assert client.do(Info((b"clients",))).startswith(b"# Clients\r\nconnected_clients:1\r\n")
    assert b"cmdstat_info:calls=" in client.do(Info((b"everything",)))


def test_config_get_by_globs(node: FakeNode) -> None:
    node.settings = {"history-count": "10", "maxclients": "7"}
    client = node.connect(3)
    assert client.do(ConfigGet((b"HISTORY*", b"maxclients"))) == {b"maxclients": b"7", b"history-count": b"10"}
    assert client.do(ConfigGet((b"nothing",))) == {}


def test_time_is_the_nodes(node: FakeNode) -> None:
    seconds, micros = node.connect().do(Time())
    assert int(seconds) * 1000 + int(micros) // 1000 == node.wall_ms()


def test_commands_are_counted_by_name(node: FakeNode) -> None:
    client = node.connect()
    client.do(publish(b"c", b"1", b"2"), Ping(None), Answered(ErrorReply("ERR unknown command 'x'")))
    counters = node.sessions.counters
    assert (counters.commands["publish"], counters.commands["ping"]) == (2, 1)
    assert counters.published_messages == 2
    assert counters.error_replies == 1
