"""Who has which entries of one shard in memory: what an answer under a rule of durability `memory` rests on.

Raft is as it is: an entry is committed once a majority has it on disk, and applied after that. Beside it a follower
says, with the frames of the turn in which it accepted the leader's entries, up to where its log in memory is the
leader's (`Received`); the leader counts itself and them, and tells those whose batches a majority has (`Held`).

Why that is enough, as long as no majority of the nodes loses its memory at once: a log whose last entry is of the
leader's term is the leader's up to there (log matching), and a node votes by the log that it has in memory, for nobody
whose log is behind it. So of any two majorities, one that has the entry and one that votes, a common node lets none win
that hasn't it. What Raft's proof wants of that node and a restart would break, its memory, comeback.py makes up for; it
needs two things on the disk before a node may be counted, and this part waits for both: the term in which it says so
(no leader of an earlier one can then tell it that it has forgotten nothing), and a mark that it has said anything.

Nothing is sent or counted for a shard without such a rule. Leaves to others: who waits (router.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from riverbus._native import BadMessage, Log
from riverbus.core.consensus.replica import Replica
from riverbus.core.consensus.router import Route
from riverbus.core.ports import Links
from riverbus.peer_messages import Held, Received

MARK_KEY = b"memory"  # in the log's records of the shard: this node may have been counted with what was only in memory


class Batches(Protocol):
    """The log's batches, as the engine counts them."""

    flushed_batch: int
    completed_batch: int


class Receipts:
    """Of one shard. `is_on`: some rule in force here is of durability memory."""

    def __init__(
        self,
        replica: Replica,
        route: Route,
        log: Log,
        links: Links,
        batches: Batches,
        peers: tuple[int, ...],
        receivers: Callable[[bytes, int], int],
    ) -> None:
        self.is_on = False
        self.has_turn = False  # `on_turn` has something to do: kept, for it is asked at the end of every turn
        self._replica = replica
        self._route = route
        self._log = log
        self._links = links
        self._batches = batches
        self._peers = peers
        self._majority = (len(peers) + 1) // 2 + 1
        self._receivers = receivers
        self._is_marked = log.get_meta(replica.shard, MARK_KEY) is not None
        self._certain_from = 0  # the batch of the log with the mark, and with the present term
        self._counted: int | None = None  # the highest index that this node was counted with; None: not known yet
        self._term = 0
        self._said: tuple[int, int] = (0, 0)  # leader, index: as follower
        self._received: dict[int, int] = {}  # by peer, in this term: as leader
        self._held = 0
        self._told: dict[int, int] = {}  # by peer

    @property
    def was_counted(self) -> bool:
        """At the start: this node may have been counted with entries that it has no more."""
        return self._is_marked

    def on_rules(self) -> None:
        """Other rules may hold."""
        self.is_on = self._replica.bus.has_memory_rules
        if self.is_on and not self._is_marked:
            self._is_marked = True
            self._log.put_meta(self._replica.shard, MARK_KEY, b"1")
            self._certain_from = self._batches.flushed_batch + 1
        self.has_turn = self.is_on or self._is_marked

    def on_received(self, peer: int, term: int, index: int) -> None:
        """A follower has the log up to `index` in memory. Raises BadMessage."""
        replica = self._replica
        if not replica.is_leader or term != replica.term:
            return  # of a term that is over
        if index > self._log.last_index(replica.shard):
            raise BadMessage("has received what was never sent")
        self._begin_term()
        self._received[peer] = max(index, self._received.get(peer, 0))

    def on_link(self, peer: int) -> None:
        """A link is up or down: it may be another life of the node that is at its end."""
        self._received.pop(peer, None)
        self._said = (0, 0)

    def on_turn(self) -> None:
        """The end of a turn: all entries that came in it are in memory. Not while the node comes back."""
        replica = self._replica
        last = self._log.last_index(replica.shard)
        if self._counted is None:
            self._counted = last  # with what an earlier life was counted: it is here again
        if not self.is_on:
            self._maybe_unmark()
            return
        self._begin_term()
        is_certain = self._batches.completed_batch >= self._certain_from
        if not is_certain or replica.raft.term_of(last) != replica.term:
            return
        if replica.is_leader:
            self._counted = max(last, self._counted)
            self._count(last)
        elif replica.leader and self._said != (replica.leader, last):
            self._said = (replica.leader, last)
            self._counted = max(last, self._counted)
            self._links.send(replica.leader, Received(replica.shard, replica.term, last))

    def _begin_term(self) -> None:
        if self._term != self._replica.term:
            self._term = self._replica.term
            self._certain_from = max(self._certain_from, self._replica.awaits_batch)
            self._said = (0, 0)
            self._received.clear()
            self._told.clear()
            self._held = 0

    def _count(self, last: int) -> None:
        """The leader's own log ends at `last`: up to where has a majority what it has?"""
        replica = self._replica
        places = sorted([last, *(self._received.get(peer, 0) for peer in self._peers)], reverse=True)
        held = places[self._majority - 1]
        if held <= self._held:
            return
        self._held = held
        self._route.on_held(replica.term, held, self._receivers)
        for peer, proposed in replica.proposed_for.items():
            if self._told.get(peer, 0) < proposed:
                self._told[peer] = held
                self._links.send(peer, Held(replica.shard, replica.term, held))

    def on_held(self, peer: int, term: int, index: int) -> None:
        """The leader of `term` says so of what was forwarded to it."""
        replica = self._replica
        if peer == replica.leader and term == replica.term:
            self._route.on_held(term, index, self._receivers)

    def _maybe_unmark(self) -> None:
        """No rule asks for it any more, and all that this node was counted with is committed."""
        if self._is_marked and self._counted is not None and self._replica.applied_index >= self._counted:
            self._is_marked = self.has_turn = False
            self._log.put_meta(self._replica.shard, MARK_KEY, None)
