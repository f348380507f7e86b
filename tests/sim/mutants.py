"""Seeded bugs: each plants one mistake that systems of this kind have really made, while its `with` lasts.

They live here and nowhere else: a mutant never ships. `test_mutants.py` proves that the simulator finds each of them; a
simulator that cannot fail proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from riverbus._native import Log, Raft
from riverbus.core.clients.sessions import Sessions
from riverbus.core.consensus.replica import Replica
from riverbus.core.consensus.router import Route, Target
from riverbus.core.engine import Engine
from riverbus.core.state.bus import Bus, RunResult
from riverbus.core.state.history import ReadResult, View
from riverbus.core.state.snapshot import BusRestore
from riverbus.messages import Message, MessageId, NotAccepted
from riverbus.peer_messages import Forward, PeerMessage, RaftMessage
from riverbus.sim.disk import Disk
from riverbus.sim.identity import SimIdentity
from riverbus.sim.network import SimLinks
from riverbus.sim.swarm import Window

_VOTE_RESPONSES = (6, 18)  # MsgRequestVoteResponse, MsgRequestPreVoteResponse
_REJECTED = b"\x50\x01"  # field `reject` of a raft message, true


@contextmanager
def fsync_skipped() -> Iterator[None]:
    """What was reported as on disk was in the page cache: a power loss takes the whole log."""

    def power_loss(disk: Disk, seed: int) -> None:
        disk.log.crash(seed)
        disk.log = Log.in_memory(seed)

    with patch.object(Disk, "power_loss", power_loss):
        yield


@contextmanager
def sync_reported_too_soon() -> Iterator[None]:
    """One sync in three does nothing, and is believed to have done it."""
    sync = Disk.sync
    calls = 0

    def lying(disk: Disk) -> None:
        nonlocal calls
        calls += 1
        if calls % 3:
            sync(disk)
        else:
            disk.durable_batch = disk.log.flush()

    with patch.object(Disk, "sync", lying):
        yield


@contextmanager
def votes_twice() -> Iterator[None]:
    """The vote is not remembered: who asks gets it, whoever got it before."""
    send = SimLinks.send

    def forgetful(links: SimLinks, peer: int, message: PeerMessage) -> None:
        if type(message) is RaftMessage and Raft.peek(message.data)[0] in _VOTE_RESPONSES:
            message = RaftMessage(message.shard, message.data.replace(_REJECTED, b""))
        send(links, peer, message)

    with patch.object(SimLinks, "send", forgetful):
        yield


@contextmanager
def acknowledged_before_quorum() -> Iterator[None]:
    """A publish is answered when it is in the leader's log, before anyone else has it."""
    on_proposed = Route.on_proposed

    def hasty(route: Route, seq: int, index: int, applied_index: int) -> None:
        batch = route._flying.get(seq)
        on_proposed(route, seq, index, applied_index)
        if batch is None or seq not in route._flying:
            return
        waiters: list[Any] = [item.waiter for item in batch.items]
        if any(getattr(waiter, "with_ids", True) for waiter in waiters):
            return  # its answer has the id, which is not known yet
        for waiter in waiters:
            waiter.published(MessageId(0, 0), 0, 0)
        batch.items.clear()
        for run in batch.waiters:
            run.clear()

    with patch.object(Route, "on_proposed", hasty):
        yield


@contextmanager
def order_swapped_in_a_batch() -> Iterator[None]:
    """Two publishes of one turn change places."""
    next_batch = Route.next_batch

    def swapping(route: Route, target: Target) -> tuple[int, bytes] | None:
        if len(route._queue) > 1:
            route._queue[0], route._queue[1] = route._queue[1], route._queue[0]
        return next_batch(route, target)

    with patch.object(Route, "next_batch", swapping):
        yield


@contextmanager
def retained_message_dropped() -> Iterator[None]:
    """One message in fifty is not found by reads of a range."""
    read = View.range

    def lossy(view: View, *args: Any) -> list[Message]:
        return [message for message in read(view, *args) if message.id.ms % 50]

    with patch.object(View, "range", lossy):
        yield


