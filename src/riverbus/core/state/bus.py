"""The replicated state machine of one shard: entries go in, ids and errors come out, and history can be read.

Deterministic: the same entries give the same state on every replica, and `running_hash` proves it. It covers each
entry, what became of each run, and what was trimmed. There is no clock: time is that of the entries, and never goes
back, whatever a new leader's clock says; so ids never go back either.

A run gets the ids (time, 0), (time, 1), ... or goes on from the channel's last id if that is of this time or later,
as Redis does for XADD with `*`. The first XADD makes a channel an explicit stream: no window, nothing dropped, and an
error instead when memory is full. Where messages lie is `channels.py`; what is dropped when, `store.py`.

Keyspace commands are carried out in their place among the runs (`keyspace/execute.py`).

An entry is decoded as a whole before anything changes: one that is damaged or unknown leaves no trace but its
exception, and the node stops. It is one file, as it is the one face that a shard's state shows: most of it is a line
or two each that ask those who know.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from zlib import crc32

import msgspec
from xxhash import xxh3_128_digest

from riverbus.core.access.acl_state import AclState
from riverbus.core.state import history
from riverbus.core.state.channels import Channel
from riverbus.core.state.entries import Op, RulesOp, Run, WriteOp, decode_entry
from riverbus.core.state.history import ReadResult, View
from riverbus.core.state.keyspace.codes import Noun
from riverbus.core.state.keyspace.execute import execute, query
from riverbus.core.state.keyspace.keyspace import Event
from riverbus.core.state.keyspace.replies import Deferred, Outcome, effect_of
from riverbus.core.state.keyspace.streams import append_run
from riverbus.core.state.pieces import newest
from riverbus.core.state.release import release_some
from riverbus.core.state.rules import ChannelRule, Rules
from riverbus.core.state.snapshot_writer import SnapshotWriter
from riverbus.core.state.store import PARTITIONS, Store
from riverbus.messages import BusError, Kind, Message, MessageId, Reply

COPY_BYTES = 2048  # a run above this is copied into its chunk straight from the entry, below it by way of a slice
XADD = int(Kind.XADD)

_new = tuple.__new__  # makes a MessageId in half the time


class RunResult(msgspec.Struct, gc=False):
    """`first` is the id of the run's first message, the others follow; None with an error."""

    run: Run
    first: MessageId | None
    error: BusError | None


class WriteResult(msgspec.Struct, gc=False):
    """What a keyspace command did. `runs`: what it appended, for subscribers. `events`: (class, name, key)."""

    op: WriteOp
    outcome: Outcome
    runs: list[RunResult]
    events: list[Event]

    @property
    def reply(self) -> Reply:
        """Made when it is asked for: only the node that somebody waits on needs it."""
        return self.outcome.render() if isinstance(self.outcome, Deferred) else self.outcome


class BatchResult(msgspec.Struct):
    """`results` of runs and of keyspace commands, in their order in the batch."""

    origin: int
    seq: int
    results: list[RunResult | WriteResult]

    @property
    def runs(self) -> list[RunResult]:
        return [result for result in self.results if isinstance(result, RunResult)]


class Applied(msgspec.Struct):
    """`events`: keyspace events that belong to no keyspace command (plain XADD; keys that expired)."""

    time_ms: int
    results: list[BatchResult]
    events: list[Event] = []


