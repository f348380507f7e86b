"""All nodes killed at one moment under load, then restarted: what was acknowledged was on their disks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.cluster import running
from tests.faults.workload import History, assert_nothing_lost, publishing, subscribing, wait_delivered

ROUNDS = 2
LOAD_S = 4.0


@pytest.mark.timeout(150)
def test_nothing_is_lost_when_all_nodes_are_killed_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        history = History([f"c{i}" for i in range(4)])
        async with running(tmp_path) as cluster, cluster.connect() as bus, subscribing(history, bus):
            for _ in range(ROUNDS):
                async with publishing(history, cluster):
                    await asyncio.sleep(LOAD_S)
                    await asyncio.gather(*(node.kill() for node in cluster.nodes))
                    await cluster.start()
                    await cluster.wait_ready()
                    await asyncio.sleep(LOAD_S / 2)
            await wait_delivered(history, cluster)
            await assert_nothing_lost(history, cluster)

    asyncio.run(story())


@pytest.mark.timeout(60)
def test_a_cluster_of_one_that_is_killed_has_lost_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        history = History(["c"])
        async with running(tmp_path, count=1, shards=1) as cluster:
            for _ in range(ROUNDS):
                async with publishing(history, cluster, count=4):
                    await asyncio.sleep(LOAD_S / 2)
                    await cluster.nodes[0].kill()
                    await cluster.start()
                    await cluster.wait_ready()
            await assert_nothing_lost(history, cluster)

    asyncio.run(story())
