"""How many publishes a second does a cluster of three acknowledge to 50 publishers with one in flight each, of 100 B?

Against NATS JetStream with a stream of three replicas on file. First all at the node that leads one channel (subject);
then, for orientation, as a fleet would: over all three nodes, each publisher to a channel (subject) of its own, which
Riverbus deals to shards with leaders on different nodes and NATS keeps in its one stream.
"""

from __future__ import annotations

from benchmarks.harness import Budget, Row, interleave
from benchmarks.load import generate
from benchmarks.peers import CHANNEL, Cluster, nats_cluster, riverbus_cluster

PUBLISHERS = 50
PEER = "NATS JetStream R3"


def measure(budget: Budget) -> list[Row]:
    def figures(cluster: Cluster) -> dict[str, float]:
        to_leader: dict[str, str | int | list[int]] = {"publish_ports": [cluster.leader]}
        spread: dict[str, str | int | list[int]] = {
            "publish_ports": cluster.all,
            "channels": PUBLISHERS,
            "channel": f"{CHANNEL}.",
        }
        result = {}
        for figure, options in (("leader", to_leader), ("spread", spread)):
            outcome = generate(budget, protocol=cluster.protocol, connections=PUBLISHERS, bytes=100, **options)
            result[figure] = outcome.must_be_complete().acked_rate
        return result

    def peer() -> dict[str, float]:
        with nats_cluster() as cluster:
            return figures(cluster)

    def ours() -> dict[str, float]:
        with riverbus_cluster() as cluster:
            return figures(cluster)

    pairs = interleave(ours, peer, budget.pairs)
    name = "publish_many"
    rows = {
        "leader": Row(name, "3 nodes, 50 publishers, 1 in flight each, 100 B", "acked/s", PEER, floor=1.5, aim=3),
        "spread": Row(name, "the same, over all nodes and 50 channels", "acked/s", PEER),
    }
    return [pairs.fill(row, figure) for figure, row in rows.items()]
