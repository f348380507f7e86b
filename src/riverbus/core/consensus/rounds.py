"""When a node's next round of consensus begins: publishes are gathered for it, for a moment.

A round costs much the same for one message as for a hundred: entries, flushes, messages to and fro, wake-ups. So a
round waits for the one under way, ROUND_S at most; and clients that each wait for their reply come back within a few
turns of each other, so as many as the last round had are waited for, GATHER_S at most. A lone publish waits for one
empty turn.
Measured with 50 publishers of one message in flight: 20 messages a round without this, 45 with it.
"""

from __future__ import annotations

from collections.abc import Callable

from riverbus.core.timers import Timers
from riverbus.limits import GATHER_S, ROUND_S


class Rounds:
    """`touch` brings another turn."""

    def __init__(self, timers: Timers, touch: Callable[[], None]) -> None:
        self._timers = timers
        self._touch = touch
        self._has_arrivals = False  # in this turn
        self._arrivals = 0  # since the last round began
        self._expected = 0
        self._gathering_since: float | None = None
        self._begun_at = 0.0
        self._is_timed = False  # a timer ends the wait for the round under way

    def on_arrival(self) -> None:
        """A publish, or a batch of another node's."""
        self._has_arrivals = True
        self._arrivals += 1

    def on_begun(self, now: float) -> None:
        self._begun_at = now

    def is_waiting(self, now: float, is_settled: bool) -> bool:
        """At the end of a turn: shall the next round wait? `is_settled`: nothing that was proposed is under way."""
        has_arrivals, self._has_arrivals = self._has_arrivals, False
        if not self._arrivals:
            return False
        if not is_settled and now - self._begun_at < ROUND_S:
            self._gathering_since = None
            if not self._is_timed:
                self._is_timed = True
                self._timers.schedule(self._begun_at + ROUND_S, self._on_late)
            return True
        if self._gathering_since is None:
            self._gathering_since = now
            self._timers.schedule(now + GATHER_S, self._touch)
        is_over = now - self._gathering_since >= GATHER_S
        if is_over or (not has_arrivals and self._arrivals >= self._expected):
            self._gathering_since = None
            self._expected, self._arrivals = self._arrivals, 0
            return False
        if has_arrivals:
            self._touch()
        return True

    def _on_late(self) -> None:
        self._is_timed = False
        self._touch()
