"""The scenarios can fail: nodes that have one of the simulator's seeded bugs are found out, by the right checker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS, SEED, SHORT_S, run_scenario


@pytest.mark.timeout(200)
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
    with pytest.raises(AssertionError, match=rules):
        asyncio.run(run_scenario(scenario, tmp_path, SEED, SHORT_S, ("tests.faults.planted_node", mutant), tmp_path))
