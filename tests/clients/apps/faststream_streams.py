"""FastStream's RedisBroker over streams: a plain reader, and two consumers of a group that share the work."""

from __future__ import annotations

from typing import Any

from faststream.redis import RedisBroker, StreamSub
from outcome import URLS, named, run, until


async def story() -> dict[str, Any]:
    plain: list[int] = []
    shared: dict[str, list[int]] = {"one": [], "two": []}
    brokers = [RedisBroker(url) for url in URLS[:2]]

    @brokers[0].subscriber(stream=StreamSub(named("events"), polling_interval=50, last_id="0"))
    async def on_event(event: dict[str, int]) -> None:
        plain.append(event["n"])

    def take_part(broker: RedisBroker, name: str) -> None:
        @broker.subscriber(stream=StreamSub(named("work"), group="workers", consumer=name, polling_interval=50))
        async def on_work(work: dict[str, int]) -> None:
            shared[name].append(work["n"])

    for broker, name in zip(brokers, shared, strict=True):
        take_part(broker, name)
        await broker.start()
    async with RedisBroker(URLS[2]) as publisher:
        for i in range(20):
            await publisher.publish({"n": i}, stream=named("events"))
            await publisher.publish({"n": i}, stream=named("work"))
        await until(lambda: len(plain) == 20 and len(shared["one"]) + len(shared["two"]) == 20)
    for broker in brokers:
        await broker.stop()
    return {"plain": plain, "shared": sorted(shared["one"] + shared["two"])}


if __name__ == "__main__":
    run(story)
