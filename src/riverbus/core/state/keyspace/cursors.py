"""The cursors of subscribers with a durable name, of one shard: replicated, so that any node can go on for them.

A cursor belongs to (user, name, target) and has a place for each connection that the name has: nearly always one. Who
opens it takes it over: it begins at the earliest place, and the others' are forgotten, until their nodes save them
again (which they do only for a connection that has received something since: durable.py). So one client that
comes back has one place, though its old connection be half open somewhere; and of two clients of one name neither
moves the other's place.

Kept for `keep_ms` of the entries' time after it was last opened or saved, and within the limits; beyond those what was
touched the longest ago goes first, and is counted. Places never change, they are replaced: a snapshot copies
references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from riverbus.durable_commands import (
    DurableCursor,
    DurableOpen,
    DurablePlace,
    DurableSave,
    DurableTarget,
    earlier,
    whole_ms,
)
from riverbus.limits import (
    DURABLE_BYTES_MAX,
    DURABLE_CONNECTIONS_MAX,
    DURABLE_CURSORS_MAX,
    DURABLE_CURSORS_PER_NAME_MAX,
    DURABLE_NAMES_MAX,
)
from riverbus.messages import MessageId

NAME_COST, CURSOR_COST, PLACE_COST, EXACT_COST = 300, 300, 200, 150
SWEEP_NAMES = 4  # looked at after each write: those that were touched the longest ago

Owner = tuple[bytes, bytes]  # user, name


class Cursor(msgspec.Struct, gc=False, frozen=True):
    """`places` by the tokens of connections, the latest saved last."""

    expire_ms: int
    places: dict[int, DurablePlace]

    @property
    def memory(self) -> int:
        names = sum(EXACT_COST + len(name) for place in self.places.values() for name, _ in place.exact)
        return CURSOR_COST + PLACE_COST * len(self.places) + names

    @property
    def place(self) -> DurablePlace:
        first, *others = self.places.values()
        for other in others:
            first = earlier(first, other)
        return first


class FrozenCursor(NamedTuple):
    """A record of a snapshot holds several."""

    user: bytes
    durable: bytes
    target: DurableTarget
    expire_ms: int
    places: tuple[tuple[int, DurablePlace], ...]


class Cursors:
    """`memory` is what all of it costs; `dropped`: cursors ever given up for a limit."""

    def __init__(self) -> None:
        self.names: dict[Owner, dict[DurableTarget, Cursor]] = {}  # the longest untouched first, both
        self.count = 0
        self.dropped = 0
        self.memory = 0

    def open(self, noun: DurableOpen, time_ms: int, now: Callable[[DurableTarget], DurablePlace]) -> list[object]:
        """See DurableOpen. `now`: the place of who has everything."""
        owner = (noun.user, noun.durable)
        replies: list[object] = []
        for target in noun.targets:
            old = self.names.get(owner, {}).get(target)
            is_old = old is not None and old.expire_ms > time_ms
            place = old.place if old is not None and is_old else now(target)
            self._put(owner, target, Cursor(time_ms + noun.keep_ms, {noun.token: place}))
            replies.append([place, is_old])
        self._tidy(time_ms)
        return replies

    def save(self, noun: DurableSave, time_ms: int) -> int:
        for cursor in noun.cursors:
            self._save(cursor, time_ms)
        self._tidy(time_ms)
        return self.count

    def _save(self, noun: DurableCursor, time_ms: int) -> None:
        owner = (noun.user, noun.durable)
        old = self.names.get(owner, {}).get(noun.target)
        if noun.place is None:
            if old is not None:
                self._remove(owner, noun.target)
            return
        places = dict(old.places) if old is not None and old.expire_ms > time_ms else {}
        places.pop(noun.token, None)
        places[noun.token] = noun.place
        if len(places) > DURABLE_CONNECTIONS_MAX:
            del places[next(iter(places))]
            self.dropped += 1
        self._put(owner, noun.target, Cursor(time_ms + noun.keep_ms, places))

    # --- the table ----------------------------------------------------------------------------------------------------

    def _put(self, owner: Owner, target: DurableTarget, cursor: Cursor) -> None:
        """Touched: behind all others, and its name behind all other names."""
        held = self.names.pop(owner, None)
        if held is None:
            held = {}
            self.memory += NAME_COST + sum(map(len, owner))
        self.names[owner] = held
        old = held.pop(target, None)
        if old is None:
            self.count += 1
            self.memory += len(target.name)
        else:
            self.memory -= old.memory
        held[target] = cursor
        self.memory += cursor.memory
        if len(held) > DURABLE_CURSORS_PER_NAME_MAX:
            self.dropped += 1
            self._remove(owner, next(iter(held)))

    def _remove(self, owner: Owner, target: DurableTarget) -> None:
        held = self.names[owner]
        cursor = held.pop(target)
        self.count -= 1
        self.memory -= cursor.memory + len(target.name)
        if not held:
            del self.names[owner]
            self.memory -= NAME_COST + sum(map(len, owner))

    def _tidy(self, time_ms: int) -> None:
        """What is too old or too much goes; the present write's own is behind all of that."""
        names = self.names
        for owner in [name for name, _ in zip(names, range(SWEEP_NAMES), strict=False)]:
            held = names[owner]
            for target in [target for target, cursor in held.items() if cursor.expire_ms <= time_ms]:
                self._remove(owner, target)
        while names and self._is_too_much():
            owner = next(iter(names))
            self.dropped += 1
            self._remove(owner, next(iter(names[owner])))

    def _is_too_much(self) -> bool:
        is_too_many = len(self.names) > DURABLE_NAMES_MAX or self.count > DURABLE_CURSORS_MAX
        return is_too_many or self.memory > DURABLE_BYTES_MAX

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def frozen(self) -> list[tuple[Owner, list[tuple[DurableTarget, Cursor]]]]:
        return [(owner, list(held.items())) for owner, held in self.names.items()]

    def restore(self, frozen: Sequence[FrozenCursor]) -> None:
        """In the order in which they were written. Raises ValueError."""
        for user, durable, target, expire_ms, places in frozen:
            if not places or target in self.names.get((user, durable), {}):
                raise ValueError(f"a cursor of {durable!r} is there twice, or has no place")
            self._put((user, durable), target, Cursor(expire_ms, dict(places)))

    def invariants(self) -> None:
        memory = 0
        for owner, held in self.names.items():
            assert 0 < len(held) <= DURABLE_CURSORS_PER_NAME_MAX
            memory += NAME_COST + sum(map(len, owner))
            for target, cursor in held.items():
                assert 0 < len(cursor.places) <= DURABLE_CONNECTIONS_MAX
                memory += cursor.memory + len(target.name)
        assert memory == self.memory
        assert self.count == sum(map(len, self.names.values())) <= DURABLE_CURSORS_MAX
        assert not self._is_too_much()


def frozen_cursors(owner: Owner, held: Sequence[tuple[DurableTarget, Cursor]]) -> list[FrozenCursor]:
    user, durable = owner
    return [FrozenCursor(user, durable, target, each.expire_ms, tuple(each.places.items())) for target, each in held]


def place_now(space: str, last_id: MessageId, time_ms: int) -> DurablePlace:
    """Of who has everything: of a pattern messages of this millisecond may still come."""
    return DurablePlace(whole_ms(time_ms - 1) if space == "pattern" else last_id)
