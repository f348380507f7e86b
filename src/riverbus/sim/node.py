"""One simulated machine: the production engine over a simulated disk, network and clock; runtime/node.py's twin.

Its process can crash (memory gone, the log's unsynced tail kept or dropped), be paused, and start again from what its
disk holds; one that finds damage stops and stays down. A turn of the loop is an event: inputs that arrive within
`turn_s` share it. The engine exists once the cluster is founded (identity.py).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from riverbus._native import LogError, RaftError
from riverbus.core.access.open_access import OpenAccess
from riverbus.core.clients.session import Session
from riverbus.core.consensus.shard import Settings
from riverbus.core.state.rules import Rules
from riverbus.limits import TICK_S
from riverbus.peer_messages import PeerMessage
from riverbus.sim.clients import SimConnection
from riverbus.sim.clock import EPOCH_MS, Clock
from riverbus.sim.disk import Disk, SimSnapshots
from riverbus.sim.network import Network, SimLinks
from riverbus.sim.observer import ObservedEngine, Observer, log_state
from riverbus.sim.swarm import Swarm

_TURNS_PER_CHECK = 32  # of the engine's invariants: each turn would be a tenth of all work
_TURNS_PER_WALK = 1500  # the state machine checks all of itself that often: it costs what is retained


def _nothing() -> None: ...


class SimNode:
    def __init__(
        self,
        number: int,
        swarm: Swarm,
        rules: Rules,
        clock: Clock,
        network: Network,
        observer: Observer,
        random: Random,
    ) -> None:
        self.id = number
        self.clock = clock
        self.network = network
        self.random = random
        self.disk = Disk(number, random)
        self.life = 0
        self.is_alive = False
        self.is_paused = False
        self.resumed_at = 0.0  # the end of its last pause, or its start
        self.lost_because: str | None = None  # for good: damaged or wiped
        self.wall_offset_ms = 0
        self.engine: ObservedEngine | None = None
        self.others: dict[int, SimNode] = {}
        self.connections: list[SimConnection] = []
        self.turns = 0
        self._swarm = swarm
        self._rules = rules
        self._observer = observer
        self._turn_s = swarm.turn_s
        self._tick_s = TICK_S * random.uniform(1 - swarm.drift, 1 + swarm.drift)
        self._wall_rate = random.uniform(1 - swarm.drift, 1 + swarm.drift)
        self._links: SimLinks | None = None
        self._has_turn = False
        self._timer_at: float | None = None
        self._is_syncing = False
        self._hung_up: list[Session] = []
        self._missed: list[Callable[[], None]] = []  # events that came while paused
        self._turn_event = self._timer_event = _nothing  # of this life, for the heap of events

    @property
    def is_running(self) -> bool:
        return self.is_alive and not self.is_paused

    @property
    def is_serving(self) -> bool:
        return self.engine is not None and not self.is_paused

    # --- life and death ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        assert not self.is_alive
        self.life += 1
        self.is_alive = True
        self.is_paused = False
        self.resumed_at = self.clock.now
        self._is_syncing = self._has_turn = False
        self._timer_at = None
        self._hung_up = []
        self._turn_event = self._in_this_life(self._end_turn)
        self._timer_event = self._in_this_life(self._on_timer)
        if self._swarm.nodes == 1 and not self.disk.identity.is_founded:
            self.disk.identity.found([])
        self.maybe_open()

    def maybe_open(self) -> None:
        """The engine, once the cluster is founded. A node that finds its data damaged stops instead."""
        if self.engine is not None or not self.is_alive or not self.disk.identity.is_founded:
            return
        swarm = self._swarm
        settings = Settings(
            node=self.id,
            voters=tuple(range(1, swarm.nodes + 1)),
            shards=swarm.shards,
            rules=self._rules,
            origin=self.random.getrandbits(64),
            seed=self.random.getrandbits(64),
            snapshot_log_bytes=swarm.snapshot_log_bytes,
            snapshot_log_s=swarm.snapshot_log_s,
        )
        self._links = SimLinks(self.network, self.id)
        delay = self.random.uniform(0.0, self._tick_s)
        try:
            engine = ObservedEngine(
                settings, self.disk.log, self._links, SimSnapshots(self), OpenAccess({}), self.touch, self._observer
            )
        except (LogError, RaftError) as error:
            self._on_fault(error)
            return
        for shard in engine.shards:
            batch = self.disk.durable_batch
            self._observer.on_recovered(self.id, shard.number, batch, log_state(shard.replica, batch))
        self.engine = engine
        if not engine.peers:
            self.while_running(self._campaign)
        self._tick(self.life, delay)

    def _campaign(self) -> None:
        for shard in self.input().shards:
            shard.replica.raft.campaign()
            shard.replica.advance()

    def crash(self) -> None:
        """The process is gone, the machine lost power: the log keeps what was synced, and of the rest what it likes."""
        self._end()
        self.disk.power_loss(self.random.getrandbits(64))

    def _end(self) -> None:
        assert self.is_alive
        self.is_alive = False
        self.is_paused = False
        self.free()
        self._missed = []
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.on_node_gone()

    def free(self) -> None:
        """The process is gone, and so is its memory: channels are in cycles that Python does not collect."""
        engine, self.engine = self.engine, None
        if engine is not None:
            for shard in engine.shards:
                while shard.replica.bus.release_some():
                    pass

    def _on_fault(self, error: Exception) -> None:
        """The engine refuses to go on. Only damage is a reason."""
        if not self.disk.is_damaged:
            raise error
        self.lost_because = f"{type(error).__name__}: {error}"
        self._observer.trace.add((self.id, self.lost_because))
        self._end()

    def wipe(self) -> None:
        """An empty directory takes the place of the old one; the node is down."""
        assert not self.is_alive
        self.disk = Disk(self.id, self.random)
        self.lost_because = "wiped"
        self._observer.on_wiped(self.id)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        self.resumed_at = self.clock.now
        missed, self._missed = self._missed, []
        for event in missed:
            event()

    def while_running(self, event: Callable[[], None]) -> None:
        """Run now, or when the pause ends; never in a later life."""
        if not self.is_alive:
            return
        if self.is_paused:
            life = self.life
            self._missed.append(lambda: self.while_running(event) if self.life == life else None)
            return
        try:
            event()
        except (LogError, RaftError) as error:
            self._on_fault(error)

    def _in_this_life(self, event: Callable[[], None]) -> Callable[[], None]:
        """What the clock may be given again and again: `event`, unless the process is another by then."""
        life = self.life

        def happen() -> None:
            if self.life != life:
                return
            if self.is_paused or not self.is_alive:
                self.while_running(event)
                return
            try:
                event()
            except (LogError, RaftError) as error:
                self._on_fault(error)

        return happen

    # --- the loop ---------------------------------------------------------------------------------------------------

    def input(self) -> ObservedEngine:
        """Before any input: tell the engine the time, and have a turn end after it."""
        engine = self.engine
        assert engine is not None
        now = self.clock.now
        engine.begin_turn(now, self._wall_ms(now))
        if not self._has_turn:
            self._has_turn = True
            self.clock.at(now + self._turn_s, self._turn_event)
        return engine

    def _wall_ms(self, now: float) -> int:
        return EPOCH_MS + int(now * 1000 * self._wall_rate) + self.wall_offset_ms

    def touch(self) -> None:
        if not self._has_turn:
            self._has_turn = True
            self.clock.at(self.clock.now + self._turn_s, self._turn_event)

    def _end_turn(self) -> None:
        engine, links = self.engine, self._links
        assert engine is not None
        assert links is not None
        self._has_turn = False
        now = self.clock.now
        engine.begin_turn(now, self._wall_ms(now))
        engine.on_timers()
        engine.end_turn()
        if links.gathered:
            links.flush()
        if self._hung_up:
            hung_up, self._hung_up = self._hung_up, []
            for session in hung_up:
                session.on_closed()
        engine.sessions.flush()
        if engine.flushed_batch > engine.completed_batch and not self._is_syncing:
            self._sync()
        self.turns += 1
        if self.turns % _TURNS_PER_CHECK == 0:
            engine.invariants()
            engine.sessions.invariants()
            if self.turns % _TURNS_PER_WALK == 0:
                self.walk()
        next_at = engine.timers.next_at()
        if next_at is not None and (self._timer_at is None or next_at < self._timer_at):
            self._timer_at = next_at
            self.clock.at(next_at, self._timer_event)

    def walk(self) -> None:
        """All that the state machines can check of themselves."""
        if self.engine is not None:
            for shard in self.engine.shards:
                shard.replica.bus.invariants()

    def _on_timer(self) -> None:
        self._timer_at = None
        self.input().on_timers()

    def _tick(self, life: int, delay: float) -> None:
        def tick() -> None:
            if self.life != life or self.engine is None:
                return
            if not self.is_paused:
                self.while_running(self._on_tick)
            self._tick(life, self._tick_s)

        self.clock.after(delay, tick)

    def _on_tick(self) -> None:
        engine = self.input()
        engine.on_disk_room(self.disk.is_full)
        engine.on_tick()

    def _sync(self) -> None:
        """The log's writer thread: one flush at a time, in order."""
        self._is_syncing = True
        life = self.life

        def finish() -> None:
            if self.life != life or self.engine is None:
                return
            if self.disk.is_stuck:
                self.clock.after(0.05, finish)
                return
            if self.disk.is_failing:
                self.disk.is_failing = False
                self.crash()
                return
            self.disk.sync()
            self._is_syncing = False
            self.while_running(self._on_log)

        low, high = self.disk.sync_s
        self.clock.after(low + (high - low) * self.random.random(), finish)

    def _on_log(self) -> None:
        self.input().on_log()

    # --- clients and peers tell -------------------------------------------------------------------------------------

    def on_client_bytes(self, handle: Callable[[], None]) -> None:
        def event() -> None:
            self.input()
            handle()

        self.while_running(event)

    def on_hang_up(self, session: Session) -> None:
        """As runtime/clients.py: a subscriber is gone at once, others at the end of the turn."""

        def event() -> None:
            self.input()
            if session.is_subscriber:
                session.on_closed()
            elif not session.is_closed:
                self._hung_up.append(session)

        self.while_running(event)

    def on_messages(self, peer: int, messages: list[PeerMessage]) -> None:
        if self.engine is None:
            return
        if self.is_paused or not self.is_alive:
            self.while_running(lambda: self.input().on_messages(peer, messages))
            return
        try:
            self.input().on_messages(peer, messages)
        except (LogError, RaftError) as error:
            self._on_fault(error)

    def on_peer_up(self, peer: int) -> None:
        self.while_running(lambda: self.input().on_peer_up(peer))

    def on_peer_down(self, peer: int) -> None:
        if self.engine is not None:
            self.while_running(lambda: self.input().on_peer_down(peer))
