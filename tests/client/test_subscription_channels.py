"""Channels that come to a running subscription and leave it, in the weather of a cluster."""

from __future__ import annotations

import pytest

import riverbus
from riverbus import Refused
from tests.client.contract import take
from tests.client.fake_server import Node, tell, until, url_of


def test_a_channel_added_while_the_node_fails_is_followed_on_the_next() -> None:
    async def story(nodes: list[Node]) -> None:
        cluster = nodes[0].cluster
        async with riverbus.connect(url_of(nodes)) as bus, bus.subscribe("c") as subscription:
            for node in nodes:
                node.weather[b"BUS.SUBSCRIBE"] = ["CLUSTERDOWN no leader"]
            await subscription.add("d")
            cluster.publish(b"d", b"x")
            cluster.publish(b"c", b"y")
            assert {message.payload for message in await take(subscription, 2)} == {b"x", b"y"}

    tell(story, nodes=2)


def test_a_channel_that_is_forbidden_fails_its_adder_only() -> None:
    async def story(nodes: list[Node]) -> None:
        cluster = nodes[0].cluster
        async with riverbus.connect(url_of(nodes)) as bus, bus.subscribe("c") as subscription:
            nodes[0].weather[b"BUS.SUBSCRIBE"] = ["NOPERM no"]
            with pytest.raises(Refused, match="NOPERM"):
                await subscription.add("d")
            assert "d" not in subscription.positions
            cluster.publish(b"c", b"x")
            assert [message.payload for message in await take(subscription, 1)] == [b"x"]
            assert subscription.reconnects == 0

    tell(story)


def test_a_channel_removed_stays_away_after_a_reconnection() -> None:
    async def story(nodes: list[Node]) -> None:
        cluster = nodes[0].cluster
        async with riverbus.connect(url_of(nodes)) as bus, bus.subscribe("c", "d") as subscription:
            await subscription.remove("d")
            nodes[0].cut()
            await until(lambda: subscription.reconnects == 1)
            cluster.publish(b"d", b"x")
            cluster.publish(b"c", b"y")
            assert [message.payload for message in await take(subscription, 1)] == [b"y"]

    tell(story)
