"""Publishers and readers over real nodes, with the history of events that the checkers judge.

Publishers use redis-py with its retries off, so that one call is one attempt. What a reply means: a number is ok;
-CLUSTERDOWN, -BUSY, -MISCONF and -OOM say that the publish had no effect (fail); anything else, a lost connection and a
timeout among it, is not known (info). A connection that could not be made sent nothing, and is no event at all.

Values are `publisher:counter`, unique; each publisher's counter goes round the channels.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, RedisError, ResponseError

import riverbus
from riverbus.messages import MessageId
from riverbus.sim.checkers import Event, HashAt, Result, check, check_hashes
from tests.faults.cluster import POLL_S, Cluster, Node, until

SOCKET_TIMEOUT_S = 3.0
PAGE_COUNT = 5000
READ_EVERY_S = 1.5
ReadStep = Callable[[Node, str, str], Awaitable[list[Event]]]  # of node and channel, by a reader of that name
REFUSALS = ("CLUSTERDOWN", "BUSY", "MISCONF", "OOM")  # the first words of replies that mean: not in the log


def client_of(node: Node) -> redis.Redis:
    """One connection, one attempt a call."""
    return redis.Redis(
        host="127.0.0.1",
        port=node.resp_port,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        single_connection_client=True,
    )


def result_of(reply: object) -> Result:
    if not isinstance(reply, BaseException):
        return "ok"
    if isinstance(reply, ClusterDownError):
        return "fail"
    if isinstance(reply, ResponseError) and (is_refusal(str(reply)) or type(reply).__name__ == "OutOfMemoryError"):
        return "fail"
    return "info"


def is_refusal(text: str) -> bool:
    return text.split(" ", 1)[0] in REFUSALS


def value_of(payload: bytes) -> str:
    """A payload is its value, and filling after a space if there is any."""
    return payload.partition(b" ")[0].decode()


class History:
    """Events by channel, from all clients; and every running hash that a node was seen with."""

    def __init__(self, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)
        self.events: dict[str, list[Event]] = {channel: [] for channel in channels}
        self.hashes: list[HashAt] = []
        self.results: Counter[str] = Counter()
        self.slowest_answer_s = 0.0
        self.blocks = 0  # of publishers, so that their names are never reused

    def add(self, event: Event) -> None:
        self.events[event.channel].append(event)
        if event.operation == "publish":
            self.results[event.result] += 1

    def observe_status(self, status: dict[str, Any]) -> None:
        for shard in status.get("shards", ()):  # a node that starts has none yet
            self.hashes.append(HashAt(status["node"], shard["shard"], shard["applied"], shard["hash"]))


class Publisher:
    """Publishes as fast as it is answered, `burst` at a time, moving to the next node when one fails it."""

    def __init__(self, name: str, history: History, nodes: Sequence[Node], first: int, burst: int) -> None:
        self.name = name
        self._history = history
        self._nodes = nodes
        self._at = first
        self._burst = burst
        self._counter = 0
        self.is_stopping = False  # a flag: redis-py can lose a cancellation that meets its own timeouts

    async def run(self) -> None:
        """Until told to stop; what is in flight then is awaited."""
        while not self.is_stopping:
            node = self._nodes[self._at % len(self._nodes)]
            self._at += 1
            client = client_of(node)
            try:
                await client.initialize()
                await self._publish_to(node, client)
            except (RedisError, OSError):
                await asyncio.sleep(POLL_S)
            finally:
                await client.aclose()

    async def _publish_to(self, node: Node, client: redis.Redis) -> None:
        """Until the node fails."""
        while not self.is_stopping:
            replies = await self._publish_burst(node, client)
            if any(isinstance(reply, BaseException) for reply in replies):
                await asyncio.sleep(POLL_S)
                return

    async def _publish_burst(self, node: Node, client: redis.Redis) -> list[object]:
        """All of a burst go to one channel, as that is where their order is promised."""
        history, loop = self._history, asyncio.get_running_loop()
        channel = history.channels[self._counter // self._burst % len(history.channels)]
        values = [f"{self.name}:{self._counter + i}" for i in range(self._burst)]
        self._counter += self._burst
        invoked = loop.time()
        replies: list[object]
        try:
            if self._burst == 1:
                replies = [await client.publish(channel, values[0])]
            else:
                pipeline = client.pipeline(transaction=False)
                for value in values:
                    pipeline.publish(channel, value)
                replies = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            replies = [error] * self._burst
        if not any(isinstance(reply, (RedisError, OSError)) for reply in replies):
            history.slowest_answer_s = max(history.slowest_answer_s, loop.time() - invoked)
        self._record(node, channel, values, replies, invoked)
        return replies

    def _record(self, node: Node, channel: str, values: list[str], replies: list[object], invoked: float) -> None:
        done = asyncio.get_running_loop().time()
        for value, reply in zip(values, replies, strict=True):
            result = result_of(reply)
            self._history.add(Event(invoked, done, self.name, "publish", channel, value, result, None, node.id))


@asynccontextmanager
async def publishing(history: History, cluster: Cluster, count: int = 8, burst: int = 10) -> AsyncIterator[None]:
    """While the block runs `count` publishers do too, over all nodes; every second one has one publish in flight."""
    history.blocks += 1
    publishers = [
        Publisher(f"p{history.blocks}.{i}", history, cluster.nodes, i, burst if i % 2 else 1) for i in range(count)
    ]
    async with asyncio.TaskGroup() as group:
        for publisher in publishers:
            group.create_task(publisher.run())
        try:
            yield
        finally:
            for publisher in publishers:
                publisher.is_stopping = True


@asynccontextmanager
async def watching_hashes(history: History, cluster: Cluster) -> AsyncIterator[None]:
    """Collects the running hashes of all nodes that answer, for C12."""

    async def watch() -> None:
        while True:
            for node in cluster.nodes:
                if node.process is None or node.is_paused:
                    continue
                try:
                    history.observe_status(await node.status())
                except (OSError, TimeoutError):
                    pass
            await asyncio.sleep(10 * POLL_S)

    async with _background(watch()):
        yield


@asynccontextmanager
async def reading(
    history: History, cluster: Cluster, step: ReadStep, every_s: float = READ_EVERY_S
) -> AsyncIterator[None]:
    """Beside the faults: reads of one channel after another, each from one node after another, for C10."""
    is_stopping = False

    async def read() -> None:
        count = 0
        while not is_stopping:
            node = cluster.nodes[count % len(cluster.nodes)]
            channel = history.channels[count // len(cluster.nodes) % len(history.channels)]
            count += 1
            try:
                for event in await step(node, channel, f"early reader {count}"):
                    history.add(event)
            except (RedisError, OSError):
                pass  # the node is down, or cut off and says so
            await asyncio.sleep(every_s)

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        try:
            yield
        finally:
            is_stopping = True


@asynccontextmanager
async def subscribing(history: History, bus: riverbus.Bus, name: str = "subscriber") -> AsyncIterator[None]:
    """A subscriber with the Python client on all channels, live from the start of the block."""
    loop = asyncio.get_running_loop()
    async with bus.subscribe(*history.channels) as subscription:
        for channel, position in subscription.positions.items():
            history.add(Event(loop.time(), loop.time(), name, "subscribe", channel, id=position))

        async def follow() -> None:
            async for item in subscription:
                now = loop.time()
                assert item.channel is not None
                if isinstance(item, riverbus.Gap):
                    history.add(Event(now, now, name, "gap", item.channel, id=item.until, after=item.after))
                else:
                    value = value_of(item.payload)
                    history.add(Event(now, now, name, "deliver", item.channel, value, "ok", item.id))

        async with _background(follow()):
            yield


async def wait_delivered(history: History, cluster: Cluster, name: str = "subscriber") -> None:
    """Until the subscriber has each channel's last message. Nothing is being published."""
    async with cluster.connect() as bus:
        for channel in history.channels:
            newest = await bus.history(channel, limit=1, reverse=True)
            if newest:
                last_id = newest[0].id
                await until(
                    lambda channel=channel, last_id=last_id: _last_delivered(history, channel, name) == last_id,  # type: ignore[misc]
                    f"{name} has {last_id} of {channel}, it is at {_last_delivered(history, channel, name)}",
                )


