"""Django Channels over Riverbus: a consumer's group has history, so that a slow consumer misses nothing in silence.

Needs the extra: pip install 'riverbus[channels]', and a node: `riverbus serve`.
"""

import asyncio
import os

from channels.consumer import AsyncConsumer
from channels.layers import get_channel_layer
from django.conf import settings

settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "riverbus.contrib.channels.ChannelLayer",
            "CONFIG": {
                "url": os.environ.get("RIVERBUS_URL", "redis://127.0.0.1:6380"),
                "capacity": 10,
                "on_gap": f"{__name__}.on_gap",
            },
        },
    },
)


def on_gap(gap: object) -> None:
    print("these consumers should read their state anew:", gap)


class Chat(AsyncConsumer):  # type: ignore[misc]
    """In earnest an AsyncWebsocketConsumer."""

    async def chat_join(self, message: dict[str, str]) -> None:
        await self.channel_layer.group_add("room", self.channel_name)
        await self.send({"type": "joined"})

    async def chat_message(self, message: dict[str, str]) -> None:
        await self.send({"type": "said", "text": message["text"]})


async def main() -> None:
    layer = get_channel_layer()
    said: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    consumer = asyncio.create_task(Chat()({"type": "chat"}, inbox.get, said.put))
    await inbox.put({"type": "chat.join"})
    await said.get()
    for i in range(30):  # more than the consumer's queue holds
        await layer.group_send("room", {"type": "chat.message", "text": f"hello {i}"})
    for _ in range(30):
        print((await said.get())["text"])
    consumer.cancel()


if __name__ == "__main__":
    asyncio.run(main())
