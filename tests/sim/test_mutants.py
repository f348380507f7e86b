"""Each seeded bug is found by the simulator, by the checker that should find it, within a minute."""

from __future__ import annotations

import time

import pytest

from riverbus.sim.campaign import run_seed
from riverbus.sim.world import Options
from tests.sim.group_mutants import GROUP_MUTANTS
from tests.sim.memory_mutants import MEMORY_MUTANTS
from tests.sim.mutants import MUTANTS, Mutant

SECONDS = 60.0
ALL = {**MUTANTS, **GROUP_MUTANTS, **MEMORY_MUTANTS}


def seeds_until_found(mutant: Mutant) -> tuple[int, list[str]]:
    """How many seeds until a checker that should find it did, and its problems; (0, []) if the time was not enough."""
    until = time.monotonic() + SECONDS
    seed = 0
    with mutant.plant():
        while time.monotonic() < until:
            seed += 1
            outcome = run_seed(Options(seed, chaos_s=20.0, changes=mutant.changes))
            found = {problem.split()[0] for problem in outcome.problems}
            if found & {*mutant.rules, "AssertionError"}:  # what else it breaks may come first
                return seed, outcome.problems
    return 0, []


@pytest.mark.parametrize("name", ALL)
def test_a_seeded_bug_is_found_by_the_simulator(name: str) -> None:
    mutant = ALL[name]
    seed, problems = seeds_until_found(mutant)
    assert seed, f"not found in {SECONDS} s"
    found = {problem.split()[0] for problem in problems}
    assert found & set(mutant.rules) or "AssertionError" in found, problems[:3]
