"""Reads that wait for a message (XREAD BLOCK), by channel, in order of arrival.

`on_run` only notes that a channel got something; `retry_woken`, at the end of the turn, lets each read that waits for
one of them look again, the earliest first.
"""

from __future__ import annotations

from typing import Protocol


class BlockedRead(Protocol):
    """One that waits. `ordinal` is its place in order of arrival."""

    ordinal: int

    @property
    def channels(self) -> tuple[bytes, ...]: ...

    def retry(self) -> None:
        """Something arrived: answer and `BlockedReads.remove` itself, or go on waiting."""
        ...


class BlockedReads:
    """`waiting` is empty whenever nobody waits, so that the hot path tests only that."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, dict[BlockedRead, None]] = {}
        self._woken: dict[bytes, None] = {}
        self._ordinal = 0
        self.count = 0

    def add(self, read: BlockedRead) -> None:
        self._ordinal += 1
        read.ordinal = self._ordinal
        self.count += 1
        for channel in read.channels:
            self.waiting.setdefault(channel, {})[read] = None

    def remove(self, read: BlockedRead) -> None:
        self.count -= 1
        for channel in dict.fromkeys(read.channels):
            reads = self.waiting[channel]
            del reads[read]
            if not reads:
                del self.waiting[channel]

    def on_run(self, channel: bytes) -> None:
        if channel in self.waiting:
            self._woken[channel] = None

    def wake_all(self) -> None:
        """The state was replaced: whatever they wait for may have come with it."""
        self._woken.update(dict.fromkeys(self.waiting))

    def retry_woken(self) -> None:
        if self._woken:
            woken, self._woken = self._woken, {}
            reads = {read: None for channel in woken for read in self.waiting.get(channel, ())}
            for read in sorted(reads, key=lambda each: each.ordinal):
                if any(read in self.waiting.get(channel, ()) for channel in read.channels):
                    read.retry()

    def invariants(self) -> None:
        assert all(self.waiting.values())
        assert self.count == len({read for reads in self.waiting.values() for read in reads})
