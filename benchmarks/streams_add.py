"""How many XADDs a second does a cluster of three acknowledge to one publisher that keeps 256 in flight, 100 B each?

Against Streams of one redis-server with appendfsync always, which answers when its one disk has it; Riverbus when two
of three have it. The publisher is connected to the node that leads; Riverbus is shown once more with it at another
node, which forwards.
"""

from __future__ import annotations

from benchmarks.harness import Budget, Row, interleave
from benchmarks.load import generate
from benchmarks.peers import redis_server, riverbus_cluster

WINDOW = 256
PEER = "redis-server Streams, fsync always, 1 node"
_LEADER, _FORWARDED = "leader", "forwarded"


def measure(budget: Budget) -> list[Row]:
    def rate(port: int) -> float:
        outcome = generate(budget, publish_ports=[port], adds=1, window=WINDOW, bytes=100)
        return outcome.must_be_complete().acked_rate

    def peer() -> dict[str, float]:
        with redis_server(is_durable=True) as port:
            return {_LEADER: rate(port)}

    def ours() -> dict[str, float]:
        with riverbus_cluster() as cluster:
            return {_LEADER: rate(cluster.leader), _FORWARDED: rate(cluster.others[0])}

    pairs = interleave(ours, peer, budget.pairs)
    pairs.peer[_FORWARDED] = pairs.peer.get(_LEADER, [])
    name = "streams_add"
    rows = {
        _LEADER: Row(name, "3 nodes, 1 publisher by XADD, 256 in flight, 100 B", "acked/s", PEER, floor=0.8),
        _FORWARDED: Row(name, "the same, publisher at a node that doesn't lead", "acked/s", PEER),
    }
    return [pairs.fill(row, figure) for figure, row in rows.items()]
