"""The queue of one consumer: bounded, and nothing is dropped from it in silence.

When it is full, what comes next is not kept, only from where on it was missed, for each source (a channel of the bus: a
group, or the process' own). Emptied, it is filled from the sources' histories, page by page, until it has caught up.

Invariant: a message of a source is in the queue, or taken, or at or after the source's mark in `_missed`, or was
reported as a loss.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

from riverbus import Bus, MessageId
from riverbus.contrib.channels_nouns import Loss, before
from riverbus.messages import ID_MIN


class Item(NamedTuple):
    ms: int  # when it was sent
    body: bytes
    source: str | None  # None: put by this process
    id: MessageId


@dataclass
class Missed:
    """Of one source: the message from which to read on, whether it was read already, and the newest that was missed."""

    at: MessageId
    is_read: bool
    newest: MessageId


class ConsumerQueue:
    """`body_of(source, payload)` is what a message in history has for this consumer, None if it is not for it."""

    def __init__(self, capacity: int, body_of: Callable[[str, bytes], bytes | None]) -> None:
        self._capacity = capacity
        self._body_of = body_of
        self._items: deque[Item] = deque()
        self._missed: dict[str, Missed] = {}
        self._seen: dict[str, MessageId] = {}  # by source: up to here it has everything that is for it
        self._arrived = asyncio.Event()
        self._reading = asyncio.Lock()

    @property
    def is_full(self) -> bool:
        return len(self._items) >= self._capacity or bool(self._missed)

    def put(self, ms: int, body: bytes) -> None:
        """A message that is in no history. The queue must not be full."""
        self._items.append(Item(ms, body, None, ID_MIN))
        self._arrived.set()

    def offer(self, source: str, id_: MessageId, body: bytes) -> None:
        """A message of the bus, in the order of its source."""
        if id_ <= self._seen.get(source, ID_MIN):
            return
        missed = self._missed.get(source)
        if missed is not None:
            missed.newest = id_
        elif self.is_full:
            self._missed[source] = Missed(id_, False, id_)
        else:
            self._items.append(Item(id_.ms, body, source, id_))
        self._arrived.set()

    def join(self, source: str, after: MessageId) -> None:
        """Messages of the source count from here on."""
        self._seen[source] = after

    def leave(self, source: str) -> None:
        self._missed.pop(source, None)
        self._seen.pop(source, None)

    def clear(self) -> None:
        self._items.clear()
        for source, missed in self._missed.items():
            self._seen[source] = missed.newest
        self._missed.clear()

    async def take(self, bus: Bus, alive_ms: int) -> tuple[bytes | None, list[Loss]]:
        """The next message's body, or None to call again; and what was lost. Sent before `alive_ms`, it has expired."""
        losses: list[Loss] = []
        if not self._items and self._missed:
            async with self._reading:
                losses += await self._read(bus)
        while self._items:
            item = self._items.popleft()
            if item.ms >= alive_ms:
                return item.body, losses
            losses.append(Loss(item.source or "", before(item.id), item.id, "expired"))
        if not self._missed and not losses:
            self._arrived.clear()
            await self._arrived.wait()
        return None, losses

    async def _read(self, bus: Bus) -> list[Loss]:
        """One page of the history of each source that was missed, while the queue is empty."""
        losses = []
        for source, missed in list(self._missed.items()):
            page = await bus.history(source, first=missed.at, limit=self._capacity + 1)
            if self._missed.get(source) is not missed:
                continue  # it left meanwhile
            if page and page[0].id == missed.at:
                page = page[missed.is_read :]
            elif not missed.is_read or missed.newest > missed.at:
                after = missed.at if missed.is_read else before(missed.at)
                until = before(cast(MessageId, page[0].id)) if page else missed.newest
                losses.append(Loss(source, after, until, "trimmed"))
            for message in page:
                body = self._body_of(source, message.payload)
                id_ = cast(MessageId, message.id)
                if body is not None:
                    self._items.append(Item(id_.ms, body, source, id_))
            last = cast(MessageId, page[-1].id) if page else missed.newest
            self._seen[source] = last
            if last < missed.newest:
                missed.at, missed.is_read = last, True
            else:
                del self._missed[source]
        return losses
