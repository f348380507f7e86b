"""redis-py, asyncio: subscribers in tasks on several nodes, pipelines, and many clients at once."""

from __future__ import annotations

import asyncio
from typing import Any

import redis.asyncio as redis
from outcome import URLS, named, run

COUNT = 200


async def listen(url: str, channel: str, ready: asyncio.Event) -> list[str]:
    async with redis.Redis.from_url(url, decode_responses=True) as client, client.pubsub() as pubsub:
        await pubsub.subscribe(channel)
        found: list[str] = []
        async for message in pubsub.listen():
            if message["type"] == "subscribe":
                ready.set()
            elif message["data"] == "end":
                return found
            else:
                found.append(message["data"])
    return found


async def story() -> dict[str, Any]:
    channel = named("many")
    ready = [asyncio.Event() for _ in URLS]
    listeners = [asyncio.create_task(listen(url, channel, event)) for url, event in zip(URLS, ready, strict=True)]
    await asyncio.gather(*(event.wait() for event in ready))
    async with redis.Redis.from_url(URLS[0]) as client:
        for i in range(COUNT):
            await client.publish(channel, f"{i}")
        async with client.pipeline(transaction=False) as pipe:
            for i in range(COUNT, 2 * COUNT):
                pipe.publish(channel, f"{i}")
            results = await pipe.execute()
        await client.publish(channel, "end")
        pings = await asyncio.gather(*(client.ping() for _ in range(20)))
    found = await asyncio.gather(*listeners)
    return {
        "everyone got everything in order": [each == [f"{i}" for i in range(2 * COUNT)] for each in found],
        "pipelined": len(results),
        "pings": pings,
    }


if __name__ == "__main__":
    run(story)
