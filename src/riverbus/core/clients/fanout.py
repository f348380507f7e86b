"""Fan-out: who on this node receives which channel, and the one loop that hands messages to them.

The trip of a run: `receivers` (said to its publisher), then `on_run`; for each run, in the order they were applied.
Consecutive runs of one channel and kind are joined; `spill` writes them out when another channel's come, before any
subscription changes, and at the end of the turn. So the order between channels is kept, and a subscriber gets one
append a turn and channel. Bytes are made once for each (joined run, protocol, space, pattern) and shared.

A run that nobody here receives costs some dictionary lookups. Which patterns match a channel is remembered, for a
bounded number of channels, until a pattern comes or goes.

XADD's entries are for readers of history: no subscriber receives them. BUS.SUBSCRIBE receives what PUBLISH and SPUBLISH
appended. Each is a receiver, in PUBLISH's reply and in PUBSUB NUMSUB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from riverbus.core.clients.glob import Glob
from riverbus.core.clients.lag import Key, Lag
from riverbus.core.counters import FLEETING_UNREAD
from riverbus.limits import PATTERN_CACHE_CHANNELS_MAX
from riverbus.messages import ID_MIN, Kind, MessageId

if TYPE_CHECKING:
    from riverbus.core.clients.blocked import BlockedReads
    from riverbus.core.clients.outbox import Outbox
    from riverbus.core.clients.session import Session
    from riverbus.core.counters import Counters
    from riverbus.core.ports import ReplyEncoder
    from riverbus.core.state.entries import Run

_PUBLISH = int(Kind.PUBLISH)
_SPUBLISH = int(Kind.SPUBLISH)


class Subscribers:
    """Those of one channel, pattern or shard channel, grouped by protocol, in order of subscription."""

    __slots__ = ("count", "glob", "groups")

    def __init__(self, glob: Glob | None) -> None:
        self.groups: list[tuple[ReplyEncoder, dict[Outbox, None]]] = []
        self.count = 0
        self.glob = glob

    def add(self, outbox: Outbox) -> None:
        found = [members for encoder, members in self.groups if encoder.key == outbox.encoder.key]
        if not found:
            found = [{}]
            self.groups.append((outbox.encoder, found[0]))
        members = found[0]
        assert outbox not in members
        members[outbox] = None
        self.count += 1

    def remove(self, outbox: Outbox) -> None:
        for at, (encoder, members) in enumerate(self.groups):
            if encoder.key == outbox.encoder.key:
                del members[outbox]
                self.count -= 1
                if not members:
                    del self.groups[at]
                return
        raise AssertionError("not subscribed")

    def __iter__(self) -> Iterator[Outbox]:
        for _, members in self.groups:
            yield from members


Table = dict[bytes, Subscribers]
_NOBODY: tuple[Subscribers, ...] = ()


class Fanout:
    """`dirty` is the list of sessions with something to write, shared with the registry."""

    def __init__(self, counters: Counters, dirty: list[Session], blocked: BlockedReads) -> None:
        self._counters = counters
        self._blocked = blocked
        self._dirty = dirty
        self._channels: Table = {}
        self._patterns: Table = {}
        self._shards: Table = {}
        self._bus: Table = {}
        self._tables = {"channel": self._channels, "pattern": self._patterns, "shard": self._shards, "bus": self._bus}
        # Matching patterns by channel, in two generations: a cheap stand-in for least recently used.
        self._young: dict[bytes, tuple[Subscribers, ...]] = {}
        self._old: dict[bytes, tuple[Subscribers, ...]] = {}
        # The joined runs that wait for `spill`.
        self._channel = b""
        self._kind = -1
        self._runs: list[tuple[MessageId, Sequence[bytes]]] = []
        self._targets: tuple[Subscribers | None, Subscribers | None, tuple[Subscribers, ...]] = (None, None, ())
        self.hits: list[tuple[Lag, bytes]] = []  # deliveries to sessions that lag; see core/clients/lag.py

    # --- subscriptions ----------------------------------------------------------------------------------------------

    def subscribe(self, space: str, name: bytes, outbox: Outbox) -> None:
        """From the next run on. The caller knows that this session is not subscribed yet."""
        self.spill()
        table = self._tables[space]
        subscribers = table.get(name)
        if subscribers is None:
            subscribers = table[name] = Subscribers(Glob(name) if space == "pattern" else None)
            self._forget_matches(space)
        subscribers.add(outbox)

    def unsubscribe(self, space: str, name: bytes, outbox: Outbox) -> None:
        self.spill()
        table = self._tables[space]
        subscribers = table[name]
        subscribers.remove(outbox)
        if not subscribers.count:
            del table[name]
            self._forget_matches(space)

    def _forget_matches(self, space: str) -> None:
        if space == "pattern":
            self._young.clear()
            self._old.clear()

    def _matching(self, channel: bytes) -> tuple[Subscribers, ...]:
        """The subscribers of the patterns that match, in order of the patterns' first subscription."""
        found = self._young.get(channel)
        if found is not None:
            return found
        found = self._old.get(channel)
        if found is None:
            found = tuple([each for each in self._patterns.values() if each.glob and each.glob.matches(channel)])
        if len(self._young) >= PATTERN_CACHE_CHANNELS_MAX:
            self._old, self._young = self._young, {}
        self._young[channel] = found
        return found

    # --- the trip ---------------------------------------------------------------------------------------------------

    def receivers(self, channel: bytes, kind: int) -> int:
        """How many subscriptions on this node a message of this kind goes to."""
        if kind == _PUBLISH:
            exact = self._channels.get(channel)
            count = sum([each.count for each in self._matching(channel)]) if self._patterns else 0
        elif kind == _SPUBLISH:
            exact = self._shards.get(channel)
            count = 0
        else:
            return 0
        if exact is not None:
            count += exact.count
        if self._bus and (bus := self._bus.get(channel)) is not None:
            count += bus.count
        return count

    def on_run(self, channel: bytes, run: Run, first: MessageId) -> None:
        """Messages of one channel were applied; `first` is the id of the first, the others follow it."""
        kind = run.kind
        if self._blocked.waiting:
            self._blocked.on_run(channel, run.count)
        if channel == self._channel and kind == self._kind and self._runs:
            self._runs.append((first, run.payloads()))
            return
        if kind == _PUBLISH:
            exact = self._channels.get(channel)
            matched = self._matching(channel) if self._patterns else _NOBODY
        elif kind == _SPUBLISH:
            exact = self._shards.get(channel)
            matched = _NOBODY
        else:
            return
        bus = self._bus.get(channel) if self._bus else None
        if exact is None and bus is None and not matched:
            return
        self.spill()
        self._channel = channel
        self._kind = kind
        self._targets = (exact, bus, matched)
        self._runs.append((first, run.payloads()))

    def spill(self) -> None:
        """Hand the joined runs to their subscribers. Cheap when there is nothing."""
        runs = self._runs
        if not runs:
            return
        self._runs = []
        channel, first = self._channel, runs[0][0]
        exact, bus, matched = self._targets
        payloads = runs[0][1] if len(runs) == 1 else [payload for _, some in runs for payload in some]
        if exact is not None:
            space = "channel" if self._kind == _PUBLISH else "shard"
            for encoder, members in exact.groups:
                self._hand_out(members, encoder.deliver(space, channel, None, first, payloads), len(payloads))
            self._settle((space, channel, None), runs, len(payloads))
        for subscribers in matched:
            assert subscribers.glob is not None
            pattern = subscribers.glob.pattern
            for encoder, members in subscribers.groups:
                self._hand_out(members, encoder.deliver("pattern", channel, pattern, first, payloads), len(payloads))
            self._settle(("pattern", channel, pattern), runs, len(payloads))
        if bus is not None:
            for encoder, members in bus.groups:
                parts = [encoder.deliver("bus", channel, None, at, some) for at, some in _with_consecutive_ids(runs)]
                self._hand_out(members, parts[0] if len(parts) == 1 else b"".join(parts), len(payloads))
            self._settle(("bus", channel, None), runs, len(payloads))

    def deliver_now(self, channel: bytes, kind: int, payloads: Sequence[bytes]) -> None:
        """Messages of durability none: they have no ids, and whoever can't take them now never will."""
        self.spill()
        if kind == _PUBLISH:
            space, exact = "channel", self._channels.get(channel)
            matched = self._matching(channel) if self._patterns else _NOBODY
        else:
            space, exact, matched = "shard", self._shards.get(channel), _NOBODY
        if exact is not None:
            for encoder, members in exact.groups:
                self._hand_out_now(members, encoder.deliver(space, channel, None, ID_MIN, payloads), len(payloads))
        for subscribers in matched:
            assert subscribers.glob is not None
            pattern = subscribers.glob.pattern
            for encoder, members in subscribers.groups:
                data = encoder.deliver("pattern", channel, pattern, ID_MIN, payloads)
                self._hand_out_now(members, data, len(payloads))
        bus = self._bus.get(channel) if self._bus else None
        if bus is not None:
            for encoder, members in bus.groups:  # one by one: all of them have the id 0-0
                parts = [encoder.deliver("bus", channel, None, ID_MIN, (payload,)) for payload in payloads]
                self._hand_out_now(members, b"".join(parts), len(payloads))

    def _hand_out_now(self, members: dict[Outbox, None], data: bytes, count: int) -> None:
        for outbox in members:
            if outbox.session.is_blocked:
                self._counters.dropped[FLEETING_UNREAD] += count
                continue
            outbox.stream.append(data)
            self._counters.delivered_messages += count
            if not outbox.is_dirty:
                outbox.is_dirty = True
                self._dirty.append(outbox.session)

    def _hand_out(self, members: dict[Outbox, None], data: bytes, count: int) -> None:
        dirty = self._dirty
        for outbox in members:  # the hottest loop of a node: one append for each subscriber
            outbox.inbox.append(data)
            if not outbox.is_dirty:
                outbox.is_dirty = True
                dirty.append(outbox.session)
        self._counters.delivered_messages += count * len(members)

    def _settle(self, key: Key, runs: Sequence[tuple[MessageId, Sequence[bytes]]], count: int) -> None:
        """What the loop gave to sessions that lag."""
        if not self.hits:
            return
        first, (last, some) = runs[0][0], runs[-1]
        last = last.plus(len(some) - 1)
        hits = self.hits[:]
        self.hits.clear()  # in place: each `Lag` appends to this list
        for lag, data in hits:
            if not lag.on_hit(key, first, last, data):
                self._counters.delivered_messages -= count

    # --- questions --------------------------------------------------------------------------------------------------

    def names(self, shard: bool) -> list[bytes]:
        """Channels that have a subscriber here, as PUBSUB CHANNELS and SHARDCHANNELS see them."""
        if shard:
            return list(self._shards)
        return [*self._channels, *(name for name in self._bus if name not in self._channels)]

    def patterns(self) -> list[bytes]:
        return list(self._patterns)

    def subscriber_count(self, channel: bytes, shard: bool) -> int:
        tables = (self._shards,) if shard else (self._channels, self._bus)
        return sum(table[channel].count for table in tables if channel in table)

    def receiving(self, channels: Iterable[bytes]) -> Iterator[tuple[Key, list[Outbox]]]:
        """All subscriptions to these channels: as a cursor names them, and whose they are."""
        for channel in channels:
            for space in ("channel", "shard", "bus"):
                if (subscribers := self._tables[space].get(channel)) is not None:
                    yield (space, channel, None), list(subscribers)
            for subscribers in self._matching(channel) if self._patterns else _NOBODY:
                assert subscribers.glob is not None
                yield ("pattern", channel, subscribers.glob.pattern), list(subscribers)

    def sizes(self) -> dict[str, int]:
        """Names with a subscriber, by space."""
        return {space: len(table) for space, table in self._tables.items()}

    def invariants(self) -> None:
        assert not self.hits
        for space, table in self._tables.items():
            for name, subscribers in table.items():
                assert 0 < subscribers.count == sum(len(members) for _, members in subscribers.groups)
                assert (subscribers.glob is not None) == (space == "pattern")
                for encoder, members in subscribers.groups:
                    assert all(outbox.encoder.key == encoder.key for outbox in members)
                    assert all(name in outbox.session.subscribed[space] for outbox in members)
        assert len(self._young) <= PATTERN_CACHE_CHANNELS_MAX


def _with_consecutive_ids(runs: list[tuple[MessageId, Sequence[bytes]]]) -> list[tuple[MessageId, Sequence[bytes]]]:
    """The same messages in as few runs as their ids allow."""
    joined: list[tuple[MessageId, Sequence[bytes]]] = []
    tail: list[bytes] = []
    for first, payloads in runs:
        if joined and joined[-1][0].plus(len(tail)) == first:
            tail += payloads
        else:
            tail = list(payloads)
            joined.append((first, tail))
    return joined
