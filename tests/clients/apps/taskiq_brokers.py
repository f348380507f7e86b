"""taskiq-redis: tasks over its pub/sub broker and its stream broker, results in its result backend."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from outcome import URLS, named, run, subscribed
from taskiq import AsyncBroker
from taskiq.api import run_receiver_task
from taskiq_redis import PubSubBroker, RedisAsyncResultBackend, RedisStreamBroker


async def tasks(broker: AsyncBroker, channels: list[str]) -> list[int]:
    @broker.task(task_name="square")
    async def square(number: int) -> int:
        return number * number

    broker.is_worker_process = True
    await broker.startup()
    receiving = asyncio.create_task(run_receiver_task(broker))
    await subscribed(URLS[0], *channels)
    started = [await square.kiq(number) for number in range(10)]
    results = [await task.wait_result(check_interval=0.02, timeout=10) for task in started]
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    await broker.shutdown()
    return [result.return_value for result in results]


async def story() -> dict[str, Any]:
    backend: Any = RedisAsyncResultBackend(URLS[1], result_ex_time=60)
    if sys.argv[1] == "pubsub":
        broker: AsyncBroker = PubSubBroker(URLS[0], queue_name=named("tasks"))
        return {"squares": await tasks(broker.with_result_backend(backend), [named("tasks")])}
    broker = RedisStreamBroker(URLS[0], queue_name=named("stream"))
    return {"squares": await tasks(broker.with_result_backend(backend), [])}


if __name__ == "__main__":
    run(story)
