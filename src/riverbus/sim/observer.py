"""What nobody outside may see, watched while a world runs: C12, C13 and C14, and the trace that names a run.

C12: the running hash after an entry is equal on all replicas, at all times, in every life. C13: one leader a term and
shard, who has all that anyone has applied; an applied entry is of one term everywhere; term, vote and commit index that
were on disk are not less after a restart. C14: a log that opens after a crash ends as one of the batches left it that
were flushed, the last synced one or a later. The trace covers each event of the history, each applied entry with its
state's hash, each change of a role and each fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import xxhash

from riverbus._native import LEADER, Log
from riverbus.core.consensus.replica import Replica
from riverbus.core.consensus.shard import Settings
from riverbus.core.engine import Engine
from riverbus.core.ports import Access, Links, Snapshots
from riverbus.core.state.bus import Applied, Bus, RunResult
from riverbus.messages import MessageId
from riverbus.sim.checkers import Violation

_ITEMS_PER_UPDATE = 512
_encode = msgspec.msgpack.Encoder().encode


class Trace:
    """A digest of all that is added, in order, made when it is asked for: to add is what each event does."""

    def __init__(self) -> None:
        self._items: list[object] = []
        self.add = self._items.append
        self.add_all = self._items.extend

    def hexdigest(self) -> str:
        digest = xxhash.xxh3_128()
        for start in range(0, len(self._items) + 1, _ITEMS_PER_UPDATE):
            digest.update(_encode(self._items[start : start + _ITEMS_PER_UPDATE]))
        return digest.hexdigest()

    def free(self) -> None:
        self._items.clear()


class LogState(NamedTuple):
    """What of a shard's log and hard state a batch makes durable, or a start finds."""

    batch: int
    term: int
    vote: int
    commit: int
    last: int
    last_term: int


class Observer:
    def __init__(self) -> None:
        self.trace = Trace()
        self.violations: list[Violation] = []
        self.elections = 0
        self.entries = 0
        self.snapshots_installed = 0
        # (shard, index) -> hash, term, the node that had it first
        self._entries: dict[tuple[int, int], tuple[bytes, int | None, int]] = {}
        self.time_ms: dict[int, int] = {}  # by shard: the latest time of an applied entry
        self._applied: dict[int, int] = {}  # by shard: the highest index that anyone has applied
        self._runs: dict[bytes, list[tuple[MessageId, int]]] = {}  # by channel: first id and count, in order
        self._leaders: dict[tuple[int, int], int] = {}  # (shard, term) -> node
        self._flushed: dict[tuple[int, int], list[LogState]] = {}  # (node, shard) -> in order of their batches

    def free(self) -> None:
        self.trace.free()
        self._entries.clear()
        self._runs.clear()
        self._flushed.clear()

    def _say(self, rule: str, shard: int, text: str) -> None:
        self.violations.append(Violation(rule, f"shard {shard}", text))

    def on_applied(self, node: int, shard: int, index: int, term: int | None, digest: bytes, applied: Applied) -> None:
        """`term` is None where the log has no more of the entry than its effect."""
        self.entries += 1
        self.trace.add((node, shard, index, digest))
        known = self._entries.get((shard, index))
        if known is None:
            self._entries[shard, index] = (digest, term, node)
            self._applied[shard] = max(index, self._applied.get(shard, 0))
            self.time_ms[shard] = max(applied.time_ms, self.time_ms.get(shard, 0))
            for batch in applied.results:
                for result in batch.results:
                    for each in (result,) if isinstance(result, RunResult) else result.runs:
                        if each.first is not None:
                            self._runs.setdefault(each.run.channel, []).append((each.first, each.run.count))
            return
        if known[0] != digest:
            text = f"after entry {index} node {node} has {digest.hex()}, node {known[2]} had {known[0].hex()}"
            self._say("C12", shard, text)
        if term is not None and known[1] is not None and known[1] != term:
            self._say("C13", shard, f"entry {index} is of term {term} on node {node}, of {known[1]} on node {known[2]}")

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
            self._say("C13", shard, f"nodes {other} and {node} both led term {term}")

    def on_leading(self, node: int, shard: int, term: int, term_of: Callable[[int], int | None], last: int) -> None:
        """A new leader's log: it has every entry that was committed in an earlier term (Raft paper, section 5.4)."""
        index = self._applied.get(shard, 0)
        known = self._entries.get((shard, index))
        if known is None or known[1] is None or known[1] >= term:
            return
        if last < index or term_of(index) not in (None, known[1]):
            text = (
                f"node {node} leads term {term} without entry {index} of term {known[1]}, which node {known[2]} applied"
            )
            self._say("C13", shard, text)

    # --- what is on disk ----------------------------------------------------------------------------------------------

    def on_flushed(self, node: int, shard: int, state: LogState) -> None:
        """What will be on disk with `state.batch`."""
        self._flushed.setdefault((node, shard), []).append(state)

    def on_recovered(self, node: int, shard: int, durable_batch: int, found: LogState) -> None:
        """What a start found. The batches up to `durable_batch` were synced before; later ones may be there or not."""
        flushed = self._flushed.get((node, shard), [])
        self._flushed[node, shard] = [found]
        synced = [state for state in flushed if state.batch <= durable_batch]
        if not synced:
            return
        old = synced[-1]
        if found.term < old.term or (found.term == old.term and old.vote not in (0, found.vote)):
            text = f"had term {old.term} and vote {old.vote} on disk, and came back with {found.term} and {found.vote}"
            self._say("C13", shard, f"node {node} {text}")
        if found.commit < old.commit:
            text = f"had commit index {old.commit} on disk, and came back with {found.commit}"
            self._say("C13", shard, f"node {node} {text}")
        possible = [old, *(state for state in flushed if state.batch > durable_batch)]
        if not any((state.last, state.last_term) == (found.last, found.last_term) for state in possible):
            text = f"had a log up to {old.last} of term {old.last_term} on disk, and came back with one up to "
            self._say("C14", shard, f"node {node} {text}{found.last} of term {found.last_term}")

    def on_wiped(self, node: int) -> None:
        for key in [key for key in self._flushed if key[0] == node]:
            del self._flushed[key]


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
        super().__init__(settings, log, links, snapshots, access, touch)

    def on_applied(self, replica: Replica, index: int, applied: Applied) -> None:
        term = replica.raft.term_of(index)
        self._observer.on_applied(self.settings.node, replica.shard, index, term, replica.bus.running_hash, applied)
        Engine.on_applied(self, replica, index, applied)  # `super()` makes an object each time

    def on_leader(self, replica: Replica) -> None:
        self._observer.on_role(self.settings.node, replica.shard, replica.role, replica.term, replica.leader)
        if replica.is_leader:
            last = self.log.last_index(replica.shard)
            self._observer.on_leading(self.settings.node, replica.shard, replica.term, replica.raft.term_of, last)
        super().on_leader(replica)

    def on_snapshot_installed(self, replica: Replica, old: Bus) -> None:
        self._observer.snapshots_installed += 1
        super().on_snapshot_installed(replica, old)

    def end_turn(self) -> None:
        before = self.flushed_batch
        Engine.end_turn(self)
        batch = self.flushed_batch
        if batch > before:
            for shard in self.shards:
                if shard.replica.awaits_batch == batch:
                    self._observer.on_flushed(self.settings.node, shard.number, log_state(shard.replica, batch))


def log_state(replica: Replica, batch: int) -> LogState:
    return LogState(batch, *replica.raft.hard_state())
