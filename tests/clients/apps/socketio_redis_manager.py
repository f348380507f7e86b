"""python-socketio's AsyncRedisManager: two servers, each on a node of its own, with real clients over WebSocket."""

from __future__ import annotations

from typing import Any

import socketio
from aiohttp import web
from outcome import URLS, named, run, subscribed, until


async def serve(url: str) -> tuple[socketio.AsyncServer, web.AppRunner, int]:
    server = socketio.AsyncServer(
        async_mode="aiohttp", client_manager=socketio.AsyncRedisManager(url, channel=named("socketio"))
    )

    @server.event
    async def join(sid: str, room: str) -> str:
        await server.enter_room(sid, room)
        return room

    @server.event
    async def say(sid: str, room: str, text: str) -> None:
        await server.emit("said", {"text": text}, room=room, skip_sid=sid)

    application = web.Application()
    server.attach(application)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return server, runner, runner.addresses[0][1]


async def story() -> dict[str, Any]:
    servers = [await serve(url) for url in URLS[:2]]
    received: list[list[Any]] = [[], [], []]
    clients = []
    for i, (_, _, port) in enumerate((servers[0], servers[1], servers[1])):
        client = socketio.AsyncClient()
        client.on("said", received[i].append)
        client.on("binary", received[i].append)
        await client.connect(f"http://127.0.0.1:{port}", transports=["websocket"])
        clients.append(client)
    joined = [await client.call("join", "room") for client in clients[:2]]
    for url in URLS[:2]:
        await subscribed(url, named("socketio"))
    for i in range(20):
        await clients[0].emit("say", ("room", f"{i}"))
    await until(lambda: len(received[1]) == 20)
    emitter = socketio.AsyncRedisManager(URLS[2], channel=named("socketio"), write_only=True)
    await emitter.emit("said", {"text": "to all"})
    await emitter.emit("binary", b"\x00\xff", room="room")
    await until(lambda: [len(each) for each in received] == [2, 22, 1])
    for client in clients:
        await client.disconnect()
    for server, runner, _ in servers:
        server.manager.thread.cancel()
        await runner.cleanup()
    return {
        "joined": joined,
        "received": [sorted(map(str, each)) for each in received],
    }  # each emit is a task of its own


if __name__ == "__main__":
    run(story)
