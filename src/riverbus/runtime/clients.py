"""The RESP front: sockets of clients on the one side, their sessions on the other; and the write at the end of a turn.

A chunk that arrives becomes commands (wire/redis.py), which the session carries out; what it has to say gathers in its
outbox, and `ClientServer.flush` has it written, once a turn and session. It goes straight to the socket while the
transport holds nothing of ours, else through the transport: os.write costs 7.7 us where transport.write costs 10.9 us
(1,000 subscribers on loopback, 140 B each, the kernel's part included), and most of a fan-out is this call.

A full socket: `on_blocked` above OUTBOX_HIGH_BYTES in the transport, `on_writable` below OUTBOX_LOW_BYTES; in between
the session keeps a cursor and no bytes. A disconnect takes effect for subscriptions at once; publishes that came with
it in the same turn are still proposed, as Redis carries out what it has read.

Leaves to others: what commands mean. Invariants: the descriptor is written only while the transport has not begun to
close (it is closed, and its number free for another connection, after that); at most `sessions_max` sessions.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from typing import cast

from riverbus import limits
from riverbus.commands import Command, Publish
from riverbus.core.access.logins import host_of
from riverbus.core.clients.session import Session
from riverbus.core.clients.sessions import Sessions
from riverbus.core.ports import ReplyEncoder
from riverbus.runtime.rates import Budget, Rates
from riverbus.runtime.receipts import unacknowledged_bytes
from riverbus.runtime.tls import Certificates, Gate
from riverbus.runtime.turn import Turn
from riverbus.runtime.units import Address, cannot_listen
from riverbus.wire.redis import RedisProtocol

SESSIONS_FULL = "sessions_full"  # one connection more than sessions_max: told so and closed
NOT_AUTHENTICATED = "not_authenticated"  # no AUTH within AUTHENTICATION_DEADLINE_S: closed
ADDRESS_FULL = "address_full"  # one connection more than an address may have: told so and closed
TLS_FAILED = "tls_failed"  # no TLS, no certificate or a bad one, or too slow: closed
REASONS = (SESSIONS_FULL, NOT_AUTHENTICATED, ADDRESS_FULL, TLS_FAILED)

DESCRIPTORS_RESERVED = 256  # for the log, the peers, the admin server and files
ACCEPT_BACKLOG = 4096
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 60, 20, 3  # a dead client is gone after two minutes
CLOSE_DEADLINE_S = 1.0

_FULL_REPLY = b"-ERR max number of clients reached\r\n"
_ADDRESS_FULL_REPLY = b"-ERR max number of clients of this address reached\r\n"
_LATE_REPLY = b"-NOAUTH Authentication required within %d seconds\r\n" % limits.AUTHENTICATION_DEADLINE_S


class Connection(asyncio.Protocol):
    """One client's socket; its session's `Output`."""

    __slots__ = (
        "_budget",
        "_clients",
        "_deadline",
        "_descriptor",
        "_is_direct",
        "_late_bytes",
        "_protocol",
        "host",
        "is_throttled",
        "session",
        "transport",
    )

    def __init__(self, clients: ClientServer) -> None:
        self._clients = clients
        self._descriptor = -1
        self._is_direct = False  # the transport holds nothing: the socket may be written
        self._late_bytes = 0  # written through the transport since `unacknowledged_bytes` was asked last
        self._protocol = RedisProtocol()
        self._deadline: asyncio.TimerHandle | None = None
        self._budget: Budget | None = None
        self.host = ""
        self.is_throttled = False  # it has sent more than it may: not read for now
        self.transport: asyncio.Transport
        self.session: Session | None = None

    # --- the transport's side ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        clients = self._clients
        address = _text_of(transport.get_extra_info("peername"))
        self.host = host_of(address)
        if (refusal := clients.refusal(self.host)) is not None:
            self.transport.write(refusal)
            self.transport.close()
            return
        self.transport.set_write_buffer_limits(limits.OUTBOX_HIGH_BYTES, limits.OUTBOX_LOW_BYTES)
        client_socket = cast(socket.socket, transport.get_extra_info("socket"))
        _tune(client_socket)
        if transport.get_extra_info("sslcontext") is None:
            self._descriptor = client_socket.fileno()
            self._is_direct = True
        clients.turn.enter()
        if clients.rates is not None:
            self._budget = Budget(clients.rates.connection, clients.loop.time())
        session = self.session = clients.open(self, address, _text_of(transport.get_extra_info("sockname")))
        if not session.is_authenticated:
            self._deadline = clients.loop.call_later(limits.AUTHENTICATION_DEADLINE_S, self._on_deadline)

    def data_received(self, data: bytes) -> None:
        session = self.session
        if session is None:
            return
        self._clients.turn.enter()
        self._protocol.authenticated = session.is_authenticated
        self._protocol.is_traced = session.registry.monitors.are_on
        commands = self._protocol.receive_data(data)
        if self._budget is not None:
            self._spend(self._budget, session, commands, len(data))
        if commands:
            session.handle(commands)
            if not session.wants_read:
                self.transport.pause_reading()
                self._clients.on_read_paused(self)

    def _spend(self, budget: Budget, session: Session, commands: list[Command], size: int) -> None:
        clients = self._clients
        assert clients.rates is not None
        count = sum(len(each.payloads) if isinstance(each, Publish) else 1 for each in commands)
        wait_s = clients.rates.spend(budget, session.user, count, size, clients.loop.time())
        if wait_s > 0 and not self.is_throttled:
            self.is_throttled = True
            self.transport.pause_reading()
            clients.on_read_paused(self)
            clients.loop.call_later(wait_s, self._on_budget)

    def _on_budget(self) -> None:
        self.is_throttled = False
        if self.session is not None:
            self._clients.turn.enter()  # at whose end it is read again

    def eof_received(self) -> None:
        """The client has closed, or will read no more than what is ready."""
        if self.session is not None and not self.session.is_closed:
            self._clients.turn.enter()
            self.write(self.session.take_output())
            if self.session.is_subscriber:
                self.session.on_closed()

    def connection_lost(self, error: Exception | None) -> None:
        session = self.session
        if self._deadline is not None:
            self._deadline.cancel()
        if session is None:
            return
        self._clients.turn.enter()
        if session.is_subscriber:
            session.on_closed()
        self._clients.on_lost(self, session)
        self._descriptor = -1
        self.session = None  # they refer to each other, and nobody collects cycles (runtime/memory.py)

    def pause_writing(self) -> None:
        if self.session is not None:
            self.session.on_blocked()

    def resume_writing(self) -> None:
        if self.session is not None and not self.session.is_closed:
            self._clients.turn.enter()
            self.session.on_writable()

    def _on_deadline(self) -> None:
        session = self.session
        if session is not None and not session.is_authenticated and not session.is_closed:
            self._clients.drop(NOT_AUTHENTICATED)
            self.write(_LATE_REPLY)
            self.close()

    # --- the session's side (Output) --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        transport = self.transport
        if not data or transport.is_closing():
            return
        if not self._is_direct:
            transport.write(data)
            self._late_bytes += len(data)
            # Small and at once: what a slow client's transport holds is asked here, not in a callback of its own.
            self._is_direct = self._descriptor >= 0 and transport.get_write_buffer_size() == 0
            return
        try:
            sent = os.write(self._descriptor, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            transport.abort()
            return
        if sent < len(data):
            self._is_direct = False
            transport.write(memoryview(data)[sent:])

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def unacknowledged_bytes(self) -> int | None:
        """Over TLS known only when nothing is under way, and then of what was written before it was asked last."""
        transport = self.transport
        if self._descriptor >= 0:
            if transport.is_closing() and not self._is_direct:
                return None  # what the transport held is gone, and not to be counted any more
            queued = unacknowledged_bytes(self._descriptor)
            return None if queued is None else queued + transport.get_write_buffer_size()
        late, self._late_bytes = self._late_bytes, 0
        if self.session is None or transport.is_closing():
            return None  # the descriptor may be another connection's already
        queued = unacknowledged_bytes(cast(socket.socket, transport.get_extra_info("socket")).fileno())
        return late if queued == 0 and transport.get_write_buffer_size() == 0 else None


class ClientServer:
    """All RESP connections of a node."""

    def __init__(
        self,
        sessions: Sessions,
        turn: Turn,
        encoders: tuple[ReplyEncoder, ReplyEncoder],
        sessions_max: int,
        *,
        per_host_max: int = 0,
        rates: Rates | None = None,
    ) -> None:
        """`per_host_max` 0: as many from one address as there may be."""
        self.turn = turn
        self.loop = asyncio.get_running_loop()
        self._sessions = sessions
        self._encoders = encoders
        self._sessions_max = sessions_max
        self._per_host_max = per_host_max
        self._per_host: dict[str, int] = {}
        self.rates = rates if rates is not None and rates.are_limited else None
        self._gates: list[Gate] = []
        self._connections: dict[Connection, None] = {}
        self._read_paused: dict[Connection, None] = {}  # theirs are the sessions with too much in flight
        self._lost: list[Session] = []
        self._servers: list[asyncio.Server] = []
        self._empty: asyncio.Future[None] | None = None
        for reason in REASONS:
            sessions.counters.dropped.setdefault(reason, 0)

    async def listen(self, address: Address, certificates: Certificates | None = None) -> Address:
        """Where it listens, the port chosen if it was 0; with certificates only TLS comes in. Raises OSError."""

        def connection() -> asyncio.Protocol:
            return Connection(self)

        arrival = connection
        if certificates is not None:
            gate = Gate(certificates, connection, lambda: self.drop(TLS_FAILED))
            self._gates.append(gate)
            arrival = gate.connection
        try:
            server = await self.loop.create_server(arrival, address.host, address.port, backlog=ACCEPT_BACKLOG)
        except OSError as error:
            raise cannot_listen(address, error) from error
        self._servers.append(server)
        host, port = server.sockets[0].getsockname()[:2]
        return Address(host, port)

    async def close(self) -> None:
        """Take no more connections, write what is due, close all."""
        for server in self._servers:
            server.close()
        for gate in self._gates:
            gate.close()
        self.flush()
        connections = list(self._connections)
        for connection in connections:
            connection.close()
        if self._connections:
            self._empty = self.loop.create_future()
            await asyncio.wait([self._empty], timeout=CLOSE_DEADLINE_S)
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)

    def flush(self) -> None:
        """The last step of a turn: one write for each session that has something to say."""
        if self._lost:
            lost, self._lost = self._lost, []
            for session in lost:
                session.on_closed()
        self._sessions.flush()
        if self._read_paused:
            self._resume_reading()

    def _resume_reading(self) -> None:
        for connection in list(self._read_paused):
            session = connection.session
            assert session is not None
            if session.is_closed:
                del self._read_paused[connection]
            elif session.wants_read and not connection.is_throttled and not connection.transport.is_closing():
                del self._read_paused[connection]
                connection.transport.resume_reading()

    # --- connections ask ----------------------------------------------------------------------------------------------

    def refusal(self, host: str) -> bytes | None:
        """What a new connection is told before it is closed; None: come in."""
        if len(self._connections) >= self._sessions_max:
            self.drop(SESSIONS_FULL)
            refusal = _FULL_REPLY
        elif self._per_host_max and self._per_host.get(host, 0) >= self._per_host_max:
            self.drop(ADDRESS_FULL)
            refusal = _ADDRESS_FULL_REPLY
        else:
            return None
        self._sessions.rejected += 1
        return refusal

    def drop(self, reason: str) -> None:
        self._sessions.counters.dropped[reason] += 1

    def open(self, connection: Connection, address: str, local_address: str) -> Session:
        self._connections[connection] = None
        self._per_host[connection.host] = self._per_host.get(connection.host, 0) + 1
        return self._sessions.open(connection, *self._encoders, address, local_address, self.loop.time())

    def on_read_paused(self, connection: Connection) -> None:
        self._read_paused[connection] = None

    def on_lost(self, connection: Connection, session: Session) -> None:
        del self._connections[connection]
        left = self._per_host[connection.host] - 1
        if left:
            self._per_host[connection.host] = left
        else:
            del self._per_host[connection.host]
        self._read_paused.pop(connection, None)
        if not session.is_closed:
            self._lost.append(session)
        if not self._connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)


def descriptor_budget(sessions_wanted: int) -> int:
    """How many sessions there can be by this process' limit of open files, which is raised as far as it goes.

    A connection above it is refused with words; without this, accept would fail and the client see a bare close.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sessions_wanted + DESCRIPTORS_RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return sessions_wanted
    return max(1, min(sessions_wanted, soft - DESCRIPTORS_RESERVED))


def _tune(client_socket: socket.socket) -> None:
    if client_socket.family in (socket.AF_INET, socket.AF_INET6):
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def _text_of(name: object) -> str:
    """`host:port` of a socket's name, as CLIENT LIST shows it."""
    if isinstance(name, tuple) and len(name) >= 2:
        return str(Address(str(name[0]), int(name[1])))
    return "?:0"
