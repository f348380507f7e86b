"""Makes a shard's state from the slices of a snapshot (`snapshot_writer.py` has the format), slice by slice.

Nothing is believed: each slice's checksum, the order of records, the digest over all of them, and the totals. A
flipped bit, or a slice lost, doubled or out of order, is `DamagedSnapshot`. The bus that comes out equals the one that
was written in all that later entries and reads can see, and in its running hash.
"""

from __future__ import annotations

import struct

from xxhash import xxh3_64_intdigest, xxh3_128

from riverbus.core.state.bus import Bus
from riverbus.core.state.channels import Channel, Head
from riverbus.core.state.keyspace.records import RECORDS, KeyspaceRestore
from riverbus.core.state.release import release_some
from riverbus.core.state.rules import Rules, rules_from_bytes
from riverbus.core.state.snapshot_writer import (
    CHANNEL,
    END,
    FLAG_EXPLICIT,
    FLAG_QUEUED,
    FLAG_RETIRED,
    FRAME,
    HEAD,
    MAGIC,
    MAGIC_WITHOUT_KEYS,
    NOT_RETIRED,
    RECORD,
    RECORD_CHANNEL,
    RECORD_CHUNK,
    RECORD_END,
    RECORD_HEAD,
    RECORD_TOMBSTONES,
    TOMBSTONE,
    DamagedSnapshot,
    SnapshotWriter,
)
from riverbus.core.state.store import Store, Window
from riverbus.messages import MessageId


