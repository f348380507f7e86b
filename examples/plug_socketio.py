"""python-socketio servers that share their clients over Riverbus; here two servers in one process, and an emitter.

Needs the extra: pip install 'riverbus[socketio]', and a node: `riverbus serve`. In earnest each is an ASGI program.
"""

import asyncio
import os

import socketio

import riverbus
from riverbus.contrib.socketio import RiverbusManager

URL = os.environ.get("RIVERBUS_URL", "redis://127.0.0.1:6380")


async def on_gap(gap: riverbus.Gap) -> None:
    """This server was away for longer than history is kept: its clients may have missed something."""
    await servers[0].emit("reload", ignore_queue=True)


servers = [
    socketio.AsyncServer(async_mode="asgi", client_manager=RiverbusManager(URL, on_gap=on_gap)) for _ in range(2)
]


async def main() -> None:
    for server in servers:
        server.manager.initialize()  # as the first connection does
        await server.manager.listening()
    sid = await servers[1].manager.connect("engine.io id of a client", "/")
    await servers[0].enter_room(sid, "lobby")  # a client of the other server
    outside = RiverbusManager(URL, write_only=True)  # a worker that only emits
    await outside.emit("news", {"text": "hello"}, room="lobby")
    while not list(servers[1].manager.get_participants("/", "lobby")):  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)
    print("in the lobby of the second server:", [each for each, _ in servers[1].manager.get_participants("/", "lobby")])


if __name__ == "__main__":
    asyncio.run(main())