class Bus:
    """One shard. `rules` are the first ones, until an entry replaces them; `applied_index` is where its log begins."""

    def __init__(self, rules: Rules, applied_index: int = 0) -> None:
        self._store = Store(rules)
        self.applied_index = applied_index
        self.time_ms = 0
        self.running_hash = bytes(16)

    # --- the log ------------------------------------------------------------------------------------------------------

    def apply(self, index: int, data: bytes) -> Applied:
        """Raises DamagedEntry, UnknownEntry: then nothing was applied, and the node must stop.

        Empty `data` is an entry that is not ours (a leader's empty one, a change of membership).
        """
        assert index > self.applied_index, f"entry {index} after {self.applied_index}"
        if not data:
            self.applied_index = index
            return Applied(self.time_ms, [])
        entry = decode_entry(data)
        store = self._store
        keyspace = store.keyspace
        time_ms = self.time_ms = keyspace.time_ms = max(self.time_ms, entry.time_ms)
        keyspace.index = index
        events: list[Event] = []
        keyspace.events = events
        outcomes: list[int] = []
        results = []
        for batch in entry.batches:
            results.append(BatchResult(batch.origin, batch.seq, self._apply_ops(batch.ops, time_ms, outcomes)))
        store.make_room(time_ms)
        outcomes.extend((store.channels, store.messages, store.bytes, store.memory_bytes, store.dropped, *store.floor))
        outcomes.extend((keyspace.count, keyspace.bytes, keyspace.publish_keys.count, keyspace.sequences.count))
        self.running_hash = xxh3_128_digest(b"".join((self.running_hash, data, array("Q", outcomes))))
        self.applied_index = index
        return Applied(time_ms, results, events)

    def _apply_ops(self, ops: list[Op], time_ms: int, outcomes: list[int]) -> list[RunResult | WriteResult]:
        """A hot path: a turn a run, where runs may be single messages. What is not common is left to `_append`."""
        store = self._store
        partitions = store.partitions
        epoch = store.epoch
        results: list[RunResult | WriteResult] = []
        for run in ops:
            if not isinstance(run, Run):
                if isinstance(run, RulesOp):
                    store.change_rules(run.rules.with_commands_of(store.latest_rules), time_ms)
                else:
                    results.append(self._execute(run, outcomes))
                continue
            name = run.channel
            count = run.count
            channel = partitions[crc32(name) % PARTITIONS].get(name)
            if (
                channel is None
                or channel.is_explicit
                or channel.epoch != epoch
                or channel.rule.is_retired
                or run.kind == XADD
                or count > channel.rule.count
            ):
                outcome = self._append(run, channel, time_ms)
                if isinstance(outcome, BusError):
                    outcomes.append(0)
                    results.append(RunResult(run, None, outcome))
                    continue
                first = outcome
                ms, seq = first
            else:
                if time_ms > channel.last_ms:
                    ms, seq = time_ms, 0
                else:
                    ms, seq = channel.last_ms, channel.last_seq + 1
                body_bytes = run.body_bytes
                start = run.lengths_at
                end = start + 4 * count + body_bytes
                packed = run.data[start:end] if body_bytes < COPY_BYTES else memoryview(run.data)[start:end]
                store.memory_bytes += channel.append(ms, seq, run.kind, count, body_bytes, packed)
                store.messages += count
                store.bytes += body_bytes
                window = channel.rule
                if channel.length > window.count or channel.retained_bytes > window.bytes:
                    store.trim(channel, window, count, body_bytes)
                first = _new(MessageId, (ms, seq))
            outcomes.append(ms)
            outcomes.append(seq)
            results.append(RunResult(run, first, None))
        return results

    def _execute(self, op: WriteOp, outcomes: list[int]) -> WriteResult:
        outcome, appended, events = execute(self._store.keyspace, op.noun, self._append_or_refuse)
        outcomes.extend(effect_of(outcome))
        runs = [RunResult(run, first, None) for run, first in appended]
        for _, first in appended:
            outcomes.extend(first)
        return WriteResult(op, outcome, runs, events)

    def _append_or_refuse(self, run: Run) -> MessageId | BusError:
        return self._append(run, self._store.get(run.channel), self.time_ms)

    def _append(self, run: Run, channel: Channel | None, time_ms: int) -> MessageId | BusError:
        """A run for any channel: a new one, an explicit one, one that a snapshot must keep, one under old rules."""
        store = self._store
        stream = channel.stream if channel is not None else None
        if stream is not None and (store.keyspace.flushed or 0 <= stream.expire_ms <= time_ms):
            store.keyspace.take(run.channel)
        if run.kind == XADD or (channel is not None and channel.is_explicit):
            return append_run(store.keyspace, run, channel)
        if channel is None:
            channel = store.create(run.channel, time_ms)
        elif channel.epoch != store.epoch:
            store.preserve(channel)
        if channel.rule.is_retired:
            store.renew(channel)
        first = MessageId(time_ms, 0)
        if time_ms <= channel.last_ms:
            first = channel.last_id.plus(1)
        if run.count > channel.rule.count:
            return self._append_newest(run, channel, *first)
        end = run.lengths_at + 4 * run.count + run.body_bytes
        taken = channel.append(*first, run.kind, run.count, run.body_bytes, run.data[run.lengths_at : end])
        store.memory_bytes += taken
        store.messages += run.count
        store.bytes += run.body_bytes
        store.trim(channel, channel.rule, run.count, run.body_bytes)
        return first

    def _append_newest(self, run: Run, channel: Channel, ms: int, seq: int) -> MessageId:
        """A run larger than its channel's window: what would be dropped at once is not even kept."""
        store = self._store
        window = channel.rule
        store.discard(channel)
        keep = window.count
        body_bytes, packed = newest(run.data, run.lengths_at, run.count, run.body_bytes, keep)
        channel.skip(ms, seq, run.count - keep)
        store.dropped += run.count - keep
        if keep:
            store.memory_bytes += channel.append(ms, seq + run.count - keep, run.kind, keep, body_bytes, packed)
            store.messages += keep
            store.bytes += body_bytes
            store.trim(channel, window, keep, body_bytes)
        return MessageId(ms, seq)

    @property
    def next_expiry_ms(self) -> int | None:
        """From this time on, an entry with nothing but the time would free something; None if none ever would.

        It may be too early, never too late. While it is at or before `time_ms` there is a backlog: propose at once.
        """
        return self._store.next_due_ms(self.time_ms)

    @property
    def next_key_expiry_ms(self) -> int | None:
        """As `next_expiry_ms`, of keys alone."""
        return self._store.keyspace.next_expiry_ms

    # --- keys ---------------------------------------------------------------------------------------------------------

    def query(self, noun: Noun, now_ms: int) -> Reply:
        """A read of keyspace_commands.py, or XRange, XLen, XRead, XInfoStream. `now_ms`: the asker's wall clock.

        By it is measured what has expired and how long what is idle; if it is behind the entries' time, that holds.
        """
        return query(self._store.keyspace, noun, max(now_ms, self.time_ms))

    def version(self, name: bytes, now_ms: int) -> int:
        """For WATCH, and the `watched` of a Transaction."""
        return self._store.keyspace.version(name, max(now_ms, self.time_ms))

    @property
    def users(self) -> AclState:
        return self._store.keyspace.users

    @property
    def key_count(self) -> int:
        return self._store.keyspace.count

    @property
    def expiring_key_count(self) -> int:
        return self._store.keyspace.expiring_count

    # --- figures ------------------------------------------------------------------------------------------------------

    @property
    def rules(self) -> Rules:
        """The latest; while channels still move to the rules before, these wait."""
        return self._store.latest_rules

    @property
    def has_special_rules(self) -> bool:
        """Of another durability than quorum, or with a limit for payloads: a publish has to be looked at."""
        return self._store.is_special

    @property
    def has_memory_rules(self) -> bool:
        """Of durability memory: who has received what in memory is told among the nodes."""
        return self._store.has_memory_rules

    @property
    def rules_generation(self) -> int:
        """Rises when other rules hold."""
        return self._store.generation

    def rule_of(self, channel: bytes) -> ChannelRule:
        """The rule that holds for a channel now."""
        return self._store.window_for(channel).rule

    @property
    def channel_count(self) -> int:
        return self._store.channels

    def names(self) -> Iterator[bytes]:
        """All channels that have state, in no order that means anything."""
        for partition in self._store.partitions:
            yield from partition

    def partition(self, number: int) -> Collection[Channel]:
        """The channels of one of the registry's PARTITIONS (`crc32(name) % PARTITIONS`)."""
        return self._store.partitions[number].values()

    @property
    def forgotten_until(self) -> MessageId:
        """Of channels without state and without a tombstone no message is above this."""
        return self._store.floor

    def forgotten_after(self, id_: MessageId) -> list[tuple[bytes, MessageId]]:
        """Channels without state whose last message was above this, with its id."""
        packed_id = id_.ms << 64 | id_.seq
        found = [(name, packed) for name, packed in self._store.tombstones.items() if packed > packed_id]
        return [(name, MessageId(packed >> 64, packed & 0xFFFF_FFFF_FFFF_FFFF)) for name, packed in found]

    @property
    def retained_messages(self) -> int:
        """With those too old that the sweep has not met yet."""
        return self._store.messages

    @property
    def retained_bytes(self) -> int:
        """Payloads alone."""
        return self._store.bytes

    @property
    def memory_bytes(self) -> int:
        """With what bookkeeping costs, estimated: what `shard_bytes_max` bounds."""
        return self._store.memory_bytes

    @property
    def dropped_messages(self) -> int:
        """Ever, by windows and for memory."""
        return self._store.dropped

    # --- history ------------------------------------------------------------------------------------------------------

    def channel(self, name: bytes) -> Channel | None:
        return self._store.get(name)

    def length(self, name: bytes) -> int:
        channel = self._store.get(name)
        return 0 if channel is None else history.visible_length(channel, self._store.cut_ms(channel, self.time_ms))

    def last_id(self, name: bytes) -> MessageId:
        """Where to read on from for what comes next: no message up to here is still to come.

        The channel's last id, or 0-0 if it never had a message; if its state is long gone, an id above its last.
        """
        return self._store.last_id(name)

    def range(
        self, name: bytes, first: MessageId, last: MessageId, count: int | None = None, reverse: bool = False
    ) -> list[Message]:
        """Messages with first <= id <= last; the oldest `count`, or with `reverse` the newest, newest first."""
        view = self.view(name)
        return [] if view is None else view.range(first, last, count, reverse)

    def view(self, name: bytes) -> View | None:
        """To read a range in parts; None if the channel has no state. Good until the next entry: see View.frozen."""
        channel = self._store.get(name)
        return None if channel is None else View(channel, self._store.cut_ms(channel, self.time_ms))

    def read_after(
        self,
        name: bytes,
        after: MessageId,
        count: int | None = None,
        bytes_max: int | None = None,
        kinds: int | None = None,
    ) -> ReadResult:
        """What follows `after`. `kinds` is a mask (1 << kind); one message at least is returned, if there is one.

        `gap_until` is exact as long as the channel has state or a tombstone; after that, a gap is reported for every
        `after` below the shard's floor. `more` with no runs: many messages of other kinds were skipped, read on.
        """
        channel = self._store.get(name)
        if channel is None:
            last_id = self._store.last_id(name)
            return ReadResult(last_id if last_id > after else None, [], max(after, last_id), False)
        return history.read_after(channel, self._store.cut_ms(channel, self.time_ms), after, count, bytes_max, kinds)

    def stream_info(self, name: bytes) -> dict[str, object]:
        """length, last_id, max_deleted_id, entries_added, is_explicit, first and last (Message or None)."""
        channel = self._store.get(name)
        last_id = self.last_id(name)
        if channel is None:
            nothing = {"length": 0, "last_id": last_id, "max_deleted_id": last_id, "entries_added": 0}
            return nothing | {"is_explicit": False, "first": None, "last": None}
        cut_ms = self._store.cut_ms(channel, self.time_ms)
        first = self.range(name, MessageId(0, 0), last_id, 1)
        last = self.range(name, MessageId(0, 0), last_id, 1, reverse=True)
        return {
            "length": history.visible_length(channel, cut_ms),
            "last_id": last_id,
            "max_deleted_id": history.dropped_until(channel, cut_ms),
            "entries_added": channel.added,
            "is_explicit": channel.is_explicit and not self._store.keyspace.is_hidden(channel),
            "first": first[0] if first else None,
            "last": last[0] if last else None,
        }

    # --- snapshots ----------------------------------------------------------------------------------------------------

    @property
    def is_flushing(self) -> bool:
        """Keys that FLUSHALL deleted are still being freed by each entry: no snapshot may begin."""
        return bool(self._store.keyspace.flushed)

    def begin_snapshot(self) -> SnapshotWriter:
        """Of the state as it is now, written while `apply` goes on. One at a time, and none `is_flushing`."""
        return SnapshotWriter(self._store, self.applied_index, self.time_ms, self.running_hash)

    @classmethod
    def restored(cls, store: Store, applied_index: int, time_ms: int, running_hash: bytes) -> Bus:
        """For `snapshot.BusRestore`."""
        bus = cls.__new__(cls)
        bus._store = store
        bus.applied_index = applied_index
        bus.time_ms = time_ms
        bus.running_hash = running_hash
        store.keyspace.time_ms, store.keyspace.index = time_ms, applied_index
        return bus

    def release_some(self) -> bool:
        """Once another bus has replaced this one: see release.py."""
        return release_some(self._store)

    def invariants(self) -> None:
        self._store.invariants()


__all__ = ["Applied", "BatchResult", "Bus", "ReadResult", "RunResult", "WriteResult"]
