"""Many seeds: each in a world of its own, over several processes; their figures summed; a failure shrunk and told.

A seed fails when a promise is broken or something raises. Its faults are then made fewer by delta debugging (Zeller,
"Yesterday, my program worked. Today, it does not. Why?", 1999): each fault draws from a generator of its own, so that
leaving some out leaves the others what they were.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from riverbus.sim.world import Options, Report, World

SHRINK_RUNS_MAX = 120
_SUMMED = (
    "simulated_s",
    "faults",
    "operations",
    "published",
    "acked",
    "refused",
    "reads",
    "delivered",
    "gaps",
    "elections",
    "snapshots_installed",
    "nodes_lost",
    "handed_out",
    "group_acked",
)


@dataclass
class Outcome:
    """Of one seed. `report` is None when the world itself broke: then `problems` ends with a traceback."""

    options: Options
    report: Report | None
    problems: list[str]
    fault_log: list[str]
    struck: list[int]
    cpu_s: float = field(default=0.0, compare=False)

    @property
    def is_failed(self) -> bool:
        return bool(self.problems)


@dataclass
class Totals:
    """The figures of a campaign; `trace` is the last seed's, or of all of them chained."""

    seeds: int = 0
    failed: int = 0
    simulated_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = field(default=0.0, compare=False)
    faults: int = 0
    operations: int = 0
    published: int = 0
    acked: int = 0
    refused: int = 0
    reads: int = 0
    delivered: int = 0
    gaps: int = 0
    elections: int = 0
    snapshots_installed: int = 0
    nodes_lost: int = 0
    handed_out: int = 0
    group_acked: int = 0
    longest_wait_s: float = 0.0
    traces: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.cpu_s += outcome.cpu_s
        self.failed += outcome.is_failed
        report = outcome.report
        if report is None:
            self.faults += len(outcome.fault_log)
            return
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(report, name))
        self.longest_wait_s = max(self.longest_wait_s, report.longest_wait_s)
        self.traces.append(report.trace)

    @property
    def cluster_hours(self) -> float:
        return self.simulated_s / 3600

    def per_simulated_s(self, count: int) -> float:
        return count / max(self.simulated_s, 1e-9)

    @property
    def speed(self) -> float:
        """Simulated seconds in one second of real time, all processes together."""
        return self.simulated_s / max(self.wall_s, 1e-9)

    @property
    def speed_cpu(self) -> float:
        """Simulated seconds in one second of processor time: whatever else the machine does, about the same."""
        return self.simulated_s / max(self.cpu_s, 1e-9)

    @property
    def faults_per_s(self) -> float:
        return self.faults / max(self.wall_s, 1e-9)


def run_seed(options: Options) -> Outcome:
    """Never raises: what the world raises is the seed's failure.

    Python's collector rests meanwhile, as in a node (runtime/memory.py): a history only grows, and to look through it
    again and again is an eighth of all work. What a world leaves behind is collected at its end.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()  # what was there before need not be looked through at the end
    began = time.process_time()
    world = World(options)
    try:
        outcome = _run_world(world)
        outcome.cpu_s = time.process_time() - began
        return outcome
    finally:
        world.free()
        del world
        gc.collect()
        gc.unfreeze()
        if is_enabled:
            gc.enable()


def _run_world(world: World) -> Outcome:
    options = world.options
    try:
        report = world.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this seed's finding, and the other seeds go on
        text = "".join(traceback.format_exception(error))
        problems = [f"{type(error).__name__} at {world.clock.now:.3f}: {error}", text]
        return Outcome(options, None, problems, world.faults.log, world.faults.struck)
    return Outcome(options, report, [str(each) for each in report.violations], report.fault_log, report.struck)


def run_seeds(all_options: Sequence[Options], jobs: int) -> Iterator[Outcome]:
    """In the order of the seeds, whatever the number of processes."""
    if jobs == 1 or len(all_options) == 1:
        yield from map(run_seed, all_options)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run_seed, all_options)


def shrink(failed: Outcome, run: Callable[[Options], Outcome] = run_seed, seconds: float = 120.0) -> Outcome:
    """The failure with as few faults as delta debugging finds in `seconds` of real time (complement reduction)."""
    best = failed
    left = failed.struck
    pieces = 2
    runs = 0
    until = time.monotonic() + seconds
    while len(left) > 1 and runs < SHRINK_RUNS_MAX and time.monotonic() < until:
        size = max(1, len(left) // pieces)
        for start in range(0, len(left), size):
            fewer = left[:start] + left[start + size :]
            runs += 1
            outcome = run(replace(failed.options, only_faults=tuple(fewer)))
            if outcome.is_failed:
                best, left = outcome, fewer
                pieces = max(2, pieces - 1)
                break
            if runs >= SHRINK_RUNS_MAX or time.monotonic() >= until:
                break
        else:
            if size == 1:
                break
            pieces = min(len(left), pieces * 2)
    return best


def replay_command(options: Options) -> str:
    """What to type to see this run again."""
    parts = ["riverbus", "sim", "--seed", str(options.seed)]
    if options.nodes is not None:
        parts += ["--nodes", str(options.nodes)]
    if options.chaos_s != Options(0).chaos_s:
        parts += ["--chaos", f"{options.chaos_s:g}"]
    if options.publishes_per_s is not None:
        parts += ["--rate", f"{options.publishes_per_s:g}"]
    if not options.has_faults:
        parts += ["--no-faults"]
    elif options.only_faults is not None:
        parts += ["--only-faults", ",".join(map(str, options.only_faults))]
    return " ".join(parts)
