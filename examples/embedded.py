"""Embedded: the same bus in this process, with no server and no socket. For tests, tools and one-process programs."""

import asyncio

import riverbus


async def main() -> None:
    async with riverbus.embedded() as bus:
        await bus.publish("news", "first")
        async with bus.subscribe("news", since="0-0", on_gap="raise") as messages:
            await bus.publish("news", "second")
            async for message in messages:
                print(f"{message.id}: {message.payload.decode()}")
                if message.payload == b"second":
                    break


if __name__ == "__main__":
    asyncio.run(main())
