"""A harness that cannot fail proves nothing: an acknowledgement that the bus never gave must be found as a loss."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.cluster import running
from tests.faults.workload import History, assert_nothing_lost, publishing, subscribing, wait_delivered


@pytest.mark.timeout(60)
def test_a_planted_loss_and_a_planted_skip_are_found_over_real_processes(tmp_path: Path) -> None:
    async def story() -> None:
        history = History(["c"])
        async with running(tmp_path, count=1, shards=1) as cluster, cluster.connect() as bus:
            async with subscribing(history, bus):
                async with publishing(history, cluster, count=2):
                    await asyncio.sleep(1)
                await wait_delivered(history, cluster)
            await assert_nothing_lost(history, cluster)
            events = history.events["c"]

            acked = next(event for event in events if event.operation == "publish" and event.result == "ok")
            events.append(acked._replace(value="never sent"))
            with pytest.raises(AssertionError, match="C1 c: 1 of"):
                await assert_nothing_lost(history, cluster)
            events.pop()

            delivered = [at for at, event in enumerate(events) if event.operation == "deliver"]
            del events[delivered[len(delivered) // 2]]
            with pytest.raises(AssertionError, match="C6 c: subscriber"):
                await assert_nothing_lost(history, cluster)

    asyncio.run(story())
