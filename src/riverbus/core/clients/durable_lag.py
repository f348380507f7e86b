"""The lag of a subscriber with a durable name: its inbox for good, so that each delivery to it is seen and remembered.

Two things it does beyond lag.py. What it hands out it reports to `Durable`, with ids. And a pattern that comes
back reads what it missed: the channels of a shard are scanned for matching ones with news (`Scan`), a part of the
registry at a time, no faster than they are read. Until a part was scanned, live messages of its channels are left to
the scan, which will find them in the windows: so nothing is missed or doubled between the two.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING
from zlib import crc32

from riverbus.core.clients.glob import Glob
from riverbus.core.clients.lag import Key, Lag
from riverbus.core.state.history import ReadResult
from riverbus.core.state.store import PARTITIONS
from riverbus.durable_commands import DurablePlace
from riverbus.limits import DURABLE_SCAN_CHANNELS, DURABLE_SCAN_CURSORS
from riverbus.messages import MessageId

if TYPE_CHECKING:
    from riverbus.core.clients.durable_session import Durable
    from riverbus.core.clients.session import Session
    from riverbus.core.state.bus import Bus

_STEP_COST = 16  # of an empty part of the registry, as channels looked at


class Scan:
    """Of one shard for one pattern. Parts below `partition` are done."""

    __slots__ = ("exact", "glob", "gone", "partition", "pattern", "shard", "whole")

    def __init__(self, pattern: bytes, shard: int, place: DurablePlace) -> None:
        self.pattern = pattern
        self.shard = shard
        self.glob = Glob(pattern)
        self.whole = place.id
        self.exact = dict(place.exact)
        self.partition = 0
        self.gone: deque[tuple[bytes, MessageId]] | None = None  # channels that lost all; known once all parts are done

    def is_before(self, channel: bytes) -> bool:
        """The channel's part is still to be scanned."""
        return crc32(channel) % PARTITIONS >= self.partition

    def after(self, channel: bytes) -> MessageId:
        return max(self.exact.get(channel, self.whole), self.whole)


class DurableLag(Lag):
    __slots__ = ("__weakref__", "_durable", "_scans")

    def __init__(self, session: Session, hits: list[tuple[Lag, bytes]], durable: Durable) -> None:
        super().__init__(session, hits)
        self._durable = durable
        self._scans: dict[tuple[bytes, int], Scan] = {}

    # --- as Lag -----------------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Never: it goes on being the inbox, so that it sees what is delivered."""
        return False

    @property
    def has_work(self) -> bool:
        return bool(self._cursors or self._scans)

    def on_hit(self, key: Key, first: MessageId, last: MessageId, data: bytes) -> bool:
        if self._scans and self._is_left_to_scan(key):
            return False
        is_delivered = super().on_hit(key, first, last, data)
        if is_delivered:
            self._durable.on_delivered(key, first, last)
        return is_delivered

    def fall_behind(self, key: Key, after: MessageId) -> None:
        if not (self._scans and self._is_left_to_scan(key)):
            super().fall_behind(key, after)

    def forget(self, space: str, names: set[bytes]) -> None:
        if space == "pattern":
            for key in [key for key in self._scans if key[0] in names]:
                del self._scans[key]
        super().forget(space, names)

    def clear(self) -> None:
        super().clear()
        self._scans.clear()

    def serve(self) -> None:
        budget = DURABLE_SCAN_CHANNELS
        while self._scans and budget > 0 and len(self._cursors) < DURABLE_SCAN_CURSORS:
            budget -= self._step(next(iter(self._scans.values())))
        super().serve()

    def _on_served(self, key: Key, after: MessageId, result: ReadResult) -> None:
        if result.runs or result.gap_until is not None:
            first = result.runs[0][1] if result.runs else result.cursor
            self._durable.on_delivered(key, first, result.cursor)

    def _write_gap(self, key: Key, after: MessageId, until: MessageId) -> None:
        marker = self._session.registry.durable.marker
        if not marker or key[0] == "bus":
            super()._write_gap(key, after, until)
            return
        space, channel, pattern = key
        text = b"%b %b %b" % (marker, after.to_bytes(), until.to_bytes())
        outbox = self._session.outbox
        outbox.stream.append(outbox.encoder.deliver(space, channel, pattern, until, [text]))

    # --- patterns that come back --------------------------------------------------------------------------------------

    def scan(self, pattern: bytes, shard: int, place: DurablePlace) -> None:
        """Read on from this place in all channels of the shard that match."""
        self._scans[pattern, shard] = Scan(pattern, shard, place)

    def is_scanning(self, pattern: bytes, shard: int) -> bool:
        return (pattern, shard) in self._scans

    def cursors(self) -> list[tuple[Key, MessageId]]:
        return [*self._cursors.items(), *self._sleeping.items()]

    def _is_left_to_scan(self, key: Key) -> bool:
        space, channel, pattern = key
        if space != "pattern" or pattern is None:
            return False
        scan = self._scans.get((pattern, self._session.backend.shard_of(channel)))
        return scan is not None and scan.is_before(channel)

    def _step(self, scan: Scan) -> int:
        """One part of the registry, or what is gone. Returns the channels looked at, about."""
        bus = self._session.backend.shard_buses[scan.shard]
        if scan.partition < PARTITIONS:
            return self._step_partition(scan, bus)
        if scan.gone is None:
            scan.gone = self._find_gone(scan, bus)
        while scan.gone and len(self._cursors) < DURABLE_SCAN_CURSORS:
            channel, after = scan.gone.popleft()
            self.fall_behind(("pattern", channel, scan.pattern), after)
        if not scan.gone:
            del self._scans[scan.pattern, scan.shard]
        return _STEP_COST

    def _step_partition(self, scan: Scan, bus: Bus) -> int:
        channels = bus.partition(scan.partition)
        scan.partition += 1  # first: from here on they are this lag's
        ms = scan.whole.ms
        for channel in channels:
            if channel.last_ms > ms and scan.glob.matches(channel.name):
                after = scan.after(channel.name)
                if channel.last_id > after:
                    self.fall_behind(("pattern", channel.name, scan.pattern), after)
        return _STEP_COST + len(channels)

    def _find_gone(self, scan: Scan, bus: Bus) -> deque[tuple[bytes, MessageId]]:
        """Channels that had news and are forgotten since, with all their messages: each has a gap to be told."""
        if bus.forgotten_until > scan.whole:
            self._write_gap(("pattern", scan.pattern, scan.pattern), scan.whole, bus.forgotten_until)
        received = self._durable.exact_of(scan.pattern, scan.shard)
        gone = deque[tuple[bytes, MessageId]]()
        for name, last_id in bus.forgotten_after(scan.whole):
            after = max(scan.after(name), received.get(name, scan.whole))
            if last_id > after and scan.glob.matches(name):
                gone.append((name, after))
        return gone
