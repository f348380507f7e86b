"""One replica of one shard: drives the native Raft, and applies what it commits to the shard's state machine.

The order of durable steps stands here, once:

1. any input (tick, step, propose, persisted, a barrier) is followed by `advance`, before the turn ends;
2. `advance` takes each Ready in turn: its entries and hard state are queued for the log; what a leader may say before
   its disk has it (thesis 10.2.1) is sent at once; committed entries are applied in order, and acknowledged by that;
3. at the end of the turn the engine flushes the log, once for all shards;
4. when the log has a batch on disk, `persisted` releases what had to wait for it: every message of a follower, and
   this replica's own vote for its entries. So an applied entry is on the disk of this leader and of a majority.

A batch of publishes enters by `submit` (leader only); the turn's batches become as few entries as their size allows.
Leaves to others: who waits for a batch (router.py), snapshots (snapshots.py), subscribers (fanout.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from riverbus import limits
from riverbus._native import ENTRY_CONF_CHANGE, LEADER, NotLeader, ProposalDropped, Raft
from riverbus.core.ports import Links
from riverbus.core.state.bus import Applied, Bus
from riverbus.core.state.entries import encode_entry
from riverbus.messages import NotAccepted, Overloaded
from riverbus.peer_messages import Proposed, RaftMessage, Rejected

_ENTRY_FRAMING_BYTES = 32  # what an entry costs in the log besides its data, about
_new = tuple.__new__  # makes a noun in half the time


class Host(Protocol):
    """What a replica needs of the engine that holds it."""

    flushed_batch: int  # the log's last batch that was handed to its thread

    def on_applied(self, replica: Replica, index: int, applied: Applied) -> None: ...

    def on_proposed(self, shard: int, seq: int, index: int) -> None: ...

    def on_rejected(self, shard: int, seq: int, code: str, reason: str) -> None: ...

    def on_read_ready(self, shard: int, context: bytes, index: int) -> None: ...

    def on_leader(self, replica: Replica) -> None: ...

    def on_snapshot_installed(self, replica: Replica, old: Bus) -> None: ...


class Replica:
    """`peer` in `submit` is None for this node's own batches."""

    def __init__(
        self, shard: int, node: int, raft: Raft, bus: Bus, links: Links, host: Host, take_restored: Callable[[int], Bus]
    ) -> None:
        self.shard = shard
        self.node = node
        self.raft = raft
        self.bus = bus
        self.role = 0
        self.term = 0
        self.leader = 0  # node id, 0 while unknown
        self.applied_index = bus.applied_index
        self.logged_bytes = 0  # of entries applied since the start; what snapshots and compaction measure by
        self.has_committed_in_term = False
        self.proposed_index = 0  # the last entry that this replica proposed
        self.proposed_for: dict[int, int] = {}  # by peer: the last entry with something that it forwarded, as leader
        self.awaits_batch = 0  # the last batch of the log that this replica has something in
        self._links = links
        self._host = host
        self._take_restored = take_restored
        self._submitted: list[tuple[int | None, int, bytes]] = []
        self._wants_clock_entry = False
        self._is_transferring = False  # leadership is on its way to another: raft takes no proposals meanwhile

    # --- inputs -----------------------------------------------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        return self.role == LEADER

    def submit(self, peer: int | None, seq: int, batch: bytes) -> None:
        self._submitted.append((peer, seq, batch))

    def want_clock_entry(self) -> None:
        """Let the next proposal go out even if it is empty: an entry whose time expires what is due."""
        self._wants_clock_entry = True

    @property
    def is_settled(self) -> bool:
        """All that this leader proposed is applied."""
        return self.proposed_index <= self.applied_index

    @property
    def has_submitted(self) -> bool:
        return bool(self._submitted) or self._wants_clock_entry

    def propose(self, wall_ms: int) -> None:
        """Turn what was submitted into entries of about ENTRY_BYTES_TARGET, in order of arrival."""
        submitted, self._submitted = self._submitted, []
        if not submitted and self._wants_clock_entry:
            self._wants_clock_entry = False
            self._propose_entry(wall_ms, [])
        at = 0
        while at < len(submitted):
            if self._submitted:  # a transfer began: what is left waits with it
                self._submitted += submitted[at:]
                return
            size = len(submitted[at][2])
            end = at + 1
            while end < len(submitted) and size + len(submitted[end][2]) <= limits.ENTRY_BYTES_TARGET:
                size += len(submitted[end][2])
                end += 1
            self._propose_entry(wall_ms, submitted[at:end])
            at = end

    def _propose_entry(self, wall_ms: int, submitted: list[tuple[int | None, int, bytes]]) -> None:
        try:
            index, _ = self.raft.propose(encode_entry(wall_ms, [batch for _, _, batch in submitted]))
        except NotLeader:
            self._reject(submitted, NotAccepted.code, "this node no longer leads the shard")
            return
        except ProposalDropped:
            if self._is_transferring:
                self._submitted += submitted
            else:
                self._reject(submitted, Overloaded.code, "too much is waiting to be replicated")
            return
        self._is_transferring = False
        self.proposed_index = index
        for peer, seq, _ in submitted:
            if peer is None:
                self._host.on_proposed(self.shard, seq, index)
            else:
                self.proposed_for[peer] = index
                self._links.send(peer, Proposed(self.shard, seq, index, self.term))

    def transfer(self, peer: int) -> None:
        """Hand leadership to a peer. What is submitted meanwhile waits; raft gives up after an election timeout."""
        self._is_transferring = True
        self.raft.transfer(peer)
        self.advance()

    def _reject(self, submitted: list[tuple[int | None, int, bytes]], code: str, reason: str) -> None:
        for peer, seq, _ in submitted:
            if peer is None:
                self._host.on_rejected(self.shard, seq, code, reason)
            else:
                self._links.send(peer, Rejected(self.shard, seq, code, reason))

    def persisted(self, batch: int) -> None:
        for to, data in self.raft.persisted(batch):
            self._links.send(to, _new(RaftMessage, (self.shard, data)))

    # --- the loop ---------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Take every Ready that the raft has."""
        raft, links, shard = self.raft, self._links, self.shard
        while (ready := raft.ready()) is not None:
            if ready.must_sync:
                self.awaits_batch = self._host.flushed_batch + 1
            if (snapshot := ready.snapshot) is not None:
                self._install(snapshot[0])
            for to, data in ready.send_now:
                links.send(to, _new(RaftMessage, (shard, data)))
            changed = ready.leader != self.leader or ready.role != self.role or ready.term != self.term
            if changed:
                self._become(ready.role, ready.term, ready.leader)
            if committed := ready.committed:
                self._apply(committed)
            for index, context in ready.read_states:
                self._host.on_read_ready(shard, context, index)
            if not (committed or snapshot or ready.has_more):
                return  # most have none behind them: not asked for once more

    def _become(self, role: int, term: int, leader: int) -> None:
        if term != self.term:
            self.has_committed_in_term = False
            self.proposed_for.clear()
        self.role, self.term, self.leader = role, term, leader
        self._is_transferring = False
        if role != LEADER and self._submitted:
            submitted, self._submitted = self._submitted, []
            self._reject(submitted, NotAccepted.code, "this node no longer leads the shard")
        self._host.on_leader(self)

    def _apply(self, committed: list[tuple[int, int, int, bytes]]) -> None:
        on_applied, apply = self._host.on_applied, self.bus.apply
        for index, term, kind, data in committed:
            assert index == self.applied_index + 1, f"shard {self.shard}: {index} follows {self.applied_index}"
            self.applied_index = index
            self.logged_bytes += len(data) + _ENTRY_FRAMING_BYTES
            if term == self.term:
                self.has_committed_in_term = True
            # The kind comes before emptiness: leaving a joint configuration is a conf change with no data.
            if kind == ENTRY_CONF_CHANGE:
                self.raft.apply_conf(index, kind, data)
                data = b""
            on_applied(self, index, apply(index, data))
        self.raft.applied(self.applied_index)

    def _install(self, index: int) -> None:
        """The raft took a snapshot whose state was restored beforehand: from here on this is the state."""
        old, self.bus = self.bus, self._take_restored(index)
        self.raft.applied(index)
        self.applied_index = index
        assert self.bus.applied_index == index, "a snapshot's state must be at the snapshot's index"
        self._host.on_snapshot_installed(self, old)

    def invariants(self) -> None:
        assert self.bus.applied_index == self.applied_index
        assert self.is_leader or not self._submitted
        assert (self.role == LEADER) == (self.leader == self.node)
