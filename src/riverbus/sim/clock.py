"""Virtual time: one heap of what happens next, and nothing else that moves.

Monotonic time starts at 0 and is the same for all; each node's wall clock is that plus an offset and a drift of its
own. Events of one instant happen in the order in which they were scheduled. The digest covers the time of every event:
two runs that differ anywhere differ in it soon.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable

import xxhash

EPOCH_MS = 1_700_000_000_000
_TIMES_PER_UPDATE = 4096


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._times: list[float] = []  # a list takes them in half of an array's time
        self._digest = xxhash.xxh3_128()

    @property
    def events(self) -> int:
        """How many have happened."""
        return self._order - len(self._heap)

    def at(self, time: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (time if time > self.now else self.now, self._order, action))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now + delay, self._order, action))

    def run_until(self, time: float, is_done: Callable[[], bool] | None = None) -> bool:
        """Let things happen until `time`, or until `is_done`; returns whether it is done."""
        heap, note, pop = self._heap, self._times.append, heapq.heappop
        if len(self._times) >= _TIMES_PER_UPDATE:
            self.digest()
        if is_done is None:
            while heap and heap[0][0] <= time:
                self.now, _, action = pop(heap)
                note(self.now)
                action()
        else:
            while heap and heap[0][0] <= time:
                if is_done():
                    return True
                self.now, _, action = pop(heap)
                note(self.now)
                action()
        self.now = max(self.now, time)
        return is_done is not None and is_done()

    def digest(self) -> bytes:
        """Of the times of all events so far."""
        self._digest.update(array("d", self._times))
        self._times.clear()
        return self._digest.digest()
