"""encode/broadcaster by its redis:// and redis-stream:// URLs; a publisher on one node, subscribers on others."""

from __future__ import annotations

from typing import Any

from broadcaster import Broadcast
from outcome import URLS, named, run, subscribed


async def told(scheme: str) -> list[Any]:
    urls = [url.replace("redis://", f"{scheme}://") for url in URLS]
    channel, other = named(f"{scheme}-chat"), named(f"{scheme}-other")
    async with Broadcast(urls[0]) as one, Broadcast(urls[1]) as two:
        await one.publish(channel, "before")
        async with one.subscribe(channel) as first, two.subscribe(channel) as second, two.subscribe(other) as third:
            if scheme == "redis":
                await subscribed(urls[0], channel)
                await subscribed(urls[1].replace("redis-stream", "redis"), channel, other)
            for i in range(20):
                await one.publish(channel, f"{i}")
            await two.publish(other, "elsewhere")
            return [
                [(await first.get()).message for _ in range(20)],
                [(await second.get()).message for _ in range(20)],
                (await third.get()).message,
            ]


async def story() -> dict[str, Any]:
    return {scheme: await told(scheme) for scheme in ("redis", "redis-stream")}


if __name__ == "__main__":
    run(story)
