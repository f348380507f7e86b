"""The twelve scenarios with real processes (scenarios.py): 7 s of faults each, or 60 with RIVERBUS_FAULTS=long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scenarios import IS_LONG, LASTS_S, SCENARIOS, SEED, Scenario, Totals, run_scenario


@pytest.fixture(scope="module")
def totals() -> Iterator[Totals]:
    found = Totals()
    yield found
    print(f"\n{found.report()}")


@pytest.mark.timeout(600 if IS_LONG else 200)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "_"))
def test_what_was_promised_holds_under(scenario: Scenario, tmp_path: Path, totals: Totals) -> None:
    run = asyncio.run(run_scenario(scenario, tmp_path, SEED, LASTS_S))
    totals.runs.append(run)
    print(f"\n{run.report()}")
