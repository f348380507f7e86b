"""How long does the loop stand still at worst while snapshots of 1 GiB are written, and 10,000 publishes a second come?

A real node (`riverbus serve`) retains 1,048,576 messages of 1 KiB in one channel, and writes its state down a second
after it began to the last time, or as soon as that is done. Meanwhile one publisher offers its messages in an open
loop, and another connection sends a PING each millisecond, likewise (pause.py says what that bounds). Beside it
redis-server, with the same entries in a stream and `save 1 1`: it forks for each snapshot. A run in which none was
finished is void.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable

from benchmarks.harness import BenchmarkError, Budget, Row, interleave
from benchmarks.load import generate
from benchmarks.peers import REPLY_SECONDS_MAX, redis_server, resp_call, riverbus_node

RETAINED = 2**20
SIZE = 1024
RATE = 10_000
FILL_SECONDS_MAX = 240
MEASURED_SECONDS = 10.0  # of a full run; 1 GiB takes a disk some seconds
CONFIG = """
[limits]
retained = "32GiB"
snapshot_age = "1s"

[[channel]]
match = "*"
history = { count = %d, age = "1h", bytes = "4GiB" }
"""


def measure(budget: Budget) -> list[Row]:
    retained = budget.scaled(RETAINED)

    def figures(port: int, adds: int, snapshots: Callable[[], int]) -> dict[str, float]:
        filled = generate(
            budget,
            publish_ports=[port],
            adds=adds,
            window=1024,
            bytes=SIZE,
            messages=retained,
            warmup=0,
            seconds=FILL_SECONDS_MAX,
        ).must_be_complete()
        if filled.acked < retained:
            raise BenchmarkError(f"only {filled.acked:,} of {retained:,} messages within {FILL_SECONDS_MAX} s")
        before = snapshots()
        seconds = 3.0 if budget.is_quick else MEASURED_SECONDS
        outcome = generate(
            budget, publish_ports=[port], ping_ports=[port], adds=adds, rate=RATE, bytes=SIZE, seconds=seconds
        ).must_be_complete()
        taken = snapshots() - before
        if taken < 1 or outcome.ping_times is None:
            raise BenchmarkError("no snapshot was finished meanwhile")
        return {"pause": outcome.ping_times.max, "p999": outcome.ping_times.p999, "snapshots": taken}

    def ours() -> dict[str, float]:
        with riverbus_node(CONFIG % retained) as node:
            return figures(node.leader, 0, lambda: _taken_by_riverbus(node.admin))

    def peer() -> dict[str, float]:
        with redis_server(snapshots="1 1") as port:
            return figures(port, 1, lambda: int(_info(port, "stats")["total_forks"]))

    pairs = interleave(ours, peer, budget.pairs)
    figure = f"worst pause, snapshots of {retained:,} x 1 KiB at {RATE:,} publishes/s"
    row = Row("snapshot", figure, "ms", "redis-server, which forks", judged="ours", is_more_better=False, floor=20)
    pairs.fill(row, "pause")
    row.details = {
        "p99.9 of PING, ms": pairs.ours.get("p999"),
        "snapshots finished": pairs.ours.get("snapshots"),
        "redis-server's p99.9, ms": pairs.peer.get("p999"),
        "redis-server's forks": pairs.peer.get("snapshots"),
    }
    return [row]


def _taken_by_riverbus(admin: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/status", timeout=REPLY_SECONDS_MAX) as response:
        return sum(shard["snapshots_taken"] for shard in json.load(response)["shards"])


def _info(port: int, section: str) -> dict[str, str]:
    lines = resp_call(port, "INFO", section).splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}
