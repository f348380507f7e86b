"""encode/broadcaster with history: a browser that lost its connection gets what it missed, by its last event's id.

Needs the extra: pip install 'riverbus[broadcaster]', and a node: `riverbus serve`.
"""

import asyncio
import os

import riverbus
from riverbus.contrib.broadcaster import Broadcast

URL = os.environ.get("RIVERBUS_URL", "redis://127.0.0.1:6380").replace("redis://", "riverbus://")


async def browse(
    broadcast: Broadcast, count: int, since: riverbus.MessageId | None = None
) -> riverbus.MessageId | None:
    """One connection of a browser, as a server-sent events endpoint has it: `since` is its Last-Event-ID."""
    async with broadcast.subscribe("chatroom", since=since) as subscriber:
        if since is None:
            await broadcast.publish("chatroom", "hello")
        for _ in range(count):
            event = await subscriber.get()
            print(f"id: {event.id}  data: {event.message}")
            since = event.id
    return since


async def main() -> None:
    async with Broadcast(URL) as broadcast:
        last_event_id = await browse(broadcast, 1)
        for word in ("while", "you", "were", "away"):
            await broadcast.publish("chatroom", word)
        await browse(broadcast, 4, last_event_id)


if __name__ == "__main__":
    asyncio.run(main())
