"""How many entries of 100 B a second do four consumers of one group take from a stream and acknowledge?

Each consumer asks for 100 (XREADGROUP COUNT 100 BLOCK), acknowledges them by one XACK and waits for every answer. First
from a stream that was filled beforehand; then while a publisher keeps adding, 256 in flight, so that XADD is in the
figure too. Against Streams of one redis-server with appendfsync always: both have what was handed out and acknowledged
on disk before they answer, Riverbus on two of its three nodes. All clients are connected to the node that leads; shown
once more with the consumers dealt over the three nodes.
"""

from __future__ import annotations

from benchmarks.harness import Budget, Row, interleave
from benchmarks.load import consume
from benchmarks.peers import CHANNEL, redis_server, riverbus_cluster

CONSUMERS = 4
COUNT = 100
ENTRIES = 300_000
BEHIND_MAX = 20_000  # the publisher waits while the group is so many entries behind
PEER = "redis-server Streams, fsync always, 1 node"
_FILLED, _FED, _SPREAD = "filled", "fed", "spread"


def measure(budget: Budget) -> list[Row]:
    def rate(figure: str, ports: list[int], **options: int) -> float:
        stream = f"{{{CHANNEL}}}.{figure}"  # of the channel's shard
        return consume(
            budget,
            publish_port=ports[0],
            consume_ports=ports,
            consumers=CONSUMERS,
            count=COUNT,
            bytes=100,
            stream=stream,
            **options,
        )

    def figures(port: int) -> dict[str, float]:
        return {
            _FILLED: rate(_FILLED, [port], entries=budget.scaled(ENTRIES)),
            _FED: rate(_FED, [port], entries=BEHIND_MAX, feeds=1),
        }

    def peer() -> dict[str, float]:
        with redis_server(is_durable=True) as port:
            return figures(port)

    def ours() -> dict[str, float]:
        with riverbus_cluster() as cluster:
            spread = {_SPREAD: rate(_SPREAD, cluster.all, entries=budget.scaled(ENTRIES))}
            return figures(cluster.leader) | spread

    pairs = interleave(ours, peer, budget.pairs)
    pairs.peer[_SPREAD] = pairs.peer.get(_FILLED, [])
    figure = f"3 nodes, {CONSUMERS} consumers of a group, {COUNT} a time, 100 B"
    rows = {
        _FILLED: Row("streams_group", f"{figure}, stream filled beforehand", "entries/s", PEER, floor=0.5),
        _FED: Row("streams_group", "the same, while a publisher adds, 256 in flight", "entries/s", PEER, floor=0.5),
        _SPREAD: Row("streams_group", "the same, filled beforehand, consumers over all nodes", "entries/s", PEER),
    }
    return [pairs.fill(row, figure) for figure, row in rows.items()]
