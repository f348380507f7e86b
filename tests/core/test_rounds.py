"""Rounds: publishes are gathered for a round of consensus, for a bounded time, and none is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from riverbus.core.consensus.rounds import Rounds
from riverbus.core.timers import Timers
from riverbus.limits import GATHER_S, ROUND_S

STEP_S = 0.0001


class Node:
    """Runs turns when there is something to do, as the engine does: an arrival, a touch, or a timer that is due."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers = Timers()
        self.has_turn = False
        self.rounds = Rounds(self.timers, self._touch)
        self.waiting: list[float] = []  # when each publish came that no round has taken
        self.waits: list[float] = []
        self.sizes: list[int] = []
        self.settled_at = 0.0

    def _touch(self) -> None:
        self.has_turn = True

    def arrive(self, count: int) -> None:
        for _ in range(count):
            self.rounds.on_arrival()
            self.waiting.append(self.now)
        self.has_turn = self.has_turn or count > 0

    def turn(self, round_s: float = 0.0) -> bool:
        """The end of a turn; a round that begins now is under way for `round_s`. True if one began."""
        self.timers.fire(self.now)
        if not self.has_turn:
            return False
        self.has_turn = False
        if self.rounds.is_waiting(self.now, self.now >= self.settled_at) or not self.waiting:
            return False
        self.rounds.on_begun(self.now)
        self.settled_at = self.now + round_s
        self.waits += [self.now - at for at in self.waiting]
        self.sizes.append(len(self.waiting))
        self.waiting = []
        return True


def test_a_lone_publish_waits_for_one_empty_turn() -> None:
    node = Node()
    node.arrive(1)
    assert not node.turn()
    assert node.has_turn
    assert node.turn()


def test_what_comes_during_a_round_goes_together_once_it_is_over() -> None:
    node = Node()
    node.arrive(1)
    node.turn()
    assert node.turn(round_s=0.002)
    for _ in range(3):
        node.arrive(1)
        assert not node.turn()
    node.now = node.settled_at
    node.arrive(1)
    node.turn()
    assert node.turn()
    assert node.sizes == [1, 4]


def test_a_round_that_takes_too_long_is_not_waited_for() -> None:
    node = Node()
    node.arrive(1)
    node.turn()
    node.turn(round_s=10.0)
    node.arrive(1)
    assert not node.turn()
    node.now = ROUND_S
    while not node.turn():
        assert node.now < ROUND_S + GATHER_S + STEP_S
        node.now += STEP_S
    assert node.sizes == [1, 1]


def test_as_many_are_waited_for_as_came_last_time_but_not_for_long() -> None:
    node = Node()
    node.arrive(3)
    node.turn()
    assert node.turn()
    node.arrive(2)
    while not node.turn():
        assert node.now <= GATHER_S + STEP_S
        node.now += STEP_S
    assert node.now >= GATHER_S, "the third may still come"
    node.arrive(2)
    node.turn()
    assert node.turn(), "the last time two came"
    assert node.sizes == [3, 2, 2]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.0004, 0.003, 0.1])), max_size=200))
def test_no_publish_waits_longer_than_a_round_and_its_gathering(steps: list[tuple[int, float]]) -> None:
    node = Node()
    for arrivals, round_s in steps:
        node.arrive(arrivals)
        node.turn(round_s)
        node.now += STEP_S
    for _ in range(round((ROUND_S + 2 * GATHER_S) / STEP_S)):
        node.turn()
        node.now += STEP_S
    assert not node.waiting
    assert all(wait <= ROUND_S + GATHER_S + 2 * STEP_S for wait in node.waits)
