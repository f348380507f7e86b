"""A node that lost its data directory has amnesia: under its old identity it could vote twice. It is refused, aloud."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.faults.cluster import POLL_S, READY_S, Node, running
from tests.faults.workload import History, assert_nothing_lost, publishing


async def wait_refused(node: Node) -> None:
    """The node says that it was wiped, and ends with an error."""
    deadline = asyncio.get_running_loop().time() + READY_S
    while "a wiped node cannot come back" not in node.log_text():
        assert asyncio.get_running_loop().time() < deadline, f"node {node.id} does not say why\n{node.log_tail()}"
        await asyncio.sleep(POLL_S)
    assert await node.wait_exit() != 0


@pytest.mark.timeout(120)
def test_a_wiped_follower_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    async def story() -> None:
        history = History(["c0", "c1"])
        async with running(tmp_path) as cluster:
            async with publishing(history, cluster):
                await asyncio.sleep(1)
                leader = await cluster.busiest_leader()
                wiped = next(node for node in cluster.nodes if node is not leader)
                await wiped.kill()
                kept = wiped.data.with_name("kept")
                shutil.copytree(wiped.data, kept)
                wiped.wipe()
                await wiped.start()
                await wait_refused(wiped)
                acked = history.results["ok"]
                await asyncio.sleep(1)
                assert history.results["ok"] > acked, "the majority stopped"
            others = [node for node in cluster.nodes if node is not wiped]
            await assert_nothing_lost(history, cluster, others)
            # With its own directory back it is itself again.
            wiped.wipe()
            kept.rename(wiped.data)
            await wiped.start()
            await wiped.wait_ready()
            await assert_nothing_lost(history, cluster)

    asyncio.run(story())


@pytest.mark.timeout(60)
def test_a_directory_without_its_identity_file_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, count=1, shards=1) as cluster:
            (node,) = cluster.nodes
            await node.kill()
            (node.data / "identity.json").unlink()
            await node.start()
            assert await node.wait_exit() != 0
            assert "identity.json" in node.log_text()

    asyncio.run(story())
