"""The composition root: one node of the real world. Everything is made here, given what it needs, and started in order.

`Node.start` opens the data directory and the log, links up with the other nodes, and, once the cluster is founded,
brings up the engine and lets clients in. The admin endpoints answer from the first moment on, so that a node that waits
can say for what. The engine's inputs, all on the loop: the log's eventfd, peers' messages, clients' bytes, a tick, its
timers.

An error of our own (a broken invariant, a poisoned raft, a disk that failed) ends in `_fail`: the process says what
happened and stops at once. It never goes on with a state that it cannot trust.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random, SystemRandom

import structlog
from pydantic import SecretStr

from riverbus import limits
from riverbus._native import Log
from riverbus.core.consensus.shard import Settings
from riverbus.core.engine import Engine
from riverbus.peer_messages import PeerMessage
from riverbus.runtime.admin import AdminServer
from riverbus.runtime.channel_rules import rules_of
from riverbus.runtime.clients import ClientServer, descriptor_budget
from riverbus.runtime.config import Config
from riverbus.runtime.durable_log import open_log
from riverbus.runtime.durable_subscribers import configure_durable
from riverbus.runtime.identity import Identity, open_identity
from riverbus.runtime.metrics import Metrics
from riverbus.runtime.peers import PeerLinks
from riverbus.runtime.rates import rates_of
from riverbus.runtime.security import Accounts, client_context, read_secret, server_context
from riverbus.runtime.snapshots import SnapshotStore
from riverbus.runtime.tls import NodeCertificates
from riverbus.runtime.turn import LagProbe, Turn
from riverbus.wire.encoders import Resp2Encoder, Resp3Encoder

log = structlog.get_logger("riverbus.node")

_DISK_LOOK_S = 1.0


class NodeFailure(Exception):
    """Why the node stopped by itself, in words for an operator."""


class Node:
    """`await start()`, then `await run()` until `stop()` or a failure, then `await close()`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data: Path = config.node.data
        self.engine: Engine | None = None
        self._loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._loop.set_exception_handler(self._on_loop_exception)
        self.turn = Turn(self._loop, self._begin_turn, self._end_turn)
        self.lag = LagProbe(self._loop)
        self.accounts = Accounts(config, self.turn.enter)
        self.certificates = NodeCertificates(config)
        self.links: PeerLinks | None = None
        self.clients: ClientServer | None = None
        self._takes_clients = False
        self._identity: Identity | None = None
        self._log: Log | None = None
        metrics = Metrics(
            self.status,
            {
                "riverbus_turn_end_seconds": ("time taken by the end of a turn of the loop", self.turn.durations),
                "riverbus_loop_lag_seconds": ("how late the loop is with what is due", self.lag.lags),
            },
        )
        self._admin = AdminServer(self, metrics.render, _secret_text(config.admin.token))
        self._snapshots: SnapshotStore | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._disk_look: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._ticks_due = 0.0

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Come up; returns when clients can connect. Raises OSError, IdentityError, LogError, ConfigError."""
        config = self.config
        peers = {number: address for number, address in config.members.items() if number != config.node.id}
        secret = read_secret(config.node.secret_file) if config.node.secret_file or peers else b""
        server_tls, client_tls = server_context(config.peer.tls), client_context(config.peer.tls)
        self.certificates.open(server_tls, client_tls)
        self._identity = open_identity(self.data, config.node.id, config.node.shards, tuple(config.members))
        self._log = open_log(self.data, self._identity, config.node.shards)
        await self._admin.start(config.admin.listen, self.certificates.admin)
        self._snapshots = SnapshotStore(self._loop, self.data)
        self.links = PeerLinks(
            self._loop,
            self._identity,
            secret,
            config.peer_listen,
            peers,
            self,
            Random(SystemRandom().getrandbits(64)),
            server_ssl=server_tls,
            client_ssl=client_tls,
            snapshots=self._snapshots,
        )
        if peers:
            await self.links.start()
            waiting = asyncio.ensure_future(self.links.wait_bootstrapped())
            await asyncio.wait([waiting, self._stopped], return_when=asyncio.FIRST_COMPLETED)
            if self._stopped.done():
                waiting.cancel()
                self._stopped.result()
                return
        elif not self._identity.is_bootstrapped:
            self._identity.bootstrap({config.node.id: self._identity.incarnation})
        self._open_engine()
        assert self.engine is not None
        self.clients = ClientServer(
            self.engine.sessions,
            self.turn,
            (Resp2Encoder(), Resp3Encoder()),
            descriptor_budget(config.limits.sessions),
            per_host_max=config.limits.connections_per_address,
            rates=rates_of(config),
        )
        self.engine.sessions.users.failures.failures_max = config.limits.failed_logins
        configure_durable(self.engine.sessions.durable, config)
        await self.clients.listen(config.resp.listen, self.certificates.clients)
        self._takes_clients = True
        if not config.resp.listen.is_loopback and not config.tls.is_on:
            log.warning("clients' passwords and messages cross the network in the clear: see tls.cert and tls.key")
        log.info("node started", node=config.node.id, resp=str(config.resp.listen), data=str(self.data))

    def _open_engine(self) -> None:
        config = self.config
        assert self.links is not None
        assert self._snapshots is not None
        assert self._log is not None
        random = SystemRandom()
        settings = Settings(
            node=config.node.id,
            voters=tuple(config.members),
            shards=config.node.shards,
            rules=rules_of(config),
            snapshot_log_bytes=config.limits.snapshot_log,
            snapshot_log_s=config.limits.snapshot_age / 1000,
            origin=random.getrandbits(64),
            seed=random.getrandbits(64),
        )
        self.engine = Engine(settings, self._log, self.links, self._snapshots, self.accounts, self.turn.touch)
        self._loop.add_reader(self._log.fileno(), self._on_log)
        for peer in self.engine.peers:
            if self.links.is_up(peer):
                self.engine.on_peer_up(peer)
        if not self.engine.peers:
            for shard in self.engine.shards:
                shard.replica.raft.campaign()
                shard.replica.advance()
        self._look_at_disk()
        self._ticks_due = self._loop.time() + limits.TICK_S
        self._tick = self._loop.call_at(self._ticks_due, self._on_tick)
        self.turn.touch()

    async def run(self) -> None:
        """Until `stop`, or raises NodeFailure."""
        await self._stopped

    def stop(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def close(self) -> None:
        """Let go of everything; what was acknowledged is on disk already."""
        self.lag.stop()
        self.certificates.close()
        self.accounts.close()
        for handle in (self._tick, self._disk_look, self._timer):
            if handle is not None:
                handle.cancel()
        if self.clients is not None:
            await self.clients.close()
        if self.links is not None:
            self.links.close()
            await self.links.wait_closed()
        if self._log is not None:
            self._loop.remove_reader(self._log.fileno())
            self.engine = None
            self._log.close()
        if self._snapshots is not None:
            self._snapshots.close()
        await self._admin.close()
        if self._identity is not None:
            self._identity.close()

    # --- the turn ---------------------------------------------------------------------------------------------------

    def _begin_turn(self) -> None:
        if self.engine is not None:
            self.engine.begin_turn(self._loop.time(), time.time_ns() // 1_000_000)

    def _end_turn(self) -> None:
        engine = self.engine
        if engine is None:
            return
        engine.on_timers()
        engine.end_turn()
        assert self.links is not None
        self.links.flush()
        if self.clients is not None:
            self.clients.flush()
        next_at = engine.timers.next_at()
        if next_at is not None and (self._timer is None or next_at < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = next_at
            self._timer = self._loop.call_at(next_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.turn.enter()

    def _on_tick(self) -> None:
        engine = self.engine
        if engine is None:
            return
        self.turn.enter()
        engine.on_tick()
        # After a stall one tick, not the ones that were missed: a stall must not become an election.
        self._ticks_due = max(self._ticks_due + limits.TICK_S, self._loop.time() + limits.TICK_S / 2)
        self._tick = self._loop.call_at(self._ticks_due, self._on_tick)

    def _on_log(self) -> None:
        if self.engine is not None:
            self.turn.enter()
            self.engine.on_log()

    def _look_at_disk(self) -> None:
        if self.engine is None:
            return
        room = os.statvfs(self.data)
        is_full = room.f_bavail * room.f_frsize < self.config.limits.disk_reserve
        if is_full != self.engine.is_disk_full:
            if is_full:
                log.error("the disk is full: publishes are refused", free_bytes=room.f_bavail * room.f_frsize)
            else:
                log.info("the disk has room again: publishes are taken")
        self.engine.on_disk_room(is_full)
        self._disk_look = self._loop.call_later(_DISK_LOOK_S, self._look_at_disk)

    # --- peers tell (PeerHandler) -----------------------------------------------------------------------------------

    def on_bootstrapped(self) -> None:
        log.info("the cluster is founded", node=self.config.node.id)

    def on_up(self, peer: int) -> None:
        if self.engine is not None:
            self.turn.enter()
            self.engine.on_peer_up(peer)

    def on_down(self, peer: int) -> None:
        if self.engine is not None:
            self.turn.enter()
            self.engine.on_peer_down(peer)

    def on_messages(self, peer: int, messages: list[PeerMessage]) -> None:
        if self.engine is None:
            return  # Raft bears a lost message; a batch is answered with silence, and so unknown
        self.turn.enter()
        self.engine.on_messages(peer, messages)

    def on_refused(self, reason: str, fatal: bool) -> None:
        if fatal:
            self._fail(reason)

    # --- what cannot go on ------------------------------------------------------------------------------------------

    def _on_loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Anything that a callback let through is our own fault: stop, with its traceback in the log."""
        error = context.get("exception")
        log.critical(
            "the node stops: " + str(context.get("message", "an error that nobody handled")),
            error=repr(error),
            exc_info=error if isinstance(error, BaseException) else None,
        )
        self._fail(f"{type(error).__name__}: {error}" if error is not None else str(context.get("message")))

    def _fail(self, reason: str) -> None:
        self.engine = None  # nothing more is applied, answered or proposed by a node that does not trust itself
        if not self._stopped.done():
            self._stopped.set_exception(NodeFailure(reason))

    # --- what others look at ----------------------------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """`state` is starting (other fields are missing then), running or stopping."""
        process = os.getpid()
        if self.engine is not None and self._takes_clients:
            return {"state": "running", "process": process, **self.engine.status()}
        config, links = self.config, self.links
        return {
            "state": "stopping" if self._stopped.done() else "starting",
            "process": process,
            "node": config.node.id,
            "voters": list(config.members),
            "peers_up": [peer for peer in config.members if links is not None and links.is_up(peer)],
            "is_founded": self._identity is not None and self._identity.is_bootstrapped,
            "ready": False,
        }

    def unready(self) -> list[str]:
        if self.engine is None or not self._takes_clients:
            awaited = [] if self.links is None or self.links.identity.is_bootstrapped else self.links.awaited()
            return awaited or ["this node is starting"]
        return self.engine.unready()


def _secret_text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


async def serve(config: Config, on_started: Callable[[Node], None]) -> None:
    """Run a node until it is told to stop. Raises what `start` and `run` raise, after everything is let go of."""
    node = Node(config)
    try:
        await node.start()
        on_started(node)
        await node.run()
    finally:
        await node.close()
