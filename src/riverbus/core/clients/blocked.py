"""Reads that wait for a message (XREAD BLOCK, XREADGROUP BLOCK), by key, in order of arrival.

`on_run` and `on_change` only note what happened to a key; `retry_woken`, at the end of the turn, lets those that wait
for it look again, the earliest first. A message is for every XREAD, but for one consumer of each group: so of a group's
waiters only as many look as there are new messages. A change of another kind (the key is gone, renamed, its group
destroyed) is for all.
"""

from __future__ import annotations

from typing import Protocol

from riverbus.messages import Reply

_EVERYONE = 2**62


class Waiting(Protocol):
    """What a session that is blocked holds of its read."""

    def give_up(self) -> None:
        """The connection is gone."""
        ...

    def unblock(self, reply: Reply) -> None:
        """Answer so, unless something better is on its way (CLIENT UNBLOCK)."""
        ...


class BlockedRead(Protocol):
    """One that waits. `ordinal` is its place in order of arrival; `group` None for XREAD."""

    ordinal: int

    @property
    def channels(self) -> tuple[bytes, ...]: ...

    @property
    def group(self) -> bytes | None: ...

    @property
    def is_asking(self) -> bool:
        """It looks already: it will see what has just happened."""
        ...

    def retry(self) -> None:
        """Something arrived: answer and `BlockedReads.remove` itself, or go on waiting."""
        ...


class BlockedReads:
    """`waiting` is empty whenever nobody waits, so that the hot path tests only that."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, dict[BlockedRead, None]] = {}
        self._woken: dict[bytes, int] = {}  # new messages, or _EVERYONE
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

    def on_run(self, channel: bytes, count: int = 1) -> None:
        """`count` messages came to the channel; or so many were not taken by whom they had woken."""
        if channel in self.waiting:
            self._woken[channel] = self._woken.get(channel, 0) + count

    def on_change(self, key: bytes) -> None:
        if key in self.waiting:
            self._woken[key] = _EVERYONE

    def wake_all(self) -> None:
        """The state was replaced: whatever they wait for may have come with it."""
        self._woken.update(dict.fromkeys(self.waiting, _EVERYONE))

    @property
    def has_woken(self) -> bool:
        return bool(self._woken)

    def retry_woken(self) -> None:
        if not self._woken:
            return
        woken, self._woken = self._woken, {}
        reads: dict[BlockedRead, None] = {}
        for channel, count in woken.items():
            reads.update(dict.fromkeys(self._chosen(channel, count)))
        for read in sorted(reads, key=lambda each: each.ordinal):
            if any(read in self.waiting.get(channel, ()) for channel in read.channels):
                read.retry()

    def _chosen(self, channel: bytes, count: int) -> list[BlockedRead]:
        left: dict[bytes, int] = {}  # by group
        chosen = []
        for read in self.waiting.get(channel, ()):
            group = read.group
            if group is None:
                chosen.append(read)
            elif not read.is_asking and left.setdefault(group, count) > 0:
                left[group] -= 1
                chosen.append(read)
        return chosen

    def group_keys(self) -> int:
        """Keys for which some group's consumer waits."""
        return sum(any(read.group is not None for read in reads) for reads in self.waiting.values())

    def invariants(self) -> None:
        assert all(self.waiting.values())
        assert self.count == len({read for reads in self.waiting.values() for read in reads})
        for reads in self.waiting.values():
            ordinals = [read.ordinal for read in reads]
            assert ordinals == sorted(ordinals)
