"""A Raft group driven by hand, in memory: nodes, a network that only `deliver` moves, crashes, snapshots.

It is the loop of consensus.md section 3 in its plainest form, for the tests of the native crate; the product's own
loop is core/consensus/replica.py. A node's applied entries are its state; a snapshot's data is their count.
"""

import os
import time
from collections.abc import Callable, Iterable

from riverbus._native import ENTRY_CONF_CHANGE, LEADER, Log, LogDamaged, Raft

GROUP = 7
BOOTSTRAP_INDEX = 5


def make_raft(log: Log, node: int, *, group: int = GROUP, seed: int = 1, applied: int = 0, **settings: int) -> Raft:
    return Raft(
        log,
        group,
        node,
        seed=seed,
        applied=applied,
        election_ticks=settings.get("election_ticks", 10),
        heartbeat_ticks=settings.get("heartbeat_ticks", 1),
        max_size_per_msg=settings.get("max_size_per_msg", 1 << 20),
        max_inflight_msgs=settings.get("max_inflight_msgs", 64),
        max_uncommitted_size=settings.get("max_uncommitted_size", 32 << 20),
        max_committed_size_per_ready=settings.get("max_committed_size_per_ready", 4 << 20),
    )


class Node:
    def __init__(self, number: int, voters: list[int] | None, seed: int = 1) -> None:
        self.number, self.seed = number, seed
        self.log = Log.in_memory(seed)
        if voters is not None:
            Raft.bootstrap(self.log, GROUP, voters)
        self.flush()
        self.applied = BOOTSTRAP_INDEX if voters is not None else 0
        self.entries: list[tuple[int, int, bytes]] = []
        self.reads: list[tuple[int, bytes]] = []
        self.snapshots: list[tuple[int, int, bytes]] = []
        self.saved_applied = self.applied
        self.start()

    def start(self) -> None:
        self.raft = make_raft(self.log, self.number, seed=self.seed, applied=self.applied)

    def flush(self) -> int:
        self.log.flush()
        self.log.sync()
        return self.log.completed()

    def crash(self, seed: int = 0) -> None:
        """What was not synced may be lost; the state machine restarts from its last snapshot, or from nothing."""
        self.log = self.log.crash(seed)
        self.entries = [entry for entry in self.entries if entry[0] <= self.saved_applied]
        self.applied = self.saved_applied
        self.start()

    def take(self) -> list[tuple[int, bytes]]:
        """Everything this node does until it rests: the messages it sends, in order."""
        out: list[tuple[int, bytes]] = []
        while True:
            before = len(out)
            moved = is_last = False
            while (ready := self.raft.ready()) is not None:
                assert not is_last, "`has_more` said that there is none"
                moved = True
                out += ready.send_now
                self.reads += ready.read_states
                if ready.snapshot is not None:
                    self.snapshots.append(ready.snapshot)
                    self.applied = self.saved_applied = ready.snapshot[0]
                    self.raft.applied(self.applied)
                for index, term, kind, data in ready.committed:
                    if kind == ENTRY_CONF_CHANGE:
                        self.apply_conf(index, kind, data)
                    assert index == self.applied + 1
                    self.applied = index
                    self.entries.append((index, term, data))
                self.raft.applied(self.applied)
                is_last = not (ready.has_more or ready.committed or ready.snapshot)
            out += self.raft.persisted(self.flush())
            if not moved and len(out) == before:
                return out

    def apply_conf(self, index: int, kind: int, data: bytes) -> None:
        self.raft.apply_conf(index, kind, data)

    def save(self) -> None:
        """Takes a snapshot: from here on this is where a restart begins."""
        term = self.raft.term_of(self.applied)
        assert term is not None
        self.raft.offer_snapshot(self.applied, term, self.raft.conf_state(), b"snapshot at %d" % self.applied)
        self.log.put_meta(GROUP, b"snapshot", b"%d" % self.applied)
        self.flush()
        self.saved_applied = self.applied


class Cluster:
    def __init__(self, numbers: Iterable[int] = (1, 2, 3), seed: int = 1) -> None:
        voters = list(numbers)
        self.nodes = {number: Node(number, voters, seed) for number in voters}
        self.cut: set[int] = set()
        self.filter: Callable[[int, int, bytes], bool] = lambda source, target, data: True

    def deliver(self, rounds: int = 200) -> None:
        """Moves messages until all rest."""
        for _ in range(rounds):
            moved = False
            for number, node in self.nodes.items():
                for target, data in node.take():
                    moved = True
                    is_linked = number not in self.cut and target not in self.cut and target in self.nodes
                    if is_linked and self.filter(number, target, data):
                        raft = self.nodes[target].raft
                        assert raft.step(data, number) or raft.ready() is None
            if not moved:
                return
        raise AssertionError("the cluster does not come to rest")

    def tick(self, count: int = 1, only: Iterable[int] | None = None) -> None:
        for _ in range(count):
            for number in list(only or self.nodes):
                self.nodes[number].raft.tick()
            self.deliver()

    def elect(self, number: int) -> Node:
        self.nodes[number].raft.campaign()
        self.deliver()
        assert self.nodes[number].raft.status()["role"] == LEADER
        self.deliver()
        return self.nodes[number]

    def leader(self) -> Node | None:
        leaders = [
            node
            for number, node in self.nodes.items()
            if number not in self.cut and node.raft.status()["role"] == LEADER
        ]
        return max(leaders, key=lambda node: int(str(node.raft.status()["term"])), default=None)

    def payloads(self, number: int) -> list[bytes]:
        return [data for _, _, data in self.nodes[number].entries if data]

    def add(self, number: int) -> Node:
        self.nodes[number] = Node(number, None)
        return self.nodes[number]


def log_content(log: Log, groups: Iterable[int]) -> dict[int, object] | LogDamaged:
    """All that a log can tell, through the Raft objects that would be served from it."""
    content: dict[int, object] = {}
    for group in groups:
        applied = log.first_index(group) - 1
        raft = make_raft(log, 1, group=group, applied=applied)
        status = raft.status()
        entries: list[object] = []
        while (ready := raft.ready()) is not None:
            entries += ready.committed
            entries += ready.send_now
        terms = [raft.term_of(index) for index in range(applied, log.last_index(group) + 1)]
        state = [status[name] for name in ("term", "vote", "commit", "first", "last", "voters", "learners")]
        content[group] = (state, terms, entries, log.get_meta(group, b"meta"), log.get_meta(group, b"snapshot"))
    return content


def until_purged(log: Log) -> None:
    """Purges run on a thread of their own; until they are over, files vanish. (In memory there are none.)"""
    deadline = time.monotonic() + 30.0
    while log.statistics().get("purges_pending", 0):
        assert time.monotonic() < deadline, "a purge does not end"
        os.sched_yield()
