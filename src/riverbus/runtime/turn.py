"""The end of a turn of the loop: what gathered while sockets were read is acted on once, behind all of them.

Each input calls `enter` first. `end` runs when every socket that was ready has been read, since the loop runs what was
called soon only after it has polled. What `end` itself touches belongs to the next turn.
Rejected: to act per chunk. One entry, one flush and one write per subscriber and *turn* is what makes the bus fast.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from time import perf_counter

SECONDS_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LAG_PROBE_S = 0.05


class Histogram:
    """Counts by upper bound, the last one without bound; for /metrics. Not cumulative: the reader sums."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Turn:
    """See the module. `durations` are of the end of turns, in seconds."""

    __slots__ = ("_begin", "_end", "_has_begun", "_is_scheduled", "_loop", "durations")

    def __init__(self, loop: asyncio.AbstractEventLoop, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._loop = loop
        self._begin = begin
        self._end = end
        self._has_begun = False
        self._is_scheduled = False
        self.durations = Histogram()

    def enter(self) -> None:
        """Before each input: the turn's first one begins it (the clock is read), and has it ended."""
        if not self._has_begun:
            self._has_begun = True
            self._begin()
            self.touch()

    def touch(self) -> None:
        """There will be an end of turn, soon."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        started = perf_counter()
        if not self._has_begun:
            self._begin()
        self._has_begun = False
        self._end()
        self.durations.observe(perf_counter() - started)


class LagProbe:
    """Samples how late the loop is with what it was asked to do: what a client waits for besides its own work."""

    __slots__ = ("_due", "_loop", "_timer", "lags")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = loop.time() + LAG_PROBE_S
        self.lags = Histogram()
        self._timer = loop.call_at(self._due, self._sample)

    def _sample(self) -> None:
        now = self._loop.time()
        self.lags.observe(max(0.0, now - self._due))
        self._due = now + LAG_PROBE_S
        self._timer = self._loop.call_at(self._due, self._sample)

    def stop(self) -> None:
        self._timer.cancel()
