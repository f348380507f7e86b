"""Retry storms: every client's connection goes through a proxy that eats acknowledgements, a node is killed on the way,
and each publish has exactly one effect: numbered ones (the Python client's) and those under a key of their own.

Short here; `RIVERBUS_RETRIES=long` makes a million publishes of it, and prints the figures.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import riverbus
from riverbus.client.connection import encode_command
from tests.faults.cluster import Cluster, running

IS_LONG = os.environ.get("RIVERBUS_RETRIES") == "long"
NUMBERED = 980_000 if IS_LONG else 6_000
KEYED = 20_000 if IS_LONG else 500
CHANNELS = [f"storm.{at}" for at in range(8)]
BETWEEN_MEALS_S = 0.3  # of each proxy
TRIES = 3  # of each key, on any nodes, whatever was answered


class AckEater:
    """Passes everything on to a node's port; each time its appetite is up, the next answer is eaten and its connection
    ends. Not sooner: a client that gets no answer at all learns nothing, and neither does the test."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._hungry_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self.eaten = 0
        self.port = 0
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            node_reader, node_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        up = asyncio.create_task(self._pass(reader, node_writer))
        down = asyncio.create_task(self._pass_answers(node_reader, writer))
        self._tasks |= {up, down}
        await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, node_writer):
            end.transport.abort()
        await asyncio.wait([up, down])
        self._tasks -= {up, down}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            return

    async def _pass_answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(65_536):
                if loop.time() >= self._hungry_at and not data.startswith(b"%"):  # HELLO's answer has no taste
                    self._hungry_at = loop.time() + BETWEEN_MEALS_S * random.uniform(0.5, 1.5)
                    self.eaten += 1
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def eating(cluster: Cluster) -> AsyncIterator[list[AckEater]]:
    eaters = [AckEater(node.resp_port) for node in cluster.nodes]
    for eater in eaters:
        await eater.start()
    try:
        yield eaters
    finally:
        for eater in eaters:
            await eater.close()


async def publish_numbered(bus: riverbus.Bus, count: int) -> dict[tuple[str, riverbus.MessageId], bytes]:
    """What was acknowledged, by channel and id."""
    acknowledged = {}

    async def publish(at: int) -> None:
        channel, payload = CHANNELS[at % len(CHANNELS)], b"n%d" % at
        acknowledged[channel, await bus.publish(channel, payload)] = payload

    for start in range(0, count, 500):
        await asyncio.gather(*(publish(at) for at in range(start, min(count, start + 500))))
    return acknowledged


async def publish_keyed(ports: list[int], count: int) -> int:
    """Each key `TRIES` times, as a client that never looks at an answer. How many answers there were."""
    answers = 0
    for start in range(0, count, 100):
        for _ in range(TRIES):
            answers += await _send_all(random.choice(ports), range(start, min(count, start + 100)))
    return answers


async def _send_all(port: int, numbers: range) -> int:
    answers = 0
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    try:
        for at in numbers:
            channel = CHANNELS[at % len(CHANNELS)].encode()
            writer.write(encode_command(b"BUS.PUBLISH", channel, b"k%d" % at, b"KEY", b"key-%d" % at))
        async with asyncio.timeout(3):
            while answers < len(numbers) and (line := await reader.readline()):
                answers += line.startswith((b"$", b"-"))
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
    return answers


async def kill_one(cluster: Cluster) -> None:
    leader = await cluster.busiest_leader()
    await leader.kill()
    await asyncio.sleep(0.5)
    await leader.start()
    await leader.wait_ready()


@pytest.mark.timeout(3600 if IS_LONG else 180)
def test_each_publish_has_one_effect_when_acknowledgements_are_eaten(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as cluster, eating(cluster) as eaters:
            url = "redis://" + ",".join(f"127.0.0.1:{eater.port}" for eater in eaters)
            async with riverbus.connect(url, deadline=60) as bus:
                begun = asyncio.get_running_loop().time()
                killing = asyncio.create_task(kill_one(cluster))
                keyed = asyncio.create_task(publish_keyed([eater.port for eater in eaters], KEYED))
                acknowledged = await publish_numbered(bus, NUMBERED)
                answers = await keyed
                await killing
                seconds = asyncio.get_running_loop().time() - begun
            await _send_in_peace(cluster)  # once more: whichever of the keys never arrived
            found: Counter[bytes] = Counter()
            async with cluster.connect() as bus:
                for channel in CHANNELS:
                    for message in await bus.history(channel):
                        found[message.payload] += 1
                        assert acknowledged.get((channel, message.id), message.payload) == message.payload  # type: ignore[arg-type]
            wanted = {b"n%d" % at for at in range(NUMBERED)} | {b"k%d" % at for at in range(KEYED)}
            assert found.keys() == wanted
            twice = {payload: count for payload, count in found.items() if count != 1}
            assert not twice, f"{len(twice)} had more than one effect, such as {next(iter(twice.items()))}"
            eaten = sum(eater.eaten for eater in eaters)
            assert eaten >= 3
            print(
                f"\nretry storm: {NUMBERED} numbered and {KEYED} keyed publishes (each key {TRIES} times, {answers}"
                f" answers seen), {eaten} answers eaten with their connections, 1 node killed, {seconds:.0f} s:"
                " one effect each"
            )

    asyncio.run(story())


async def _send_in_peace(cluster: Cluster) -> None:
    async with cluster.connect() as bus:
        for start in range(0, KEYED, 200):
            await asyncio.gather(
                *(
                    bus.publish(CHANNELS[at % len(CHANNELS)], b"k%d" % at, key=f"key-{at}")
                    for at in range(start, min(KEYED, start + 200))
                )
            )
