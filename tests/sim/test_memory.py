"""Durability memory in the simulator: what its acknowledgement survives, and what it does not, with disks that lag.

The same worlds with a bug in them are in memory_mutants.py.
"""

from __future__ import annotations

import pytest

from riverbus.sim.checkers import Event, check
from riverbus.sim.excuses import count_unread, without_excused
from riverbus.sim.world import Options, World
from tests.sim.memory_mutants import MINORITIES


@pytest.mark.parametrize("nodes", [3, 5])
def test_a_minority_that_loses_its_memory_and_comes_back_loses_no_early_acknowledgement(nodes: int) -> None:
    early = faults = 0
    for seed in range(1, 5):
        world = World(Options(seed, chaos_s=40.0, changes={**MINORITIES, "nodes": nodes}))
        report = world.run()
        assert report.violations == []
        assert world.memory_losses == []
        early += report.early_acked
        faults += sum("power loss" in text for text in report.fault_log)
    assert early > 500
    assert faults >= 8


def test_all_nodes_that_lose_their_memory_at_once_may_lose_early_acknowledgements_and_no_others() -> None:
    lost = 0
    for seed in range(1, 5):
        report = World(Options(seed, chaos_s=40.0, changes={**MINORITIES, "fault_kinds": ("crash_everyone",)})).run()
        assert report.violations == []
        lost += report.early_lost
    assert lost > 0


def test_a_power_loss_that_was_to_come_when_peace_began_does_not_come() -> None:
    """It struck nodes while they were read for the last time."""
    report = World(Options(13, chaos_s=40.0, changes={**MINORITIES, "nodes": 5})).run()
    assert report.violations == []


def test_early_acknowledgements_are_excused_only_near_a_loss_of_a_majority() -> None:
    events = [
        Event(1.0, 1.1, "p", "publish", "c", "near", is_early=True),
        Event(1.0, 1.1, "p", "publish", "c", "quorum"),
        Event(9.0, 9.1, "p", "publish", "c", "far", is_early=True),
        Event(20.0, 20.1, "r", "read_all", "c"),
    ]
    judged, excused = without_excused(events, [1.5])
    assert [event.value for event in excused] == ["near"]
    assert [event.result for event in judged] == ["info", "ok", "ok", "ok"]
    assert count_unread(excused, events) == 1
    assert "2 of 2 acknowledged not read" in str(check(judged)[0])
    assert without_excused(events, []) == (events, [])
