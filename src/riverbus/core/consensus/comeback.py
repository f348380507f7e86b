"""A node that restarts may have forgotten entries that it was counted with (receipts.py): until it has them again it
votes for nobody, and does not stand itself.

Source: the recovery of Viewstamped Replication Revisited (Liskov and Cowling, 2012, section 4.3), where nothing is on a
disk at all: a replica that comes back takes no part before it has what the others have. Here: it asks on every tick
(`Recall`); the shard's leader says where its log ends, and once this node's log in memory has that, of that term, all
is as if it had never been away. Raft allows to lose any message, so a request for a vote is dropped like a lost one.

It ends otherwise, too, for a majority of living nodes must go on (promise 6): at once when a majority of the nodes is
coming back, for then what was only in memory may be gone whoever leads; and after `COMEBACK_TICKS` without a leader,
which is twice what the others need to elect one without it. Where the others can't, being cut off or down as well, more
nodes are missing than durability `memory` stands for (docs/durability.md).
"""

from __future__ import annotations

from riverbus._native import Log
from riverbus.core.consensus.replica import Replica
from riverbus.core.ports import Links
from riverbus.limits import COMEBACK_TICKS
from riverbus.peer_messages import Recall, Recalled

_VOTING = (5, 14, 17)  # eraftpb.MessageType: MsgRequestVote, MsgTimeoutNow, MsgRequestPreVote
_FRESH_TICKS = 3  # so long a peer that said it is coming back counts as one: it says so on every tick


class Comeback:
    """Of one shard. `is_needed`: the last life of this node may have been counted."""

    def __init__(self, replica: Replica, log: Log, links: Links, peers: tuple[int, ...], is_needed: bool) -> None:
        self.is_under_way = is_needed and bool(peers)
        self._replica = replica
        self._log = log
        self._links = links
        self._peers = peers
        self._ticks = 0
        self._others: dict[int, int] = {}  # coming back as well -> the tick when they said so
        self._target: tuple[int, int] | None = None  # term, index

    def admits(self, kind: int) -> bool:
        """May raft see a message of this type now?"""
        return not self.is_under_way or kind not in _VOTING

    def on_tick(self) -> None:
        if not self.is_under_way:
            return
        self._ticks += 1
        if self._ticks >= COMEBACK_TICKS:
            self.is_under_way = False
            return
        for peer in self._peers:
            self._links.send(peer, Recall(self._replica.shard))

    def on_recall(self, peer: int) -> None:
        replica = self._replica
        if replica.is_leader:
            last = self._log.last_index(replica.shard)
            self._links.send(peer, Recalled(replica.shard, replica.term, last))
        elif self.is_under_way:
            if peer not in self._others:  # it may not have heard of this one yet, and would not once this is over
                self._links.send(peer, Recall(replica.shard))
            self._others[peer] = self._ticks
            fresh = sum(self._ticks - since <= _FRESH_TICKS for since in self._others.values())
            if fresh + 1 >= (len(self._peers) + 1) // 2 + 1:
                self.is_under_way = False

    def on_recalled(self, peer: int, answer: Recalled) -> None:
        if peer == self._replica.leader and answer.term == self._replica.term:
            self._target = (answer.term, answer.log_index)

    def on_turn(self) -> None:
        if not self.is_under_way or self._target is None:
            return
        replica = self._replica
        term, index = self._target
        last = self._log.last_index(replica.shard)
        if replica.term == term and last >= index and replica.raft.term_of(last) == term:
            self.is_under_way = False
