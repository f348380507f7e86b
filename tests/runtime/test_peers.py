"""Links on loopback: order, loss and return, peers that do not read or do not speak. Real sockets, no sleeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from riverbus import limits
from riverbus.peer_messages import Ask, Health, PeerMessage, RaftMessage
from riverbus.runtime.handshake import State
from tests.runtime.linked import Cluster, Stranger, hello_to, run


def test_messages_come_in_order_and_those_of_a_turn_together(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 2) as cluster:
            await cluster.found()
            sent: list[PeerMessage] = [Ask(number, b"?" * 20) for number in range(200)]
            for message in sent:
                cluster[1].links.send(2, message)
            await cluster.until(lambda: len(cluster[2].messages) == 200)
            assert cluster[2].messages == [(1, message) for message in sent]
            assert cluster[2].chunks == [200]

    run(story())


def test_large_messages_and_many_small_ones_share_a_link(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 2) as cluster:
            await cluster.found()
            sent: list[PeerMessage] = []
            for number in range(3000):
                sent.append(Ask(number, b""))
                if number % 1000 == 0:
                    sent.append(RaftMessage(1, bytes([number % 251]) * limits.MESSAGE_BYTES_MAX))
            for message in sent:
                cluster[2].links.send(1, message)
            cluster[2].links.flush()
            await cluster.until(lambda: len(cluster[1].messages) == len(sent))
            assert [message for _, message in cluster[1].messages] == sent
            bytes_out = sum(connection.bytes_out for connection in cluster[2].links._connections)
            assert bytes_out > 3 * limits.MESSAGE_BYTES_MAX

    run(story())


def test_what_is_sent_without_a_link_is_dropped_and_counted(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 2) as cluster:
            await cluster.start(1)
            cluster[1].links.send(2, Health(True))
            assert cluster[1].links.stats[2].messages_unlinked == 1
            assert not cluster[1].links.is_up(2)

    run(story())


def test_a_peer_that_goes_is_down_once_and_up_again_when_it_returns(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            await cluster.found()
            for gone in (2, 1, 3):
                others = [node for node in cluster.ids if node != gone]
                await cluster[gone].stop()
                await cluster.until(lambda o=others, g=gone: all(g not in cluster[n].up for n in o))  # type: ignore[misc]
                await cluster[gone].start()
                await cluster.until(lambda: all(len(node.up) == 2 for node in cluster.nodes.values()))
                for other in others:
                    assert cluster[other].heard.count(("down", gone)) == 1
                for node in cluster.nodes.values():
                    node.heard = [("bootstrapped",), *(("up", peer) for peer in node.up)]
            assert sum(node.links.stats[2].connects for node in (cluster[1], cluster[3])) >= 2

    run(story())


def test_a_peer_that_does_not_read_is_dropped_with_its_outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PEER_OUTBOX_BYTES_MAX", 8 * limits.MIB)

    async def story() -> None:
        async with Cluster(tmp_path, 2) as cluster:
            await cluster.found()
            (connection,) = cluster[2].links._connections
            connection.pause_reading()
            for _ in range(100):
                cluster[1].links.send(2, RaftMessage(0, bytes(limits.MIB)))
                cluster[1].links.flush()
                if not cluster[1].links.is_up(2):
                    break
            else:
                raise AssertionError("100 MiB went to a peer that does not read")
            await cluster.until(lambda: ("down", 2) in cluster[1].heard)
            assert cluster[1].links.stats[2].outbox_overflows == 1
            await cluster.until(lambda: cluster[1].up == [2] and cluster[2].up == [1])

    run(story())


def test_a_silent_peer_is_dropped_and_one_that_answers_pings_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PEER_PING_S", 0.05)
    monkeypatch.setattr(limits, "PEER_SILENCE_S", 0.3)

    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            await cluster.found()
            identity = cluster[1].identity
            await cluster[1].stop()
            stranger = await Stranger.dial(cluster[3])
            await stranger.shake_hands(hello_to(cluster[3], identity))
            await cluster.until(lambda: cluster.said("silent for 0.3 s"))
            await stranger.close()
            assert cluster[3].heard[-1] == ("down", 1)
            assert cluster[3].up == [2]
            assert ("down", 2) not in cluster[3].heard
            assert 0 < cluster[3].links.stats[2].rtt_s < 1
            assert cluster[3].links.stats[2].bytes_in > 0

    run(story())


def test_a_link_is_replaced_by_a_newer_one_of_the_same_process_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            await cluster.found()
            identity = cluster[1].identity
            await cluster[1].stop()
            first, second, other = [await Stranger.dial(cluster[3]) for _ in range(3)]
            await first.shake_hands(hello_to(cluster[3], identity))
            await cluster.until(lambda: cluster[3].up == [1, 2])
            refused = await other.shake_hands(hello_to(cluster[3], identity, process="cd" * 8))
            assert refused.state is State.REFUSED
            assert "node id 1 is used twice" in str(refused.verdict)
            await second.shake_hands(hello_to(cluster[3], identity))
            await cluster.until(lambda: cluster[3].heard[-2:] == [("down", 1), ("up", 1)])
            await first.read_to_end()
            for stranger in (first, second, other):
                await stranger.close()

    run(story())
