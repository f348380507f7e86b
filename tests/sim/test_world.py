"""A slice of the simulator for every run of the tests; `riverbus sim` and `make sim` run many more seeds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from riverbus.sim.campaign import run_seed
from riverbus.sim.swarm import Weather, Window
from riverbus.sim.world import Options, Report, World

SLICES = 10
SEEDS_PER_SLICE = 12
SLICE_CHAOS_S = 15.0
DETERMINISTIC_SEEDS = 50


def run(options: Options) -> Report:
    outcome = run_seed(options)
    assert outcome.report is not None, outcome.problems
    return outcome.report


@pytest.mark.parametrize("at", range(SLICES))
def test_no_promise_is_broken_whatever_the_seed_brings(at: int) -> None:
    for seed in range(at * SEEDS_PER_SLICE + 1, (at + 1) * SEEDS_PER_SLICE + 1):
        outcome = run_seed(Options(seed, chaos_s=SLICE_CHAOS_S))
        assert not outcome.is_failed, "\n".join([f"seed {seed}", *outcome.problems, *outcome.fault_log])


def test_without_faults_nothing_is_refused() -> None:
    quiet = {"weather": Weather(), "window": Window(), "drift": 0.0, "streams": 0}
    report = run(Options(7, nodes=3, chaos_s=10.0, has_faults=False, changes=quiet))
    assert not report.violations
    assert report.refused == report.gaps == 0
    assert report.delivered >= report.acked > 0


def test_a_tiny_window_makes_gaps_and_they_are_told() -> None:
    changes = {"window": Window(count=1), "nodes": 3, "in_flight": 64, "burst": 20, "fault_kinds": ("crash", "isolate")}
    report = run(Options(3, chaos_s=15.0, changes={**changes, "publishes_per_s": 80.0}))
    assert not report.violations
    assert report.gaps > 0


def test_a_short_log_makes_snapshots_be_installed() -> None:
    changes = {"snapshot_log_bytes": 2000, "fault_kinds": ("isolate", "crash"), "nodes": 3, "fault_pace_s": 2.0}
    reports = [run(Options(seed, chaos_s=20.0, changes=changes)) for seed in range(1, 6)]
    assert not any(report.violations for report in reports)
    assert sum(report.snapshots_installed for report in reports) > 0


def test_damaged_and_wiped_nodes_stay_out_and_the_others_go_on() -> None:
    changes = {"fault_kinds": ("bit_rot", "wipe"), "nodes": 5, "fault_pace_s": 2.0}
    report = run(Options(3, chaos_s=20.0, changes=changes))
    assert not report.violations
    assert report.nodes_lost > 0


def traces_in_a_process(hash_seed: str) -> list[str]:
    program = (
        "from riverbus.sim.world import *\n"
        f"for seed in range({DETERMINISTIC_SEEDS}): print(World(Options(seed, chaos_s=5.0)).run().trace)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    return done.stdout.split()


def test_one_seed_has_one_trace_in_every_process() -> None:
    one, other = traces_in_a_process("1"), traces_in_a_process("2")
    assert one == other
    assert len(set(one)) == DETERMINISTIC_SEEDS


def test_the_trace_is_of_all_that_happens() -> None:
    whole = World(Options(3, chaos_s=8.0)).run()
    fewer = World(Options(3, chaos_s=8.0, only_faults=tuple(whole.struck[1:]))).run()
    assert whole.struck
    assert fewer.trace != whole.trace
