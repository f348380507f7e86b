"""channels_redis' pub/sub layer: two processes of a site, each on a node of its own."""

from __future__ import annotations

from typing import Any

from channels_redis.pubsub import RedisPubSubChannelLayer
from outcome import URLS, named, run


async def story() -> dict[str, Any]:
    one, two = (RedisPubSubChannelLayer(hosts=[url], prefix=named("asgi")) for url in URLS[:2])
    outcome: dict[str, Any] = {}
    a, b, c = await one.new_channel(), await one.new_channel(), await two.new_channel()
    await two.send(a, {"type": "direct", "bytes": b"\x00\xff", "n": 1})
    outcome["direct"] = await one.receive(a)
    for layer, channel in ((one, a), (one, b), (two, c)):
        await layer.group_add("room", channel)
    await one.group_send("room", {"type": "hello"})
    outcome["room"] = [await one.receive(a), await one.receive(b), await two.receive(c)]
    await one.group_discard("room", b)
    for i in range(50):
        await two.group_send("room", {"type": "n", "n": i})
    outcome["many"] = [[(await layer.receive(name))["n"] for _ in range(50)] for layer, name in ((one, a), (two, c))]
    await one.send(b, {"type": "only"})
    outcome["left"] = await one.receive(b)
    await one.flush()
    await two.flush()
    return outcome


if __name__ == "__main__":
    run(story)
