"""Virtual time: one heap of what happens next, and nothing else that moves.

Monotonic time starts at 0 and is the same for all; each node's wall clock is that plus an offset of its own, which
faults move. Events of one instant happen in the order in which they were scheduled.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

EPOCH_MS = 1_700_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.events = 0

    def at(self, time: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (max(time, self.now), self._order, action))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

    def run_until(self, time: float, is_done: Callable[[], bool] | None = None) -> bool:
        """Let things happen until `time`, or until `is_done`; returns whether it is done."""
        heap = self._heap
        while heap and heap[0][0] <= time:
            if is_done is not None and is_done():
                return True
            self.now, _, action = heapq.heappop(heap)
            self.events += 1
            action()
        self.now = max(self.now, time)
        return is_done is not None and is_done()
