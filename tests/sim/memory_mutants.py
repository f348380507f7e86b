"""Seeded bugs of durability `memory`: each answers a publish that a minority's restart can lose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from riverbus.core.consensus.comeback import Comeback
from riverbus.core.consensus.receipts import Receipts
from riverbus.sim.swarm import Window
from tests.sim.mutants import Mutant

MINORITIES: dict[str, object] = {
    "nodes": 3,
    "window": Window(),
    "is_memory": True,
    "retries": False,
    "fault_kinds": ("crash_minority",),
    "fault_pace_s": 1.0,
    "shards": 1,
    "streams": 0,
    "members": 0,
    "in_flight": 64,
    "publishers": 2,
    "publishes_per_s": 60.0,
}


@contextmanager
def answered_by_the_leader_alone() -> Iterator[None]:
    """A publish is answered when its leader has it, whoever else does."""
    count = Receipts._count

    def alone(receipts: Receipts, last: int) -> None:
        receipts._majority = 1
        count(receipts, last)

    with patch.object(Receipts, "_count", alone):
        yield


@contextmanager
def votes_at_once_after_a_restart() -> Iterator[None]:
    """A node that may have forgotten what it was counted with votes as if it had not."""
    with patch.object(Comeback, "admits", lambda *_: True):
        yield


MEMORY_MUTANTS: dict[str, Mutant] = {
    "answered by the leader alone": Mutant(answered_by_the_leader_alone, ("C1",), MINORITIES),
    "votes at once after a restart": Mutant(votes_at_once_after_a_restart, ("C1",), MINORITIES),
}
