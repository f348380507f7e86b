"""The keys of a shard: the registry, when keys expire, and what WATCH compares.

A key is a string or a stream; a log that only PUBLISH made has none. Time is the entry's: from its `expire_ms` on a key
is not there, whether or not it is freed yet. Freed it is by the first command that names it, or by a sweep of bounded
work at the end of an entry, in order of (time, name): the same on every replica, and told as an `expired` event.

Each key that expires waits in one heap, at a time at or below its own: it is looked up again when it comes to the top,
so a key that is renewed all the time costs its heap nothing. A `version` is the index of the entry that changed a key
last; of a name without a key, that of the last deletion in its part of the registry (so EXEC may be aborted once too
often, never too seldom).

Leaves to others: what commands do (`execute.py` and the files it names), messages (`store.py`), snapshots' format.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING
from zlib import crc32

from riverbus.core.access.acl_state import AclState
from riverbus.core.state.keyspace.cursors import Cursors, FrozenCursor, place_now
from riverbus.core.state.keyspace.explicit import make_implicit
from riverbus.core.state.keyspace.keys import KEY_COST, NO_EXPIRY, STREAM_COST, Key, StreamKey, StringKey
from riverbus.core.state.keyspace.producers import Producers
from riverbus.core.state.keyspace.publish_keys import PUBLISH_KEY_COST, PublishKeys
from riverbus.core.state.keyspace.sequences import Sequences
from riverbus.durable_commands import DurableOpen, DurablePlace, DurableSave, DurableTarget
from riverbus.keyspace_commands import AclDelUser, AclSetUser
from riverbus.limits import PUBLISH_KEYS_MS
from riverbus.messages import MessageId, Reply

if TYPE_CHECKING:
    from riverbus.core.state.store import Store

PARTITIONS = 1024  # as the store's
EXPIRE_STEPS = 256  # keys freed at the end of one entry
HEAP_SLACK = 1024  # stale places in the heap that are left alone

Event = tuple[str, str, bytes]  # class, name, key: see `notify-keyspace-events`


class Keyspace:
    """`time_ms`, `index` and `events` are of the entry that is being applied; `bytes` is memory, in the store's too."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.partitions: list[dict[bytes, Key]] = [{} for _ in range(PARTITIONS)]
        self.forgotten = array("Q", bytes(8 * PARTITIONS))  # index of the last deletion in each
        self.publish_keys = PublishKeys()
        self.sequences = Sequences()
        self.window_ms_max = PUBLISH_KEYS_MS  # of the rules: what is older is known of no publish
        self.cursors = Cursors()  # of subscribers with a durable name
        self.users = AclState()  # of shard 0 alone: see core/access/acl_users.py
        self.count = 0
        self.bytes = 0
        self.index = 0
        self.time_ms = 0
        self.events: list[Event] = []
        self._heap: list[tuple[int, bytes]] = []
        self._expiring = 0

    @property
    def expiring_count(self) -> int:
        """Keys with an expiry."""
        return self._expiring

    # --- looking ------------------------------------------------------------------------------------------------------

    def find(self, name: bytes) -> Key | None:
        """Whether or not it is due."""
        return self.partitions[crc32(name) % PARTITIONS].get(name)

    def see(self, name: bytes, now_ms: int) -> Key | None:
        """For a read: changes nothing."""
        key = self.find(name)
        return None if key is None or NO_EXPIRY < key.expire_ms <= now_ms else key

    def take(self, name: bytes) -> Key | None:
        """For a command of an entry: a key that is due is freed first."""
        key = self.partitions[crc32(name) % PARTITIONS].get(name)
        if key is not None and NO_EXPIRY < key.expire_ms <= self.time_ms:
            self._expire(key)
            return None
        return key

    def version(self, name: bytes, now_ms: int) -> int:
        """Odd if there is such a key."""
        key = self.see(name, now_ms)
        return 2 * self.forgotten[crc32(name) % PARTITIONS] if key is None else 2 * key.version + 1

    def names(self, now_ms: int, partition: int) -> Iterator[Key]:
        """The keys of one partition of the registry."""
        for key in self.partitions[partition].values():
            if not NO_EXPIRY < key.expire_ms <= now_ms:
                yield key

    # --- changing -----------------------------------------------------------------------------------------------------

    def touch(self, key: Key) -> None:
        """Before a change: a snapshot under way keeps a copy."""
        if key.epoch != self.store.epoch:
            if self.store.snapshot is not None:
                self.store.snapshot.preserve_key(key)
            key.epoch = self.store.epoch

    def changed(self, key: Key) -> None:
        """The change is one that WATCH is to see."""
        self.touch(key)
        key.version = self.index

    def event(self, kind: str, event: str, name: bytes) -> None:
        self.events.append((kind, event, name))

    def charge(self, memory: int) -> None:
        self.bytes += memory
        self.store.charge(memory)

    def charge_stream(self, key: StreamKey, memory: int) -> None:
        key.memory += memory
        self.charge(memory)

    def new_string(self, name: bytes, value: bytes) -> StringKey:
        key = StringKey(name, self.store.epoch, self.index, value)
        self._add(key)
        return key

    def new_stream(self, name: bytes, floor: MessageId) -> StreamKey:
        """The store calls this when it makes a channel explicit."""
        memory = KEY_COST + STREAM_COST + len(name)
        key = StreamKey(name, self.store.epoch, self.index, {}, Producers(), memory, floor=floor)
        self._add(key)
        return key

    def _add(self, key: Key) -> None:
        self._enter(key)
        self.event("n", "new", key.name)

    def _enter(self, key: Key) -> None:
        partition = self.partitions[crc32(key.name) % PARTITIONS]
        assert key.name not in partition
        partition[key.name] = key
        self.count += 1
        self.charge(key.memory)

    def adopt(self, key: Key) -> None:
        """From a snapshot, or under a new name."""
        self._enter(key)
        if key.expire_ms != NO_EXPIRY:
            self._expiring += 1
            key.queued_ms = key.expire_ms
            heappush(self._heap, (key.expire_ms, key.name))

    def remove(self, key: Key) -> None:
        """With a stream its messages go, too."""
        self.leave(key)
        if isinstance(key, StreamKey):
            channel = self.store.get(key.name)
            assert channel is not None
            make_implicit(self.store, channel, self.time_ms)

    def leave(self, key: Key) -> None:
        """Out of the registry; a stream's channel is the caller's business."""
        self.touch(key)
        number = crc32(key.name) % PARTITIONS
        del self.partitions[number][key.name]
        self.forgotten[number] = self.index
        self.count -= 1
        self.charge(-key.memory)
        if key.expire_ms != NO_EXPIRY:
            self._expiring -= 1
            self._tidy_heap()

    def replace_value(self, key: StringKey, value: bytes) -> None:
        self.changed(key)
        self.charge(len(value) - len(key.value))
        key.value = value

    # --- expiry -------------------------------------------------------------------------------------------------------

    def set_expiry(self, key: Key, expire_ms: int) -> None:
        """`NO_EXPIRY`: it stays."""
        self.changed(key)
        self._expiring += (expire_ms != NO_EXPIRY) - (key.expire_ms != NO_EXPIRY)
        was_queued = key.expire_ms != NO_EXPIRY
        key.expire_ms = expire_ms
        if expire_ms == NO_EXPIRY:
            key.queued_ms = NO_EXPIRY
        elif not was_queued or expire_ms < key.queued_ms:
            key.queued_ms = expire_ms
            heappush(self._heap, (expire_ms, key.name))
        self._tidy_heap()

    def _tidy_heap(self) -> None:
        """Takes out the stale places once they are more than half."""
        if len(self._heap) <= 2 * self._expiring + HEAP_SLACK:
            return
        places = dict.fromkeys(self._heap)
        self._heap = [place for place in places if self._is_queued(*place)]
        heapify(self._heap)

    def _is_queued(self, queued_ms: int, name: bytes) -> bool:
        key = self.find(name)
        return key is not None and key.queued_ms == queued_ms

    def _expire(self, key: Key) -> None:
        self.remove(key)
        self.event("x", "expired", key.name)

    def expire_due(self) -> None:
        """The end of an entry: frees what is due, within bounds."""
        steps = EXPIRE_STEPS
        while self._heap and self._heap[0][0] <= self.time_ms and steps:  # which `_expire` may make anew
            queued_ms, name = heappop(self._heap)
            key = self.find(name)
            if key is None or key.queued_ms != queued_ms:
                continue
            if key.expire_ms <= self.time_ms and key.expire_ms == queued_ms:
                steps -= 1
                self._expire(key)
            else:
                key.queued_ms = key.expire_ms
                heappush(self._heap, (key.expire_ms, name))

    @property
    def next_expiry_ms(self) -> int | None:
        """May be too early, never too late."""
        return self._heap[0][0] if self._heap else None

    # --- for the store ------------------------------------------------------------------------------------------------

    @property
    def memory(self) -> int:
        return (
            self.bytes + self.publish_keys.memory + self.sequences.memory + self.cursors.memory + self.users.size_bytes
        )

    def change_users(self, noun: AclSetUser | AclDelUser) -> Reply:
        before = self.users.size_bytes
        reply = self.users.set_user(noun) if isinstance(noun, AclSetUser) else self.users.delete_users(noun)
        self.store.charge(self.users.size_bytes - before)
        return reply

    def open_cursors(self, noun: DurableOpen) -> Reply:
        before = self.cursors.memory
        reply = self.cursors.open(noun, self.time_ms, self._place_now)
        self.store.charge(self.cursors.memory - before)
        return reply

    def save_cursors(self, noun: DurableSave) -> Reply:
        before = self.cursors.memory
        reply = self.cursors.save(noun, self.time_ms)
        self.store.charge(self.cursors.memory - before)
        return reply

    def _place_now(self, target: DurableTarget) -> DurablePlace:
        return place_now(target.space, self.store.last_id(target.name), self.time_ms)

    def restore_cursors(self, frozen: Sequence[FrozenCursor]) -> None:
        """Raises ValueError."""
        before = self.cursors.memory
        self.cursors.restore(frozen)
        self.store.charge(self.cursors.memory - before)

    def restore_users(self, data: bytes) -> None:
        """Raises ValueError."""
        before = self.users.size_bytes
        self.users.restore(data)
        self.store.charge(self.users.size_bytes - before)

    def remember_publish(self, digest: bytes, id_: MessageId) -> None:
        before = self.publish_keys.count
        self.publish_keys.add(digest, id_, self.time_ms, self.store.epoch, self.window_ms_max)
        self.store.charge(PUBLISH_KEY_COST * (self.publish_keys.count - before))

    def remember_run(self, producer: bytes, first: int, count: int, id_: MessageId) -> None:
        before = self.sequences.memory
        self.sequences.add(producer, first, count, id_, self.time_ms, self.window_ms_max, self.store.epoch)
        self.store.charge(self.sequences.memory - before)

    def invariants(self) -> None:
        memory = expiring = count = 0
        queued = set(self._heap)
        for partition in self.partitions:
            for name, key in partition.items():
                assert name == key.name
                key.invariants()
                count += 1
                memory += key.memory
                channel = self.store.get(name)
                assert isinstance(key, StreamKey) == (channel is not None and channel.stream is key)
                if key.expire_ms != NO_EXPIRY:
                    expiring += 1
                    assert (key.queued_ms, name) in queued
        assert (count, memory, expiring) == (self.count, self.bytes, self._expiring)
        assert len(self._heap) <= 2 * self._expiring + HEAP_SLACK + 1
        self.publish_keys.invariants()
        self.sequences.invariants()
        self.users.invariants()
        self.cursors.invariants()
