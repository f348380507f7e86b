"""The main promise: eight publishers at full speed, each node killed and restarted in turn, the leader cut off for
longer than an election. Every acknowledged message is on every node, once, in one order; a subscriber saw it all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster, running
from tests.faults.workload import (
    History,
    assert_nothing_lost,
    publishing,
    read_everything,
    reading,
    subscribing,
    wait_delivered,
    watching_hashes,
)

CHANNELS = [f"orders.{i}" for i in range(8)]
DURATION_S = 60.0
BETWEEN_FAULTS_S = 2.0
PAUSE_S = 5.0


async def disturb(cluster: Cluster, until_s: float) -> int:
    """Kill and restart each node in turn and pause the leader, over and over. How many faults there were."""
    loop = asyncio.get_running_loop()
    faults = 0
    while loop.time() < until_s:
        for node in cluster.nodes:
            await asyncio.sleep(BETWEEN_FAULTS_S)
            await node.kill()
            await asyncio.sleep(BETWEEN_FAULTS_S)
            await node.start()
            await node.wait_ready()
            faults += 1
        await asyncio.sleep(BETWEEN_FAULTS_S)
        leader = await cluster.busiest_leader()
        leader.pause()
        await asyncio.sleep(PAUSE_S)
        leader.resume()
        await cluster.wait_ready()
        faults += 1
    return faults


@pytest.mark.timeout(240)
def test_nothing_is_lost_while_each_node_is_killed_and_the_leader_is_paused(tmp_path: Path) -> None:
    async def story() -> None:
        history = History(CHANNELS)
        async with running(tmp_path) as cluster, cluster.connect() as bus, subscribing(history, bus):
            async with (
                watching_hashes(history, cluster),
                reading(history, cluster, read_everything),
                publishing(history, cluster),
            ):
                faults = await disturb(cluster, asyncio.get_running_loop().time() + DURATION_S)
            await cluster.wait_ready()
            await wait_delivered(history, cluster)
            gaps = [each for events in history.events.values() for each in events if each.operation == "gap"]
            assert not gaps, f"the subscriber was told of gaps: {gaps[:3]}"
            await assert_nothing_lost(history, cluster)
            assert faults >= 4

    asyncio.run(story())
