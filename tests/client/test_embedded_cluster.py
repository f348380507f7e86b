"""The cluster in a process: the contract over it, and that its faults are those of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio

import riverbus
from riverbus import Gap, OutcomeUnknown
from riverbus.client.embedded_cluster import EmbeddedCluster
from riverbus.runtime.config import ConfigError
from tests.client import contract
from tests.client.contract import take

Story = Callable[[EmbeddedCluster], Awaitable[None]]


def tell(story: Story, nodes: int = 3, **settings: Any) -> None:
    async def told() -> None:
        async with asyncio.timeout(40), EmbeddedCluster(nodes, settings) as cluster:
            await story(cluster)

    asyncio.run(told())


@contract.each_check
def test_contract(check: contract.Check) -> None:
    @asynccontextmanager
    async def open_bus() -> AsyncIterator[riverbus.Bus]:
        async with EmbeddedCluster() as cluster, cluster.connect(2) as bus:
            yield bus

    asyncio.run(contract.run(open_bus, check))


def test_after_a_failover_a_subscriber_has_no_gap_and_the_old_leader_is_back() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        async with cluster.connect(deadline=20) as bus, bus.subscribe("c", on_gap="raise") as subscription:
            before = [await bus.publish("c", f"{i}") for i in range(5)]
            killed = await cluster.failover("c")
            assert cluster.leader("c") not in (0, killed)
            after = [await bus.publish("c", f"{i}") for i in range(5, 10)]
            assert [message.id for message in await take(subscription, 10)] == before + after
            async with cluster.connect(killed) as returned:
                assert await returned.length("c") == 10

    tell(story)


def test_a_leader_that_is_cut_off_acknowledges_nothing_and_the_majority_goes_on() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        leader = cluster.leader()
        other = leader % 3 + 1
        async with cluster.connect(leader, deadline=20) as lonely, cluster.connect(other, deadline=20) as bus:
            await lonely.publish("c", "before")
            async with cluster.partition() as group:
                assert group == (leader,)
                with pytest.raises(OutcomeUnknown):
                    await lonely.execute("PUBLISH", "c", "lost or not")
                await bus.publish("c", "meanwhile")
                await lonely.publish("c", "by another node")
            payloads = [message.payload for message in await bus.history("c")]
            assert payloads[0] == b"before"
            assert [each for each in payloads[1:] if each != b"lost or not"] == [b"meanwhile", b"by another node"]
            await lonely.publish("c", "after")

    tell(story)


def test_consumers_that_do_not_read_are_told_of_their_gap() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        async with cluster.connect() as bus, bus.subscribe("c") as subscription:
            async with cluster.slow_consumers():
                ids = [await bus.publish("c", f"{i}") for i in range(10)]
            gap = await anext(subscription)
            assert isinstance(gap, Gap)
            assert [message.id for message in await take(subscription, 3)] == ids[7:]

    tell(story, history={"count": 3})


def test_consumers_that_do_not_read_for_a_while_miss_nothing_that_is_kept() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        async with cluster.connect() as bus, bus.subscribe("c", on_gap="raise") as subscription:
            async with cluster.slow_consumers():
                ids = [await bus.publish("c", f"{i}") for i in range(10)]
            assert [message.id for message in await take(subscription, 10)] == ids

    tell(story)


def test_a_redis_client_over_a_socket_survives_a_failover() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        url = await cluster.listen()
        async with riverbus.connect(url, deadline=20) as bus:
            await bus.publish("c", "one")
            await cluster.failover()
            await bus.publish("c", "two")
        assert await cluster.listen() == url
        for one in url.removeprefix("redis://").split(","):
            client: Any = redis.asyncio.Redis.from_url(f"redis://{one}")
            async with client:
                assert await client.xlen("c") == 2

    tell(story)


def test_without_a_majority_there_is_no_failover() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        with pytest.raises(RuntimeError, match="no majority"):
            await cluster.failover()

    tell(story, nodes=1)


def test_what_is_not_running_says_so() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        EmbeddedCluster().leader()
    with pytest.raises(ConfigError, match="histroy"):
        EmbeddedCluster(settings={"histroy": {"count": 3}})


def test_nobody_closed_it_and_it_ends_with_its_loop() -> None:
    cluster = EmbeddedCluster()

    async def story() -> riverbus.MessageId:
        return await cluster.connect().publish("c", "x")

    async def empty() -> int:
        return await cluster.connect().length("c")

    asyncio.run(story())
    assert cluster.loop is None
    assert asyncio.run(empty()) == 0  # the next loop has a new one
