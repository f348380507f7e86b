"""All channels of a shard: the registry, and what makes room in it (age, memory, a change of rules).

Each channel waits in the heap of one `Window` (a rule in force), by the time of the newest message of its oldest
chunk. From there the sweep frees what is too old, and, when the shard holds too much, the oldest chunk of all goes
first. Keys in a heap may be too low, never too high: they are looked up again when they come to the top, so a busy
channel costs its heap nothing. A change of rules retires all windows; later entries move their channels over.

Everything is bounded in work per entry, and depends on the log alone, so that replicas trim alike; a limit may be
passed for a moment because of that. An idle, empty channel leaves only a tombstone, its last id; the oldest tombstones
are forgotten, and `floor` is the highest id among those. Invariants: see `invariants`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING
from zlib import crc32

from riverbus.core.clients.glob import Glob
from riverbus.core.state.channels import CHANNEL_COST, Channel
from riverbus.core.state.keyspace.explicit import last_id_without
from riverbus.core.state.keyspace.keyspace import Keyspace
from riverbus.core.state.pieces import CHUNK_COST
from riverbus.core.state.rules import MEMORY, NONE, QUORUM, UNLIMITED, ChannelRule, Rules
from riverbus.limits import MESSAGE_BYTES_MAX, TOMBSTONES_MAX
from riverbus.messages import ID_MIN, MessageId

if TYPE_CHECKING:
    from riverbus.core.state.snapshot_writer import SnapshotWriter

PARTITIONS = 1024  # of the registry: none is so large that its growth, or its copy for a snapshot, is felt
SWEEP_STEPS = 256  # channels looked at, per entry
EVICT_STEPS = 512
MIGRATE_STEPS = 256
CHUNKS_PER_STEP = 64  # dropped of one channel in a step
CHUNKS_PER_ENTRY = 1024  # dropped by the sweep, or by a change of rules, in one entry; then it goes on in the next
SHRINK_MESSAGES = 65_536  # dropped of one channel at once over what is appended: after a rule got smaller
SHRINK_BYTES = 64 * 1024 * 1024
FREED_PER_ENTRY = 256  # chunks of dropped channels that are given back to the allocator, at least


class Window:
    """A rule in force, and the heap of its channels."""

    __slots__ = ("age_ms", "bytes", "count", "cut_ms", "generation", "heap", "is_retired", "pattern", "rule")

    def __init__(self, rule: ChannelRule, generation: int) -> None:
        self.rule = rule
        self.pattern = Glob(rule.match.encode())
        self.count = 0 if rule.durability == NONE else rule.count
        self.age_ms = rule.age_ms
        self.bytes = rule.bytes
        self.generation = generation
        self.heap: list[Channel] = []
        self.is_retired = False
        self.cut_ms = -1  # once retired: what was too old by this rule when it was replaced stays so


class Store:
    """Counters are exact after each entry. `memory_bytes` is what `rules.shard_bytes_max` bounds."""

    def __init__(self, rules: Rules) -> None:
        self.partitions: list[dict[bytes, Channel]] = [{} for _ in range(PARTITIONS)]
        self.channels = 0
        self.messages = 0
        self.bytes = 0
        self.memory_bytes = 0
        self.explicit_bytes = 0  # the part of memory_bytes that keys and explicit streams hold: never dropped
        self.dropped = 0  # messages ever dropped
        self.tombstones: OrderedDict[bytes, int] = OrderedDict()  # last id as ms << 64 | seq: one object
        self.floor = ID_MIN
        self.garbage: list[bytes | None] = []  # dropped, not freed yet
        self.due_ms = UNLIMITED  # nothing is too old before
        self.epoch = 0  # of the latest snapshot
        self.snapshot: SnapshotWriter | None = None
        self.aborted: list[SnapshotWriter] = []
        self.generation = 0
        self.retired: list[Window] = []  # those with channels left, all of one generation
        self.next_rules: Rules | None = None
        self.keyspace = Keyspace(self)
        self._take_rules(rules)

    # --- rules --------------------------------------------------------------------------------------------------------

    def _take_rules(self, rules: Rules) -> None:
        self.rules = rules
        self.windows = [Window(rule, self.generation) for rule in rules.in_order]
        self.keyspace.window_ms_max = max(rule.window_ms for rule in rules.in_order)
        in_order = rules.in_order
        self.is_special = any(rule.durability != QUORUM or rule.payload < MESSAGE_BYTES_MAX for rule in in_order)
        self.has_memory_rules = any(rule.durability == MEMORY for rule in in_order)

    @property
    def latest_rules(self) -> Rules:
        """While channels still move to the rules before, these wait."""
        return self.next_rules or self.rules

    def change_rules(self, rules: Rules, time_ms: int) -> None:
        """Later entries move the channels over. Until that is done, a further change waits."""
        if self.retired:
            self.next_rules = rules
        elif rules != self.rules:
            for window in self.windows:
                window.is_retired = True
                window.cut_ms = time_ms - window.age_ms
            self.retired = [window for window in self.windows if window.heap]
            self.generation += 1
            self._take_rules(rules)

    def window_for(self, name: bytes) -> Window:
        for window in self.windows[:-1]:
            if window.pattern.matches(name):
                return window
        return self.windows[-1]

    def cut_ms(self, channel: Channel, time_ms: int) -> int:
        """Messages of this millisecond and before are too old."""
        if channel.is_explicit:
            return UNLIMITED if self.keyspace.flushed and self.keyspace.is_hidden(channel) else -1
        window = channel.rule
        if window.is_retired:
            return max(-1, time_ms - self.window_for(channel.name).age_ms, window.cut_ms)
        return max(-1, time_ms - window.age_ms)

    def renew(self, channel: Channel) -> Window:
        """Puts a channel under the rule that holds for it now; what the old one had excluded by age is dropped."""
        self.expire(channel, channel.rule.cut_ms)
        channel.rule = self.window_for(channel.name)
        return channel.rule

    # --- the registry -------------------------------------------------------------------------------------------------

    def get(self, name: bytes) -> Channel | None:
        return self.partitions[crc32(name) % PARTITIONS].get(name)

    def create(self, name: bytes, time_ms: int) -> Channel:
        packed = self.tombstones.pop(name, None)
        ms, seq = self.floor if packed is None else (packed >> 64, packed & 0xFFFF_FFFF_FFFF_FFFF)
        window = self.window_for(name)
        # Whatever follows is of time_ms or later, so that is a key that is not too high.
        channel = Channel(time_ms, name, window, window, self.epoch, ms, seq, ms, seq)
        self.partitions[crc32(name) % PARTITIONS][name] = channel
        self.channels += 1
        self.memory_bytes += CHANNEL_COST + len(name)
        self.enqueue(channel, window)
        return channel

    def enqueue(self, channel: Channel, window: Window) -> None:
        heappush(window.heap, channel)
        if channel.queued + window.age_ms < self.due_ms:
            self.due_ms = channel.queued + window.age_ms

    def forget(self, channel: Channel) -> None:
        """Drops an idle channel with all it holds; its last id stays for a while."""
        assert not channel.is_explicit
        self.discard(channel)
        self.memory_bytes -= CHANNEL_COST + len(channel.name)
        del self.partitions[crc32(channel.name) % PARTITIONS][channel.name]
        self.channels -= 1
        self.tombstones[channel.name] = channel.last_ms << 64 | channel.last_seq
        if len(self.tombstones) > TOMBSTONES_MAX:
            _, packed = self.tombstones.popitem(last=False)
            self.floor = max(self.floor, MessageId(packed >> 64, packed & 0xFFFF_FFFF_FFFF_FFFF))

    def charge(self, memory: int) -> None:
        """The keyspace holds so much more, which is never dropped."""
        self.memory_bytes += memory
        self.explicit_bytes += memory

    def discard(self, channel: Channel) -> None:
        """Drops all messages of a channel that stays."""
        length, size = channel.length, channel.retained_bytes
        self._count(length, size, channel.drop_all(self.garbage))

    def adopt(self, channel: Channel) -> None:
        """From a snapshot; its chunks follow."""
        self.partitions[crc32(channel.name) % PARTITIONS][channel.name] = channel
        self.channels += 1
        self.messages += channel.length
        self.bytes += channel.retained_bytes
        self._hold(channel, CHANNEL_COST + len(channel.name) + len(channel.tail))
        if channel.home is not None:
            self.enqueue(channel, channel.home)

    def adopt_chunk(self, channel: Channel, chunk: bytes) -> None:
        if channel.chunks is None:
            channel.chunks = []
        channel.chunks.append(chunk)
        self._hold(channel, len(chunk) + CHUNK_COST)

    def _hold(self, channel: Channel, memory: int) -> None:
        self.memory_bytes += memory
        if channel.is_explicit:
            self.explicit_bytes += memory

    def last_id(self, name: bytes) -> MessageId:
        """At or above every id the channel ever had: 0-0 or the floor if it has no state and no tombstone."""
        channel = self.get(name)
        if channel is not None:
            if self.keyspace.flushed and channel.stream is not None and self.keyspace.is_hidden(channel):
                return last_id_without(channel, channel.stream, self.keyspace.time_ms)
            return channel.last_id
        packed = self.tombstones.get(name)
        return self.floor if packed is None else MessageId(packed >> 64, packed & 0xFFFF_FFFF_FFFF_FFFF)

    def preserve(self, channel: Channel) -> None:
        """Called before a channel changes, if its epoch is not ours: a snapshot under way keeps a copy."""
        if self.snapshot is not None:
            self.snapshot.preserve(channel)
        channel.epoch = self.epoch

    # --- making room --------------------------------------------------------------------------------------------------

    def _count(self, messages: int, size: int, memory: int) -> None:
        self.messages -= messages
        self.dropped += messages
        self.bytes -= size
        self.memory_bytes -= memory

    def trim(self, channel: Channel, window: Window, added: int, added_bytes: int) -> None:
        """Drops what the window's count and bytes exclude."""
        length, size = channel.length, channel.retained_bytes
        freed = 0
        if length > window.count:
            freed += channel.drop_messages(min(length - window.count, added + SHRINK_MESSAGES), self.garbage)
        if channel.retained_bytes > window.bytes:
            freed += channel.drop_bytes(
                min(channel.retained_bytes - window.bytes, added_bytes + SHRINK_BYTES), self.garbage
            )
        self._count(length - channel.length, size - channel.retained_bytes, freed)

    def expire(self, channel: Channel, cut_ms: int, chunks_max: int = UNLIMITED) -> None:
        """Drops what is of cut_ms and before, to the message."""
        length, size = channel.length, channel.retained_bytes
        freed = channel.drop_older(cut_ms, self.garbage, chunks_max)
        self._count(length - channel.length, size - channel.retained_bytes, freed)

    def make_room(self, time_ms: int) -> None:
        """The end of an entry: a bounded piece of all that is due."""
        if self.retired:
            self._migrate()
        if time_ms >= self.due_ms:
            self._sweep(time_ms)
        self.keyspace.expire_due()
        if self.keyspace.has_flushed:
            self.keyspace.discard_some()
        if self.memory_bytes > self.rules.shard_bytes_max:
            self._evict()
        if self.aborted and self.aborted[-1].discard_some():
            self.aborted.pop()
        if self.retired or self.next_rules is not None:
            self._after_migration(time_ms)
        garbage = self.garbage
        if garbage:
            del garbage[-(FREED_PER_ENTRY + len(garbage) // 64) :]

    def _pop(self, window: Window) -> Channel | None:
        """The channel with the lowest key, about to be changed; None if it was made explicit, and left the heap."""
        channel = heappop(window.heap)
        if channel.epoch != self.epoch:
            self.preserve(channel)
        if channel.is_explicit:
            channel.home = None
            return None
        return channel

    def push(self, channel: Channel, window: Window) -> None:
        """Into the heap of its window."""
        channel.queued = channel.key()
        channel.home = window
        self.enqueue(channel, window)

    def _migrate(self) -> None:
        enough = len(self.garbage) + CHUNKS_PER_ENTRY
        for _ in range(MIGRATE_STEPS):
            if not self.retired or len(self.garbage) >= enough:
                break
            retired = min(self.retired, key=_top)
            channel = self._pop(retired)
            if channel is not None:
                window = self.renew(channel) if channel.rule.is_retired else channel.rule
                self.trim(channel, window, 0, 0)
                is_over = channel.length > window.count or channel.retained_bytes > window.bytes
                self.push(channel, retired if is_over else window)
            self.retired = [window for window in self.retired if window.heap]

    def _after_migration(self, time_ms: int) -> None:
        self.retired = [window for window in self.retired if window.heap]
        if not self.retired and self.next_rules is not None:
            rules, self.next_rules = self.next_rules, None
            self.change_rules(rules, time_ms)

    def _sweep(self, time_ms: int) -> None:
        steps = SWEEP_STEPS
        enough = len(self.garbage) + CHUNKS_PER_ENTRY
        for window in self.windows:
            heap = window.heap
            cut_ms = time_ms - window.age_ms
            while steps and heap and heap[0].queued <= cut_ms and len(self.garbage) < enough:
                steps -= 1
                channel = self._pop(window)
                if channel is not None:
                    self._sweep_channel(channel, window, cut_ms)
        heads = (window.heap[0].queued + window.age_ms for window in self.windows if window.heap)
        self.due_ms = min(heads, default=UNLIMITED)

    def _sweep_channel(self, channel: Channel, window: Window, cut_ms: int) -> None:
        """Frees what is too old; a channel with nothing else is forgotten."""
        self.expire(channel, cut_ms, CHUNKS_PER_STEP)
        if not channel.length and channel.last_ms <= cut_ms:
            self.forget(channel)
        else:
            self.push(channel, window)

    def _evict(self) -> None:
        """Too much memory: drops the oldest chunks of all implicit channels."""
        for _ in range(EVICT_STEPS):
            windows = [window for window in (*self.retired, *self.windows) if window.heap]
            if self.memory_bytes <= self.rules.shard_bytes_max or not windows:
                break
            window = min(windows, key=_top)
            channel = self._pop(window)
            if channel is None:
                continue
            if channel.key() == channel.queued:
                if not channel.has_chunks:
                    self.forget(channel)
                    continue
                length, size = channel.length, channel.retained_bytes
                freed = channel.drop_chunk(self.garbage)
                self._count(length - channel.length, size - channel.retained_bytes, freed)
            self.push(channel, window)

    def next_due_ms(self, time_ms: int) -> int | None:
        """When an entry with nothing but the time would free something; time_ms if one would now; None if never."""
        over = self.memory_bytes > self.rules.shard_bytes_max and any(window.heap for window in self.windows)
        if self.retired or self.garbage or self.keyspace.has_flushed or over:
            return time_ms
        due_ms = self.due_ms if self.due_ms < UNLIMITED else None
        key_ms = self.keyspace.next_expiry_ms
        return due_ms if key_ms is None else key_ms if due_ms is None else min(due_ms, key_ms)

    def __iter__(self) -> Iterator[Channel]:
        for partition in self.partitions:
            yield from partition.values()

    def invariants(self) -> None:
        channels = list(self)
        for channel in channels:
            channel.invariants()
        homes = {id(channel): channel.home for channel in channels}
        queued = [(window, channel) for window in (*self.retired, *self.windows) for channel in window.heap]
        assert len(queued) == sum(home is not None for home in homes.values())
        for window, channel in queued:
            assert homes[id(channel)] is window
            assert channel.queued + window.age_ms >= self.due_ms or window.is_retired
        assert len(channels) == self.channels
        assert sum(channel.length for channel in channels) == self.messages
        assert sum(channel.retained_bytes for channel in channels) == self.bytes
        explicit = sum(channel.memory() for channel in channels if channel.is_explicit)
        assert sum(channel.memory() for channel in channels) + self.keyspace.memory == self.memory_bytes
        assert explicit + self.keyspace.memory == self.explicit_bytes
        self.keyspace.invariants()
        assert all(channel.home is not None or channel.is_explicit for channel in channels)
        assert all(self.get(name) is None for name in self.tombstones)
        assert len(self.tombstones) <= TOMBSTONES_MAX


def _top(window: Window) -> tuple[int, bytes]:
    channel = window.heap[0]
    return channel.queued, channel.name
