"""How a cluster comes to be, once; and that members which lost their memory are never taken for their old selves."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest

from riverbus.runtime.identity import FILE_NAME, Identity, open_identity
from tests.runtime.linked import Cluster, Node, run


def test_a_cluster_of_one_is_founded_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 1) as cluster:
            await cluster.start()
            assert cluster[1].heard == [("bootstrapped",)]
            await cluster[1].links.wait_bootstrapped()
            first = cluster[1].identity.cluster_id
            await cluster[1].stop()
            await cluster.start()
            assert cluster[1].heard == [("bootstrapped",)]
            assert cluster[1].identity.cluster_id == first

    run(story())


class Crash(Exception):
    """The process ends here, as far as the test goes; the loop's exception handler hears of it."""


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_three_fresh_nodes_found_one_cluster_whatever_their_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            await cluster.start(*order[:2])
            await cluster.until(lambda: cluster.said(f"waiting for node {order[2]} to bootstrap"))
            assert not any(cluster[node].is_bootstrapped for node in order[:2])
            await cluster.start(order[2])
            await cluster.until(lambda: all(len(node.up) == 2 for node in cluster.nodes.values()))
            records = [(node.identity.cluster_id, node.identity.incarnations) for node in cluster.nodes.values()]
            assert records[0] == records[1] == records[2]
            for node in cluster.nodes.values():
                node.identity.invariants()
                await node.links.wait_bootstrapped()
                assert len(node.links._connections) == 2, "one connection for each pair"

    run(story())


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
@pytest.mark.parametrize("survivors", [(1,), (1, 2), (1, 3)])
def test_a_crash_between_the_nodes_records_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: tuple[int, ...], order: tuple[int, ...]
) -> None:
    """The founder wrote its record; of the others, those that are no survivors crashed before they wrote theirs."""

    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            write = Identity.bootstrap
            crashed: list[int] = []

            def write_or_crash(self: Identity, incarnations: dict[int, str]) -> None:
                if self.node_id in survivors:
                    write(self, incarnations)
                else:
                    crashed.append(self.node_id)
                    raise Crash

            errors: list[object] = []
            loop = asyncio.get_running_loop()
            handler = loop.get_exception_handler()
            loop.set_exception_handler(lambda *_: errors.append(1))
            with monkeypatch.context() as patch:
                patch.setattr(Identity, "bootstrap", write_or_crash)
                await cluster.start()
                await cluster.until(lambda: all(cluster[node].is_bootstrapped for node in survivors))
                for node in cluster.nodes.values():
                    await node.stop()
            loop.set_exception_handler(handler)
            on_disk = {node: json.loads((cluster[node].path / FILE_NAME).read_text()) for node in cluster.ids}
            assert [node for node in cluster.ids if on_disk[node]["bootstrapped"]] == list(survivors)
            await cluster.start(*order)
            await cluster.until(lambda: all(len(node.up) == 2 for node in cluster.nodes.values()))
            assert {node.identity.cluster_id for node in cluster.nodes.values()} == {on_disk[1]["cluster_id"]}

    run(story())


def test_a_founded_cluster_goes_on_with_a_majority_though_one_never_wrote_its_record(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            await cluster.found()
            for node in cluster.nodes.values():
                await node.stop()
            fresh = json.loads((cluster[2].path / FILE_NAME).read_text())
            await _make_fresh(cluster[2], fresh["incarnation"])
            await cluster.start(1, 2)  # node 3 stays away
            await cluster.until(lambda: cluster[2].up == [1] and cluster[1].up == [2])
            assert cluster[2].identity.cluster_id == fresh["cluster_id"]

    run(story())


# --- lost memory ------------------------------------------------------------------------------------------------------


async def _make_fresh(node: Node, incarnation: str) -> None:
    """Put a node's directory back to before the founding, under the same incarnation."""
    node.wipe()
    open_identity(node.path, node.id, node.shards, node.members, lambda _: bytes.fromhex(incarnation)).close()


@pytest.mark.parametrize("wiped", [1, 2, 3])
def test_a_wiped_node_is_refused_and_told_so_and_the_others_go_on(tmp_path: Path, wiped: int) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            await cluster.found()
            others = [node for node in cluster.ids if node != wiped]
            before = cluster[wiped].identity.incarnation
            await cluster[wiped].stop()
            cluster[wiped].wipe()
            await cluster[wiped].start()
            await cluster.until(lambda: cluster[wiped].fatal is not None)
            assert cluster[wiped].fatal == (
                f"node {wiped} was known as incarnation {before}; this data directory is new "
                f"({cluster[wiped].identity.incarnation}): a wiped node cannot come back under its old id"
            )
            assert not cluster[wiped].is_bootstrapped
            assert sum(event[0] == "refused" for event in cluster[wiped].heard) == 1
            await cluster[wiped].stop()
            assert cluster[others[0]].up == [others[1]]
            assert sum(cluster[node].links.refused["WIPED"] for node in others) >= 1

    run(story())


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_two_wiped_nodes_wait_for_the_third_and_are_refused_by_it(tmp_path: Path, kept: int) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            await cluster.found()
            wiped = [node for node in cluster.ids if node != kept]
            for node in cluster.nodes.values():
                await node.stop()
            for lost in wiped:
                cluster[lost].wipe()
            cluster.logged.entries.clear()
            await cluster.start(*wiped)
            await cluster.until(lambda: cluster.said(f"waiting for node {kept} to bootstrap"))
            await cluster.until(lambda: all(len(cluster[node].links._links) == 1 for node in wiped))
            assert not any(cluster[node].is_bootstrapped for node in wiped)
            await cluster.start(kept)
            await cluster.until(lambda: all(cluster[node].fatal for node in wiped))
            assert not any(cluster[node].is_bootstrapped for node in wiped)
            assert cluster[kept].up == []

    run(story())


def test_a_founder_restored_from_before_the_founding_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            await cluster.found()
            await cluster[1].stop()
            await _make_fresh(cluster[1], cluster[1].identity.incarnation)
            await cluster[1].start()
            await cluster.until(lambda: cluster[1].fatal is not None)
            assert "its data directory is an old copy" in str(cluster[1].fatal)

    run(story())
