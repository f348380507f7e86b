"""The keys of a shard: the registry, when keys expire, and what WATCH compares.

A key is a string or a stream; a log that only PUBLISH made has none. Time is the entry's: from its `expire_ms` on a key
is not there, whether or not it is freed yet. Freed it is by the first command that names it, or by a sweep of bounded
work at the end of an entry, in order of (time, name): the same on every replica, and told as an `expired` event.

A `version` is the index of the entry that changed a key
last; of a name without a key, that of the last deletion in its part of the registry (so EXEC may be aborted once too
often, never too seldom).

FLUSHALL puts an empty registry in the place of the old one, whose keys later entries free, a bounded part each. Until
it is its turn, the messages of a stream among them are there but hidden (`is_hidden`), and go before anything is done
under its name. No snapshot begins meanwhile, so none has to know of that.

Leaves to others: what commands do (`execute.py` and the files it names), messages (`store.py`), snapshots' format.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from zlib import crc32

from riverbus.access_commands import AclDelUser, AclSetUser
from riverbus.core.access.acl_state import AclState
from riverbus.core.state.keyspace.cursors import Cursors, FrozenCursor, place_now
from riverbus.core.state.keyspace.expiries import Expiries
from riverbus.core.state.keyspace.explicit import make_implicit
from riverbus.core.state.keyspace.keys import KEY_COST, NO_EXPIRY, STREAM_COST, Key, StreamKey, StringKey
from riverbus.core.state.keyspace.producers import Producers
from riverbus.core.state.keyspace.publish_keys import PUBLISH_KEY_COST, PublishKeys
from riverbus.core.state.keyspace.sequences import Sequences
from riverbus.durable_commands import DurableOpen, DurablePlace, DurableSave, DurableTarget
from riverbus.limits import PUBLISH_KEYS_MS
from riverbus.messages import MessageId, Reply

if TYPE_CHECKING:
    from riverbus.core.state.channels import Channel
    from riverbus.core.state.store import Store

PARTITIONS = 1024  # as the store's
EXPIRE_STEPS = 256  # keys freed at the end of one entry
FLUSH_STEPS = 4096  # keys of a flush that one entry takes, and what is left of the last one's partition
FLUSH_STREAM_STEPS = 5  # a stream counts as so many keys
# Keys that are given back to the allocator by one entry. The last ones singly: with each of them goes a block of memory
# that it was the last to use, which costs the system a hundred times what the key does.
GARBAGE_MIN, GARBAGE_MAX = 32, 2048

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
        self.flushed: list[dict[bytes, Key]] = []  # partitions whose keys are gone, but not yet their streams' messages
        self.garbage: list[Key] = []  # gone, and not freed yet
        self._expiries = Expiries()

    @property
    def expiring_count(self) -> int:
        """Keys with an expiry."""
        return self._expiries.count

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
        if self.flushed:
            self._unhide(name)
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
            self._expiries.enter(key)

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
            self._expiries.leave(self.find)

    # --- all of them --------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        old = self.partitions
        self.partitions = [{} for _ in range(PARTITIONS)]
        for number, partition in enumerate(old):
            if partition:
                self.forgotten[number] = self.index
        self.flushed += filter(None, old)
        self.count = 0
        self.charge(-self.bytes)
        self._expiries.clear()

    def is_hidden(self, channel: Channel) -> bool:
        """Is it a stream whose key was flushed?"""
        return channel.is_explicit and self.find(channel.name) is not channel.stream

    def _unhide(self, name: bytes) -> None:
        channel = self.store.get(name)
        if channel is not None and self.is_hidden(channel):
            make_implicit(self.store, channel, self.time_ms)

    def discard_some(self) -> None:
        """The end of an entry: a bounded part of what was flushed."""
        steps = FLUSH_STEPS
        while self.flushed and steps > 0:
            partition = self.flushed.pop()  # as a whole: within it, replicas differ in their order
            steps -= len(partition)
            for name, key in partition.items():
                if isinstance(key, StreamKey):
                    steps -= FLUSH_STREAM_STEPS - 1
                    self._unhide(name)
            self.garbage += partition.values()
        self._expiries.free_some()
        del self.garbage[-min(GARBAGE_MIN + len(self.garbage) // 64, GARBAGE_MAX) :]

    @property
    def has_flushed(self) -> bool:
        """Is there something left for `discard_some`?"""
        return bool(self.flushed or self.garbage or self._expiries.garbage)

    def replace_value(self, key: StringKey, value: bytes) -> None:
        self.changed(key)
        self.charge(len(value) - len(key.value))
        key.value = value

    # --- expiry -------------------------------------------------------------------------------------------------------

    def set_expiry(self, key: Key, expire_ms: int) -> None:
        """`NO_EXPIRY`: it stays."""
        self.changed(key)
        self._expiries.change(key, expire_ms, self.find)

    def _expire(self, key: Key) -> None:
        self.remove(key)
        self.event("x", "expired", key.name)

    def expire_due(self) -> None:
        """The end of an entry: frees what is due, within bounds."""
        if not (self._expiries.heap or self._expiries.old):
            return  # as in nearly all
        for _ in range(EXPIRE_STEPS):
            key = self._expiries.pop_due(self.time_ms, self.find)
            if key is None:
                return
            self._expire(key)

    @property
    def next_expiry_ms(self) -> int | None:
        """May be too early, never too late."""
        return self._expiries.next_ms

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
        memory = count = 0
        expiring = []
        for partition in self.partitions:
            for name, key in partition.items():
                assert name == key.name
                key.invariants()
                count += 1
                memory += key.memory
                channel = self.store.get(name)
                assert isinstance(key, StreamKey) == (channel is not None and channel.stream is key)
                if key.expire_ms != NO_EXPIRY:
                    expiring.append(key)
        assert (count, memory) == (self.count, self.bytes)
        self._expiries.invariants(expiring)
        assert self.flushed or not any(map(self.is_hidden, self.store))
        self.publish_keys.invariants()
        self.sequences.invariants()
        self.users.invariants()
        self.cursors.invariants()
