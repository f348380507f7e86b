"""A node inside a program: the engine as any node runs it, without a server; a cluster of one, or one of several.

Its data is in memory (the native in-memory log, gone at the end), or in a directory that a later run opens again, or
`riverbus serve` with as many shards. `connect` joins a client's protocol with a session, through memory.
Only a durable one has threads: the log's writer and the snapshots'.

Leaves to others: the client's interface (client/embedded.py), the links between several (embedded_cluster.py).
Invariants: inputs enter through the turn, as in node.py. A node and its connections refer to each other: one file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import cast

from riverbus import limits
from riverbus._native import Log
from riverbus.core.clients.session import Session
from riverbus.core.consensus.shard import Settings
from riverbus.core.engine import Engine
from riverbus.core.ports import Links, SnapshotFile, Snapshots
from riverbus.peer_messages import PeerMessage
from riverbus.runtime.channel_rules import rules_of
from riverbus.runtime.config import Config
from riverbus.runtime.durable_log import open_log
from riverbus.runtime.durable_subscribers import configure_durable
from riverbus.runtime.identity import Identity, open_identity
from riverbus.runtime.memory_transport import join
from riverbus.runtime.receipts import unacknowledged_through
from riverbus.runtime.security import Accounts
from riverbus.runtime.snapshots import SnapshotStore
from riverbus.runtime.turn import Turn
from riverbus.wire.encoders import Resp2Encoder, Resp3Encoder
from riverbus.wire.redis import RedisProtocol


class NoLinks:
    """core/ports.py `Links` of a node without peers."""

    def send(self, peer: int, message: PeerMessage) -> None:
        raise AssertionError("a cluster of one has no peers")

    def flush(self) -> None:
        return None

    def is_up(self, peer: int) -> bool:
        return False

    def backlog_bytes(self, peer: int) -> int:
        return 0


class ForgottenSnapshot:
    """Nobody reads it: it lets the in-memory log be cut, and is not kept."""

    backlog_bytes = 0

    def write(self, framed_slice: bytes) -> None:
        return None

    def commit(self, done: Callable[[str | None], None]) -> None:
        asyncio.get_running_loop().call_soon(done, None)

    def abort(self) -> None:
        return None


class ForgottenSnapshots:
    """core/ports.py `Snapshots` of a node that never starts again and has no peers."""

    def create(self, shard: int, index: int) -> SnapshotFile:
        return ForgottenSnapshot()

    def indexes(self, shard: int) -> list[int]:
        return []

    def read(self, shard: int, index: int) -> Iterator[bytes]:
        raise FileNotFoundError(f"snapshot {index} of shard {shard} was not kept")

    def delete(self, shard: int, index: int) -> None:
        return None

    def fetch(self, peer: int, shard: int, index: int, done: Callable[[str | None], None]) -> None:
        done("there are no peers")


@dataclass(frozen=True)
class Membership:
    """What one of several nodes in a process is given: who they are, the way to them, and a log that outlives it."""

    voters: tuple[int, ...]
    links: Links
    snapshots: Snapshots
    log: Log


class EmbeddedNode:
    """`await start()`, `connect` any number of protocols, `await close()`."""

    def __init__(self, config: Config, data: Path | None, membership: Membership | None = None) -> None:
        assert data is None or membership is None, "several nodes in a process are in memory"
        self._config = config
        self._data = data
        self._membership = membership
        self._loop = asyncio.get_running_loop()
        self._turn = Turn(self._loop, self._begin_turn, self._end_turn)
        self._connections: dict[Connection, None] = {}
        self._engine: Engine | None = None
        self._log: Log | None = None
        self._store: SnapshotStore | None = None
        self._identity: Identity | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure = "the embedded bus was closed"
        self._started: asyncio.Future[None] = self._loop.create_future()

    async def start(self) -> None:
        """Returns when it can commit. Raises IdentityError, LogError, OSError when its directory cannot be used."""
        try:
            self.bring_up()
            self.campaign()
            await self._started
        except BaseException:
            await self.close()
            raise

    def bring_up(self) -> None:
        """Bring the engine up. `start` does; several nodes are all opened before one campaigns."""
        if self._membership is not None:
            self._log = self._membership.log
            self._open_engine(self._membership.voters, self._membership.links, self._membership.snapshots)
            return
        snapshots: Snapshots
        if self._data is None:
            self._log = Log.in_memory(0)
            snapshots = ForgottenSnapshots()
        else:
            self._open_directory(self._data)
            snapshots = cast(Snapshots, self._store)
        self._open_engine((self._config.node.id,), NoLinks(), snapshots)

    def campaign(self) -> None:
        """Stand for election in the shards that it should lead, rather than wait for a time-out."""
        engine = self._engine
        assert engine is not None
        self._turn.enter()
        for shard in engine.shards:
            if engine.settings.preferred_leader(shard.number) == engine.settings.node:
                shard.replica.raft.campaign()
                shard.replica.advance()

    def connect(self, protocol: asyncio.Protocol) -> None:
        """Join a client's protocol with a session of this node. Raises ConnectionError when the node has ended."""
        if self._engine is None:
            raise ConnectionError(self._failure)
        join(self._loop, protocol, Connection(self))

    async def close(self) -> None:
        """Idempotent."""
        for handle in (self._tick, self._timer):
            if handle is not None:
                handle.cancel()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)
        self._engine = None
        if self._log is not None:
            if self._data is not None:
                self._loop.remove_reader(self._log.fileno())
            if self._membership is None:
                self._log.close()
            self._log = None
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._identity is not None:
            self._identity.close()
            self._identity = None

    # --- coming up ----------------------------------------------------------------------------------------------------

    def _open_directory(self, data: Path) -> None:
        number, shards = self._config.node.id, self._config.node.shards
        identity = self._identity = open_identity(data, number, shards, (number,))
        self._log = open_log(data, identity, shards)
        if not identity.is_bootstrapped:
            identity.bootstrap({number: identity.incarnation})
        self._store = SnapshotStore(self._loop, data)
        self._loop.add_reader(self._log.fileno(), self._on_log)

    def _open_engine(self, voters: tuple[int, ...], links: Links, snapshots: Snapshots) -> None:
        config, random = self._config, SystemRandom()
        settings = Settings(
            node=config.node.id,
            voters=voters,
            shards=config.node.shards,
            rules=rules_of(config),
            snapshot_log_bytes=config.limits.snapshot_log,
            snapshot_log_s=config.limits.snapshot_age / 1000,
            origin=random.getrandbits(64),
            seed=random.getrandbits(64),
        )
        assert self._log is not None
        access = Accounts(config, self._turn.enter)
        self._engine = Engine(settings, self._log, links, snapshots, access, self._turn.touch)
        configure_durable(self._engine.sessions.durable, self._config)
        self._begin_turn()
        if len(voters) > 1:
            self._tick = self._loop.call_later(limits.TICK_S, self._on_tick)
        self._turn.touch()

    # --- the turn -----------------------------------------------------------------------------------------------------

    def _begin_turn(self) -> None:
        if self._engine is not None:
            self._engine.begin_turn(self._loop.time(), time.time_ns() // 1_000_000)

    def _end_turn(self) -> None:
        if self._engine is not None:
            with self.trusting():
                self._work(self._engine)

    def _work(self, engine: Engine) -> None:
        log = self._log
        assert log is not None
        engine.on_timers()
        engine.end_turn()
        while self._data is None and engine.flushed_batch > engine.completed_batch:
            log.sync()  # there is no disk to wait for
            engine.on_log()
            engine.end_turn()
        engine.sessions.flush()
        for connection in self._connections:
            connection.resume_if_wanted()
        next_at = engine.timers.next_at()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if next_at is None else self._loop.call_at(next_at, self._turn.enter)
        if not self._started.done() and not engine.unready():
            self._on_leading(engine)

    def _on_leading(self, engine: Engine) -> None:
        """It can commit. The first tick proposes the channel rules; publishes wait until they hold."""
        if self._tick is None:
            self._on_tick()
        elif all(shard.replica.bus.rules.is_configured_as(engine.settings.rules) for shard in engine.shards):
            self._started.set_result(None)

    def _on_tick(self) -> None:
        if self._engine is not None:
            self._turn.enter()
            with self.trusting():
                self._engine.on_tick()
            self._tick = self._loop.call_later(limits.TICK_S, self._on_tick)

    def _on_log(self) -> None:
        if self._engine is not None:
            self._turn.enter()
            with self.trusting():
                self._engine.on_log()

    # --- other nodes tell ---------------------------------------------------------------------------------------------

    def receive(self, peer: int, messages: Sequence[PeerMessage]) -> None:
        if self._engine is not None:
            self._turn.enter()
            with self.trusting():
                self._engine.on_messages(peer, messages)

    def on_peer(self, peer: int, is_up: bool) -> None:
        if self._engine is not None:
            self._turn.enter()
            with self.trusting():
                (self._engine.on_peer_up if is_up else self._engine.on_peer_down)(peer)

    # --- what a test asks and does ------------------------------------------------------------------------------------

    def unready(self) -> list[str]:
        """Why it cannot serve writes now; empty when it can."""
        return [self._failure] if self._engine is None else self._engine.unready()

    def leader(self, channel: bytes) -> int:
        """The node that leads the channel's shard, as this one sees it; 0 when none does."""
        engine = self._engine
        return 0 if engine is None else engine.shards[engine.shard_of(channel)].replica.leader

    def subscribers(self) -> list[Connection]:
        return [connection for connection in self._connections if connection.is_subscriber]

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Let clients in over sockets too: they are sessions of this node like those through memory."""
        return await self._loop.create_server(lambda: Connection(self), host, port)

    @contextmanager
    def trusting(self) -> Iterator[None]:
        """An error of our own ends the node: nothing more is applied, answered or proposed by a state in doubt."""
        try:
            yield
        except BaseException as error:
            self._failure = f"the embedded bus failed: {type(error).__name__}: {error}"
            self._engine = None
            for connection in list(self._connections):
                connection.abort()
            if not self._started.done():
                self._started.set_exception(error)
                return
            raise

    # --- connections ask ----------------------------------------------------------------------------------------------

    def enter(self) -> None:
        self._turn.enter()

    def open(self, connection: Connection) -> Session:
        assert self._engine is not None, "connected before the start or after the end"
        self._connections[connection] = None
        encoders = Resp2Encoder(), Resp3Encoder()
        return self._engine.sessions.open(connection, *encoders, "embedded:0", "embedded:0", self._loop.time())

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)


class Connection(asyncio.Protocol):
    """The node's end of a client's memory transport; its session's `Output`."""

    def __init__(self, node: EmbeddedNode) -> None:
        self._node = node
        self._protocol = RedisProtocol()
        self._transport: asyncio.Transport
        self._session: Session
        self._is_reading = True
        self._held: list[bytes] | None = None

    @property
    def is_subscriber(self) -> bool:
        return self._session.is_subscriber

    def hold(self) -> None:
        """From now on nothing reaches the client, as if it did not read its socket."""
        if self._held is None:
            self._held = []
            self._session.on_blocked()

    def release(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self._session.is_closed:
            self._transport.write(b"".join(held))
            self.resume_writing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(limits.OUTBOX_HIGH_BYTES, limits.OUTBOX_LOW_BYTES)
        self._node.enter()
        self._session = self._node.open(self)
        self._protocol.authenticated = self._session.is_authenticated

    def data_received(self, data: bytes) -> None:
        self._node.enter()
        commands = self._protocol.receive_data(data)
        if commands and not self._session.is_closed:
            with self._node.trusting():
                self._session.handle(commands)
            self._protocol.authenticated = self._session.is_authenticated
        if not self._session.wants_read:
            self._is_reading = False
            self._transport.pause_reading()

    def resume_if_wanted(self) -> None:
        if not self._is_reading and self._session.wants_read:
            self._is_reading = True
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._node.enter()
        self._node.forget(self)
        if not self._session.is_closed:
            self._session.on_closed()

    def pause_writing(self) -> None:
        self._session.on_blocked()

    def resume_writing(self) -> None:
        if not self._session.is_closed and self._held is None:
            self._node.enter()
            self._session.on_writable()

    # --- the session's side (Output) ----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._held is None:
            self._transport.write(data)
        else:
            self._held.append(data)

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def unacknowledged_bytes(self) -> int | None:
        return unacknowledged_through(self._transport, sum(map(len, self._held or ())))
