"""Campaigns: figures add up, failures are shrunk to the faults that matter, the command that replays them is right."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from riverbus.sim.campaign import Outcome, Totals, replay_command, run_seed, run_seeds, shrink
from riverbus.sim.node import SimNode
from riverbus.sim.world import Options


def failing_with(needed: set[int]) -> tuple[Outcome, list[int]]:
    """A failure of 20 faults that only needs some of them, and how many runs were asked for."""
    runs: list[int] = []

    def run(options: Options) -> Outcome:
        struck = list(range(20)) if options.only_faults is None else list(options.only_faults)
        runs.append(len(struck))
        problems = ["C1 lost"] if needed <= set(struck) else []
        return Outcome(options, None, problems, [str(number) for number in struck], struck)

    return shrink(run(Options(1)), run), runs


def test_a_failure_is_shrunk_to_the_faults_that_it_needs() -> None:
    shrunk, runs = failing_with({3, 17})
    assert shrunk.struck == [3, 17]
    assert shrunk.is_failed
    assert len(runs) < 100


def test_a_failure_that_needs_no_faults_keeps_one() -> None:
    assert len(failing_with(set())[0].struck) == 1


def test_the_replay_command_says_all_that_makes_the_run() -> None:
    options = Options(7, nodes=3, chaos_s=20.0, only_faults=(3, 17), publishes_per_s=50.0)
    assert replay_command(options) == "riverbus sim --seed 7 --nodes 3 --chaos 20 --rate 50 --only-faults 3,17"
    assert replay_command(Options(7, has_faults=False)) == "riverbus sim --seed 7 --no-faults"


def test_a_rate_that_is_asked_for_is_what_clients_publish_and_the_figures_say_so() -> None:
    done = sim("--seed", "4", "--nodes", "3", "--chaos", "20", "--rate", "70", "--no-faults", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert 40 < figures["published_per_s"] < 90  # of all simulated time: nobody publishes before the cluster is founded
    assert 0.9 * figures["published_per_s"] < figures["acked_per_s"] <= figures["published_per_s"]


def test_what_a_world_raises_is_the_seeds_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(node: SimNode) -> None:
        raise AssertionError("broken")

    monkeypatch.setattr(SimNode, "walk", broken)
    outcome = run_seed(Options(1, chaos_s=1.0))
    assert outcome.is_failed
    assert outcome.report is None
    assert "Traceback" in outcome.problems[-1]


def test_figures_add_up_over_seeds_whatever_the_number_of_processes() -> None:
    all_options = [Options(seed, chaos_s=2.0) for seed in (1, 2, 3)]
    totals = []
    for jobs in (1, 2):
        total = Totals()
        for outcome in run_seeds(all_options, jobs):
            total.add(outcome)
        totals.append(total)
    assert totals[0] == totals[1]
    assert totals[0].seeds == len(totals[0].traces) == 3
    assert totals[0].acked > 0


def sim(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "riverbus.cli", "sim", *args], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_command_prints_one_object_with_the_figures_and_the_trace() -> None:
    done = sim("--seed", "4", "--nodes", "3", "--chaos", "3", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["seeds"] == 1
    assert figures["failed"] == 0
    assert figures["acked"] > 0
    assert figures["trace"] == run_seed(Options(4, nodes=3, chaos_s=3.0)).report.trace  # type: ignore[union-attr]
