"""A plain PUBLISH that a client sends again after its connection was lost, as redis-py does.

It has one effect where the node can know that the first copy was not proposed; docs/protocol.md says when it can't.
"""

from __future__ import annotations

import asyncio

from riverbus.client.connection import encode_command
from riverbus.client.embedded_cluster import ClusterDialer, EmbeddedCluster


def test_a_copy_that_waits_for_a_leader_is_dropped_when_its_connection_ends() -> None:
    async def story() -> None:
        async with asyncio.timeout(40), EmbeddedCluster() as cluster:
            cut_off = cluster.leader() % 3 + 1
            first = await ClusterDialer(cluster, cut_off).dial()
            async with cluster.connect(cluster.leader(), deadline=20) as bus:
                async with cluster.partition(cut_off):
                    answer = first.call(encode_command(b"PUBLISH", b"c", b"x"))
                    for _ in range(20):  # it arrives, and waits for a leader in reach
                        await asyncio.sleep(0)
                    assert not answer.done()
                    first.close("as redis-py does before it tries again")
                    await asyncio.gather(answer, return_exceptions=True)
                    await bus.execute("PUBLISH", "c", "x")
                for at in range(5):  # whatever the healed node would still propose has come by now
                    second = await ClusterDialer(cluster, cut_off).dial()
                    await second.call(encode_command(b"PUBLISH", b"d", b"%d" % at))
                    second.close("the test is over")
                assert await bus.length("c") == 1

    asyncio.run(story())
