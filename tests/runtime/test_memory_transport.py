"""The embedded bus' transport: the client's contract over it (against the fake server), and its flow control."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from riverbus import Bus
from riverbus.client.address import Address
from riverbus.client.connection import Connection, PushHandler, handshake
from riverbus.runtime.memory_transport import MemoryTransport, join
from tests.client import contract
from tests.client.fake_server import Cluster, Node, Session


class FakeDialer:
    def __init__(self) -> None:
        self.node = Node(Cluster())

    async def dial(self, on_push: PushHandler | None = None) -> Connection:
        connection = Connection(Address.reply_timeout, on_push)
        join(asyncio.get_running_loop(), connection, Session(self.node))
        await connection.call(handshake(None, None, None))
        return connection

    async def close(self) -> None:
        return None


@contract.each_check
def test_contract(check: contract.Check) -> None:
    @asynccontextmanager
    async def open_bus() -> AsyncIterator[Bus]:
        async with Bus(FakeDialer(), 5.0) as bus:
            yield bus

    asyncio.run(contract.run(open_bus, check))


class Recorder(asyncio.Protocol):
    transport: MemoryTransport

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(MemoryTransport, transport)

    def data_received(self, data: bytes) -> None:
        self.events.append("data")
        self.data += data

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.events.append("lost")


async def joined() -> tuple[Recorder, Recorder]:
    here, there = Recorder(), Recorder()
    join(asyncio.get_running_loop(), here, there)
    return here, there


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_is_written_in_a_turn_arrives_at_once_and_close_flushes_it() -> None:
    async def story() -> None:
        here, there = await joined()
        here.transport.write(b"a")
        here.transport.writelines([b"b", b"c"])
        here.transport.close()
        here.transport.write(b"too late")
        await turns()
        assert (there.data, there.events, here.events) == (b"abc", ["data", "lost"], ["lost"])

    asyncio.run(story())


def test_a_paused_reader_pauses_the_writer_until_it_reads_again() -> None:
    async def story() -> None:
        here, there = await joined()
        here.transport.set_write_buffer_limits(high=1000, low=10)
        there.transport.pause_reading()
        here.transport.write(bytes(2000))
        await turns()
        assert (there.data, here.events) == (b"", ["pause"])
        there.transport.resume_reading()
        await turns()
        assert (len(there.data), here.events) == (2000, ["pause", "resume"])

    asyncio.run(story())


def test_abort_drops_what_is_under_way_and_each_end_is_told_once() -> None:
    async def story() -> None:
        here, there = await joined()
        here.transport.write(b"lost")
        here.transport.abort()
        there.transport.abort()
        await turns()
        assert (there.data, there.events, here.events) == (b"", ["lost"], ["lost"])

    asyncio.run(story())
