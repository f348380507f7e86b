"""A connection with a durable name: what it has subscribed to, and how much of it its client is known to have.

Each delivery is remembered with the bytes it ends at (`Flight`), until the world says that the client's kernel has
acknowledged those (`Output.unacknowledged_bytes`); then the place moves on, exactly so far. So a place is never ahead
of what has arrived, and behind it by no more than what was under way. Places are saved by `DurableNames`
(core/clients/durable.py).

SUBSCRIBE takes the name's cursors over through the log (`DurableOpen`), and is confirmed once that is applied here:
what is confirmed has a cursor that any majority knows. Leaves to others: reading what was missed
(core/clients/durable_lag.py).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from riverbus.core.clients.durable_lag import DurableLag
from riverbus.core.clients.lag import Key
from riverbus.core.clients.outbox import PendingReply
from riverbus.durable_commands import DurableCursor, DurablePlace, DurableTarget, whole_ms
from riverbus.limits import DURABLE_EXACT_MAX, DURABLE_FLIGHTS_MAX, PATTERN_CACHE_CHANNELS_MAX
from riverbus.messages import MessageId

if TYPE_CHECKING:
    from riverbus.core.clients.durable import DurableNames
    from riverbus.core.clients.session import Session
    from riverbus.core.ports import Output

Span = tuple[MessageId, MessageId]  # the first and the last message of a delivery
NEVER = -1


class Flight(NamedTuple):
    """What was delivered by the bytes that end at `until`."""

    until: int
    spans: dict[Key, Span]


class CountedOutput:
    """A session's output, with its bytes counted."""

    __slots__ = ("_durable", "inner")

    def __init__(self, inner: Output, durable: Durable) -> None:
        self.inner = inner
        self._durable = durable

    def write(self, data: bytes) -> None:
        self._durable.on_write(len(data))
        self.inner.write(data)

    def close(self) -> None:
        self.inner.close()

    def abort(self) -> None:
        self.inner.abort()

    def unacknowledged_bytes(self) -> int | None:
        return self.inner.unacknowledged_bytes()


class Spot:
    """How far the client has come with one target in one shard. `exact`: of a pattern, beyond `whole`."""

    __slots__ = ("covered_at", "exact", "has_news", "saved_at", "shard", "target", "whole")

    def __init__(self, target: DurableTarget, shard: int, place: DurablePlace, now: float) -> None:
        self.target = target
        self.shard = shard
        self.whole = place.id
        self.exact = dict(place.exact)
        self.saved_at = now
        self.has_news = False  # since it was saved
        self.covered_at = NEVER  # another connection took the name over when so many bytes were acknowledged

    def advance(self, channel: bytes, last: MessageId) -> None:
        self.has_news = True
        if self.target.space != "pattern":
            self.whole = max(self.whole, last)
            return
        self.exact[channel] = max(last, self.exact.pop(channel, last))
        if len(self.exact) > PATTERN_CACHE_CHANNELS_MAX:
            del self.exact[next(iter(self.exact))]

    def settle(self, whole: MessageId) -> None:
        """Of a pattern: everything up to `whole` was received."""
        self.whole = max(self.whole, whole)
        self.exact = {name: id_ for name, id_ in self.exact.items() if id_ > self.whole}

    def on_saved(self, now: float) -> None:
        self.saved_at = now
        self.has_news = False

    def place(self) -> DurablePlace:
        newest = list(self.exact.items())[-DURABLE_EXACT_MAX:]
        return DurablePlace(self.whole, tuple(newest))


