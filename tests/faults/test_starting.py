"""A node that waits for the others says that it does, and what it knows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.cluster import KEEP_EVERYTHING, POLL_S, READY_S, Node, make_cluster


async def first_status(node: Node) -> dict[str, object]:
    deadline = asyncio.get_running_loop().time() + READY_S
    while True:
        try:
            return await node.status()
        except (OSError, TimeoutError):
            assert asyncio.get_running_loop().time() < deadline, node.log_tail()
            await asyncio.sleep(POLL_S)


@pytest.mark.timeout(60)
def test_a_node_alone_says_that_it_starts_and_then_that_it_runs(tmp_path: Path) -> None:
    async def story() -> None:
        cluster = make_cluster(tmp_path, 3, 1, KEEP_EVERYTHING)
        one, *others = cluster.nodes
        try:
            await one.start()
            assert one.process is not None
            assert await first_status(one) == {
                "state": "starting",
                "process": one.process.pid,
                "node": 1,
                "voters": [1, 2, 3],
                "peers_up": [],
                "is_founded": False,
                "ready": False,
            }
            assert (await one.get("/metrics"))[0] == 200
            for node in others:
                await node.start()
            await cluster.wait_ready()
            status = await one.status()
            assert (status["state"], status["node"], len(status["shards"])) == ("running", 1, 1)
        finally:
            await cluster.close()

    asyncio.run(story())
