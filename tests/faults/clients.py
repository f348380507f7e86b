"""More clients over real nodes, beside those of workload.py: paced, raw, restless; and probes of a healed cluster.

A raw publisher writes RESP itself and has several bursts in flight on one connection; what was not answered when the
connection ended, or within PATIENCE_S, is not known. It goes to the next address after any error. Half of them ask for
ids (BUS.PUBLISH). Payloads begin with the value, `publisher:counter`, and a space; the rest is filling.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import hiredis
from redis.exceptions import RedisError

import riverbus
from riverbus.core.clients.lag import before
from riverbus.messages import ID_MIN, MessageId
from riverbus.sim.checkers import Event, Result
from tests.faults.cluster import POLL_S, Cluster, Node, until
from tests.faults.workload import History, Publisher, client_of, is_refusal, result_of, value_of

PATIENCE_S = 3.0
CONNECT_S = 2.0
BURSTS_IN_FLIGHT_MAX = 8
TAIL_COUNT = 200
TAIL_EVERY_S = 0.4
STAY_S = 3.0  # of a restless subscriber on one connection
STAY_MESSAGES = (1, 3000)  # ... or so many messages: it leaves in the middle of a burst


class Place(NamedTuple):
    """Where a node is reached: at its own port, or through a proxy."""

    node: int
    port: int


class _Burst(NamedTuple):
    invoked: float
    channel: str
    values: list[str]


class RawPublisher:
    """`rate` messages a second, in bursts, while it is answered."""

    def __init__(
        self, name: str, history: History, places: Sequence[Place], first: int, rate: float, burst: int, size: int
    ) -> None:
        self.name = name
        self.is_stopping = False
        self.acked_at = -1.0  # when the last acknowledged one was sent
        self._history = history
        self._places = places
        self._at = first
        self._period_s = burst / rate
        self._burst = burst
        self._size = size
        self._wants_ids = first % 2 == 1
        self._counter = 0
        self._reader = hiredis.Reader()
        self._in_flight: deque[_Burst] = deque()
        self._answered: list[object] = []  # of the oldest burst
        self._is_leaving = False

    async def is_answered_since(self, moment: float) -> None:
        """Returns when a publish that was sent after `moment` has been acknowledged."""
        await until(lambda: self.acked_at >= moment, f"{self.name} is acknowledged again")

    async def run(self) -> None:
        while not self.is_stopping:
            place = self._places[self._at % len(self._places)]
            self._at += 1
            try:
                async with asyncio.timeout(CONNECT_S):
                    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
            except (OSError, TimeoutError):
                await asyncio.sleep(POLL_S)
                continue
            self._reader = hiredis.Reader()
            self._is_leaving = False
            try:
                await self._converse(place, reader, writer)
            except (OSError, hiredis.ProtocolError):
                pass
            finally:
                writer.transport.abort()
                self._give_up(place)
            await asyncio.sleep(POLL_S)

    async def _converse(self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while True:
            now = loop.time()
            if self._in_flight and now - self._in_flight[0].invoked > PATIENCE_S:
                return
            is_sending = not (self.is_stopping or self._is_leaving)
            if writer.transport.is_closing() or (not is_sending and not self._in_flight):
                return
            if is_sending and now >= next_at and len(self._in_flight) < BURSTS_IN_FLIGHT_MAX:
                writer.write(self._next_burst(now))
                next_at = max(next_at + self._period_s, now - self._period_s)
                continue
            wait_s = next_at - now if is_sending and next_at > now else POLL_S
            try:
                async with asyncio.timeout(wait_s):
                    data = await reader.read(65_536)
            except TimeoutError:
                continue
            if not data:
                return
            self._reader.feed(data)
            self._take_replies(place, loop.time())

    def _next_burst(self, now: float) -> bytes:
        """All of a burst go to one channel, as that is where their order is promised."""
        channels = self._history.channels
        channel = channels[self._counter // self._burst % len(channels)]
        values = [f"{self.name}:{self._counter + i}" for i in range(self._burst)]
        self._counter += self._burst
        self._in_flight.append(_Burst(now, channel, values))
        verb = b"$11\r\nBUS.PUBLISH" if self._wants_ids else b"$7\r\nPUBLISH"
        name = channel.encode()
        head = b"*3\r\n%b\r\n$%d\r\n%b\r\n" % (verb, len(name), name)
        payloads = [f"{value} ".encode().ljust(self._size, b".") for value in values]
        return b"".join(head + b"$%d\r\n%b\r\n" % (len(payload), payload) for payload in payloads)

    def _take_replies(self, place: Place, now: float) -> None:
        while (reply := self._reader.gets()) is not False:
            burst = self._in_flight[0]
            channel, value = burst.channel, burst.values[len(self._answered)]
            id_ = _id_of(reply) if isinstance(reply, bytes) else None
            result = _result_of(reply)
            self._history.add(Event(burst.invoked, now, self.name, "publish", channel, value, result, id_, place.node))
            if result == "ok":
                self.acked_at = burst.invoked
            else:
                self._is_leaving = True
            self._history.slowest_answer_s = max(self._history.slowest_answer_s, now - burst.invoked)
            self._answered.append(reply)
            if len(self._answered) == len(burst.values):
                self._in_flight.popleft()
                self._answered.clear()

    def _give_up(self, place: Place) -> None:
        """The outcome of all that is in flight will never be known."""
        now = asyncio.get_running_loop().time()
        answered = len(self._answered)
        self._answered.clear()
        while self._in_flight:
            burst = self._in_flight.popleft()
            for value in burst.values[answered:]:
                event = Event(burst.invoked, now, self.name, "publish", burst.channel, value, "info", None, place.node)
                self._history.add(event)
            answered = 0


@asynccontextmanager
async def publishing_raw(
    history: History, cluster: Cluster, proxied: Sequence[Place], rate: float, burst: int, size: int
) -> AsyncIterator[list[RawPublisher]]:
    """Two publishers straight to the nodes, two through proxies, and two of redis-py with one publish in flight."""
    direct = [Place(node.id, node.resp_port) for node in cluster.nodes]
    history.blocks += 1
    raw = [
        RawPublisher(f"r{history.blocks}.{i}", history, places, i, rate / 4, burst, size)
        for i, places in enumerate((direct, direct, proxied, proxied))
    ]
    plain = [Publisher(f"p{history.blocks}.{i}", history, cluster.nodes, i, 1) for i in range(2)]
    async with asyncio.TaskGroup() as group:
        for task in [publisher.run() for publisher in raw] + [publisher.run() for publisher in plain]:
            group.create_task(task)
        try:
            yield raw
        finally:
            for publisher in raw:
                publisher.is_stopping = True
            for other in plain:
                other.is_stopping = True


async def read_tail(node: Node, channel: str, reader: str) -> list[Event]:
    """The newest messages, as a step of `workload.reading`."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    client = client_of(node)
    try:
        rows: Any = await client.xrevrange(channel, "+", "-", count=TAIL_COUNT)
    finally:
        await client.aclose()
    now = loop.time()
    found = []
    for id_, fields in reversed(rows):
        value = value_of(fields[b"message"])
        found.append(Event(begun, now, reader, "read", channel, value, "ok", _id_of(id_), node.id))
    after = before(found[0].id or ID_MIN) if len(found) == TAIL_COUNT else None
    return [Event(begun, now, reader, "read_all", channel, node=node.id, after=after), *found]