class BusRestore:
    """Feed it all slices in order, then `finish`. `rules` hold until the snapshot's own are read."""

    def __init__(self, rules: Rules) -> None:
        self._buffer = bytearray()
        self._digest = xxh3_128()
        self._store = Store(rules)
        self._is_begun = False
        self._retired: dict[int, Window] = {}
        self._keys = KeyspaceRestore(self._store.keyspace)
        self._has_keys = True
        self._explicit: list[Channel] = []
        self._channel: Channel | None = None
        self._chunks_left = 0
        self._chunks = 0
        self._is_ended = False
        self._announced: tuple[int, ...] = ()
        self._bus: Bus | None = None

    def feed(self, framed: bytes) -> None:
        """One slice. Raises DamagedSnapshot."""
        if len(framed) < FRAME.size:
            raise DamagedSnapshot(f"slice of {len(framed)} bytes")
        size, checksum = FRAME.unpack_from(framed)
        payload = memoryview(framed)[FRAME.size :]
        if size != len(payload) or checksum != xxh3_64_intdigest(payload):
            raise DamagedSnapshot(f"checksum of a slice of {size} bytes does not hold")
        try:
            self._take(payload)
        except (struct.error, ValueError) as error:
            raise DamagedSnapshot(f"slices are not in order: {error}") from error

    def release_some(self) -> bool:
        """Instead of `finish`: see release.py."""
        return release_some(self._store)

    def finish(self) -> Bus:
        """Raises DamagedSnapshot."""
        if self._bus is None or not self._is_ended or self._buffer:
            raise DamagedSnapshot("the end is missing")
        store = self._bus._store
        counters = (store.channels, store.messages, store.bytes, store.memory_bytes, store.explicit_bytes)
        if counters != self._announced:
            raise DamagedSnapshot(f"holds {counters} where {self._announced} were announced")
        for channel in self._explicit:
            if channel.stream is None:
                if self._has_keys:
                    raise DamagedSnapshot(f"stream {channel.name!r} has no key")
                channel.stream = store.keyspace.new_stream(channel.name, channel.dropped_id)
        store.keyspace.events.clear()
        return self._bus

    def _take(self, payload: memoryview) -> None:
        buffer = self._buffer
        buffer += payload
        at = 0
        while len(buffer) - at >= RECORD.size:
            kind, size = RECORD.unpack_from(buffer, at)
            end = at + RECORD.size + size
            if end > len(buffer):
                break
            record = bytes(memoryview(buffer)[at:end])
            self._take_record(kind, record)
            at = end
        del buffer[:at]

    def _take_record(self, kind: int, record: bytes) -> None:
        if self._is_ended or self._is_begun == (kind == RECORD_HEAD):
            raise ValueError(f"record of type {kind} out of place")
        if kind == RECORD_END:
            self._take_end(record)
            return
        self._digest.update(record)
        if kind == RECORD_CHUNK:
            self._take_chunk(record[RECORD.size :])
        elif self._chunks_left:
            raise ValueError("chunks are missing")
        elif kind == RECORD_CHANNEL:
            self._take_channel(record)
        elif kind == RECORD_HEAD:
            self._take_head(record)
        elif kind == RECORD_TOMBSTONES:
            self._take_tombstones(record)
        elif kind in RECORDS and self._has_keys:
            self._keys.take(kind, record[RECORD.size :])
        else:
            raise ValueError(f"record of type {kind}")

    def _take_head(self, record: bytes) -> None:
        magic, index, time_ms, running_hash, ms, seq, *counters, dropped, size = HEAD.unpack_from(record, RECORD.size)
        self._has_keys = magic != MAGIC_WITHOUT_KEYS
        if magic not in (MAGIC, MAGIC_WITHOUT_KEYS):
            raise DamagedSnapshot(f"snapshot of format {magic!r}; this node knows {MAGIC!r}")
        store = self._store
        rules_at = RECORD.size + HEAD.size
        store.change_rules(rules_from_bytes(record[rules_at : rules_at + size]), time_ms)
        if rules_at + size < len(record):
            store.next_rules = rules_from_bytes(record[rules_at + size :])
        self._is_begun = True
        store.floor = MessageId(ms, seq)
        store.dropped = dropped
        self._announced = tuple(counters)
        self._bus = Bus.restored(store, index, time_ms, running_hash)

    def _take_tombstones(self, record: bytes) -> None:
        at = RECORD.size
        while at < len(record):
            ms, seq, name_bytes = TOMBSTONE.unpack_from(record, at)
            at += TOMBSTONE.size
            self._store.tombstones[record[at : at + name_bytes]] = ms << 64 | seq
            at += name_bytes

    def _take_channel(self, record: bytes) -> None:
        store = self._store
        values = CHANNEL.unpack_from(record, RECORD.size)
        queued, last_ms, last_seq, dropped_ms, dropped_seq, length, size, added, chunks = values[:9]
        tail_count, tail_bytes, *head, cut_ms, name_bytes, flags = values[9:]
        name_at = RECORD.size + CHANNEL.size
        name = record[name_at : name_at + name_bytes]
        rule = store.window_for(name) if cut_ms == NOT_RETIRED else self._retired_window(cut_ms)
        home: Window | None = None
        if flags & FLAG_RETIRED:
            home = rule if rule.is_retired else self._retired_window(-1)
            if home not in store.retired:
                store.retired.append(home)
        elif flags & FLAG_QUEUED:
            home = store.window_for(name)
        channel = Channel(queued, name, rule, home, 0, last_ms, last_seq, dropped_ms, dropped_seq, length, size, added)
        channel.tail = record[name_at + name_bytes :]
        channel.tail_count = tail_count
        channel.tail_bytes = tail_bytes
        channel.is_explicit = bool(flags & FLAG_EXPLICIT)
        if any(head):
            channel.head = Head(*head)
        store.adopt(channel)
        if channel.is_explicit:
            self._explicit.append(channel)
        self._channel = channel
        self._chunks_left = chunks

    def _take_chunk(self, chunk: bytes) -> None:
        channel = self._channel
        if channel is None or not self._chunks_left:
            raise ValueError("a chunk without its channel")
        self._chunks_left -= 1
        self._chunks += 1
        self._store.adopt_chunk(channel, chunk)

    def _take_end(self, record: bytes) -> None:
        tombstones, chunks, digest = END.unpack_from(record, RECORD.size)
        if digest != self._digest.digest() or self._chunks_left:
            raise DamagedSnapshot("digest does not hold: slices are lost, doubled or out of order")
        if (tombstones, chunks) != (len(self._store.tombstones), self._chunks):
            raise DamagedSnapshot("not all that was written is there")
        self._keys.finish()
        self._is_ended = True

    def _retired_window(self, cut_ms: int) -> Window:
        """Where channels wait that a change of rules had not reached when the snapshot was taken."""
        window = self._retired.get(cut_ms)
        if window is None:
            window = self._retired[cut_ms] = Window(self._store.rules.default, -1)
            window.is_retired = True
            window.cut_ms = cut_ms
        return window


__all__ = ["BusRestore", "DamagedSnapshot", "SnapshotWriter"]
