"""A replica that is too far behind for the log gets a snapshot, under load; restart is from snapshot plus log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cluster import KEEP_EVERYTHING, POLL_S, READY_S, Cluster, Node, running
from tests.faults.workload import History, assert_nothing_lost, publishing, subscribing, wait_delivered

SMALL_LOG = '[limits]\nsnapshot_log = "256KiB"\n' + KEEP_EVERYTHING
CATCH_UP_ROUNDS = 2


async def wait_compacted_past(cluster: Cluster, behind: dict[int, int], alive: list[Node]) -> None:
    """Until, in every shard, the log of the living begins after what the dead node had applied."""
    deadline = asyncio.get_running_loop().time() + READY_S
    while True:
        statuses = [await node.status() for node in alive]
        firsts = {s["shard"]: min(_of(each, s["shard"])["first"] for each in statuses) for s in statuses[0]["shards"]}
        if all(first > behind[shard] + 1 for shard, first in firsts.items()):
            return
        assert asyncio.get_running_loop().time() < deadline, f"not compacted: {firsts} against {behind}"
        await asyncio.sleep(POLL_S)


async def wait_installed(node: Node) -> None:
    """Until a shard of the node got a snapshot. That it is ready says only that it can serve, by asking its leader."""
    deadline = asyncio.get_running_loop().time() + READY_S
    while True:
        shards = (await node.status())["shards"]
        if any(shard["snapshots_installed"] for shard in shards):
            return
        assert asyncio.get_running_loop().time() < deadline, f"no snapshot was installed: {shards}"
        await asyncio.sleep(POLL_S)


def _of(status: dict[str, Any], shard: int) -> dict[str, Any]:
    return next(each for each in status["shards"] if each["shard"] == shard)


@pytest.mark.timeout(180)
def test_a_snapshot_is_installed_under_load_and_restarted_from(tmp_path: Path) -> None:
    async def story() -> None:
        history = History([f"c{i}" for i in range(8)])
        async with (
            running(tmp_path, shards=2, config=SMALL_LOG) as cluster,
            cluster.connect() as bus,
            subscribing(history, bus),
        ):
            async with publishing(history, cluster, burst=50):
                for _ in range(CATCH_UP_ROUNDS):
                    leader = await cluster.busiest_leader()
                    late = next(node for node in cluster.nodes if node is not leader)
                    behind = {shard["shard"]: shard["applied"] for shard in (await late.status())["shards"]}
                    await late.kill()
                    await wait_compacted_past(cluster, behind, [node for node in cluster.nodes if node is not late])
                    await late.start()
                    await late.wait_ready()
                    await wait_installed(late)
            await wait_delivered(history, cluster)
            await assert_nothing_lost(history, cluster)
            await asyncio.gather(*(node.kill() for node in cluster.nodes))
            await cluster.start()
            await cluster.wait_ready()
            assert all(shard["snapshot"] > 0 for shard in (await cluster.nodes[0].status())["shards"])
            await assert_nothing_lost(history, cluster)

    asyncio.run(story())
