"""Read barriers of one shard: a read that starts after an ack, on whatever node, sees what was acked.

Source: Raft thesis section 6.4 (ReadIndex). Reads that arrive in one turn share one barrier. raft-rs drops a request in
silence in some states (no leader yet, nothing committed in the term, a lost message), so one that is not answered is
asked again, until the reads' deadline.
"""

from __future__ import annotations

from collections.abc import Callable

from riverbus.core.ports import Done
from riverbus.messages import NotAccepted

_RETRY_S = 0.25


class _Barrier:
    __slots__ = ("asked_at", "deadline", "index", "reads")

    def __init__(self, deadline: float) -> None:
        self.reads: list[Done] = []
        self.deadline = deadline
        self.asked_at = -1.0  # not yet
        self.index: int | None = None  # known: wait until this is applied


class Barriers:
    """`ask(context)` submits a ReadIndex request; False when the raft can't take it now."""

    def __init__(self, ask: Callable[[bytes], bool], applied_index: Callable[[], int]) -> None:
        self._ask = ask
        self._applied_index = applied_index
        self._gathering: _Barrier | None = None
        self._asked: dict[int, _Barrier] = {}
        self._known: list[_Barrier] = []
        self._contexts = 0

    def add(self, done: Done, deadline: float) -> None:
        if self._gathering is None:
            self._gathering = _Barrier(deadline)
        self._gathering.reads.append(done)

    @property
    def is_gathering(self) -> bool:
        return self._gathering is not None

    def submit(self, now: float) -> None:
        """End of the turn: ask for what gathered."""
        if (barrier := self._gathering) is not None:
            self._gathering = None
            self._submit(barrier, now)

    def _submit(self, barrier: _Barrier, now: float) -> None:
        self._contexts += 1
        barrier.asked_at = now
        self._asked[self._contexts] = barrier
        self._ask(self._contexts.to_bytes(8, "little"))

    def on_ready(self, context: bytes, index: int) -> None:
        barrier = self._asked.pop(int.from_bytes(context, "little"), None)
        if barrier is not None:
            barrier.index = index
            self._known.append(barrier)
            self.on_applied()

    def on_applied(self) -> None:
        """Release the barriers whose index is applied."""
        if not self._known:
            return
        applied = self._applied_index()
        passed = [barrier for barrier in self._known if barrier.index is not None and barrier.index <= applied]
        if passed:
            self._known = [barrier for barrier in self._known if barrier not in passed]
            for barrier in passed:
                for done in barrier.reads:
                    done(None)

    def on_tick(self, now: float) -> None:
        """Give up what is out of time; ask again for what was not answered."""
        if not self._asked and not self._known:
            return
        late = [b for b in (*self._asked.values(), *self._known) if b.deadline <= now]
        self._known = [barrier for barrier in self._known if barrier.deadline > now]
        again = [b for b in self._asked.values() if b.deadline > now and now - b.asked_at >= _RETRY_S]
        if late or again:
            self._asked = {c: b for c, b in self._asked.items() if b not in late and b not in again}
        for barrier in again:
            self._submit(barrier, now)
        for barrier in late:
            for done in barrier.reads:
                done(NotAccepted("no leader in reach: the cluster has no majority"))
