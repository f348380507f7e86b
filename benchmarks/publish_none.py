"""How many publishes a second does one node take to a channel of durability `none`, which no log holds?

Against redis-server's PUBLISH, which is the same: at most once, to whoever listens. One publisher with 1,024 in flight,
to nobody and to one subscriber; the load generator is the same.
"""

from __future__ import annotations

from benchmarks.harness import Budget, Row, interleave
from benchmarks.load import generate
from benchmarks.peers import CHANNEL, redis_server, riverbus_node

WINDOW = 1024
RULES = f'[[channel]]\nmatch = "{CHANNEL}"\ndurability = "none"\n'
CASES = (0, 1)  # subscribers


def measure(budget: Budget) -> list[Row]:
    def figures(port: int) -> dict[str, float]:
        result = {}
        for subscribers in CASES:
            listening: dict[str, int | list[int]] = {"subscribe_ports": [port], "subscribers": subscribers}
            options = listening if subscribers else {}
            outcome = generate(budget, publish_ports=[port], window=WINDOW, bytes=100, **options)
            result[str(subscribers)] = outcome.must_be_complete().acked_rate
        return result

    def peer() -> dict[str, float]:
        with redis_server() as port:
            return figures(port)

    def ours() -> dict[str, float]:
        with riverbus_node(RULES) as node:
            return figures(node.leader)

    pairs = interleave(ours, peer, budget.pairs)
    rows = []
    for subscribers in CASES:
        to = "nobody" if not subscribers else "1 subscriber"
        figure = f"1 node, durability none, 1 publisher with {WINDOW:,} in flight to {to}, 100 B"
        row = Row("publish_none", figure, "publishes/s", "redis-server PUBLISH", floor=0.8, aim=1.0)
        rows.append(pairs.fill(row, str(subscribers)))
    return rows
