"""The scenarios can fail: nodes that have one of the simulator's seeded bugs are found out, by the right checker."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS, SEED, SHORT_S, Scenario, run_scenario

SEEDS = 5  # whether a fault meets a moment in which the bug shows is luck, of one seed


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("mutant", "name", "rules"),
    [
        ("acknowledged before quorum", "isolated leader", "C1 |C2 |C3 "),
        ("resume off by one", "kill", "C6 |C7 "),
        ("read without barrier", "one way", "C10 "),
    ],
)
def test_a_seeded_bug_in_real_nodes_is_found(mutant: str, name: str, rules: str, tmp_path: Path) -> None:
    (scenario,) = (each for each in SCENARIOS if each.name == name)
    assert any(re.search(rules, verdict(scenario, mutant, seed, tmp_path)) for seed in range(SEED, SEED + SEEDS))


def verdict(scenario: Scenario, mutant: str, seed: int, tmp_path: Path) -> str:
    """What the checkers say of a run; nothing, if it went well."""
    place = tmp_path / str(seed)
    place.mkdir()
    try:
        asyncio.run(run_scenario(scenario, place, seed, SHORT_S, ("tests.faults.planted_node", mutant), place))
    except AssertionError as found:
        return str(found)
    return ""
