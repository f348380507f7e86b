"""What the kernel says has arrived, on real sockets; and durable subscribers that rely on it, also over TLS."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from riverbus.runtime.config_users import ClientTls
from riverbus.runtime.receipts import unacknowledged_bytes
from riverbus.runtime.tls import Certificates
from tests.core.fakes import FakeNode
from tests.runtime.certificates import Authority
from tests.runtime.test_clients import Client, Front, run, serving

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


def test_the_kernel_knows_what_arrived_also_after_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with server:
            server.setblocking(False)
            sent = 0
            while True:
                try:
                    sent += server.send(bytes(65_536))
                except BlockingIOError:
                    break
            queued = unacknowledged_bytes(server.fileno())
            assert queued is not None
            assert 0 < queued < sent
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            after = unacknowledged_bytes(server.fileno())
            assert after is not None
            assert 0 < after <= queued
    assert unacknowledged_bytes(server.fileno()) is None


async def become_durable(client: Client) -> None:
    assert await client.ask(b"CLIENT", b"SETNAME", b"durable:n") == b"+OK"
    await client.subscribe(b"c")


async def payloads(client: Client, count: int) -> list[bytes]:
    return [[await client.line() for _ in range(7)][-1] for _ in range(count)]


async def let_save(front: Front) -> None:
    """Twice: over TLS what was written before the first look counts at the second."""
    for _ in range(2):
        front.node.now += 1
        front.turn.enter()
        before = front.turns
        await front.until(lambda before=before: front.turns > before and not front.node.is_busy)  # type: ignore[misc]


@pytest.mark.parametrize("is_secret", [False, True])
def test_what_arrived_is_not_sent_again_and_the_rest_is(is_secret: bool, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("server") if is_secret else None
    certificates = None
    if certificate is not None:
        certificates = Certificates("tls", ClientTls(cert=certificate[0], key=certificate[1]))

    async def story() -> None:
        node = FakeNode()
        async with serving(node, tls=certificates) as front:
            tls = authority.client() if is_secret else None
            publisher, client = await front.connect(tls), await front.connect(tls)
            await become_durable(client)
            for text in (b"1", b"2"):
                await publisher.ask(b"PUBLISH", b"c", text)
            assert await payloads(client, 2) == [b"1", b"2"]
            await let_save(front)
            await client.close()
            await front.until(lambda: len(node.sessions.by_id) == 1)
            await publisher.ask(b"PUBLISH", b"c", b"3")
            again = await front.connect(tls)
            await become_durable(again)
            assert await payloads(again, 1) == [b"3"]

    run(story)


def test_a_client_that_stops_reading_and_is_reset_misses_nothing() -> None:
    async def story() -> None:
        node = FakeNode()
        async with serving(node) as front:
            publisher, client = await front.connect(), await front.connect()
            await become_durable(client)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            count, size = 600, 20_000  # more than the sockets and the outbox hold
            for at in range(count):
                await publisher.ask(b"PUBLISH", b"c", b"%d " % at + bytes(size))
            await let_save(front)
            await let_save(front)
            raw = client.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.writer.transport.abort()
            await front.until(lambda: len(node.sessions.by_id) == 1)
            again = await front.connect()
            await become_durable(again)
            first = int((await payloads(again, 1))[0].split(b" ")[0])
            rest = await payloads(again, count - first - 1)
            assert [int(each.split(b" ")[0]) for each in rest] == list(range(first + 1, count))
            assert first * size < 8 * 2**20, "more counts as received than the client's kernel holds"

    run(story)
