"""How many publishes a second does a cluster of three acknowledge to one publisher that keeps 256 in flight?

Against NATS JetStream with a stream of three replicas on file. The publisher is connected to the node that leads, in
both; Riverbus is shown once more with the publisher at another node, which forwards. NATS acknowledges when a majority
has the message in memory or page cache and never waits for a disk; Riverbus when a majority has it on disk.
"""

from __future__ import annotations

from benchmarks.harness import Budget, Row, interleave
from benchmarks.load import generate
from benchmarks.peers import Cluster, nats_cluster, riverbus_cluster

WINDOW = 256
PEER = "NATS JetStream R3"
_FORWARDED = "forwarded"


def measure(budget: Budget) -> list[Row]:
    def figures(cluster: Cluster, sizes: dict[str, tuple[int, int]]) -> dict[str, float]:
        result = {}
        for figure, (size, port) in sizes.items():
            outcome = generate(budget, protocol=cluster.protocol, publish_ports=[port], window=WINDOW, bytes=size)
            result[figure] = outcome.must_be_complete().acked_rate
        return result

    def peer() -> dict[str, float]:
        with nats_cluster() as cluster:
            return figures(cluster, {"100": (100, cluster.leader), "1024": (1024, cluster.leader)})

    def ours() -> dict[str, float]:
        with riverbus_cluster() as cluster:
            sizes = {"100": (100, cluster.leader), "1024": (1024, cluster.leader), _FORWARDED: (100, cluster.others[0])}
            return figures(cluster, sizes)

    pairs = interleave(ours, peer, budget.pairs)
    pairs.peer[_FORWARDED] = pairs.peer.get("100", [])
    name = "publish_pipelined"
    figure = "3 nodes, 1 publisher, 256 in flight"
    rows = {
        "100": Row(name, f"{figure}, 100 B", "acked/s", PEER, floor=2, aim=4, aim_ours=200_000),
        "1024": Row(name, f"{figure}, 1 KiB", "acked/s", PEER, floor=1.5, aim=2.5),
        _FORWARDED: Row(name, "the same, 100 B, publisher at a node that doesn't lead", "acked/s", PEER),
    }
    return [pairs.fill(row, figure) for figure, row in rows.items()]
