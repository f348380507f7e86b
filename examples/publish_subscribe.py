"""Publish and subscribe: the smallest program. Needs a node: `riverbus serve`."""

import asyncio
import os

import riverbus

URL = os.environ.get("RIVERBUS_URL", "redis://127.0.0.1:6380")


async def main() -> None:
    async with riverbus.connect(URL) as bus, bus.subscribe("chat", on_gap="raise") as messages:
        for word in ("one", "two", "three"):
            id_ = await bus.publish("chat", word)  # returns once it is on the disks of a majority
            print(f"published {word} as {id_}")
        async for message in messages:
            print(f"got {message.payload.decode()} of {message.channel}")
            if message.payload == b"three":
                break


if __name__ == "__main__":
    asyncio.run(main())
