"""How many deliveries a second does one node make from one publisher to 10, 100 and 1,000 subscribers?

Against redis-server's Pub/Sub, which keeps nothing; Riverbus keeps each message in its window and on disk before it
delivers. The publisher is at most 256 messages ahead of the slowest subscriber and has at most 256 unacknowledged.
"""

from __future__ import annotations

from benchmarks.harness import Budget, Row, interleave
from benchmarks.load import generate
from benchmarks.peers import redis_server, riverbus_node

WINDOW = 256
CASES = [(subscribers, size) for size in (100, 1024) for subscribers in (10, 100, 1000)]


def measure(budget: Budget) -> list[Row]:
    def figures(port: int) -> dict[str, float]:
        result = {}
        for subscribers, size in CASES:
            outcome = generate(
                budget,
                publish_ports=[port],
                subscribe_ports=[port],
                subscribers=subscribers,
                window=WINDOW,
                bytes=size,
            )
            result[_key(subscribers, size)] = outcome.must_be_complete().delivered_rate
        return result

    def peer() -> dict[str, float]:
        with redis_server() as port:
            return figures(port)

    def ours() -> dict[str, float]:
        with riverbus_node() as node:
            return figures(node.leader)

    pairs = interleave(ours, peer, budget.pairs)
    rows = []
    for subscribers, size in CASES:
        figure = f"1 node, 1 publisher to {subscribers:,} subscribers, {'1 KiB' if size == 1024 else f'{size} B'}"
        row = Row("fanout", figure, "deliveries/s", "redis-server Pub/Sub", floor=0.8, aim=1.2)
        rows.append(pairs.fill(row, _key(subscribers, size)))
    return rows


def _key(subscribers: int, size: int) -> str:
    return f"{subscribers}x{size}"
