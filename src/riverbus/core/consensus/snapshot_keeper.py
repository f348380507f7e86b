"""When a shard's state is written down, and when its log is cut.

A point-in-time view of the bus is written slice by slice, one a turn, while traffic goes on. Once its file is durable
the snapshot is recorded in the log's meta data and offered to Raft; then the log before it is compacted, but for a tail
that lets a restarted node catch up without a snapshot. A shard takes one after so many bytes of log or, if anything was
logged, after so much time: compaction does not wait for messages to flow.

Invariant: the log's record names a snapshot whose file is durable; the file before it goes when that record is durable.
"""

from __future__ import annotations

from collections import deque

import msgspec

from riverbus import limits
from riverbus._native import Log
from riverbus.core.consensus.replica import Replica
from riverbus.core.ports import SnapshotFile, Snapshots
from riverbus.core.state.snapshot_writer import SnapshotWriter

META_KEY = b"snapshot"
_BACKLOG_BYTES_MAX = 8 * limits.MIB  # queued for the file and not yet written: then no slice is made
_MARK_BYTES = limits.MIB  # the log's tail is measured in steps of this size


class Descriptor(msgspec.Struct, frozen=True):
    """What is known of a snapshot: in the log's meta data, and in Raft's snapshot message."""

    index: int
    term: int
    conf_state: bytes


def read_descriptor(log: Log, shard: int) -> Descriptor | None:
    record = log.get_meta(shard, META_KEY)
    return None if record is None else msgspec.msgpack.decode(record, type=Descriptor)


class SnapshotKeeper:
    """Takes a replica's snapshots and compacts its log."""

    def __init__(
        self, replica: Replica, log: Log, snapshots: Snapshots, trailing_bytes: int, trailing_s: float
    ) -> None:
        self._replica = replica
        self._log = log
        self._snapshots = snapshots
        self._trailing_bytes = trailing_bytes
        self._trailing_s = trailing_s
        self._last_at: float | None = None
        self._last_bytes = 0
        self._last = read_descriptor(log, replica.shard)
        self._marks: deque[tuple[int, int]] = deque()  # (bytes logged up to, index), about every _MARK_BYTES
        self._writer: SnapshotWriter | None = None
        self._file: SnapshotFile | None = None
        self._taking: Descriptor | None = None
        self._obsolete: list[int] = []  # snapshots to delete once the log has the record of their successor on disk
        self._obsolete_after: int | None = None
        self.taken = 0
        self.failed = 0
        self.last_failure: str | None = None
        if self._last is not None:
            self._offer(self._last)

    @property
    def is_busy(self) -> bool:
        """True while a slice could be made now: the engine then asks for another turn soon."""
        return self._writer is not None and self._file is not None and self._file.backlog_bytes < _BACKLOG_BYTES_MAX

    @property
    def last_index(self) -> int:
        return 0 if self._last is None else self._last.index

    def on_turn(self) -> None:
        """Make one slice of the snapshot that is being taken, if there is one."""
        if not self.is_busy:
            return
        assert self._writer is not None
        assert self._file is not None
        framed = self._writer.next_slice(limits.SNAPSHOT_CHUNK_BYTES)
        if framed is not None:
            self._file.write(framed)
            return
        self._writer = None
        self._file.commit(self._on_committed)

    def on_tick(self, now: float, flushed: int, completed: int) -> None:
        """Begin a snapshot when it is due. `flushed` and `completed`: the log's last batches handed over, on disk."""
        replica = self._replica
        if self._obsolete:
            self._delete_obsolete(flushed, completed)
        if not self._marks or replica.logged_bytes - self._marks[-1][0] >= _MARK_BYTES:
            self._marks.append((replica.logged_bytes, replica.applied_index))
        if self._last_at is None:
            self._last_at = now
        if self._taking is not None or replica.applied_index <= self.last_index:
            return
        grown = replica.logged_bytes - self._last_bytes
        # A snapshot costs what is retained: let the log grow in proportion, or a large window is written for ever.
        is_due = grown >= self._trailing_bytes and grown >= replica.bus.retained_bytes // 2
        is_old = grown > 0 and now - self._last_at >= self._trailing_s
        wanted = replica.raft.snapshot_wanted()
        if is_due or is_old or (wanted is not None and wanted > self.last_index):
            self.begin(now)

    def begin(self, now: float) -> bool:
        """Start taking a snapshot at the applied index; False while one is under way, nothing is new, or a flush."""
        replica = self._replica
        if self._taking is not None or replica.applied_index <= self.last_index or replica.bus.is_flushing:
            return False
        term = replica.raft.term_of(replica.applied_index)
        assert term is not None, "the applied entry's term is known until its log is compacted"
        self._taking = Descriptor(replica.applied_index, term, replica.raft.conf_state())
        self._writer = replica.bus.begin_snapshot()
        self._file = self._snapshots.create(replica.shard, replica.applied_index)
        self._last_at = now
        self._last_bytes = replica.logged_bytes
        return True

    def on_installed(self, index: int) -> None:
        """A newer state came from the leader: what was being taken is void, and the installed one is the snapshot."""
        if self._writer is not None:
            self._writer.abort()
        if self._file is not None and self._taking is not None:
            self._file.abort()
        self._writer = self._file = self._taking = None
        self._marks.clear()
        raft = self._replica.raft
        term = raft.term_of(index)
        assert term is not None, "an installed snapshot's term is the log's truncated term"
        self._record(Descriptor(index, term, raft.conf_state()))

    def _on_committed(self, failure: str | None) -> None:
        taken, self._taking, self._file = self._taking, None, None
        if taken is None or taken.index <= self.last_index:
            return  # an installed snapshot overtook it
        if failure is not None:
            self.failed += 1
            self.last_failure = failure
            return
        self.taken += 1
        self._record(taken)
        self._compact(taken)

    def _record(self, taken: Descriptor) -> None:
        self._last = taken
        self._log.put_meta(self._replica.shard, META_KEY, msgspec.msgpack.encode(taken))
        self._offer(taken)
        self._obsolete = [index for index in self._snapshots.indexes(self._replica.shard) if index < taken.index]
        self._obsolete_after = None

    def _delete_obsolete(self, flushed: int, completed: int) -> None:
        if self._obsolete_after is None:
            # The record may have been queued in this very turn, whose batch has the next number.
            self._obsolete_after = flushed + 1
        if completed >= self._obsolete_after:
            for index in self._obsolete:
                self._snapshots.delete(self._replica.shard, index)
            self._obsolete = []

    def _offer(self, taken: Descriptor) -> None:
        self._replica.raft.offer_snapshot(taken.index, taken.term, taken.conf_state, msgspec.msgpack.encode(taken))

    def _compact(self, taken: Descriptor) -> None:
        keep_from = self._replica.logged_bytes - self._trailing_bytes
        cut = 0
        while self._marks and self._marks[0][0] <= keep_from and self._marks[0][1] <= taken.index:
            cut = self._marks.popleft()[1]
        if cut:
            self._replica.raft.compact(cut)
            self._log.purge()
