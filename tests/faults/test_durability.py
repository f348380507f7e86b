"""What an ack of each durability survives (the table of docs/durability.md), with real processes that are killed.

Power loss of nodes is tests/storage and the simulator. A kill takes what waits in memory for a disk that does not
answer, as a power loss would; `none` touches no disk, so a kill is all there is.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from riverbus import MessageId
from riverbus.limits import RAFT_INFLIGHT_MESSAGES_MAX
from tests.faults.cluster import KEEP_EVERYTHING, Cluster, Node, make_cluster, running, supervised
from tests.faults.preload import Control, built

COUNT = 2000
MEMORY = """
[[channel]]
match = "ticks.*"
durability = "memory"
history = { count = 10000000, age = "24h", bytes = "2GiB" }
"""


@pytest.mark.timeout(180)
def test_all_nodes_killed_quorum_keeps_every_ack_and_none_keeps_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as cluster:
            async with cluster.connect() as bus:
                assert await bus.execute("BUS.RULE", "SET", "fleeting.*", "DURABILITY", "none") == b"OK"
                names = [f"{kind}.{at}" for kind in ("kept", "fleeting") for at in range(4)]
                publishes = [bus.publish(names[at % len(names)], f"{at}") for at in range(COUNT)]
                ids = await asyncio.gather(*publishes)
            for node in cluster.nodes:
                await node.kill()
            await cluster.start()
            await cluster.wait_ready()
            async with cluster.connect() as bus:
                for name in names:
                    acknowledged = {id_ for at, id_ in enumerate(ids) if names[at % len(names)] == name}
                    history = {message.id for message in await bus.history(name)}
                    if name.startswith("kept"):
                        assert history == acknowledged
                    else:
                        assert acknowledged == {MessageId(0, 0)}
                        assert history == set()
                assert await bus.execute("BUS.RULE", "GET", "fleeting.*", is_read=True) is not None
                assert await bus.publish("fleeting.0", "x") == MessageId(0, 0)

    asyncio.run(story())


# --- memory -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def with_disks(path: Path) -> AsyncIterator[tuple[Cluster, list[Control]]]:
    """Three nodes and one shard; channels `ticks.*` are of durability memory."""
    cluster = make_cluster(path, 3, 1, MEMORY + KEEP_EVERYTHING)
    library = built(path)
    controls = [Control(library, path / f"node{node.id}.control") for node in cluster.nodes]
    for node, control in zip(cluster.nodes, controls, strict=True):
        node.environment |= control.environment
    async with supervised(cluster):
        yield cluster, controls
    for control in controls:
        control.close()


@asynccontextmanager
async def client_of(node: Node) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis(port=node.resp_port, socket_timeout=5.0) as client:
        await client.ping()
        yield client


async def seconds_of_publish(client: redis.asyncio.Redis, channel: str) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await client.publish(channel, "x")
    return loop.time() - began


@pytest.mark.timeout(180)
def test_with_slow_disks_memory_is_answered_at_once_and_quorum_waits_on_every_node(tmp_path: Path) -> None:
    async def story() -> None:
        async with with_disks(tmp_path) as (cluster, controls):
            for node in cluster.nodes:
                async with client_of(node) as client:
                    await client.publish("ticks.a", "x")  # the mark that the nodes put on disk first is there now
            for control in controls:
                control.set_disk(sync_delay_s=0.3)
            for node in cluster.nodes:
                async with client_of(node) as client:
                    memory = [await seconds_of_publish(client, "ticks.a") for _ in range(7)]
                    quorum = [await seconds_of_publish(client, "kept.a") for _ in range(2)]
                    assert statistics.median(memory) < 0.15, memory
                    assert min(quorum) > 0.28, quorum
                    early = (await node.status())["sessions"]["early_answers"]
                    assert early >= 4

    asyncio.run(story())


async def publish_into_memory(cluster: Cluster, controls: list[Control], node: Node) -> list[bytes]:
    """What is acknowledged while no disk works: not for long, or the leader loses touch with its followers.

    And not for more rounds than may be under way to a follower (limits.py RAFT_INFLIGHT_MESSAGES_MAX).
    """
    acknowledged: list[bytes] = []
    loop = asyncio.get_running_loop()
    async with client_of(node) as client:
        await client.publish("ticks.a", "first")
        for control in controls:
            control.set_disk(is_stuck=True)
        until = loop.time() + 0.6
        while loop.time() < until and len(acknowledged) < RAFT_INFLIGHT_MESSAGES_MAX // 2:
            value = b"%d" % len(acknowledged)
            await client.publish("ticks.a", value)
            acknowledged.append(value)
    assert len(acknowledged) >= 5
    return acknowledged


async def history_of(node: Node) -> set[bytes]:
    async with client_of(node) as client:
        entries: Any = await client.xrange("ticks.a")
        return {fields[b"message"] for _, fields in entries}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_memory_survives_the_kill_of_a_node_that_is_back_at_once(tmp_path: Path, victim: str) -> None:
    async def story() -> None:
        async with with_disks(tmp_path) as (cluster, controls):
            leader = await cluster.busiest_leader()
            killed = leader if victim == "leader" else next(node for node in cluster.nodes if node is not leader)
            asked = next(node for node in cluster.nodes if node not in (leader, killed))
            acknowledged = await publish_into_memory(cluster, controls, asked)
            await killed.kill()
            for control in controls:
                control.heal()
            await killed.start()
            await cluster.wait_ready()
            for node in cluster.nodes:
                assert set(acknowledged) <= await history_of(node)

    asyncio.run(story())


@pytest.mark.timeout(180)
def test_memory_may_be_lost_when_all_nodes_are_killed_before_the_flush(tmp_path: Path) -> None:
    async def story() -> None:
        async with with_disks(tmp_path) as (cluster, controls):
            acknowledged = await publish_into_memory(cluster, controls, cluster.nodes[0])
            await asyncio.gather(*(node.kill() for node in cluster.nodes))
            for control in controls:
                control.heal()
            await cluster.start()
            await cluster.wait_ready()
            found = await history_of(cluster.nodes[0])
            assert b"first" in found
            assert set(acknowledged) - found
            async with client_of(cluster.nodes[0]) as client:
                await client.publish("ticks.a", "goes on")

    asyncio.run(story())
