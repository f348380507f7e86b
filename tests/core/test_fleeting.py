"""Messages of durability none on their way to other nodes: gathered, bounded, given up and counted."""

from __future__ import annotations

from typing import Any

import pytest

from riverbus import limits
from riverbus.commands import Subscribe
from riverbus.core.clients.fleeting import Fleeting
from riverbus.core.counters import RELAY_DROPPED
from riverbus.core.state.entries import BatchBuilder, DamagedEntry, decode_batch
from riverbus.core.state.rules import Rules, rules_to_bytes
from riverbus.keyspace_commands import Del
from riverbus.messages import Kind
from riverbus.peer_messages import PeerMessage, Relay
from riverbus.wire.frames import LINK, FrameDecoder, encode
from tests.core.fakes import FakeNode


class Links:
    def __init__(self, up: set[int]) -> None:
        self.up = up
        self.backlogs: dict[int, int] = {}
        self.sent: list[tuple[int, PeerMessage]] = []

    def send(self, peer: int, message: PeerMessage) -> None:
        self.sent.append((peer, message))

    def flush(self) -> None:
        return None

    def is_up(self, peer: int) -> bool:
        return peer in self.up

    def backlog_bytes(self, peer: int) -> int:
        return self.backlogs.get(peer, 0)


def runs_of(frame: Any) -> list[tuple[bytes, list[bytes]]]:
    return [(run.channel, run.payloads()) for run in decode_batch(frame.batch).ops]  # type: ignore[union-attr]


def test_a_turns_messages_are_one_frame_to_each_peer_in_their_order() -> None:
    links, node = Links({2, 3}), FakeNode()
    fleeting = Fleeting(links, (2, 3), node.sessions)
    for channel, payload in ((b"a", b"1"), (b"a", b"2"), (b"b", b"3"), (b"a", b"4")):
        fleeting.publish(channel, Kind.PUBLISH, [payload])
    assert links.sent == []
    fleeting.flush()
    fleeting.flush()
    assert [peer for peer, _ in links.sent] == [2, 3]
    assert runs_of(links.sent[0][1]) == [(b"a", [b"1", b"2"]), (b"b", [b"3"]), (b"a", [b"4"])]
    assert links.sent[0][1] == links.sent[1][1]


def test_a_peer_without_a_link_or_with_too_much_waiting_is_passed_over_and_counted() -> None:
    links, node = Links({2, 3}), FakeNode()
    links.backlogs[2] = limits.RELAY_BACKLOG_BYTES_MAX
    fleeting = Fleeting(links, (2, 3, 4), node.sessions)
    fleeting.publish(b"a", Kind.PUBLISH, [b"1", b"2"])
    fleeting.flush()
    assert [peer for peer, _ in links.sent] == [3]
    assert node.sessions.counters.dropped[RELAY_DROPPED] == 4


def test_a_large_turn_is_several_frames() -> None:
    links, node = Links({2}), FakeNode()
    fleeting = Fleeting(links, (2,), node.sessions)
    for _ in range(5):
        fleeting.publish(b"a", Kind.SPUBLISH, [b"x" * (limits.RELAY_BYTES_TARGET // 2)])
    fleeting.flush()
    assert len(links.sent) == 3


def test_what_comes_from_a_peer_is_delivered_to_the_subscribers_here() -> None:
    links, node = Links({2}), FakeNode()
    listener = node.connect()
    listener.do(Subscribe("shard", (b"a",)))
    sender = Fleeting(links, (2,), FakeNode().sessions)
    sender.publish(b"a", Kind.SPUBLISH, [b"1"])
    sender.flush()
    decoder = FrameDecoder(LINK)
    decoder.feed(encode(links.sent[0][1]))
    [frame] = decoder.drain()
    assert isinstance(frame, Relay)
    Fleeting(links, (2,), node.sessions).on_relay(frame)
    node.end_turn()
    assert listener.read() == [[b"smessage", b"a", b"1"]]


@pytest.mark.parametrize("what", ["garbage", "rules", "write", "xadd", "future"])
def test_a_relay_of_anything_else_is_damaged(what: str) -> None:
    builder = BatchBuilder(0)
    if what == "rules":
        builder.add_rules(rules_to_bytes(Rules()))
    elif what == "write":
        builder.add_write(Del((b"k",)))
    else:
        builder.add_run(b"a", Kind.XADD, [b"x"])
    batch = b"garbage" if what == "garbage" else builder.finish(0)
    if what == "future":
        batch = batch.replace(b"\x01\x02\x01\x00", b"\x09\x02\x01\x00", 1)
    node = FakeNode()
    with pytest.raises(DamagedEntry):
        Fleeting(Links({2}), (2,), node.sessions).on_relay(Relay(batch))
