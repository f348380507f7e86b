"""MONITOR, CLIENT PAUSE and CONFIG RESETSTAT: what is of this node as a whole."""

from __future__ import annotations

import pytest

from riverbus.commands import (
    ClientPause,
    ClientUnpause,
    ConfigResetStat,
    Exec,
    Info,
    Monitor,
    Multi,
    Ping,
    Publish,
    Reset,
    Traced,
)
from riverbus.core.clients.monitors import quoted
from riverbus.core.clients.node_settings import BadSetting, NodeSettings, read_flags, show_flags
from riverbus.keyspace_commands import GetString, SetString
from riverbus.messages import Kind
from tests.core.fakes import FakeClient, FakeNode


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def client(node: FakeNode) -> FakeClient:
    return node.connect()


def publish(payload: bytes) -> Publish:
    return Publish(b"c", Kind.PUBLISH, [payload])


def test_a_monitor_is_shown_commands_until_it_resets(node: FakeNode, client: FakeClient) -> None:
    watcher = node.connect()
    assert watcher.do(Monitor()) == b"OK"
    assert client.do(Traced([b"PING", b'a"b\x00\n'], Ping(b"a")), Ping(None)) == [b"a", b"PONG"]
    assert watcher.read() == [rb'1100.000000 [0 127.0.0.1:client] "PING" "a\"b\x00\n"']
    assert watcher.do(Reset()) == b"RESET"
    assert not node.sessions.monitors.are_on
    assert quoted(b"\\\r\t\xff") == r'"\\\r\t\xff"'


def test_a_monitor_that_does_not_read_is_disconnected(node: FakeNode, client: FakeClient) -> None:
    watcher = node.connect()
    watcher.do(Monitor())
    watcher.session.on_blocked()
    client.do(Traced([b"PING"], Ping(None)))
    assert watcher.output.is_aborted
    assert node.sessions.counters.dropped["monitor_slow"] == 1


def test_a_pause_holds_everything_and_ends_by_itself(node: FakeNode, client: FakeClient) -> None:
    other = node.connect()
    other.do(publish(b"1"))
    assert client.do(ClientPause(1000, False)) == b"OK"
    other.send(publish(b"2"), Ping(None))
    node.settle()
    assert other.read() == []
    node.advance(1.5)
    node.settle()
    assert other.read() == [0, b"PONG"]


def test_a_pause_of_writes_lets_reads_go_on(node: FakeNode, client: FakeClient) -> None:
    client.do(ClientPause(100_000, True))
    other, third = node.connect(), node.connect()
    assert other.do(GetString(b"k"), Ping(None)) == [None, b"PONG"]
    assert other.do(Multi(), SetString(b"k", b"v"), Exec()) == b"OK"
    assert third.do(Multi(), Ping(None), Exec())[-1] == [b"PONG"]
    assert client.do(ClientUnpause()) == b"OK"
    node.settle()
    assert other.read() == [b"QUEUED", [b"OK"]]


def test_a_reset_of_counts_is_for_info_alone(node: FakeNode, client: FakeClient) -> None:
    client.do(Ping(None), Ping(None))
    client.do(ConfigResetStat())
    text = client.do(Ping(None), Info((b"stats", b"commandstats")))[1]
    assert b"cmdstat_ping:calls=1," in text
    assert b"total_connections_received:0" in text
    assert node.sessions.counters.commands["ping"] == 3


def test_flags_of_events_are_shown_in_the_order_of_redis() -> None:
    shown = {text: show_flags(read_flags(text)) for text in ("", "KEA", "nmKE", "gKExn", "g$lshzxetdn", "AKEmn")}
    assert shown == {
        "": "", "KEA": "AKE", "nmKE": "nKEm", "gKExn": "gxnKE", "g$lshzxetdn": "A", "AKEmn": "AKEm",
    }  # fmt: skip
    with pytest.raises(BadSetting):
        read_flags("q")
    for text in ("x", "-1", "99999999"):
        with pytest.raises(BadSetting):
            NodeSettings().check("stream-node-max-entries", text)
