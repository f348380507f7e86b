"""What nobody outside may see, watched while a world runs: C12 and C13, and the trace that names a run.

C12: the running hash after an entry is equal on all replicas, at all times, in every life. C13: one leader a term and
shard; the term and the vote that were on disk are there again after a restart. The trace covers each event of the
history, each applied entry with its state's hash, each change of a role and each fault.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import xxhash

from riverbus._native import LEADER, Log
from riverbus.core.bus import Applied, Bus
from riverbus.core.engine import Engine
from riverbus.core.ports import Access, Links, Snapshots
from riverbus.core.replica import Replica
from riverbus.core.shard import Settings
from riverbus.messages import MessageId
from riverbus.sim.checkers import Violation

_ITEMS_PER_UPDATE = 512
_encode = msgspec.msgpack.Encoder().encode


class Trace:
    """A digest of all that is added, in order."""

    def __init__(self) -> None:
        self._items: list[object] = []
        self._digest = xxhash.xxh3_128()

    def add(self, item: object) -> None:
        self._items.append(item)
        if len(self._items) >= _ITEMS_PER_UPDATE:
            self._update()

    def _update(self) -> None:
        self._digest.update(_encode(self._items))
        self._items.clear()

    def hexdigest(self) -> str:
        self._update()
        return self._digest.hexdigest()


class Observer:
    def __init__(self) -> None:
        self.trace = Trace()
        self.violations: list[Violation] = []
        self.elections = 0
        self.entries = 0
        self.snapshots_installed = 0
        self._hashes: dict[
            tuple[int, int], tuple[bytes, int]
        ] = {}  # (shard, index) -> hash, the node that had it first
        self._runs: dict[bytes, list[tuple[MessageId, int]]] = {}  # by channel: first id and count, in order
        self._leaders: dict[tuple[int, int], int] = {}  # (shard, term) -> node
        self._durable: dict[tuple[int, int], list[tuple[int, int, int]]] = {}  # (node, shard) -> (batch, term, vote)

    def on_applied(self, node: int, shard: int, index: int, digest: bytes, applied: Applied) -> None:
        self.entries += 1
        self.trace.add((node, shard, index, digest))
        known = self._hashes.get((shard, index))
        if known is None:
            self._hashes[shard, index] = (digest, node)
            for batch in applied.results:
                for result in batch.runs:
                    if result.first is not None:
                        self._runs.setdefault(result.run.channel, []).append((result.first, result.run.count))
        elif known[0] != digest:
            text = f"after entry {index} node {node} has {digest.hex()}, node {known[1]} had {known[0].hex()}"
            self.violations.append(Violation("C12", f"shard {shard}", text))

    def newer_than(self, channel: bytes, id_: MessageId, enough: int) -> int:
        """How many messages with a higher id the channel has had so far; counts no further than `enough`."""
        newer = 0
        for first, count in reversed(self._runs.get(channel, [])):
            newer += sum(first.plus(offset) > id_ for offset in range(count))
            if first <= id_ or newer >= enough:
                break
        return newer

    def on_role(self, node: int, shard: int, role: int, term: int, leader: int) -> None:
        self.trace.add((node, shard, role, term, leader))
        if role != LEADER:
            return
        self.elections += 1
        other = self._leaders.setdefault((shard, term), node)
        if other != node:
            self.violations.append(Violation("C13", f"shard {shard}", f"nodes {other} and {node} both led term {term}"))

    def on_flushed(self, node: int, shard: int, batch: int, term: int, vote: int) -> None:
        """Term and vote that will be on disk with a batch."""
        self._durable.setdefault((node, shard), []).append((batch, term, vote))

    def on_recovered(self, node: int, shard: int, durable_batch: int, term: int, vote: int) -> None:
        kept = [each for each in self._durable.pop((node, shard), []) if each[0] <= durable_batch]
        if not kept:
            return
        _, old_term, old_vote = kept[-1]
        if term < old_term or (term == old_term and old_vote not in (0, vote)):
            text = f"node {node} had term {old_term} and vote {old_vote} on disk, and came back with {term} and {vote}"
            self.violations.append(Violation("C13", f"shard {shard}", text))

    def on_wiped(self, node: int) -> None:
        for key in [key for key in self._durable if key[0] == node]:
            del self._durable[key]


class ObservedEngine(Engine):
    """The production engine, with somebody who looks on."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        links: Links,
        snapshots: Snapshots,
        access: Access,
        touch: Callable[[], None],
        observer: Observer,
    ) -> None:
        self._observer = observer
        self.changed: list[int] = []  # shards whose role, term or leader changed in this turn
        super().__init__(settings, log, links, snapshots, access, touch)

    def on_applied(self, replica: Replica, index: int, applied: Applied) -> None:
        self._observer.on_applied(self.settings.node, replica.shard, index, replica.bus.running_hash, applied)
        super().on_applied(replica, index, applied)

    def on_leader(self, replica: Replica) -> None:
        self._observer.on_role(self.settings.node, replica.shard, replica.role, replica.term, replica.leader)
        self.changed.append(replica.shard)
        super().on_leader(replica)

    def on_snapshot_installed(self, replica: Replica, old: Bus) -> None:
        self._observer.snapshots_installed += 1
        super().on_snapshot_installed(replica, old)

    def end_turn(self) -> None:
        super().end_turn()
        if self.changed:
            changed, self.changed = self.changed, []
            for number in sorted(set(changed)):
                term, vote = hard_state(self.shards[number].replica)
                self._observer.on_flushed(self.settings.node, number, self.flushed_batch, term, vote)


def hard_state(replica: Replica) -> tuple[int, int]:
    """Term and vote."""
    status = replica.raft.status()
    term, vote = status["term"], status["vote"]
    assert isinstance(term, int)
    assert isinstance(vote, int)
    return term, vote
