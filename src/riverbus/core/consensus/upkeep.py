"""What a node does about itself, unasked: spread leaders, agree on rules, let time pass in idle shards.

- Leadership of a shard goes to its preferred node once that is in reach and has caught up, and away from a node whose
  disk is full.
- The channel rules are replicated state: a new leader whose configuration differs from them proposes its own, so that
  all replicas trim alike whatever their files say. Rules that were commanded in shard 0 it proposes to the others.
- A shard that has messages to expire but no traffic gets an entry that carries nothing but the time; one with a key to
  expire, at the next tick.
- A follower that was sent a snapshot and says nothing for a while is sent it again: whatever became of the message,
  raft would wait for the report for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverbus import limits
from riverbus.core.state.entries import BatchBuilder
from riverbus.core.state.rules import RULES_SHARD, commanded_to_bytes, rules_to_bytes
from riverbus.peer_messages import Health
from riverbus.rule_commands import RulesCopy

if TYPE_CHECKING:
    from riverbus.core.consensus.shard import Shard
    from riverbus.core.engine import Engine

_PERIOD_S = 1.0
_SETTLED_S = 3.0  # a leader, and a link, must have lasted this long before leadership is moved
_CAUGHT_UP_ENTRIES = 100
_SNAPSHOT_REPORT_S = 5.0  # an install may take longer: the follower knows a message that it is busy with


class Upkeep:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next_at = 0.0
        self._unwritable: set[int] = set()
        self._up_since: dict[int, float] = {}
        self._leads_since: dict[int, float] = {}
        self._rules = rules_to_bytes(engine.settings.rules)
        self._rules_proposed: dict[int, int] = {}  # shard -> term in which this leader proposed its rules
        self._clock_entry_at: dict[int, float] = {}
        self._snapshot_since: dict[
            tuple[int, int], tuple[int, float]
        ] = {}  # (shard, peer) -> its index, when seen first

    def on_health(self, peer: int, is_writable: bool) -> None:
        if is_writable:
            self._unwritable.discard(peer)
        else:
            self._unwritable.add(peer)

    def on_peer_down(self, peer: int) -> None:
        self._up_since.pop(peer, None)
        self._unwritable.discard(peer)

    def on_leader(self, shard: Shard) -> None:
        """Before anything else is proposed: a new leader brings its rules, if others hold."""
        replica = shard.replica
        if replica.is_leader and self._rules_proposed.get(shard.number) != replica.term:
            self._rules_proposed[shard.number] = replica.term
            self._maybe_propose_rules(shard)

    def _maybe_propose_rules(self, shard: Shard) -> None:
        replica = shard.replica
        if not replica.bus.rules.is_configured_as(self._engine.settings.rules):
            builder = BatchBuilder(self._engine.settings.origin)
            builder.add_rules(self._rules)
            replica.submit(None, 0, builder.finish(0))

    def on_rules(self, shard: Shard) -> None:
        """Other rules hold in a shard: what was commanded in shard 0 is to hold in all."""
        for other in self._engine.shards if shard.number == RULES_SHARD else ():
            self._maybe_copy_rules(other)

    def _maybe_copy_rules(self, shard: Shard) -> None:
        """Whoever commanded did so itself, before it was answered; unless that failed halfway."""
        replica, source = shard.replica, self._engine.shards[RULES_SHARD].replica.bus.rules
        if not replica.is_leader or replica.bus.rules.version >= source.version:
            return
        builder = BatchBuilder(self._engine.settings.origin)
        builder.add_write(RulesCopy(source.version, commanded_to_bytes(source)))
        replica.submit(None, 0, builder.finish(0))
        self._engine.mark(shard.number)

    def on_tick(self) -> None:
        engine = self._engine
        for shard in engine.shards:
            if shard.replica.is_leader:
                self._maybe_propose_clock(shard)
        if engine.now < self._next_at:
            return
        self._next_at = engine.now + _PERIOD_S
        for peer in engine.peers:
            if engine.links.is_up(peer):
                self._up_since.setdefault(peer, engine.now)
                engine.links.send(peer, Health(not engine.is_disk_full))
        for shard in engine.shards:
            if not shard.replica.is_leader:
                self._leads_since.pop(shard.number, None)
                continue
            self._leads_since.setdefault(shard.number, engine.now)
            if shard.replica.has_committed_in_term and not shard.replica.has_submitted:
                self._maybe_propose_rules(shard)  # the first proposal may have been refused: too much was waiting
                self._maybe_copy_rules(shard)
            self._maybe_transfer(shard)
            self._maybe_send_snapshot_again(shard)

    def _maybe_propose_clock(self, shard: Shard) -> None:
        engine, bus = self._engine, shard.replica.bus
        expiry_ms = bus.next_expiry_ms
        if expiry_ms is None or expiry_ms > engine.wall_ms():
            return
        key_ms = bus.next_key_expiry_ms
        is_key_due = key_ms is not None and key_ms <= engine.wall_ms()  # somebody may wait for its event
        has_backlog = expiry_ms <= bus.time_ms  # one entry sweeps a bounded part
        if (
            has_backlog
            or is_key_due
            or engine.now - self._clock_entry_at.get(shard.number, 0.0) >= limits.CLOCK_ENTRY_S
        ):
            self._clock_entry_at[shard.number] = engine.now
            shard.replica.want_clock_entry()

    def _maybe_transfer(self, shard: Shard) -> None:
        engine, replica = self._engine, shard.replica
        if engine.now - self._leads_since[shard.number] < _SETTLED_S:
            return
        preferred = engine.settings.preferred_leader(shard.number)
        candidates = [preferred] if preferred != engine.settings.node else []
        if engine.is_disk_full:
            candidates = [preferred, *engine.peers]
        for peer in candidates:
            if peer != engine.settings.node and self._is_fit(peer, shard):
                replica.transfer(peer)
                return

    def _maybe_send_snapshot_again(self, shard: Shard) -> None:
        replica, now = shard.replica, self._engine.now
        progress = replica.raft.status()["progress"]
        assert isinstance(progress, dict)
        for peer, its in progress.items():
            key = (shard.number, peer)
            index = its["pending_snapshot"] if its["state"] == "snapshot" else 0
            known = self._snapshot_since.get(key)
            if not index:
                self._snapshot_since.pop(key, None)
            elif known is None or known[0] != index:
                self._snapshot_since[key] = (index, now)
            elif now - known[1] >= _SNAPSHOT_REPORT_S:
                del self._snapshot_since[key]
                replica.raft.report(peer, "snapshot_failed")
                replica.advance()

    def _is_fit(self, peer: int, shard: Shard) -> bool:
        """Can the peer take over now: in reach for a while, disk not full, its log nearly ours?"""
        engine = self._engine
        up_since = self._up_since.get(peer)
        if up_since is None or engine.now - up_since < _SETTLED_S or peer in self._unwritable:
            return False
        status = shard.replica.raft.status()
        progress = status["progress"]
        assert isinstance(progress, dict)
        matched = progress.get(peer, {}).get("matched", 0)
        return bool(matched + _CAUGHT_UP_ENTRIES >= shard.replica.applied_index)
