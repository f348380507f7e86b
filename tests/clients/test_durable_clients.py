"""Other people's subscribers with a `durable:` name and no other change: no gap over their own reconnections.

redis-py under load, over many nodes' deaths, is tests/faults/test_durable_subscriber.py; here ioredis, node-redis and
redis-py's asyncio are cut off again and again, and their node is killed and comes back, while somebody publishes.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio

from tests.clients.test_applications import HERE, INSTALLED
from tests.faults.cluster import Cluster, die_with_parent, running, until

CHANNELS = ("c", "d.1", "d.2")  # the first by name, the others by pattern
MESSAGES = 600
CUT_EVERY = 40
READY_S = 60.0

CLIENTS = {
    "ioredis": ["node", str(INSTALLED / "node/durable.mjs"), "ioredis"],
    "node-redis": ["node", str(INSTALLED / "node/durable.mjs"), "node-redis"],
    "redis-py-asyncio": [sys.executable, str(HERE / "apps/redis_py_durable.py")],
}


class Subscriber:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.is_subscribed = False
        self.got: dict[str, list[int]] = {channel: [] for channel in CHANNELS}

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = json.loads(line)
            if told == "subscribed":
                self.is_subscribed = True
            else:
                channel, number = told
                self.got[channel].append(int(number))


@asynccontextmanager
async def subscribing(command: list[str], port: int) -> AsyncIterator[Subscriber]:
    process = await asyncio.create_subprocess_exec(
        *command, str(port), stdout=asyncio.subprocess.PIPE, preexec_fn=die_with_parent
    )
    subscriber = Subscriber(process)
    reading = asyncio.create_task(subscriber.read())
    try:
        await until(lambda: subscriber.is_subscribed, "the subscription is confirmed", READY_S)
        yield subscriber
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def cut(port: int) -> None:
    async with redis.asyncio.Redis(port=port) as admin:
        await admin.client_kill_filter(_type="pubsub")


async def story(cluster: Cluster, command: list[str]) -> None:
    node = cluster.node(1)
    published: dict[str, list[int]] = {channel: [] for channel in CHANNELS}
    async with subscribing(command, node.resp_port) as subscriber, cluster.connect() as bus:
        for number in range(MESSAGES):
            channel = CHANNELS[number % len(CHANNELS)]
            await bus.publish(channel, str(number))
            published[channel].append(number)
            if number == MESSAGES // 2:
                await node.kill()
            elif number == MESSAGES // 2 + CUT_EVERY:
                await node.start()
                await node.wait_ready()
            elif number % CUT_EVERY == 0 and node.process is not None:
                await cut(node.resp_port)
        await until(
            lambda: all(got and got[-1] == published[channel][-1] for channel, got in subscriber.got.items()),
            "it has the last message of each channel",
            READY_S,
        )
    for channel, got in subscriber.got.items():
        assert list(dict.fromkeys(got)) == published[channel], "no gap, and in order but where it went back"
    print(f"{sum(map(len, subscriber.got.values())) - MESSAGES} of {MESSAGES} came twice")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("client", list(CLIENTS))
def test_no_gap_over_reconnections(tmp_path: Path, client: str) -> None:
    command = CLIENTS[client]
    if command[0] == "node":
        if not (INSTALLED / "node/node_modules").exists():
            pytest.skip(f"{client} is not installed: make clients")
        shutil.copy(HERE / "node/durable.mjs", INSTALLED / "node")

    async def run() -> None:
        async with running(tmp_path) as cluster:
            await story(cluster, command)

    asyncio.run(run())
