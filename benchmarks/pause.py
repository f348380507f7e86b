"""How long does the loop stand still at worst while 1,000,000 messages of 1 KiB go through a window of 200,000?

A real node (`riverbus serve`, its window configured, the garbage that Python makes of it included) takes them from one
publisher with 256 in flight by the real path: parse, propose, log and fsync, apply, retain, trim. Meanwhile another
connection sends a PING each millisecond, open loop: the longest answer counts from when its PING was due, so it bounds
the longest pause from above, with the turn before it and the scheduler's delays. Beside it a bare C loop (native/
stall.c) makes and drops the same messages at the same pace; its longest step is what the machine does to anybody.
"""

from __future__ import annotations

import subprocess

from benchmarks.harness import BenchmarkError, Budget, Row, compiled, interleave
from benchmarks.load import generate
from benchmarks.peers import riverbus_node

MESSAGES = 1_000_000
RETAINED = 200_000
SIZE = 1024
SECONDS_MAX = 240
CONFIG = """
[[channel]]
match = "*"
history = { count = %d, age = "1h", bytes = "1GiB" }
"""


def measure(budget: Budget) -> list[Row]:
    messages, retained = budget.scaled(MESSAGES), budget.scaled(RETAINED)
    seconds_taken = [10.0]

    def ours() -> dict[str, float]:
        with riverbus_node(CONFIG % retained) as node:
            port = node.leader
            outcome = generate(
                budget,
                publish_ports=[port],
                ping_ports=[port],
                window=256,
                bytes=SIZE,
                messages=messages,
                warmup=0,
                seconds=SECONDS_MAX,
            ).must_be_complete()
        if outcome.acked < messages or outcome.ping_times is None:
            raise BenchmarkError(f"only {outcome.acked:,} of {messages:,} messages within {SECONDS_MAX} s")
        seconds_taken[0] = outcome.seconds
        return {"pause": outcome.ping_times.max, "p999": outcome.ping_times.p999, "rate": outcome.acked_rate}

    def peer() -> dict[str, float]:
        command = [str(compiled("stall")), str(messages), str(SIZE), str(retained), f"{seconds_taken[0]:.3f}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX + 60, check=False)
        if done.returncode != 0:
            raise BenchmarkError(f"stall: {done.stderr.strip()}")
        return {"pause": float(done.stdout) / 1000}

    pairs = interleave(ours, peer, budget.pairs)
    figure = f"worst pause, {messages:,} x 1 KiB through a window of {retained:,}"
    row = Row("pause", figure, "ms", "bare C loop", judged="ours", is_more_better=False, floor=20)
    pairs.fill(row, "pause")
    row.aim = 2 * row.peer if row.peer else None
    row.details = {"p99.9 of PING, ms": pairs.ours.get("p999"), "acked/s meanwhile": pairs.ours.get("rate")}
    return [row]
