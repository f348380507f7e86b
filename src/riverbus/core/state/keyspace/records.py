"""The keyspace in a snapshot: its records, made of keys and made into keys again.

    KEYSPACE, PUBLISH_KEYS*, SEQUENCES*, CURSORS*, USERS*,
    then for each key: STRING | STREAM, (GROUP, CONSUMERS*, PENDING*)*, PRODUCER*

A record is the msgpack array of one of the structs below, but for PENDING, which is a block's columns as they are. No
record grows with a group's pending entries or consumers, nor with a window of keys: those come in parts. Whoever reads
them believes nothing: what does not add up is a ValueError.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple, TypeVar

import msgspec

from riverbus.core.access.acl import User
from riverbus.core.access.acl_state import encode_users
from riverbus.core.state.keyspace import sequences
from riverbus.core.state.keyspace.cursors import Cursor, FrozenCursor, Owner, frozen_cursors
from riverbus.core.state.keyspace.keys import Consumer, Group, Key, StreamKey, StringKey
from riverbus.core.state.keyspace.keyspace import PARTITIONS, Keyspace
from riverbus.core.state.keyspace.pending import BLOCK_ENTRIES, Block, Pending
from riverbus.core.state.keyspace.producers import Producers, Used
from riverbus.core.state.keyspace.publish_keys import PUBLISH_KEY_COST, PublishKeys
from riverbus.durable_commands import DurableTarget
from riverbus.messages import MessageId

KEYSPACE, PUBLISH_KEYS, STRING, STREAM, GROUP, CONSUMERS, PENDING, PRODUCER, USERS, SEQUENCES, CURSORS = range(16, 27)
RECORDS = range(KEYSPACE, CURSORS + 1)
ITEMS_PER_RECORD = 512
CURSORS_PER_RECORD = 16  # each may have some hundred KiB of exact places
_PENDING = Struct("<I")
_COLUMNS = (("ms", "Q"), ("seq", "Q"), ("time", "Q"), ("count", "Q"), ("consumer", "I"))
_PENDING_BYTES = 36

_Item = TypeVar("_Item")
Record = tuple[int, bytes]
_UsedItem = tuple[bytes, int, int, int]  # key, time, id


class _Keyspace(NamedTuple):
    keys: int
    publish_keys: int
    forgotten: tuple[tuple[int, int], ...]  # (partition, index), of those that are not 0
    stretches: int = 0


class _String(NamedTuple):
    name: bytes
    version: int
    expire_ms: int
    value: bytes


class _Stream(NamedTuple):
    name: bytes
    version: int
    expire_ms: int
    max_deleted: MessageId
    floor: MessageId
    node_base: int
    idmp: tuple[int, int, int, int]  # duration, size, added, duplicates
    groups: int
    producers: int
    memory: int


class _Group(NamedTuple):
    name: bytes
    last_id: MessageId
    entries_read: int
    next_number: int
    consumers: int
    pending: int


class _Consumer(NamedTuple):
    name: bytes
    number: int
    seen_ms: int
    active_ms: int
    pending: int


class _Producer(NamedTuple):
    """A producer with more keys than fit a record comes in several, one after the other."""

    name: bytes
    used: tuple[_UsedItem, ...]


class _Sequences(NamedTuple):
    """A producer of numbered runs; one with many comes in several, one after the other."""

    name: bytes
    below: int
    stretches: list[tuple[int, int, int, int, int, int]]  # the fields of a `Stretch`


_encode = msgspec.msgpack.Encoder().encode
_decode_sequences = msgspec.msgpack.Decoder(_Sequences).decode
_decode_keyspace = msgspec.msgpack.Decoder(_Keyspace).decode
_decode_used = msgspec.msgpack.Decoder(tuple[_UsedItem, ...]).decode
_decode_string = msgspec.msgpack.Decoder(_String).decode
_decode_stream = msgspec.msgpack.Decoder(_Stream).decode
_decode_group = msgspec.msgpack.Decoder(_Group).decode
_decode_consumers = msgspec.msgpack.Decoder(tuple[_Consumer, ...]).decode
_decode_producer = msgspec.msgpack.Decoder(_Producer).decode
_decode_cursors = msgspec.msgpack.Decoder(tuple[FrozenCursor, ...]).decode


# --- writing ----------------------------------------------------------------------------------------------------------


class FrozenKeyspace(NamedTuple):
    """What of the keyspace is not in its keys, as it was."""

    head: bytes
    used: list[dict[bytes, Used]]
    users: list[User]  # which never change: a changed user is another
    sequences: list[tuple[bytes, sequences.Producer]]
    cursors: list[tuple[Owner, list[tuple[DurableTarget, Cursor]]]]

    @classmethod
    def of(cls, space: Keyspace) -> FrozenKeyspace:
        forgotten = tuple((number, index) for number, index in enumerate(space.forgotten) if index)
        head = _encode(_Keyspace(space.count, space.publish_keys.count, forgotten, space.sequences.count))
        return cls(
            head,
            space.publish_keys.frozen(),
            list(space.users.users.values()),
            space.sequences.frozen(),
            space.cursors.frozen(),
        )

    def records(self) -> Iterator[Record]:
        yield KEYSPACE, self.head
        for used in self.used:
            for some in _parts(list(used.items())):
                yield PUBLISH_KEYS, _encode([(key, each.time_ms, each.ms, each.seq) for key, each in some])
        for name, producer in self.sequences:
            for stretches in _parts(producer.stretches[producer.head :]):
                fields = [(one.first, one.count, one.ms, one.seq, one.time_ms, one.number) for one in stretches]
                yield SEQUENCES, _encode(_Sequences(name, producer.below, fields))
        for owner, held in self.cursors:
            for at in range(0, len(held), CURSORS_PER_RECORD):
                yield CURSORS, _encode(frozen_cursors(owner, held[at : at + CURSORS_PER_RECORD]))
        for some_users in _parts(self.users):
            yield USERS, encode_users(some_users)


def _parts(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for at in range(0, len(items), ITEMS_PER_RECORD):
        yield items[at : at + ITEMS_PER_RECORD]


def records_of(key: Key) -> Iterator[Record]:
    """Of a frozen key."""
    if isinstance(key, StringKey):
        yield STRING, _encode(_String(key.name, key.version, key.expire_ms, key.value))
        return
    producers = key.producers
    idmp = (producers.duration_s, producers.size, producers.added, producers.duplicates)
    counts = len(key.groups), len(producers.by_name), key.memory
    yield (
        STREAM,
        _encode(
            _Stream(key.name, key.version, key.expire_ms, key.max_deleted, key.floor, key.node_base, idmp, *counts)
        ),
    )
    for group in key.groups.values():
        counts = group.next_number, len(group.consumers), group.pending.length
        yield GROUP, _encode(_Group(group.name, group.last_id, group.entries_read, *counts))
        for some in _parts(list(group.numbers.values())):
            yield CONSUMERS, _encode([(c.name, c.number, c.seen_ms, c.active_ms, c.pending) for c in some])
        for block in group.pending.blocks:
            columns = [getattr(block, name).tobytes() for name, _ in _COLUMNS]
            yield PENDING, b"".join((_PENDING.pack(len(block)), *columns))
    for name, producer in producers.by_name.items():
        for used in _parts(list(producer.used.items())):
            yield PRODUCER, _encode(_Producer(name, tuple((k, u.time_ms, u.ms, u.seq) for k, u in used)))


# --- reading ----------------------------------------------------------------------------------------------------------


class KeyspaceRestore:
    """Takes the records in order. All methods raise ValueError for what does not add up."""

    def __init__(self, space: Keyspace) -> None:
        self._space = space
        self._announced: _Keyspace | None = None
        self._stream: StreamKey | None = None
        self._groups_left = 0
        self._producers_left = 0
        self._group: Group | None = None
        self._consumers_left = 0
        self._pending_left = 0

    def take(self, kind: int, payload: bytes) -> None:
        if (self._announced is None) != (kind == KEYSPACE):
            raise ValueError("the keyspace's records are not in order")
        if kind == KEYSPACE:
            self._take_head(payload)
        elif kind == PUBLISH_KEYS:
            self._take_publish_keys(payload)
        elif kind == SEQUENCES:
            self._take_sequences(payload)
        elif kind == CURSORS:
            self._space.restore_cursors(_decode_cursors(payload))
        elif kind == USERS:
            self._space.restore_users(payload)
        elif kind in (STRING, STREAM):
            self._close_stream()
            self._take_string(payload) if kind == STRING else self._take_stream(payload)
        elif self._stream is None:
            raise ValueError("part of a stream without it")
        elif kind == GROUP:
            self._take_group(payload, self._stream)
        elif kind == PRODUCER:
            self._take_producer(payload, self._stream.producers)
        elif self._group is None:
            raise ValueError("part of a group without it")
        elif kind == CONSUMERS:
            self._take_consumers(payload, self._group)
        else:
            self._take_pending(payload, self._group)

    def finish(self) -> None:
        self._close_stream()
        space = self._space
        space.sequences.finish()
        counted = space.count, space.publish_keys.count, space.sequences.count
        if self._announced is not None and (*self._announced[:2], self._announced.stretches) != counted:
            raise ValueError("not all keys are there")

    def _take_head(self, payload: bytes) -> None:
        self._announced = _decode_keyspace(payload)
        for number, index in self._announced.forgotten:
            if not 0 <= number < PARTITIONS:
                raise ValueError(f"partition {number}")
            self._space.forgotten[number] = index

    def _take_publish_keys(self, payload: bytes) -> None:
        keys: PublishKeys = self._space.publish_keys
        before = keys.count
        for digest, time_ms, ms, seq in _decode_used(payload):
            if not digest:
                raise ValueError("an empty digest")
            keys.restore(digest, Used(time_ms, ms, seq))
        self._space.store.charge(PUBLISH_KEY_COST * (keys.count - before))

    def _take_sequences(self, payload: bytes) -> None:
        name, below, stretches = _decode_sequences(payload)
        known = self._space.sequences
        before = known.memory
        known.restore(name, below, [sequences.Stretch(*fields) for fields in stretches])
        self._space.store.charge(known.memory - before)

    def _take_string(self, payload: bytes) -> None:
        name, version, expire_ms, value = _decode_string(payload)
        self._adopt(StringKey(name, 0, version, value, expire_ms))

    def _adopt(self, key: Key) -> None:
        if self._space.find(key.name) is not None:
            raise ValueError(f"key {key.name!r} is there twice")
        self._space.adopt(key)

    def _take_stream(self, payload: bytes) -> None:
        record = _decode_stream(payload)
        channel = self._space.store.get(record.name)
        if channel is None or not channel.is_explicit or channel.stream is not None:
            raise ValueError(f"stream {record.name!r} has no channel")
        self._stream = channel.stream = StreamKey(
            name=record.name,
            epoch=0,
            version=record.version,
            groups={},
            producers=Producers(*record.idmp),
            memory=record.memory,
            expire_ms=record.expire_ms,
            max_deleted=record.max_deleted,
            floor=record.floor,
            node_base=record.node_base,
        )
        self._groups_left, self._producers_left = record.groups, record.producers

    def _close_stream(self) -> None:
        stream = self._stream
        if stream is None:
            return
        self._close_group()
        if self._groups_left or len(stream.producers.by_name) != self._producers_left:
            raise ValueError(f"groups or producers of {stream.name!r} are missing")
        if stream.counted() != stream.memory:
            raise ValueError(f"stream {stream.name!r} holds not what was announced")
        self._stream = None
        self._adopt(stream)

    def _take_group(self, payload: bytes, stream: StreamKey) -> None:
        self._close_group()
        name, last_id, entries_read, next_number, consumers, pending = _decode_group(payload)
        if name in stream.groups or not self._groups_left:
            raise ValueError(f"group {name!r} is there twice")
        self._groups_left -= 1
        self._consumers_left, self._pending_left = consumers, pending
        self._group = stream.groups[name] = Group(name, last_id, entries_read, {}, {}, next_number, Pending())

    def _close_group(self) -> None:
        group, self._group = self._group, None
        if group is None:
            return
        if self._consumers_left or self._pending_left:
            raise ValueError(f"consumers or pending entries of {group.name!r} are missing")
        if sum(each.pending for each in group.numbers.values()) != group.pending.length:
            raise ValueError(f"pending entries of {group.name!r} do not add up")

    def _take_consumers(self, payload: bytes, group: Group) -> None:
        for name, number, seen_ms, active_ms, pending in _decode_consumers(payload):
            consumer = Consumer(name, number, seen_ms, active_ms, pending)
            group.consumers[name] = group.numbers[number] = consumer
            self._consumers_left -= 1

    def _take_pending(self, payload: bytes, group: Group) -> None:
        (count,) = _PENDING.unpack_from(payload)
        if not 0 < count <= BLOCK_ENTRIES or len(payload) != _PENDING.size + _PENDING_BYTES * count:
            raise ValueError(f"a block of {count} pending entries")
        columns: dict[str, array[int]] = {}
        at = _PENDING.size
        for name, code in _COLUMNS:
            column = array(code)
            size = count * column.itemsize
            column.frombytes(payload[at : at + size])
            columns[name] = column
            at += size
        block = Block(epoch=0, oldest=min(columns["time"]), **columns)
        if group.pending.blocks and group.pending.blocks[-1].last >= block.first:
            raise ValueError("pending entries are not in order")
        if any(number not in group.numbers for number in set(block.consumer)):
            raise ValueError("pending entries of nobody")
        group.pending.blocks.append(block)
        group.pending.length += count
        self._pending_left -= count

    def _take_producer(self, payload: bytes, producers: Producers) -> None:
        name, used = _decode_producer(payload)
        self._close_group()
        for key, time_ms, ms, seq in used:
            producers.restore(name, key, Used(time_ms, ms, seq))
