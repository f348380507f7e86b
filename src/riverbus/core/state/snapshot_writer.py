"""Writes a shard's state at one index in small slices, while entries go on being applied. `snapshot.py` reads it.

    slice  := u32 payload_bytes, u64 xxh3_64(payload), payload          payloads, joined, are a stream of records:
    record := u8 type, u32 bytes, ...
    stream := HEAD, TOMBSTONES*, (CHANNEL, CHUNK*)*, keyspace, END      a record may span slices
    keyspace := the records of keyspace/records.py

Point in time by copy on write: a channel or a key that is about to change and is not written yet is copied first, which
copies references alone, since chunks are immutable, and blocks of pending entries are copied before they change.
Partitions of the registries are walked one by one, so that neither the begin nor any slice grows with the number of
channels or keys; nor with a channel's size, since chunks are records of their own. END carries a digest of all records;
HEAD the totals. Order among channels, and among keys, is that of the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from zlib import crc32

from xxhash import xxh3_64_intdigest, xxh3_128

from riverbus.core.state.channels import Channel
from riverbus.core.state.keyspace.keys import Key
from riverbus.core.state.keyspace.records import FrozenKeyspace, records_of
from riverbus.core.state.rules import rules_to_bytes
from riverbus.core.state.store import PARTITIONS

if TYPE_CHECKING:
    from riverbus.core.state.store import Store

MAGIC = b"RBUS\x02\x00\x00\x00"  # with the version of the format
MAGIC_WITHOUT_KEYS = b"RBUS\x01\x00\x00\x00"  # version 1 had no keyspace: still read
FRAME = Struct("<IQ")
RECORD = Struct("<BI")
RECORD_HEAD, RECORD_TOMBSTONES, RECORD_CHANNEL, RECORD_CHUNK, RECORD_END = range(1, 6)
# index, time, hash, floor, channels, messages, bytes, memory, explicit, dropped; bytes of rules, which follow;
# then the next rules, if a change waits
HEAD = Struct("<8sQQ16sQQQQQQQQI")
CHANNEL = Struct("<9QIIQIIIqHB")
TOMBSTONE = Struct("<QQH")
END = Struct("<QQ16s")  # tombstones, chunks, digest
NOT_RETIRED = -(2**63)  # in place of the cut of the rule that held before a change, if the new one holds already
FLAG_EXPLICIT, FLAG_QUEUED, FLAG_RETIRED = 1, 2, 4
RECORDS_PER_SLICE = 256  # a record costs some microseconds, whatever its size
TOMBSTONES_PER_RECORD = 512
DISCARDS_PER_ENTRY = 256
PARTITIONS_PER_ENTRY = 8  # given up: only this has their keys, if they were flushed


class _Item(Protocol):
    """A channel or a key."""

    name: bytes
    epoch: int

    def frozen(self) -> Any: ...


Item = TypeVar("Item", bound=_Item)
Saved = dict[int, dict[bytes, Item]]


class DamagedSnapshot(Exception):
    """The bytes are not a snapshot that was written as a whole."""


class SnapshotWriter:
    """Slices of the state as it was when this was made. The store tells it of each channel before it changes."""

    def __init__(self, store: Store, applied_index: int, time_ms: int, running_hash: bytes) -> None:
        assert store.snapshot is None, "one snapshot at a time"
        assert not store.keyspace.flushed, "what is flushed goes first"
        self.applied_index = applied_index
        store.epoch += 1
        store.snapshot = self
        self._store = store
        self._generation = store.generation
        counters = (store.channels, store.messages, store.bytes, store.memory_bytes, store.explicit_bytes)
        rules = rules_to_bytes(store.rules)
        fields = (applied_index, time_ms, running_hash, *store.floor, *counters, store.dropped, len(rules))
        next_rules = rules_to_bytes(store.next_rules) if store.next_rules is not None else b""
        self._head = HEAD.pack(MAGIC, *fields) + rules + next_rules
        self._tombstones = list(store.tombstones.keys()), list(store.tombstones.values())
        self._keyspace = FrozenKeyspace.of(store.keyspace)
        self._key_partitions = list(store.keyspace.partitions)  # FLUSHALL leaves them as they are, and makes others
        self._saved: Saved[Channel] = {}  # by partition of the registry
        self._saved_keys: Saved[Key] = {}
        self._pending: list[Any] = []
        self._chunks: list[bytes | None] = []
        self._records: Iterator[bytes] = self._stream()
        self._rest = memoryview(b"")
        self._digest = xxh3_128()

    # --- called by the store ------------------------------------------------------------------------------------------

    def preserve(self, channel: Channel) -> None:
        """The channel, not written yet, is about to change or to go."""
        self._saved.setdefault(crc32(channel.name) % PARTITIONS, {})[channel.name] = channel.frozen()

    def preserve_key(self, key: Key) -> None:
        """The same of a key."""
        self._saved_keys.setdefault(crc32(key.name) % PARTITIONS, {})[key.name] = key.frozen()

    def discard_some(self) -> bool:
        """After `abort`: gives up a bounded part of what was preserved. True once nothing is left."""
        garbage = self._store.garbage
        garbage += self._chunks
        self._chunks = []
        for _ in range(DISCARDS_PER_ENTRY):
            if self._saved:
                garbage += _pop_any(self._saved).chunks or ()
            elif self._saved_keys:
                _pop_any(self._saved_keys)
            else:
                for _ in range(min(PARTITIONS_PER_ENTRY, len(self._key_partitions))):
                    self._store.keyspace.garbage += self._key_partitions.pop().values()
                return not self._key_partitions
        return False

    # --- called by who writes it --------------------------------------------------------------------------------------

    def next_slice(self, bytes_max: int) -> bytes | None:
        """A framed slice with `bytes_max` or less of payload; None after the last."""
        parts: list[bytes | memoryview] = []
        room = bytes_max
        records = 0
        while room > 0:
            if not len(self._rest):
                record = next(self._records, None) if records < RECORDS_PER_SLICE else None
                if record is None:
                    break
                records += 1
                if len(record) <= room:
                    parts.append(record)
                    room -= len(record)
                    continue
                self._rest = memoryview(record)
            parts.append(self._rest[:room])
            self._rest = self._rest[room:]
            room -= len(parts[-1])
        if not parts:
            self._end()
            return None
        payload = b"".join(parts)
        return FRAME.pack(len(payload), xxh3_64_intdigest(payload)) + payload

    def abort(self) -> None:
        """Gives up. What it held is freed by later entries, bit by bit."""
        if self._store.snapshot is self:
            self._end()
            self._records = iter(())
            self._rest = memoryview(b"")
            self._pending = []
            live = self._store.keyspace.partitions
            pairs = zip(self._key_partitions, live, strict=True)
            self._key_partitions = [keys for keys, living in pairs if keys and keys is not living]
            self._store.aborted.append(self)

    def _end(self) -> None:
        if self._store.snapshot is self:
            self._store.snapshot = None

    # --- the stream ---------------------------------------------------------------------------------------------------

    def _stream(self) -> Iterator[bytes]:
        chunks = 0
        for record in self._stream_start():
            self._digest.update(record)
            yield record
        for channel in self._frozen(self._store.partitions, self._saved, None):
            record = self._channel_record(channel)
            self._digest.update(record)
            yield record
            self._chunks = channel.chunks or []
            channel.chunks = None
            self._chunks.reverse()
            while self._chunks:
                chunk = self._chunks.pop()
                assert chunk is not None
                chunks += 1
                record = RECORD.pack(RECORD_CHUNK, len(chunk)) + chunk
                self._digest.update(record)
                yield record
        for kind, payload in self._stream_keyspace():
            record = _record(kind, payload)
            self._digest.update(record)
            yield record
        yield _record(RECORD_END, END.pack(len(self._tombstones[0]), chunks, self._digest.digest()))

    def _stream_start(self) -> Iterator[bytes]:
        yield _record(RECORD_HEAD, self._head)
        names, ids = self._tombstones
        for start in range(0, len(names), TOMBSTONES_PER_RECORD):
            stop = start + TOMBSTONES_PER_RECORD
            parts: list[bytes] = []
            for name, packed in zip(names[start:stop], ids[start:stop], strict=True):
                parts += (TOMBSTONE.pack(packed >> 64, packed & 0xFFFF_FFFF_FFFF_FFFF, len(name)), name)
            yield _record(RECORD_TOMBSTONES, b"".join(parts))

    def _stream_keyspace(self) -> Iterator[tuple[int, bytes]]:
        yield from self._keyspace.records()
        for key in self._frozen(self._key_partitions, self._saved_keys, self._let_go):
            yield from records_of(key)

    def _let_go(self, number: int) -> None:
        """A partition of keys is written; if it was flushed meanwhile nobody else has it."""
        keys, self._key_partitions[number] = self._key_partitions[number], {}
        keyspace = self._store.keyspace
        if keys is not keyspace.partitions[number]:
            keyspace.garbage += keys.values()

    def _frozen(
        self, partitions: list[dict[bytes, Item]], saved: Saved[Item], done: Callable[[int], None] | None
    ) -> Iterator[Item]:
        """A frozen copy of each item of a registry that there was at the beginning, as it was then."""
        epoch = self._store.epoch
        for number, partition in enumerate(partitions):
            if not partition and not (saved and number in saved):
                continue  # most are empty where channels are few
            live = [item for item in partition.values() if item.epoch != epoch]
            self._pending = [*saved.pop(number, {}).values(), *live]
            while self._pending:
                item: Item = self._pending.pop()
                if item.epoch == epoch:  # it changed since its partition was looked at
                    yield saved[number].pop(item.name)
                else:
                    frozen: Item = item.frozen()
                    item.epoch = epoch
                    yield frozen
            saved.pop(number, None)
            if done is not None:
                done(number)

    def _channel_record(self, channel: Channel) -> bytes:
        flags = FLAG_EXPLICIT if channel.is_explicit else 0
        if channel.home is not None:
            flags |= FLAG_QUEUED if channel.home.generation == self._generation else FLAG_RETIRED
        is_retired = channel.rule.generation != self._generation
        head = channel.head
        fields = CHANNEL.pack(
            channel.queued,
            channel.last_ms,
            channel.last_seq,
            channel.dropped_ms,
            channel.dropped_seq,
            channel.length,
            channel.retained_bytes,
            channel.added,
            len(channel.chunks or ()),
            channel.tail_count,
            channel.tail_bytes,
            head.offset if head else 0,
            head.skip if head else 0,
            head.count if head else 0,
            head.bytes if head else 0,
            channel.rule.cut_ms if is_retired else NOT_RETIRED,
            len(channel.name),
            flags,
        )
        return _record(RECORD_CHANNEL, b"".join((fields, channel.name, channel.tail)))


def _pop_any(saved: Saved[Item]) -> Item:
    number, items = next(iter(saved.items()))
    _, item = items.popitem()
    if not items:
        del saved[number]
    return item


def _record(kind: int, payload: bytes) -> bytes:
    return RECORD.pack(kind, len(payload)) + payload