@contextmanager
def resume_off_by_one() -> Iterator[None]:
    """A cursor reads on one message too late."""
    read_after = Bus.read_after

    def late(bus: Bus, name: bytes, after: MessageId, *args: Any, **options: Any) -> ReadResult:
        return read_after(bus, name, after.next() if after.ms else after, *args, **options)

    with patch.object(Bus, "read_after", late):
        yield


@contextmanager
def read_without_barrier() -> Iterator[None]:
    """A read is served from whatever the local replica has."""

    def at_once(engine: Engine, channels: Sequence[bytes], done: Callable[[None], None]) -> None:
        done(None)

    with patch.object(Engine, "fresh", at_once):
        yield


@contextmanager
def forwarded_in_any_term() -> Iterator[None]:
    """A leader proposes what was forwarded to it in an earlier term, and refused batches are always sent again."""
    on_forward = Engine._on_forward
    on_rejected = Route.on_rejected

    def lenient(engine: Engine, peer: int, forward: Forward) -> None:
        on_forward(engine, peer, forward._replace(term=engine.shards[forward.shard].replica.term))

    def returning(route: Route, seq: int, code: str, reason: str) -> None:
        batch = route._flying.get(seq)
        if batch is None or code != NotAccepted.code:
            on_rejected(route, seq, code, reason)
        else:
            del route._flying[seq]
            route._returned.extend(batch.items)

    with patch.object(Engine, "_on_forward", lenient), patch.object(Route, "on_rejected", returning):
        yield


@contextmanager
def forward_duplicated() -> Iterator[None]:
    """A forwarded batch is sent twice, as a transport that retries would."""
    send = SimLinks.send

    def twice(links: SimLinks, peer: int, message: PeerMessage) -> None:
        send(links, peer, message)
        if type(message) is Forward and message.seq % 20 == 0:
            send(links, peer, message)

    with patch.object(SimLinks, "send", twice):
        yield


@contextmanager
def gap_not_announced() -> Iterator[None]:
    """A subscriber that the window has passed is not told so."""
    read_after = Bus.read_after

    def silent(bus: Bus, *args: Any, **options: Any) -> ReadResult:
        return read_after(bus, *args, **options)._replace(gap_until=None)

    with patch.object(Bus, "read_after", silent):
        yield


@contextmanager
def gap_announced_too_far() -> Iterator[None]:
    """A subscriber is told of a gap up to the newest message, and what is retained is not delivered."""
    read_after = Bus.read_after

    def generous(bus: Bus, name: bytes, *args: Any, **options: Any) -> ReadResult:
        result = read_after(bus, name, *args, **options)
        if result.gap_until is None:
            return result
        last = bus.last_id(name)
        return ReadResult(last, [], last, False)

    with patch.object(Bus, "read_after", generous):
        yield


@contextmanager
def subscribers_forgotten_at_install() -> Iterator[None]:
    """What a snapshot brought is not delivered to those who subscribe on its node."""
    with patch.object(Sessions, "on_state_replaced", lambda *_: None):
        yield


@contextmanager
def snapshot_loses_last_ids() -> Iterator[None]:
    """A restored state does not know its channels' last ids: they begin again."""
    finish = BusRestore.finish

    def forgetful(restore: BusRestore) -> Bus:
        bus = finish(restore)
        bus.time_ms = 0
        for name in list(bus.names()):
            channel = bus.channel(name)
            if channel is not None and channel.length < 3:
                channel.last_ms = channel.last_seq = 0
        return bus

    with patch.object(BusRestore, "finish", forgetful):
        yield


@contextmanager
def wiped_node_keeps_its_name() -> Iterator[None]:
    """Nobody remembers incarnations: a node that lost its directory takes part again under its old name."""
    init = SimIdentity.__init__

    def forgetful(identity: SimIdentity, node: int, random: Any) -> None:
        init(identity, node, random)
        identity.incarnation = node

    with patch.object(SimIdentity, "__init__", forgetful):
        yield


