"""FastStream's RedisBroker over channels and patterns: handlers on one node, publishers on another; a request."""

from __future__ import annotations

from typing import Any

from faststream.redis import RedisBroker
from outcome import URLS, named, run, subscribed, until


async def story() -> dict[str, Any]:
    received: list[Any] = []
    broker = RedisBroker(URLS[0])

    @broker.subscriber(channel=named("orders"))
    async def on_order(order: dict[str, int]) -> None:
        received.append(["order", order])

    @broker.subscriber(channel=named("logs") + ".{level}")
    async def on_log(text: str) -> None:
        received.append(["log", text])

    @broker.subscriber(channel=named("double"))
    async def double(number: int) -> int:
        return number * 2

    await broker.start()
    alive = await broker.ping(timeout=5)
    async with RedisBroker(URLS[1]) as publisher:
        await subscribed(URLS[0], named("orders"), named("double"))
        for i in range(10):
            await publisher.publish({"n": i}, channel=named("orders"))
        await until(lambda: len(received) == 10)
        await publisher.publish("deep", channel=named("logs") + ".info")
        await until(lambda: len(received) == 11)
        reply = await publisher.request(21, channel=named("double"), timeout=5)
        answer = await reply.decode()
    await broker.stop()
    return {"alive": alive, "received": received, "answer": answer}


if __name__ == "__main__":
    run(story)
