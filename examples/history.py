"""History: read a channel's past by id, time and direction, with the client or as a Redis stream."""

import asyncio
import os

import riverbus

URL = os.environ.get("RIVERBUS_URL", "redis://127.0.0.1:6380")


async def main() -> None:
    async with riverbus.connect(URL) as bus:
        ids = await asyncio.gather(*(bus.publish("sensor", f"{degrees} degrees") for degrees in range(20, 30)))
        newest = await bus.history("sensor", limit=3, reverse=True)
        print("newest first:", [message.payload.decode() for message in newest])
        part = await bus.history("sensor", ids[2], ids[4])
        print("between two ids:", [message.payload.decode() for message in part])
        minute_ago = f"{ids[-1].ms - 60_000}"  # an id's first half is Unix time in milliseconds
        print("in the last minute:", len(await bus.history("sensor", first=minute_ago)), "messages")
        print("retained:", await bus.length("sensor"))


if __name__ == "__main__":
    asyncio.run(main())
