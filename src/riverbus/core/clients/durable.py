"""Subscribers with a durable name, of a node: their cursors saved in the log, taken over from it, and given up.

`save` writes what moved: one DurableSave a shard for all names together, every `save_ms` at most while something moves,
and sooner for connections that ended, whose last word is then exact. A cursor that does not move is saved again in time
before it would expire. An `Opening` is one SUBSCRIBE on its way through the log.

What a node's death can double is what was delivered after its last save; what a broken connection can double is what
its client's kernel had not acknowledged. Nothing can be skipped (docs/durable.md has the promise).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from riverbus import limits
from riverbus.core.clients.durable_session import Durable, Spot
from riverbus.core.clients.outbox import PendingReply, error_reply
from riverbus.core.counters import CURSORS_UNSAVED, DURABLE_UNAVAILABLE
from riverbus.durable_commands import DurableCursor, DurableOpen, DurablePlace, DurableSave, DurableTarget
from riverbus.limits import DURABLE_NAME_BYTES_MAX, DURABLE_SAVE_BYTES_TARGET
from riverbus.messages import BusError, DiskFull, ErrorReply, NotAccepted, OutcomeUnknown, Overloaded, Reply

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session
    from riverbus.core.clients.sessions import Sessions
    from riverbus.core.ports import Cancellable

Opened = Callable[[dict[DurableTarget, dict[int, DurablePlace]]], Reply]

PREFIX = b"durable:"
BAD_NAME = ErrorReply(f"ERR a durable name is 'durable:' and 1 to {DURABLE_NAME_BYTES_MAX} characters")
NAME_IN_USE = ErrorReply("ERR the name of a connection with subscriptions cannot become, or cease to be, a durable one")

_WEATHER = (NotAccepted, OutcomeUnknown, Overloaded, DiskFull)  # passes: to try again does no harm
_RETRY_S = 0.1
_ENDED_SPACING_S = 0.01
_ENDED_MAX = 65_536  # last words that wait for a leader; then the oldest are given up, and counted
_REFRESHES = 4  # times that a cursor which does not move is saved while it would last
_CURSOR_BYTES = 64


class DurableNames:
    """One a node, held by `Sessions`. The configuration is set by who puts the node together."""

    def __init__(self, sessions: Sessions) -> None:
        self.keep_ms = limits.DURABLE_KEEP_MS_DEFAULT
        self.save_ms = limits.DURABLE_SAVE_MS_DEFAULT
        self.marker = b""  # of a gap, in the subscriber's own channel; empty: as for any other subscriber
        self.saves = 0
        self._sessions = sessions
        self._connections: dict[Durable, None] = {}
        self._ended: dict[tuple[int, DurableCursor], None] = {}  # by shard, in order
        self._timer: Cancellable | None = None
        self._timer_at = 0.0
        self._saved_at = self._wrote_at = float("-inf")

    # --- names --------------------------------------------------------------------------------------------------------

    def rename(self, session: Session, name: bytes) -> ErrorReply | None:
        """CLIENT SETNAME and HELLO SETNAME, of any name."""
        is_durable = name.startswith(PREFIX)
        if is_durable and not 0 < len(name) - len(PREFIX) <= DURABLE_NAME_BYTES_MAX:
            return BAD_NAME
        if name != session.name and (is_durable or session.durable is not None):
            if session.is_subscriber:
                return NAME_IN_USE
            if session.durable is not None:
                session.durable.give_back()
            if is_durable:
                self._join(session, name.removeprefix(PREFIX))
        session.name = name
        return None

    def _join(self, session: Session, name: bytes) -> None:
        random = int.from_bytes(self._sessions.backend.access().random_bytes(8), "big")
        session.durable = Durable(self, session, name, (random + session.id) % 2**63)
        self._connections[session.durable] = None

    def leave(self, durable: Durable) -> None:
        self._connections.pop(durable, None)

    # --- opening ------------------------------------------------------------------------------------------------------

    def subscribe(
        self, durable: Durable, targets: Sequence[DurableTarget], pending: PendingReply, opened: Opened
    ) -> None:
        """`opened(places)` once all cursors are ours, with what is to be confirmed."""
        self.save(durable.owner)
        _Opening(self, durable, targets, pending, opened).start()

    def on_opened(self, noun: DurableOpen) -> None:
        """Some node's connection took cursors over."""
        for durable in self._connections:
            if durable.name == noun.durable and durable.token != noun.token and durable.owner[0] == noun.user:
                durable.on_taken_over(noun.targets)

    # --- saving -------------------------------------------------------------------------------------------------------

    def want_save(self) -> None:
        """Something was delivered."""
        if self._timer is None or self._timer_at > self._sessions.backend.time() + self.save_ms / 1000:
            self._schedule(self._sessions.backend.time() + self.save_ms / 1000)

    def end(self, shard: int, cursor: DurableCursor) -> None:
        """The last word of a connection, or of a subscription."""
        self._ended[shard, cursor] = None
        while len(self._ended) > _ENDED_MAX:
            del self._ended[next(iter(self._ended))]
            self._sessions.counters.dropped[CURSORS_UNSAVED] += 1
        at = max(self._sessions.backend.time(), self._wrote_at + _ENDED_SPACING_S)
        if self._timer is None or at < self._timer_at:
            self._schedule(at)

    def _schedule(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._sessions.backend.schedule(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.save()

    def save(self, owner: tuple[bytes, bytes] | None = None) -> None:
        """What moved and what ended; of live connections only the owner's, if one is given."""
        now = self._sessions.backend.time()
        self._sessions.fanout.spill()
        writes: dict[int, list[tuple[Spot | None, DurableCursor]]] = {}
        for shard, cursor in self._ended:
            writes.setdefault(shard, []).append((None, cursor))
        self._ended.clear()
        is_due = owner is None and now >= self._saved_at + self.save_ms / 1000
        refresh_before = now - self.keep_ms / 1000 / _REFRESHES
        is_in_flight = False
        for durable in list(self._connections):
            if is_due or durable.owner == owner:
                durable.look()
                for spot, cursor in durable.cursors(refresh_before):
                    writes.setdefault(spot.shard, []).append((spot, cursor))
            is_in_flight = is_in_flight or durable.is_in_flight
        is_cut = False
        self._wrote_at = now
        for shard, items in writes.items():
            is_cut = self._write(shard, items, now) or is_cut
        if is_due:
            self._saved_at = now
        if self._connections and self._timer is None:
            period_s = self.save_ms / 1000 if is_in_flight or is_cut else self.keep_ms / 1000 / _REFRESHES
            self._schedule(max(now, self._saved_at) + period_s)

    def _write(self, shard: int, items: list[tuple[Spot | None, DurableCursor]], now: float) -> bool:
        """As much as one write may hold, what ended before what lives. True: there is more."""
        size = taken = 0
        for spot, cursor in items:
            names = sum(len(name) + _CURSOR_BYTES for name, _ in cursor.place.exact) if cursor.place is not None else 0
            size += _CURSOR_BYTES + len(cursor.target.name) + len(cursor.durable) + len(cursor.user) + names
            if taken and size > DURABLE_SAVE_BYTES_TARGET:
                break
            taken += 1
            if spot is not None:
                spot.on_saved(now)
        for spot, cursor in items[taken:]:
            if spot is None:
                self._ended[shard, cursor] = None
        self.saves += 1
        noun = DurableSave(tuple(cursor for _, cursor in items[:taken]))
        self._sessions.backend.write_shard(shard, noun, _Saving(self, shard, items[:taken]))
        return taken < len(items)

    def on_unsaved(self, shard: int, items: list[tuple[Spot | None, DurableCursor]]) -> None:
        """Once more, later: a cursor that goes back can only double."""
        for spot, cursor in items:
            if spot is not None:
                spot.saved_at = float("-inf")
            else:
                self._ended[shard, cursor] = None
        if self._timer is None:
            self._schedule(self._sessions.backend.time() + max(self.save_ms / 1000, _RETRY_S))

    # --- for people ---------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        return {
            "connections": len(self._connections),
            "saves": self.saves,
            "unsaved": len(self._ended),
        }


class _Saving:
    """A DurableSave on its way (`Written`)."""

    __slots__ = ("_items", "_names", "_shard")

    def __init__(self, names: DurableNames, shard: int, items: list[tuple[Spot | None, DurableCursor]]) -> None:
        self._names = names
        self._shard = shard
        self._items = items

    def written(self, reply: Reply) -> None:
        self._items.clear()

    def failed(self, error: BusError) -> None:
        self._names.on_unsaved(self._shard, self._items)

    def is_abandoned(self) -> bool:
        return False


class _Opening:
    """A SUBSCRIBE that waits for its cursors, from each shard; tried again while the weather is bad."""

    def __init__(
        self,
        names: DurableNames,
        durable: Durable,
        targets: Sequence[DurableTarget],
        pending: PendingReply,
        opened: Opened,
    ) -> None:
        self._names = names
        self._durable = durable
        self._session = durable.session
        self._backend = durable.session.backend
        self._pending = pending
        self._opened = opened
        self._deadline = self._backend.time() + limits.DURABLE_OPEN_S
        self._places: dict[DurableTarget, dict[int, DurablePlace]] = {target: {} for target in targets}
        self._left: set[int] = set()
        self._is_over = False

    def start(self) -> None:
        by_shard: dict[int, list[DurableTarget]] = {}
        everywhere = range(len(self._backend.shard_buses))
        for target in self._places:
            shards = everywhere if target.space == "pattern" else (self._backend.shard_of(target.name),)
            for shard in shards:
                by_shard.setdefault(shard, []).append(target)
        self._left = set(by_shard)
        for shard, targets in sorted(by_shard.items()):
            self.propose(shard, targets)

    @property
    def is_over(self) -> bool:
        return self._is_over or self._session.is_closed

    def propose(self, shard: int, targets: list[DurableTarget]) -> None:
        if not self.is_over:
            user, name = self._durable.owner
            noun = DurableOpen(user, name, self._durable.token, self._names.keep_ms, tuple(targets))
            self._backend.write_shard(shard, noun, _OpeningPart(self, shard, targets))

    def on_places(self, shard: int, targets: list[DurableTarget], places: list[DurablePlace]) -> None:
        for target, place in zip(targets, places, strict=True):
            self._places[target][shard] = place
        self._left.discard(shard)
        if not self._left and not self.is_over:
            self._is_over = True
            self._pending.resolve(self._opened(self._places))

    def on_error(self, shard: int, targets: list[DurableTarget], error: BusError) -> None:
        if self.is_over:
            return
        now = self._backend.time()
        if not isinstance(error, _WEATHER):
            self._is_over = True
            self._pending.resolve(error_reply(error))
        elif now >= self._deadline:
            self._is_over = True
            self._session.disconnect(DURABLE_UNAVAILABLE)  # it comes back, perhaps to a node that has a majority
        else:
            self._backend.schedule(now + _RETRY_S, lambda: self.propose(shard, targets))


class _OpeningPart:
    """Of one shard (`Written`)."""

    __slots__ = ("_opening", "_shard", "_targets")

    def __init__(self, opening: _Opening, shard: int, targets: list[DurableTarget]) -> None:
        self._opening = opening
        self._shard = shard
        self._targets = targets

    def written(self, reply: Reply) -> None:
        assert isinstance(reply, list), "an older leader's answer is no answer"
        self._opening.on_places(self._shard, self._targets, [place for place, _ in reply])

    def failed(self, error: BusError) -> None:
        self._opening.on_error(self._shard, self._targets, error)

    def is_abandoned(self) -> bool:
        return self._opening.is_over
