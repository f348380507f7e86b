"""A slice of the simulator for every run of the tests; `make sim` runs many more seeds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from riverbus.sim.world import Options, World


@pytest.mark.parametrize("seed", range(1, 31))
def test_no_promise_is_broken_whatever_the_seed_brings(seed: int) -> None:
    report = World(Options(seed=seed, chaos_s=20.0)).run()
    assert not report.violations, "\n".join(map(str, [*report.violations, *report.fault_log]))
    assert report.acked > 0


def test_without_faults_nothing_is_refused() -> None:
    report = World(Options(seed=7, nodes=3, chaos_s=10.0, faults=False)).run()
    assert not report.violations
    assert report.refused == 0
    assert report.delivered >= report.acked


def trace_in_a_process(seed: int, hash_seed: str) -> str:
    program = f"from riverbus.sim.world import *; print(World(Options(seed={seed}, chaos_s=8.0)).run().trace)"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return run.stdout.strip()


@pytest.mark.parametrize("seed", [3, 11])
def test_one_seed_has_one_trace_in_every_process(seed: int) -> None:
    assert trace_in_a_process(seed, "1") == trace_in_a_process(seed, "2") != ""
