"""When the keys of a shard expire: in order of (time, name), the same on every replica.

Each key that expires has a place in a heap, at a time at or below its own: it is looked up again when it comes to the
top, so a key that is renewed all the time costs its heap nothing. Places that nobody has any more are stale. Once they
are more than half, a new heap is begun, and the old one is taken apart from its end, a few places with each change:
what is left of it is a heap all the while (a million places at once took 1.7 s).

Leaves to others: what expiry does (keyspace.py, which hands in how a key is found). What is stale, replicas may differ
in: it has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from riverbus.core.state.keyspace.keys import NO_EXPIRY, Key

SLACK = 1024  # stale places that are left alone
TIDY_STEPS = 16  # places of the old heap that one change looks at: it shrinks faster than the new one may grow
FREE_STEPS = 8192  # places that an entry gives back to the allocator

Find = Callable[[bytes], Key | None]


class Expiries:
    def __init__(self) -> None:
        self.count = 0  # of keys that expire
        self.heap: list[tuple[int, bytes]] = []  # others only ask whether there is something in these three
        self.old: list[tuple[int, bytes]] = []
        self._number = 0  # of the heap: a key says in which its place is
        self.garbage: list[tuple[int, bytes]] = []

    def enter(self, key: Key) -> None:
        """A key that expires, new to the registry."""
        self.count += 1
        self._place(key)

    def leave(self, find: Find) -> None:
        """Such a key is out of the registry."""
        self.count -= 1
        self._tidy(find)

    def change(self, key: Key, expire_ms: int, find: Find) -> None:
        """`NO_EXPIRY`: it stays."""
        was_queued = key.expire_ms != NO_EXPIRY
        self.count += (expire_ms != NO_EXPIRY) - was_queued
        key.expire_ms = expire_ms
        if expire_ms == NO_EXPIRY:
            key.queued_ms = NO_EXPIRY
        elif not was_queued or expire_ms < key.queued_ms:
            self._place(key)
        self._tidy(find)

    def _place(self, key: Key) -> None:
        key.queued_ms = key.expire_ms
        key.queued_in = self._number
        heappush(self.heap, (key.expire_ms, key.name))

    # --- what is due --------------------------------------------------------------------------------------------------

    def pop_due(self, now_ms: int, find: Find) -> Key | None:
        """The next key that is due. It has no place any more: the caller takes it out of the registry."""
        while (heap := self._earlier()) and heap[0][0] <= now_ms:
            place = heappop(heap)
            key = self._key_of(place, heap is self.old, find)
            if key is None:
                continue
            if key.expire_ms == place[0]:
                return key
            self._place(key)
        return None

    @property
    def next_ms(self) -> int | None:
        """May be too early, never too late."""
        heap = self._earlier()
        return heap[0][0] if heap else None

    def _earlier(self) -> list[tuple[int, bytes]]:
        """The heap whose top is the first."""
        heap, old = self.heap, self.old
        return old if old and (not heap or old[0] < heap[0]) else heap

    def _key_of(self, place: tuple[int, bytes], is_old: bool, find: Find) -> Key | None:
        """Whose place it is; None if it is stale."""
        key = find(place[1])
        if key is None or key.queued_ms != place[0] or (key.queued_in != self._number) != is_old:
            return None
        return key

    # --- stale places -------------------------------------------------------------------------------------------------

    def _tidy(self, find: Find) -> None:
        if not self.old:
            if len(self.heap) <= 2 * self.count + SLACK:
                return
            self.old, self.heap = self.heap, []
            self._number += 1
        old = self.old
        for _ in range(min(TIDY_STEPS, len(old))):
            place = old.pop()  # a leaf: the rest is a heap
            key = self._key_of(place, True, find)
            if key is not None:
                key.queued_in = self._number
                heappush(self.heap, place)

    def clear(self) -> None:
        """No key expires any more. The places are given back bit by bit."""
        self.garbage += self.old
        self.garbage += self.heap
        self.heap, self.old = [], []
        self.count = 0

    def free_some(self) -> None:
        del self.garbage[-FREE_STEPS:]

    def invariants(self, expiring: list[Key]) -> None:
        assert len(expiring) == self.count
        heap, old = set(self.heap), set(self.old)
        for key in expiring:
            assert (key.queued_ms, key.name) in (heap if key.queued_in == self._number else old)
        assert self.old or len(self.heap) <= 2 * self.count + SLACK + 1