def _last_delivered(history: History, channel: str, name: str) -> MessageId | None:
    for event in reversed(history.events[channel]):
        if event.client == name and event.operation in ("deliver", "gap", "subscribe"):
            return event.id
    return None


async def read_everything(node: Node, channel: str, reader: str) -> list[Event]:
    """A full-range read of one channel from one node, in pages, as events. Nothing is trimmed meanwhile."""
    loop = asyncio.get_running_loop()
    client = client_of(node)
    begun = loop.time()
    found: list[Event] = []
    start = "-"
    try:
        while True:
            page: Any = await client.xrange(channel, start, "+", count=PAGE_COUNT)
            now = loop.time()
            for id_, fields in page:
                ms, _, seq = id_.partition(b"-")
                value = value_of(fields[b"message"])
                found.append(
                    Event(begun, now, reader, "read", channel, value, "ok", MessageId(int(ms), int(seq)), node.id)
                )
            if len(page) < PAGE_COUNT:
                break
            start = f"({page[-1][0].decode()}"
    finally:
        await client.aclose()
    return [Event(begun, loop.time(), reader, "read_all", channel, node=node.id), *found]


async def assert_nothing_lost(history: History, cluster: Cluster, nodes: Sequence[Node] | None = None) -> None:
    """C1 to C10 and C12, over every node's full history. Nothing is being published; prints what was checked."""
    for status in await cluster.wait_converged() if nodes is None else [await node.status() for node in nodes]:
        history.observe_status(status)
    # All is read before anything is checked: meanwhile proxies of this very process would stand still.
    events = {channel: list(history.events[channel]) for channel in history.channels}
    for channel in history.channels:
        for node in nodes or cluster.nodes:
            events[channel] += await read_everything(node, channel, f"reader of node {node.id}")
    read = sum(map(len, events.values()))
    violations = check_hashes(history.hashes)
    while events:
        violations += check(events.popitem()[1])
    slowest_ms = history.slowest_answer_s * 1000
    print(f"checked {read} events and {len(history.hashes)} hashes: {dict(history.results)}, {slowest_ms:.0f} ms")
    assert history.results["ok"] > 0, f"nothing was acknowledged: {history.results}"
    assert not violations, "\n".join(map(str, violations))


@asynccontextmanager
async def _background(*coroutines: Any) -> AsyncIterator[None]:
    """Tasks that run beside the block and end with it; one that fails ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
