"""Real sockets on uvloop, real sessions, and a node without Raft behind them (tests/core/fakes.py)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from riverbus import limits
from riverbus.client.connection import encode_command
from riverbus.core.state.rules import ChannelRule, Rules
from riverbus.runtime import clients as front
from riverbus.runtime.clients import ClientServer, descriptor_budget
from riverbus.runtime.config_users import Tls
from riverbus.runtime.tls import Certificates
from riverbus.runtime.turn import Turn
from riverbus.runtime.units import Address
from tests.core.fakes import RESP2, RESP3, FakeNode

DEADLINE_S = 20
LOOPBACK = Address("127.0.0.1", 0)
Story = Callable[[], Awaitable[None]]


class Front:
    """A `FakeNode` whose sessions are sockets. `turns` counts."""

    def __init__(self, node: FakeNode, sessions_max: int, **more: Any) -> None:
        self.node = node
        self.turns = 0
        self.turn = Turn(asyncio.get_running_loop(), self._begin, self._end)
        self.clients = ClientServer(node.sessions, self.turn, (RESP2, RESP3), sessions_max, **more)
        self.address = LOOPBACK
        self.opened: list[Client] = []

    def _begin(self) -> None:
        self.node.now += 0.001

    def _end(self) -> None:
        self.turns += 1
        node = self.node
        node.fire_timers()
        if any(node.queues):
            node.commit()
        node.release_reads()
        node.release_questions()
        node.sessions.end_turn()
        self.clients.flush()
        node.sessions.invariants()
        if node.is_busy:
            self.turn.touch()

    async def connect(self, tls: ssl.SSLContext | None = None) -> Client:
        client = Client(*await asyncio.open_connection(*self.address, ssl=tls, limit=limits.MIB))
        self.opened.append(client)
        return client

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.005)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *command: bytes) -> None:
        self.writer.write(encode_command(*command))

    async def line(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return (await self.reader.readline()).removesuffix(b"\r\n")

    async def ask(self, *command: bytes) -> bytes:
        self.send(*command)
        return await self.line()

    async def subscribe(self, channel: bytes) -> None:
        self.send(b"SUBSCRIBE", channel)
        for _ in range(6):
            await self.line()

    async def rest(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):  # reset by the server, as the test meant it
            await self.writer.wait_closed()


@asynccontextmanager
async def serving(
    node: FakeNode | None = None, sessions_max: int = 100, tls: Certificates | None = None, **more: Any
) -> AsyncIterator[Front]:
    server = Front(node or FakeNode(), sessions_max, **more)
    server.address = await server.clients.listen(LOOPBACK, tls)
    try:
        yield server
    finally:
        await server.clients.close()
        for client in server.opened:
            await client.close()


def run(story: Story) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3 * DEADLINE_S):
            await story()

    uvloop.run(bounded())


def test_a_published_message_comes_back_and_to_subscribers_of_other_connections() -> None:
    async def story() -> None:
        async with serving() as server:
            publisher, subscriber = await server.connect(), await server.connect()
            await subscriber.subscribe(b"chat")
            assert await publisher.ask(b"PUBLISH", b"chat", b"hi") == b":1"
            assert [await subscriber.line() for _ in range(7)][-1] == b"hi"

    run(story)


def test_commands_of_many_connections_that_are_ready_together_share_a_turn() -> None:
    async def story() -> None:
        async with serving() as server:
            clients = [await server.connect() for _ in range(50)]
            for client in clients:
                assert await client.ask(b"PING") == b"+PONG"
            before = server.turns
            sockets = [client.writer.get_extra_info("socket") for client in clients]
            for each in sockets:  # all at once, before the loop looks
                os.write(each.fileno(), encode_command(b"PUBLISH", b"c", b"x"))
            for client in clients:
                assert await client.line() == b":0"
            assert server.turns - before < 10

    run(story)


def test_one_connection_too_many_is_told_so_and_counted_and_the_others_stay() -> None:
    async def story() -> None:
        async with serving(sessions_max=2) as server:
            first, second = await server.connect(), await server.connect()
            assert await first.ask(b"PING") == b"+PONG"
            assert await second.ask(b"PING") == b"+PONG"
            third = await server.connect()
            assert await third.rest() == b"-ERR max number of clients reached\r\n"
            assert await first.ask(b"PING") == b"+PONG"
            counters = server.node.sessions.counters
            assert counters.dropped[front.SESSIONS_FULL] == 1
            await second.close()
            await server.until(lambda: len(server.node.sessions.by_id) == 1)
            assert await (await server.connect()).ask(b"PING") == b"+PONG"

    run(story)


def test_quit_and_protocol_errors_close_after_all_earlier_replies() -> None:
    async def story() -> None:
        async with serving() as server:
            client = await server.connect()
            client.writer.write(encode_command(b"PING") + encode_command(b"QUIT") + encode_command(b"PING"))
            assert await client.rest() == b"+PONG\r\n+OK\r\n"
            broken = await server.connect()
            broken.writer.write(encode_command(b"PUBLISH", b"c", b"x") + b"*1\r\n!\r\n")
            answer = await broken.rest()
            assert answer.startswith(b":0\r\n-ERR Protocol error")
            await server.until(lambda: not server.node.sessions.by_id)

    run(story)


def test_what_is_ready_is_answered_to_a_client_that_sends_and_closes_its_side() -> None:
    async def story() -> None:
        async with serving() as server:
            client = await server.connect()
            client.send(b"PING")
            client.writer.write_eof()
            assert await client.rest() == b"+PONG\r\n"

    run(story)


def test_publishes_of_a_client_that_goes_away_in_the_same_turn_are_carried_out() -> None:
    async def story() -> None:
        async with serving() as server:
            subscriber = await server.connect()
            await subscriber.subscribe(b"chat")
            with socket.create_connection(server.address) as client:
                client.sendall(encode_command(b"PUBLISH", b"chat", b"farewell"))
            assert [await subscriber.line() for _ in range(7)][-1] == b"farewell"
            await server.until(lambda: len(server.node.sessions.by_id) == 1)

    run(story)


def test_a_subscriber_that_is_gone_is_no_receiver_of_what_is_published_after_it() -> None:
    async def story() -> None:
        async with serving() as server:
            publisher, subscriber = await server.connect(), await server.connect()
            await subscriber.subscribe(b"chat")
            assert await publisher.ask(b"PUBLISH", b"chat", b"x") == b":1"
            raw = subscriber.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a goodbye
            subscriber.writer.transport.abort()
            await server.until(lambda: len(server.node.sessions.by_id) == 1)
            assert await publisher.ask(b"PUBLISH", b"chat", b"x") == b":0"

    run(story)


def test_a_client_that_does_not_authenticate_is_closed_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUTHENTICATION_DEADLINE_S", 0.2)
    node = FakeNode()
    node.users["default"] = b"secret"

    async def story() -> None:
        async with serving(node) as server:
            silent, known = await server.connect(), await server.connect()
            assert await known.ask(b"PING") == b"-NOAUTH Authentication required."
            assert await known.ask(b"AUTH", b"secret") == b"+OK"
            assert (await silent.rest()).startswith(b"-NOAUTH")
            assert await known.ask(b"PING") == b"+PONG"
            assert server.node.sessions.counters.dropped[front.NOT_AUTHENTICATED] == 1

    run(story)


def test_a_subscriber_that_never_reads_costs_bounded_memory_and_gets_the_rest_or_a_gap_when_it_does() -> None:
    node = FakeNode(Rules(channels=(ChannelRule(match="*", count=1000, bytes=4 * limits.MIB),)))
    payload = b"x" * 64 * limits.KIB

    async def story() -> None:
        async with serving(node) as server:
            slow, publisher = await server.connect(), await server.connect()
            await slow.subscribe(b"chat")
            slow_transport = cast(asyncio.Transport, slow.writer.transport)
            slow_transport.pause_reading()
            session = next(iter(node.sessions.by_id.values()))
            for _ in range(400):  # 25 MiB
                assert await publisher.ask(b"PUBLISH", b"chat", payload) == b":1"
            assert session.is_blocked
            held = session.output.transport.get_write_buffer_size()  # type: ignore[attr-defined]
            assert held < limits.OUTBOX_HIGH_BYTES + limits.BEHIND_READ_BYTES
            slow_transport.resume_reading()
            assert await publisher.ask(b"PUBLISH", b"chat", b"the last") == b":1"
            received, gaps = 0, 0
            while (line := await slow.line()) != b"the last":
                received += line == payload
                gaps += line == b"__riverbus__:gap"
            assert gaps == 1
            assert 10 < received < 400
            assert node.sessions.counters.dropped["window_passed"] == 1
            assert await slow.ask(b"PING") == b"*2"

    run(story)


def test_a_client_with_too_much_in_flight_is_not_read_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SESSION_INFLIGHT_COMMANDS_MAX", 10)

    async def story() -> None:
        async with serving() as server:
            client = await server.connect()
            for _ in range(20):
                client.writer.write(encode_command(b"PUBLISH", b"c", b"x") * 25)
                await asyncio.sleep(0)
            for _ in range(500):
                assert await client.line() == b":0"
            assert await client.ask(b"PING") == b"+PONG"

    run(story)


def test_closing_the_front_says_what_is_due_and_closes_every_connection() -> None:
    async def story() -> None:
        async with serving() as server:
            clients = [await server.connect() for _ in range(10)]
            for client in clients:
                assert await client.ask(b"PING") == b"+PONG"
            await server.clients.close()
            assert [await client.rest() for client in clients] == [b""] * 10
            assert not server.node.sessions.by_id
            with pytest.raises(OSError):
                await server.connect()

    run(story)


def test_tls_clients_are_served_and_one_without_the_asked_certificate_is_not(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*command, "-keyout", key, "-out", cert, "-days", "1"], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=str(cert))
    known = ssl.create_default_context(cafile=str(cert))
    known.load_cert_chain(cert, key)

    async def story() -> None:
        async with serving(tls=Certificates("tls", Tls(cert=cert, key=key))) as server:
            client, subscriber = await server.connect(trusting), await server.connect(trusting)
            await subscriber.subscribe(b"c")
            assert await client.ask(b"PUBLISH", b"c", b"x" * 100_000) == b":1"
            assert len([await subscriber.line() for _ in range(7)][-1]) == 100_000
            await client.close()
            await subscriber.close()
        async with serving(tls=Certificates("tls", Tls(cert=cert, key=key, ca=cert))) as server:
            assert await (await server.connect(known)).ask(b"PING") == b"+PONG"
            stranger = await server.connect(trusting)
            with contextlib.suppress(OSError):  # an alert, or a reset
                assert await stranger.ask(b"PING") == b""
            assert len(server.node.sessions.by_id) == 1

    run(story)


DESCRIPTOR_SCRIPT = """
import resource, sys
from riverbus.runtime.clients import descriptor_budget
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 400))
print(descriptor_budget(50_000), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_number_of_sessions_fits_the_limit_of_open_files() -> None:
    done = subprocess.run([sys.executable, "-c", DESCRIPTOR_SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == f"{400 - front.DESCRIPTORS_RESERVED} (400, 400)"
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert descriptor_budget(1) == 1
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft
