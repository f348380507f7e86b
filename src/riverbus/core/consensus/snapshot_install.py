"""How a replica that is too far behind gets the shard's state from its leader.

Raft's snapshot message carries a descriptor only. The bulk is fetched first, over its own connection; its state is
built aside, slice by slice; only then is Raft given the message, and `Replica` swaps the state in, in the same log
batch as Raft's own records. Whatever fails is reported to the leader, whose progress for this replica is paused until
it hears.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from riverbus._native import BadMessage, Raft
from riverbus.core.consensus.replica import Replica
from riverbus.core.ports import Snapshots
from riverbus.core.state.bus import Bus
from riverbus.core.state.rules import Rules
from riverbus.core.state.snapshot import BusRestore, DamagedSnapshot
from riverbus.peer_messages import PeerMessage, SnapshotStatus


class SnapshotInstall:
    """One replica's way from the leader's descriptor to a restored state. At most one is under way."""

    def __init__(
        self, replica: Replica, snapshots: Snapshots, initial_rules: Rules, say: Callable[[int, PeerMessage], None]
    ):
        self._replica = replica
        self._snapshots = snapshots
        self._initial_rules = initial_rules
        self._say = say
        self._message: bytes | None = None
        self._leader = 0
        self._index = 0
        self._slices: Iterator[bytes] | None = None
        self._restore: BusRestore | None = None
        self._restored: Bus | None = None
        self._freeing: list[Callable[[], bool]] = []  # states that are of no more use: what frees a part of each
        self.installed = 0
        self.failed = 0
        self.last_failure: str | None = None

    @property
    def has_work(self) -> bool:
        """`on_turn` has something to do."""
        return self._slices is not None or bool(self._freeing)

    @property
    def is_under_way(self) -> bool:
        return self._message is not None

    def on_raft_snapshot(self, leader: int, raft_message: bytes) -> None:
        """A snapshot message arrived: fetch what it describes, or pass it on if it brings nothing new."""
        described = Raft.peek_snapshot(raft_message)
        if described is None or described[0] <= self._replica.applied_index:
            self._replica.raft.step(raft_message, leader)
            return
        if self._message is not None:
            if described[0] == self._index and leader == self._leader:
                self._message = raft_message  # sent again, perhaps in a newer term
            return
        self._message, self._leader, self._index = raft_message, leader, described[0]
        index = described[0]
        if index in self._snapshots.indexes(self._replica.shard):
            self._begin_restore()
        else:
            self._snapshots.fetch(leader, self._replica.shard, index, lambda failure: self._on_fetched(index, failure))

    def on_turn(self) -> None:
        """Feed one slice to the state that is being built; after the last one, give Raft its message."""
        if self._freeing and not self._freeing[0]():
            del self._freeing[0]
        if self._slices is None or self._restore is None:
            return
        try:
            framed = next(self._slices, None)
            if framed is not None:
                self._restore.feed(framed)
                return
            self._restored = self._restore.finish()
        except (OSError, ValueError, DamagedSnapshot) as error:
            self._snapshots.delete(self._replica.shard, self._index)
            self._fail(f"snapshot {self._index} of shard {self._replica.shard}: {error}")
            return
        assert self._message is not None
        message, leader = self._message, self._leader
        self._slices = self._restore = self._message = None
        try:
            self._replica.raft.step(message, leader)
        except BadMessage as error:
            self._fail(str(error))
            return
        self._replica.advance()
        if self._restored is None:
            self.installed += 1
            self._say(leader, SnapshotStatus(self._replica.shard, True))
        else:
            # Raft had no use for it any more (the log had caught up, or the term is over).
            self.free(self._restored)
            self._restored = None
            self._say(leader, SnapshotStatus(self._replica.shard, False))

    def free(self, old: Bus) -> None:
        """A state that another has replaced, in the turns to come: a large one takes some time."""
        self._freeing.append(old.release_some)

    def take_restored(self, index: int) -> Bus:
        restored, self._restored = self._restored, None
        assert restored is not None, "Raft installs only what was restored"
        assert restored.applied_index == index, "what was restored is the snapshot that Raft installs"
        return restored

    def _begin_restore(self) -> None:
        self._restore = BusRestore(self._initial_rules)
        self._slices = iter(self._snapshots.read(self._replica.shard, self._index))

    def _on_fetched(self, index: int, failure: str | None) -> None:
        if self._message is None or index != self._index:
            return
        if failure is not None:
            self._fail(failure)
            return
        self._begin_restore()

    def _fail(self, reason: str) -> None:
        self.failed += 1
        self.last_failure = reason
        leader = self._leader
        if self._restored is not None:
            self.free(self._restored)
        elif self._restore is not None:
            self._freeing.append(self._restore.release_some)
        self._slices = self._restore = self._restored = self._message = None
        self._say(leader, SnapshotStatus(self._replica.shard, False))
