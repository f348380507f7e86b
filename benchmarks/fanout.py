"""How many deliveries a second does one node make from one publisher to 10, 100 and 1,000 subscribers?

Against redis-server's Pub/Sub, which keeps nothing; Riverbus keeps each message in its window and on disk before it
delivers. The publisher is at most so many messages ahead of the slowest subscriber, and has at most as many that are
not acknowledged: 1,024 asks what a node can carry; in the rows of 256, for orientation, Riverbus waits for its disk.
"""

from __future__ import annotations

from benchmarks.harness import Budget, Row, interleave
from benchmarks.load import generate
from benchmarks.peers import redis_server, riverbus_node

WINDOW = 1024
WINDOW_SHORT = 256
CASES = [(subscribers, size, WINDOW) for size in (100, 1024) for subscribers in (10, 100, 1000)]
CASES += [(10, size, WINDOW_SHORT) for size in (100, 1024)]


def measure(budget: Budget) -> list[Row]:
    def figures(port: int) -> dict[str, float]:
        result = {}
        for subscribers, size, window in CASES:
            outcome = generate(
                budget,
                publish_ports=[port],
                subscribe_ports=[port],
                subscribers=subscribers,
                window=window,
                bytes=size,
            )
            result[_key(subscribers, size, window)] = outcome.must_be_complete().delivered_rate
        return result

    def peer() -> dict[str, float]:
        with redis_server() as port:
            return figures(port)

    def ours() -> dict[str, float]:
        with riverbus_node() as node:
            return figures(node.leader)

    pairs = interleave(ours, peer, budget.pairs)
    rows = []
    for subscribers, size, window in CASES:
        bytes_each = "1 KiB" if size == 1024 else f"{size} B"
        figure = f"1 node, 1 publisher with {window:,} in flight to {subscribers:,} subscribers, {bytes_each}"
        row = Row("fanout", figure, "deliveries/s", "redis-server Pub/Sub")
        if window == WINDOW:
            row = Row("fanout", figure, "deliveries/s", "redis-server Pub/Sub", floor=0.8, aim=1.2)
        rows.append(pairs.fill(row, _key(subscribers, size, window)))
    return rows


def _key(subscribers: int, size: int, window: int) -> str:
    return f"{subscribers}x{size}x{window}"
