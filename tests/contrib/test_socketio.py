"""The python-socketio manager: two servers and an emitter over one bus; what reaches which client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import socketio

import riverbus
from riverbus.client.embedded_cluster import EmbeddedCluster
from riverbus.contrib.socketio import RiverbusManager


class Server:
    """A Socket.IO server whose clients are in the test: what each is sent ends up in `sent`."""

    def __init__(self, manager: RiverbusManager) -> None:
        self.manager = manager
        self.sent: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.server = socketio.AsyncServer(client_manager=manager, async_mode="asgi")
        self.server._send_packet = self._send
        self.server._send_eio_packet = self._send_eio

    async def _send(self, eio_sid: str, packet: Any) -> None:
        await self.sent.put((eio_sid, packet.data))

    async def _send_eio(self, eio_sid: str, packet: Any) -> None:
        await self.sent.put((eio_sid, packet.data))

    async def __aenter__(self) -> Server:
        self.manager.initialize()
        await self.manager.listening()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.manager.thread.cancel()
        await asyncio.wait([self.manager.thread])

    async def client(self, name: str, *rooms: str) -> str:
        sid: str = await self.manager.connect(name, "/")
        for room in rooms:
            await self.manager.enter_room(sid, "/", room)
        return sid

    async def next(self) -> tuple[str, Any]:
        eio_sid, data = await self.sent.get()
        return eio_sid, data if isinstance(data, list) else data[data.index("[") :]


def tell(story: Callable[[EmbeddedCluster], Awaitable[None]], **settings: Any) -> None:
    async def told() -> None:
        async with asyncio.timeout(30), EmbeddedCluster(settings=settings) as cluster:
            await story(cluster)

    asyncio.run(told())


def test_an_emit_reaches_the_clients_of_every_server_once() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        url = await cluster.listen()
        async with Server(RiverbusManager(url)) as one, Server(RiverbusManager(url)) as two:
            await one.client("a", "room")
            await two.client("b", "room")
            await two.client("c")
            await one.server.emit("hello", {"n": 1}, room="room")
            await two.server.emit("bye", {"n": 2})
            assert [await one.next() for _ in range(2)] == [("a", '["hello",{"n":1}]'), ("a", '["bye",{"n":2}]')]
            received = sorted([await two.next() for _ in range(3)])  # its own emit comes at once, another's by the bus
            assert received == [("b", '["bye",{"n":2}]'), ("b", '["hello",{"n":1}]'), ("c", '["bye",{"n":2}]')]

    tell(story)


def test_another_servers_client_joins_a_room_and_a_process_without_clients_emits() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        bus = cluster.connect()
        async with Server(RiverbusManager(bus=bus)) as one, Server(RiverbusManager(bus=bus)) as two:
            sid = await two.client("b")
            await one.manager.enter_room(sid, "/", "later")
            emitter = RiverbusManager(bus=bus, write_only=True)
            await emitter.emit("news", b"\x00\x01", room="later")
            eio_sid, data = await two.next()
            assert (eio_sid, "news" in data) == ("b", True)

    tell(story)


def test_emits_during_a_failover_arrive_in_order() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        url = await cluster.listen()
        async with Server(RiverbusManager(url)) as server:
            await server.client("a")
            emitter = RiverbusManager(url + "?deadline=20", write_only=True)
            await emitter.emit("n", 0)
            failover = asyncio.create_task(cluster.failover("socketio"))
            sent, unknown = [0], 0
            for i in range(1, 60):
                try:
                    await emitter.emit("n", i)
                    sent.append(i)
                except riverbus.OutcomeUnknown:
                    unknown += 1
            await failover
            await emitter.emit("n", "last")
            received = []
            while (await_next := (await server.next())[1]) != '["n","last"]':
                received.append(int(await_next[len('["n",') : -1]))
            assert received == sorted(set(received))
            assert set(sent) <= set(received)
            assert len(received) - len(sent) <= unknown

    tell(story)


def test_a_server_that_was_away_too_long_is_told_of_the_gap() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        gaps: asyncio.Queue[riverbus.Gap] = asyncio.Queue()
        async with Server(RiverbusManager(bus=cluster.connect(), on_gap=gaps.put_nowait)) as server:
            await server.client("a")
            emitter = RiverbusManager(bus=cluster.connect(), write_only=True)
            async with cluster.slow_consumers():
                for i in range(9):
                    await emitter.emit("n", i)
            assert (await gaps.get()).channel == "socketio"
            assert (await server.next())[1] == '["n",7]'

    tell(story, history={"count": 2})


def test_an_emit_that_is_not_accepted_raises() -> None:
    async def story(cluster: EmbeddedCluster) -> None:
        emitter = RiverbusManager(bus=cluster.connect(deadline=0.1), write_only=True)
        await emitter.emit("n", 0)
        await cluster.kill(2)
        await cluster.kill(3)
        with pytest.raises((riverbus.NotAccepted, riverbus.OutcomeUnknown)):
            await emitter.emit("n", 1)

    tell(story)


def test_a_manager_made_before_any_loop_serves_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    emitter = RiverbusManager("embedded://", write_only=True)
    asyncio.run(emitter.emit("n", 0))
    asyncio.run(emitter.emit("n", 1))
    assert emitter._buses._opened == {}
