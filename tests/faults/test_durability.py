"""What an ack of each durability survives, with real processes: every node killed at once, at a moment of full speed.

Power loss of nodes for `quorum` is tests/storage and the simulator; `none` touches no disk, so a kill is all there is.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from riverbus import MessageId
from tests.faults.cluster import running

COUNT = 2000


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
