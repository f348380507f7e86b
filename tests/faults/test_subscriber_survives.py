"""Subscribers with the Python client: a node that hangs, a program that is too slow, one that was away.

That one survives kills and pauses under load is shown beside the main run, in test_kill_and_pause.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import riverbus
from tests.faults.cluster import READY_S, running

MIB = 1024 * 1024
SMALL_WINDOW = '[[channel]]\nmatch = "*"\nhistory = { count = 1000000, age = "1h", bytes = "8MiB" }\n'


@pytest.mark.timeout(90)
def test_a_subscriber_leaves_each_node_that_hangs_and_misses_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as cluster, cluster.connect() as bus, bus.subscribe("c") as subscription:
            expected: list[riverbus.MessageId | None] = []
            for node in cluster.nodes:
                node.pause()
                for _ in range(3):
                    try:
                        expected.append(await bus.publish("c", "x"))
                    except riverbus.OutcomeUnknown:
                        pass  # it went to the node that hangs; it may be delivered
                found = []
                async with asyncio.timeout(READY_S):
                    while expected[-1] not in found:
                        item = await anext(subscription)
                        assert isinstance(item, riverbus.Message)
                        found.append(item.id)
                node.resume()
                await cluster.wait_ready()
                assert [each for each in found if each in expected] == expected
                expected.clear()

    asyncio.run(story())


@pytest.mark.timeout(90)
def test_a_program_slower_than_the_window_is_told_what_it_missed(tmp_path: Path) -> None:
    """Its own buffer, its socket and the node's stay bounded; what it missed has a name, everything else comes."""

    async def story() -> None:
        async with running(tmp_path, count=1, shards=1, config=SMALL_WINDOW) as cluster, cluster.connect() as bus:
            async with bus.subscribe("c") as subscription:
                payload = bytes(64 * 1024)
                ids = [(await asyncio.gather(*(bus.publish("c", payload) for _ in range(16)))) for _ in range(64)]
                published = [each for batch in ids for each in batch]  # 64 MiB through a window of 8
                items: list[riverbus.Message | riverbus.Gap] = []
                async with asyncio.timeout(READY_S):
                    while not items or not isinstance(items[-1], riverbus.Message) or items[-1].id != published[-1]:
                        items.append(await anext(subscription))
            gaps = [each for each in items if isinstance(each, riverbus.Gap)]
            assert gaps, "64 MiB cannot have been kept anywhere"
            got = [each.id for each in items if isinstance(each, riverbus.Message) and each.id is not None]
            assert got == sorted(set(got))
            for missing in set(published) - set(got):
                assert any(gap.after < missing <= gap.until for gap in gaps), f"{missing} is in no gap"  # type: ignore[operator]
            assert cluster.nodes[0].rss_bytes() < 300 * MIB

    asyncio.run(story())


@pytest.mark.timeout(90)
def test_a_program_that_was_away_goes_on_where_it_was_on_any_node(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as cluster, cluster.connect() as bus:
            ids = [await bus.publish("c", f"{i}") for i in range(50)]
            for node, since in zip(cluster.nodes, (0, 20, 48), strict=True):
                url = f"redis://127.0.0.1:{node.resp_port}"
                async with (
                    riverbus.connect(url) as one,
                    one.subscribe("c", since=ids[since], on_gap="raise") as subscription,
                    asyncio.timeout(READY_S),
                ):
                    found = [await anext(subscription) for _ in range(49 - since)]
                assert [each.id for each in found] == ids[since + 1 :]

    asyncio.run(story())