class Durable:
    """Of one session, from its name on. `token` names this connection in the log."""

    def __init__(self, registry: DurableNames, session: Session, name: bytes, token: int) -> None:
        self.registry = registry
        self.session = session
        self.name = name
        self.token = token
        self.is_ended = False
        self._spots: dict[DurableTarget, dict[int, Spot]] = {}
        self._flights: deque[Flight] = deque()
        self._loose: dict[Key, Span] = {}  # delivered, and not yet written
        self._written = 0
        self._acknowledged = 0
        self.output = CountedOutput(session.output, self)
        self.lag = DurableLag(session, session.registry.fanout.hits, self)
        session.output = self.output
        session.lag = self.lag
        session.outbox.inbox = self.lag

    @property
    def owner(self) -> tuple[bytes, bytes]:
        return self.session.user.encode("utf-8", "replace"), self.name

    @property
    def targets(self) -> list[DurableTarget]:
        return list(self._spots)

    @property
    def is_in_flight(self) -> bool:
        return bool(self._flights or self._loose)

    # --- what was delivered, and arrived ------------------------------------------------------------------------------

    def on_delivered(self, key: Key, first: MessageId, last: MessageId) -> None:
        before = self._loose.get(key)
        self._loose[key] = (first, last) if before is None else (min(first, before[0]), max(last, before[1]))
        self.registry.want_save()

    def on_write(self, size: int) -> None:
        """All that was delivered goes out with this, unless it is held behind a reply."""
        self._written += size
        if not self._loose or self.session.outbox.is_holding:
            return
        spans, self._loose = self._loose, {}
        if len(self._flights) >= DURABLE_FLIGHTS_MAX:
            for key, (first, last) in self._flights.pop().spans.items():
                after = spans.get(key)
                spans[key] = (first, last) if after is None else (first, after[1])
        self._flights.append(Flight(self._written, spans))

    def look(self) -> None:
        """Ask the world what has arrived."""
        unacknowledged = self.output.unacknowledged_bytes()
        if unacknowledged is None:
            return
        self._acknowledged = max(self._acknowledged, self._written - unacknowledged)
        while self._flights and self._flights[0].until <= self._acknowledged:
            for key, (_, last) in self._flights.popleft().spans.items():
                spot = self._spot_of(key)
                if spot is not None:
                    spot.advance(key[1], last)

    def _spot_of(self, key: Key) -> Spot | None:
        space, channel, pattern = key
        shards = self._spots.get(DurableTarget(space, channel if pattern is None else pattern))
        return None if shards is None else shards.get(self.session.backend.shard_of(channel))

    def exact_of(self, pattern: bytes, shard: int) -> dict[bytes, MessageId]:
        """What of a pattern's channels is known to have been received, or is under way."""
        spot = self._spots.get(DurableTarget("pattern", pattern), {}).get(shard)
        exact = {} if spot is None else dict(spot.exact)
        for spans in (*(flight.spans for flight in self._flights), self._loose):
            for (_, channel, held), (_, last) in spans.items():
                if held == pattern:
                    exact[channel] = max(last, exact.get(channel, last))
        return exact

    # --- what is saved ------------------------------------------------------------------------------------------------

    def cursors(self, refresh_before: float) -> list[tuple[Spot, DurableCursor]]:
        """Of all places that moved since they were saved last, or were saved before that time. After `look`."""
        self._settle_patterns()
        found = []
        for shards in self._spots.values():
            for spot in shards.values():
                if spot.covered_at >= self._acknowledged:
                    continue
                if spot.has_news or spot.saved_at < refresh_before:
                    found.append((spot, self._cursor(spot, spot.place())))
        return found

    def _cursor(self, spot: Spot, place: DurablePlace | None) -> DurableCursor:
        user, name = self.owner
        return DurableCursor(user, name, self.token, self.registry.keep_ms, spot.target, place)

    def _settle_patterns(self) -> None:
        """Live messages come in the order of their shard's time: before the earliest that is missing nothing is."""
        patterns = [target for target in self._spots if target.space == "pattern"]
        if not patterns:
            return
        backend = self.session.backend
        missing: dict[tuple[bytes, int], int] = {}

        def note(key: Key, ms: int) -> None:
            if key[2] is not None:
                place = (key[2], backend.shard_of(key[1]))
                missing[place] = min(ms, missing.get(place, ms))

        for spans in (*(flight.spans for flight in self._flights), self._loose):
            for key, (first, _) in spans.items():
                note(key, first.ms)
        for key, after in self.lag.cursors():
            note(key, after.ms)
        for target in patterns:
            for shard, spot in self._spots[target].items():
                if not self.lag.is_scanning(target.name, shard):
                    ms = missing.get((target.name, shard), backend.shard_buses[shard].time_ms)
                    spot.settle(whole_ms(ms - 1))

    def on_taken_over(self, targets: tuple[DurableTarget, ...]) -> None:
        """Another connection has opened these: ours may be the same client's, half open, until it shows life."""
        self.look()
        for target in targets:
            for spot in self._spots.get(target, {}).values():
                spot.covered_at = self._acknowledged

    # --- subscriptions begin and end ----------------------------------------------------------------------------------

    def begin(self, target: DurableTarget, places: dict[int, DurablePlace]) -> None:
        """Its cursors are ours; the session is subscribed already."""
        now = self.session.backend.time()
        self._spots[target] = {shard: Spot(target, shard, place, now) for shard, place in places.items()}
        for shard, place in places.items():
            if target.space == "pattern":
                self.lag.scan(target.name, shard, place)
            else:
                self.lag.restart((target.space, target.name, None), place.id)
        self.session.want_turn()

    def forget(self, space: str, name: bytes) -> None:
        """UNSUBSCRIBE: the cursor is given up."""
        for spot in self._spots.pop(DurableTarget(space, name), {}).values():
            self.registry.end(spot.shard, self._cursor(spot, None))

    def on_closed(self) -> None:
        """The connection is gone, or the name: what is known to have arrived is saved for the last time."""
        if self.is_ended:
            return
        self.is_ended = True
        self.session.registry.fanout.spill()
        self.look()
        for spot, cursor in self.cursors(refresh_before=float("-inf")):
            self.registry.end(spot.shard, cursor)
        self.registry.leave(self)

    def give_back(self) -> None:
        """The session goes on without a name. It has no subscriptions."""
        self.on_closed()
        session = self.session
        self.release()
        session.lag = None
        session.outbox.inbox = session.outbox.stream
        session.durable = None
        if session.is_blocked:
            session.need_lag()

    def release(self) -> None:
        """Break the cycles, as Session.release; ended before."""
        self.session.output = self.output.inner
        del self.session, self.output, self.lag

    def expect(self, pending: PendingReply) -> None:
        """The place of a SUBSCRIBE's confirmation: nothing behind it is carried out before."""
        pipeline = self.session.pipeline
        if pipeline.execution is None:
            pipeline.expect_alone(pending)
        else:
            pipeline.expect(pending)
        pending.is_muted = False  # confirmations are pushes: CLIENT REPLY OFF does not hold them back
