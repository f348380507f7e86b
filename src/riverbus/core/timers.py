"""Deadlines in virtual or real time: a heap of callbacks, fired by whoever knows the time.

Resolution is the caller's: the engine fires what is due at each turn and says when the next one is.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timer:
    """One scheduled callback; `cancel` is idempotent and may be called from within a callback."""

    __slots__ = ("at", "callback", "order")

    def __init__(self, at: float, order: int, callback: Callable[[], None]) -> None:
        self.at = at
        self.order = order
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return (self.at, self.order) < (other.at, other.order)


class Timers:
    """A heap of `Timer`s. Those due at the same instant fire in the order in which they were scheduled."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._count = 0

    def schedule(self, at: float, callback: Callable[[], None]) -> Timer:
        self._count += 1
        timer = Timer(at, self._count, callback)
        heapq.heappush(self._heap, timer)
        return timer

    def fire(self, now: float) -> None:
        """Run all that is due; what a callback schedules for now runs at the next call."""
        heap = self._heap
        if not heap or (heap[0].at > now and heap[0].callback is not None):
            return  # as in most turns
        due: list[Timer] = []
        while heap and (heap[0].callback is None or heap[0].at <= now):
            due.append(heapq.heappop(heap))
        for timer in due:
            if (callback := timer.callback) is not None:
                timer.callback = None
                callback()

    def next_at(self) -> float | None:
        while self._heap and self._heap[0].callback is None:
            heapq.heappop(self._heap)
        return self._heap[0].at if self._heap else None
