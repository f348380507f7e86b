"""One simulated machine: the production engine over a simulated disk, network and clock; what runtime/node.py is for real.

Its process can crash (memory gone, the log's unsynced tail kept, dropped or torn), be paused, and start again from what
its disk holds. A turn of the loop is an event: inputs that arrive at one instant share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random

from riverbus._native import Log
from riverbus.core.engine import Engine
from riverbus.core.rules import Rules
from riverbus.core.shard import Settings
from riverbus.peer_messages import PeerMessage
from riverbus.sim.clients import SimConnection
from riverbus.sim.clock import EPOCH_MS, Clock
from riverbus.sim.network import Network, SimLinks

TICK_S = 0.1
_TURNS_PER_WALK = 500  # the state machine checks all of itself that often: it costs what is retained


class Disk:
    """What outlives a crash: the log, and committed snapshots. `fetch_from` finds a peer's disk by node id."""

    def __init__(self, seed: int) -> None:
        self.log = Log.in_memory(seed)
        self.snapshots: dict[tuple[int, int], list[bytes]] = {}
        self.sync_s = (0.0001, 0.002)
        self.is_stuck = False
        self.is_full = False


class SimSnapshotFile:
    def __init__(self, disk: Disk, clock: Clock, key: tuple[int, int], is_current: Callable[[], bool]) -> None:
        self._disk = disk
        self._clock = clock
        self._key = key
        self._is_current = is_current
        self._slices: list[bytes] = []
        self.backlog_bytes = 0

    def write(self, framed_slice: bytes) -> None:
        self._slices.append(framed_slice)

    def commit(self, done: Callable[[str | None], None]) -> None:
        def finish() -> None:
            if not self._is_current():
                return
            if self._disk.is_full:
                done("no space left on device")
                return
            self._disk.snapshots[self._key] = self._slices
            done(None)

        self._clock.after(0.005, finish)

    def abort(self) -> None:
        self._slices = []


class SimSnapshots:
    """core/ports.py Snapshots over the simulated disks."""

    def __init__(self, node: SimNode, life: int) -> None:
        self._node = node
        self._life = life

    def _is_current(self) -> bool:
        return self._node.life == self._life and self._node.is_alive

    def create(self, shard: int, index: int) -> SimSnapshotFile:
        return SimSnapshotFile(self._node.disk, self._node.clock, (shard, index), self._is_current)

    def indexes(self, shard: int) -> list[int]:
        return sorted(index for number, index in self._node.disk.snapshots if number == shard)

    def read(self, shard: int, index: int) -> Iterator[bytes]:
        slices = self._node.disk.snapshots.get((shard, index))
        if slices is None:
            raise FileNotFoundError(f"snapshot {index} of shard {shard}")
        return iter(list(slices))

    def delete(self, shard: int, index: int) -> None:
        self._node.disk.snapshots.pop((shard, index), None)

    def fetch(self, peer: int, shard: int, index: int, done: Callable[[str | None], None]) -> None:
        node = self._node

        def finish() -> None:
            if not self._is_current():
                return
            source = node.world_nodes[peer]
            if not source.is_running or node.network.is_cut(peer, node.id) or node.network.is_cut(node.id, peer):
                done("the peer cannot be reached")
            elif (shard, index) not in source.disk.snapshots:
                done("not found")
            else:
                node.disk.snapshots[shard, index] = list(source.disk.snapshots[shard, index])
                done(None)

        node.clock.after(node.random.uniform(0.01, 0.5), finish)


class OpenAccess:
    """No users, nothing configured (core/ports.py Access)."""

    def authenticate(self, user: str, password: bytes) -> bool:
        return False

    def has_users(self) -> bool:
        return False

    def config(self) -> Mapping[str, str]:
        return {}