class RestlessSubscriber:
    """Leaves, and goes on where it was with a new subscription, over and over. Each is a session of its own (C7)."""

    def __init__(self, name: str, history: History, url: str, draw: random.Random) -> None:
        self._draw = draw
        self._name = name
        self._history = history
        self._url = url
        self._positions: dict[str, MessageId] = dict.fromkeys(history.channels, ID_MIN)
        self.sessions = 0

    async def run(self) -> None:
        while True:
            self.sessions += 1
            try:
                async with riverbus.connect(self._url) as bus:
                    await self._stay(bus, self._draw.randint(*STAY_MESSAGES))
            except riverbus.NotAccepted:
                pass  # no node was reached

    async def _stay(self, bus: riverbus.Bus, messages: int) -> None:
        loop, history = asyncio.get_running_loop(), self._history
        name = f"{self._name}/{self.sessions}"
        now = loop.time()
        for channel, position in self._positions.items():
            history.add(Event(now, now, name, "subscribe", channel, id=position))
        async with bus.subscribe(*history.channels, since=dict(self._positions)) as subscription:
            try:
                async with asyncio.timeout(STAY_S):
                    async for item in subscription:
                        self._take(name, item)
                        messages -= 1
                        if not messages:
                            return
            except TimeoutError:
                pass

    def _take(self, name: str, item: riverbus.Message | riverbus.Gap) -> None:
        now = asyncio.get_running_loop().time()
        assert item.channel is not None
        if isinstance(item, riverbus.Gap):
            assert item.until is not None
            self._positions[item.channel] = item.until
            self._history.add(Event(now, now, name, "gap", item.channel, id=item.until, after=item.after))
        else:
            assert item.id is not None
            self._positions[item.channel] = item.id
            self._history.add(Event(now, now, name, "deliver", item.channel, value_of(item.payload), "ok", item.id))


async def probe(history: History, node: Node, name: str) -> None:
    """Publish to each channel at this node, again and again, until each has been acknowledged."""
    loop = asyncio.get_running_loop()
    attempts = 0
    for channel in history.channels:
        result: Result = "fail"
        while result != "ok":
            attempts += 1
            value = f"{name}:{attempts}"
            client = client_of(node)
            invoked = loop.time()
            is_sent = False
            reply: object
            try:
                await client.initialize()
                is_sent = True
                reply = await client.publish(channel, value)
            except (RedisError, OSError) as error:
                reply = error
            finally:
                await client.aclose()
            result = result_of(reply)
            if is_sent:
                history.add(Event(invoked, loop.time(), name, "publish", channel, value, result, None, node.id))
            if result != "ok":
                await asyncio.sleep(POLL_S)


def _id_of(text: bytes) -> MessageId:
    ms, _, seq = text.partition(b"-")
    return MessageId(int(ms), int(seq))


def _result_of(reply: object) -> Result:
    if not isinstance(reply, hiredis.ReplyError):
        return "ok"
    return "fail" if is_refusal(str(reply)) else "info"