@contextmanager
def entry_applied_differently() -> Iterator[None]:
    """A replica's state depends on something beside its log: here, on which node it is."""
    apply = Replica._apply

    def partial(replica: Replica, committed: list[tuple[int, int, int, bytes]]) -> None:
        if replica.node == 2:
            committed = [(i, t, k, b"" if i % 40 == 0 else d) for i, t, k, d in committed]
        apply(replica, committed)

    with patch.object(Replica, "_apply", partial):
        yield


@contextmanager
def receivers_counted_as_outcome() -> Iterator[None]:
    """A publish that the state machine refused, or that nobody here receives, is answered as if it never was."""
    on_applied = Route.on_applied

    def wrong(route: Route, seq: int, results: list[RunResult], receivers: Callable[[RunResult], int]) -> None:
        if seq % 50 == 0 and seq in route._flying:
            route.on_rejected(seq, "CLUSTERDOWN", "lost")
            return
        on_applied(route, seq, results, receivers)

    with patch.object(Route, "on_applied", wrong):
        yield


@dataclass(frozen=True)
class Mutant:
    """`rules`: which checkers may find it. `changes`: of the swarm, for worlds in which it can show at all."""

    plant: Callable[[], AbstractContextManager[None]]
    rules: tuple[str, ...]
    changes: dict[str, object] = field(default_factory=dict)


_FAULTY = {"fault_kinds": ("crash", "crash_all", "isolate", "halves", "pause"), "fault_pace_s": 1.0}
_HANDOVERS = {"fault_kinds": ("clog", "full_disk"), "fault_pace_s": 0.5, "payload_bytes": 16, "shards": 3, "drift": 0.0}
_SNAPSHOTS = {"fault_kinds": ("crash", "isolate"), "fault_pace_s": 2.0, "snapshot_log_bytes": 2_000}

MUTANTS: dict[str, Mutant] = {
    "fsync skipped": Mutant(fsync_skipped, ("C1", "C12", "C13", "C14"), {**_FAULTY, "nodes": 3}),
    "sync reported too soon": Mutant(sync_reported_too_soon, ("C13", "C14"), {**_FAULTY, "nodes": 3}),
    "vote not remembered": Mutant(votes_twice, ("C12", "C13"), {**_FAULTY, "nodes": 5}),
    "acknowledged before quorum": Mutant(
        acknowledged_before_quorum, ("C1", "C10"), {**_FAULTY, "nodes": 3, "retries": False, "window": Window()}
    ),
    "order swapped in a batch": Mutant(order_swapped_in_a_batch, ("C9",), {"in_flight": 64, "burst": 20}),
    "retained message dropped": Mutant(retained_message_dropped, ("C1", "C10")),
    "resume off by one": Mutant(resume_off_by_one, ("C6", "C7")),
    "read without barrier": Mutant(read_without_barrier, ("C10",)),
    "forwarded in any term": Mutant(
        forwarded_in_any_term,
        ("C3", "C9"),
        {**_HANDOVERS, "nodes": 3, "publishers": 3, "in_flight": 64, "window": Window()},
    ),
    "forward duplicated": Mutant(forward_duplicated, ("C3",), {"nodes": 3, "window": Window()}),
    "gap not announced": Mutant(gap_not_announced, ("C6", "C7"), {"window": Window(count=3)}),
    "gap announced too far": Mutant(gap_announced_too_far, ("C6",), {"window": Window(count=3)}),
    "subscribers forgotten at install": Mutant(
        subscribers_forgotten_at_install, ("C6", "C7", "C15"), {**_SNAPSHOTS, "nodes": 3}
    ),
    "snapshot loses last ids": Mutant(
        snapshot_loses_last_ids, ("C4", "C5", "C8", "C12"), {**_SNAPSHOTS, "nodes": 3, "window": Window(count=1)}
    ),
    "wiped node keeps its name": Mutant(
        wiped_node_keeps_its_name,
        ("C1", "C12", "C13"),
        {"fault_kinds": ("wipe", "crash", "halves"), "fault_pace_s": 1.0, "nodes": 3},
    ),
    "entry applied differently": Mutant(entry_applied_differently, ("C12",), {"nodes": 3}),
    "accepted publish answered as refused": Mutant(receivers_counted_as_outcome, ("C2",), {"retries": False}),
}
