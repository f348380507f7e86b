"""All that a node holds of one shard, put together: its replica, and the parts that work for it.

`open_shard` brings a shard up from its data: the newest snapshot, then the log behind it, which Raft replays as the
commit index becomes known. Damage is refused here, with words that say what is damaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from riverbus import limits
from riverbus._native import Log, LogDamaged, Raft
from riverbus.core.consensus.barriers import Barriers
from riverbus.core.consensus.comeback import Comeback
from riverbus.core.consensus.receipts import Batches, Receipts
from riverbus.core.consensus.replica import Host, Replica
from riverbus.core.consensus.router import Route
from riverbus.core.consensus.snapshot_install import SnapshotInstall
from riverbus.core.consensus.snapshot_keeper import SnapshotKeeper, read_descriptor
from riverbus.core.ports import Links, Snapshots
from riverbus.core.state.bus import Bus
from riverbus.core.state.rules import Rules
from riverbus.core.state.snapshot import BusRestore, DamagedSnapshot
from riverbus.peer_messages import PeerMessage

BOOTSTRAP_INDEX = 5  # the pretended snapshot that all first replicas start from, so that no newcomer looks like one


@dataclass(frozen=True, slots=True)
class Settings:
    """What an engine is told of its cluster and its limits."""

    node: int
    voters: tuple[int, ...]
    shards: int
    rules: Rules
    origin: int  # 64 random bits, drawn anew at each start: names this life of the node in the log
    seed: int  # of election timeouts
    snapshot_log_bytes: int = limits.LOG_TRAILING_BYTES
    snapshot_log_s: float = limits.LOG_TRAILING_S

    def preferred_leader(self, shard: int) -> int:
        """Who should lead the shard when all is well: leaders are spread over the nodes."""
        return sorted(self.voters)[shard % len(self.voters)]


class Shard:
    """The parts of one shard on this node. Plain composition: each part knows only what it is given."""

    __slots__ = ("barriers", "comeback", "install", "keeper", "number", "receipts", "replica", "route")

    def __init__(self, number: int, replica: Replica, route: Route, barriers: Barriers, keeper: SnapshotKeeper) -> None:
        self.number = number
        self.replica = replica
        self.route = route
        self.barriers = barriers
        self.keeper = keeper
        self.install: SnapshotInstall
        self.receipts: Receipts
        self.comeback: Comeback

    def watch_memory(
        self, log: Log, links: Links, batches: Batches, peers: tuple[int, ...], receivers: Callable[[bytes, int], int]
    ) -> None:
        """Durability memory: who has what, and what this node itself may have forgotten."""
        self.receipts = Receipts(self.replica, self.route, log, links, batches, peers, receivers)
        self.comeback = Comeback(self.replica, log, links, peers, self.receipts.was_counted)
        self.receipts.on_rules()

    def on_turn_of_memory(self) -> None:
        """The end of a turn, before the log is flushed."""
        if self.comeback.is_under_way:
            self.comeback.on_turn()
        elif self.receipts.has_turn:
            self.receipts.on_turn()

    @property
    def has_slices(self) -> bool:
        """A slice of a snapshot could be written, or read, now, or a state be freed."""
        return self.keeper.is_busy or self.install.has_work

    def invariants(self) -> None:
        """Cheap: for every turn. The state machine's own walk over everything: see `replica.bus.invariants`."""
        self.replica.invariants()
        self.route.invariants()


def restore_bus(shard: int, log: Log, snapshots: Snapshots) -> Bus:
    """The state at the newest snapshot's index, or the empty state that every shard begins with."""
    descriptor = read_descriptor(log, shard)
    if descriptor is None:
        return Bus(Rules(), BOOTSTRAP_INDEX)
    restore = BusRestore(Rules())
    try:
        for framed in snapshots.read(shard, descriptor.index):
            restore.feed(framed)
        return restore.finish()
    except (OSError, ValueError, DamagedSnapshot) as error:
        raise LogDamaged(f"snapshot {descriptor.index} of shard {shard} cannot be read: {error}") from error


def open_shard(
    number: int,
    settings: Settings,
    log: Log,
    links: Links,
    snapshots: Snapshots,
    host: Host,
    next_seq: Callable[[], int],
) -> Shard:
    bus = restore_bus(number, log, snapshots)
    raft = Raft(
        log,
        number,
        settings.node,
        seed=settings.seed,
        applied=bus.applied_index,
        election_ticks=limits.ELECTION_TICKS,
        heartbeat_ticks=limits.HEARTBEAT_TICKS,
        max_size_per_msg=limits.RAFT_MESSAGE_BYTES_MAX,
        max_inflight_msgs=limits.RAFT_INFLIGHT_MESSAGES_MAX,
        max_uncommitted_size=limits.RAFT_UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready=limits.RAFT_COMMITTED_BYTES_PER_READY,
    )

    def take_restored(index: int) -> Bus:
        return shard.install.take_restored(index)

    def say(peer: int, message: PeerMessage) -> None:
        links.send(peer, message)

    replica = Replica(number, settings.node, raft, bus, links, host, take_restored)
    keeper = SnapshotKeeper(replica, log, snapshots, settings.snapshot_log_bytes, settings.snapshot_log_s)
    barriers = Barriers(raft.read_index, lambda: replica.applied_index)
    route = Route(settings.origin, next_seq, limits.NODE_INFLIGHT_BYTES_MAX // settings.shards)
    shard = Shard(number, replica, route, barriers, keeper)
    shard.install = SnapshotInstall(replica, snapshots, Rules(), say)
    return shard
