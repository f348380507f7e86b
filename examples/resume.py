"""Resume: a worker that was away gets what it missed, then what is new, with nothing lost between."""

import asyncio
import os

import riverbus

URL = os.environ.get("RIVERBUS_URL", "redis://127.0.0.1:6380")


async def work(bus: riverbus.Bus, since: riverbus.MessageId, count: int) -> riverbus.MessageId:
    """Takes `count` messages after `since`. Returns the position to go on from: keep it with your results."""
    async with bus.subscribe("orders", since=since) as items:
        async for item in items:
            if isinstance(item, riverbus.Gap):
                print(f"history between {item.after} and {item.until} is gone: read it from elsewhere")
                continue
            assert item.id is not None
            print(f"working on {item.payload.decode()}")
            since = item.id
            count -= 1
            if count == 0:
                break
    return since


async def main() -> None:
    async with riverbus.connect(URL) as bus:
        position = await bus.publish("orders", "order 0")
        for i in range(1, 4):
            await bus.publish("orders", f"order {i}")
        position = await work(bus, position, 2)
        print(f"stopped at {position}; two more orders come in meanwhile")
        for i in range(4, 6):
            await bus.publish("orders", f"order {i}")
        await work(bus, position, 3)


if __name__ == "__main__":
    asyncio.run(main())