class SimNode:
    def __init__(
        self,
        number: int,
        voters: tuple[int, ...],
        shards: int,
        rules: Rules,
        clock: Clock,
        network: Network,
        random: Random,
        snapshot_log_bytes: int,
    ) -> None:
        self.id = number
        self.clock = clock
        self.network = network
        self.random = random
        self.disk = Disk(random.getrandbits(64))
        self.life = 0
        self.is_alive = False
        self.is_paused = False
        self.wall_offset_ms = 0
        self.world_nodes: dict[int, SimNode] = {}
        self.engine: Engine | None = None
        self.connections: list[SimConnection] = []
        self._voters = voters
        self._shards = shards
        self._rules = rules
        self._snapshot_log_bytes = snapshot_log_bytes
        self._has_turn = False
        self._begun_at = -1.0
        self._syncing = False
        self._turns = 0
        self._missed: list[Callable[[], None]] = []  # events that came while paused

    @property
    def is_running(self) -> bool:
        return self.is_alive and not self.is_paused

    # --- life and death ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        assert not self.is_alive
        self.life += 1
        self.is_alive = True
        self.is_paused = False
        self._syncing = self._has_turn = False
        settings = Settings(
            node=self.id,
            voters=self._voters,
            shards=self._shards,
            rules=self._rules,
            origin=self.random.getrandbits(64),
            seed=self.random.getrandbits(64),
            snapshot_log_bytes=self._snapshot_log_bytes,
            snapshot_log_s=20.0,
        )
        self.engine = Engine(
            settings,
            self.disk.log,
            SimLinks(self.network, self.id),
            SimSnapshots(self, self.life),
            OpenAccess(),
            self.touch,
        )
        self._tick(self.life, self.random.uniform(0.0, TICK_S))

    def crash(self) -> None:
        """The process is gone and the machine lost power: the log keeps what was synced, and of the rest what it likes."""
        assert self.is_alive
        self.is_alive = False
        self.is_paused = False
        self.engine = None
        self._missed = []
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.on_node_gone()
        self.disk.log = self.disk.log.crash(self.random.getrandbits(64))

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        missed, self._missed = self._missed, []
        for event in missed:
            event()

    def _while_running(self, event: Callable[[], None]) -> None:
        """Run now, or when the pause ends; never in a later life."""
        life = self.life
        if not self.is_alive:
            return
        if self.is_paused:
            self._missed.append(lambda: self._while_running(event) if self.life == life else None)
            return
        event()

    # --- the loop ---------------------------------------------------------------------------------------------------

    def input(self) -> Engine:
        """Before any input: tell the engine the time, and have a turn end after it."""
        assert self.engine is not None
        self.engine.begin_turn(self.clock.now, self.wall_ms())
        self.touch()
        return self.engine

    def wall_ms(self) -> int:
        return EPOCH_MS + int(self.clock.now * 1000) + self.wall_offset_ms

    def touch(self) -> None:
        if not self._has_turn:
            self._has_turn = True
            life = self.life
            self.clock.after(0.00005, lambda: self._while_running(self._end_turn) if self.life == life else None)

    def _end_turn(self) -> None:
        self._has_turn = False
        engine = self.engine
        assert engine is not None
        engine.begin_turn(self.clock.now, self.wall_ms())
        engine.on_timers()
        engine.end_turn()
        self._flush_sessions(engine)
        self._maybe_sync()
        engine.invariants()
        self._turns += 1
        if self._turns % _TURNS_PER_WALK == 0:
            engine.shards[(self._turns // _TURNS_PER_WALK) % len(engine.shards)].replica.bus.invariants()
        if (next_at := engine.timers.next_at()) is not None and next_at < self.clock.now + TICK_S:
            life = self.life
            self.clock.at(next_at, lambda: self._while_running(self._on_timer) if self.life == life else None)

    def _flush_sessions(self, engine: Engine) -> None:
        """What runtime/clients.py does at the end of a turn."""
        engine.sessions.flush()

    def on_client_bytes(self, handle: Callable[[], None]) -> None:
        def event() -> None:
            self.input()
            handle()

        self._while_running(event)

    def _on_timer(self) -> None:
        self.input().on_timers()

    def _tick(self, life: int, delay: float) -> None:
        def tick() -> None:
            if self.life != life or not self.is_alive:
                return
            if not self.is_paused:
                engine = self.input()
                engine.on_disk_room(self.disk.is_full)
                engine.on_tick()
            self._tick(life, TICK_S)

        self.clock.after(delay, tick)

    def _maybe_sync(self) -> None:
        """The log's writer thread: one flush at a time, in order."""
        engine = self.engine
        if self._syncing or engine is None or engine.flushed_batch <= engine.completed_batch:
            return
        self._syncing = True
        life = self.life

        def finish() -> None:
            if self.life != life or not self.is_alive:
                return
            if self.disk.is_stuck:
                self.clock.after(0.1, finish)
                return
            self.disk.log.sync()
            self._syncing = False
            self._while_running(lambda: self.input().on_log())

        self.clock.after(self.random.uniform(*self.disk.sync_s), finish)

    # --- the network tells ------------------------------------------------------------------------------------------

    def on_messages(self, peer: int, messages: list[PeerMessage]) -> None:
        self._while_running(lambda: self.input().on_messages(peer, messages))

    def on_peer_up(self, peer: int) -> None:
        self._while_running(lambda: self.input().on_peer_up(peer))

    def on_peer_down(self, peer: int) -> None:
        self._while_running(lambda: self.input().on_peer_down(peer))
