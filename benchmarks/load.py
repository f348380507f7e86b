"""The load generators' face: native/load.c and groups.c, compiled at first use, run once a measurement.

They are C because they share two cores with the servers: load.c takes a fifth to two thirds of one where redis-server
takes all of another. It leaves servers to peers.py and the meaning of its figures to the benchmarks.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import BenchmarkError, Budget, compiled

MARGIN_SECONDS = 60.0  # connecting, draining and sorting the samples, on a busy machine

Option = str | int | float | list[int]


@dataclass(frozen=True, slots=True)
class Times:
    """Percentiles in milliseconds."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Counts between warm-up and end, except those of what never came."""

    seconds: float
    acked: int
    delivered: int
    unacked: int
    undelivered: int
    cpu_seconds: float
    ack_times: Times | None
    deliver_times: Times | None
    ping_times: Times | None

    @property
    def acked_rate(self) -> float:
        return self.acked / self.seconds

    @property
    def delivered_rate(self) -> float:
        return self.delivered / self.seconds

    def must_be_complete(self) -> Outcome:
        if self.unacked or self.undelivered:
            raise BenchmarkError(f"{self.unacked} publishes never answered, {self.undelivered} deliveries never made")
        return self


def generate(budget: Budget, **options: Option) -> Outcome:
    """Run native/load.c; `options` are its own. Raises BenchmarkError if the run is void."""
    result = _run("load", budget, options)
    return Outcome(
        seconds=result["seconds"],
        acked=result["acked"],
        delivered=result["delivered"],
        unacked=result["unacked"],
        undelivered=result["undelivered"],
        cpu_seconds=result["cpu_seconds"],
        ack_times=_times(result, "ack_us"),
        deliver_times=_times(result, "deliver_us"),
        ping_times=_times(result, "ping_us"),
    )


def consume(budget: Budget, **options: Option) -> float:
    """Run native/groups.c: how many entries a second a group took and acknowledged. Raises BenchmarkError if void."""
    result = _run("groups", budget, options)
    return float(result["acked"] / result["seconds"])


def _run(program: str, budget: Budget, options: dict[str, Option]) -> dict[str, Any]:
    options = {"warmup": budget.warmup_seconds, "seconds": budget.seconds} | options
    arguments = [str(compiled(program))] + [f"{key}={_text(value)}" for key, value in options.items()]
    patience = float(str(options["warmup"])) + float(str(options["seconds"])) + MARGIN_SECONDS
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"the load generator did not end within {patience:.0f} s") from None
    if done.returncode != 0:
        raise BenchmarkError(f"load generator: {done.stderr.strip()[:300] or f'code {done.returncode}'}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _text(value: Option) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _times(result: dict[str, Any], key: str) -> Times | None:
    if key not in result:
        return None
    values = result[key]
    return Times(values["count"], *(values[name] / 1000 for name in ("p50", "p99", "p999", "max")))
