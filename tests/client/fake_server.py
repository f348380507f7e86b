"""A small server in the test's own process: channels in memory, spoken to in RESP as a Riverbus node would answer.

Tests script its weather: refuse, answer late or never, drop connections, trim history, listen on two ports over one
state (two nodes of one cluster). It answers in the order of the commands, as a node does.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import hiredis

from riverbus.messages import ID_MIN, MessageId


@dataclass
class Channel:
    log: list[tuple[MessageId, list[bytes]]] = field(default_factory=list)
    last_id: MessageId = ID_MIN
    trimmed_to: MessageId = ID_MIN


@dataclass
class Cluster:
    """What the nodes agree on."""

    channels: dict[bytes, Channel] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    password: bytes | None = None
    numbers: dict[tuple[bytes, int], MessageId] = field(default_factory=dict)  # of BUS.PUBLISHRUN

    def channel(self, name: bytes) -> Channel:
        return self.channels.setdefault(name, Channel())

    def publish(self, name: bytes, payload: bytes) -> MessageId:
        channel = self.channel(name)
        channel.last_id = MessageId(1000, channel.last_id.seq + 1)
        channel.log.append((channel.last_id, [b"message", payload]))
        for session in list(self.sessions):
            session.deliver(name, channel.last_id, payload)
        return channel.last_id

    def trim(self, name: bytes, keep: int) -> None:
        channel = self.channel(name)
        dropped = channel.log[: len(channel.log) - keep]
        channel.log = channel.log[len(dropped) :]
        if dropped:
            channel.trimmed_to = dropped[-1][0]


class Node:
    """One listening port. `weather` maps a command's name to what happens to it instead of an answer."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.weather: dict[bytes, list[str]] = {}  # consumed one by one: an error text, "hang", "drop", "apply+drop"
        self.connections = 0
        self.commands: list[list[bytes]] = []
        self.reads: list[int] = []  # commands that arrived together
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Session(self), "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening and cuts every connection."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        for session in [each for each in self.cluster.sessions if each.node is self]:
            session.transport.abort()


class Session(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, node: Node) -> None:
        self.node = node
        self.cluster = node.cluster
        self.followed: dict[bytes, MessageId] = {}
        self.patterns: list[bytes] = []
        self.reader = hiredis.Reader()
        self.is_hung = False
        self.is_mute = False
        self.is_writable = True
        self.is_known = node.cluster.password is None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.cluster.sessions.append(self)
        self.node.connections += 1

    def connection_lost(self, error: Exception | None) -> None:
        if self in self.cluster.sessions:
            self.cluster.sessions.remove(self)

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        """Served from the shared window, as a node serves a slow subscriber."""
        self.is_writable = True
        for name in self.followed:
            self.catch_up(name)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        count = 0
        while (command := self.reader.gets()) is not False:
            count += 1
            self.node.commands.append(command)
            self.handle([bytes(part) for part in command])
        self.node.reads.append(count)

    def handle(self, command: list[bytes]) -> None:
        name = command[0].upper()
        events = self.node.weather.get(name)
        event = events.pop(0) if events else None
        if event == "hang":
            self.is_hung = True
        if self.is_hung:
            return
        if event is not None and event.startswith("apply+"):
            self.is_mute = True
            getattr(self, "on_" + name.decode().lower().replace(".", "_"))(command[1:])
            self.is_mute = False
            event = event.removeprefix("apply+")
        if event == "drop":
            self.transport.abort()
        elif event is not None:
            self.send(b"-%b\r\n" % event.encode())
        elif not self.is_known and name != b"HELLO":
            self.send(b"-NOAUTH Authentication required.\r\n")
        elif not self.transport.is_closing():
            getattr(self, "on_" + name.decode().lower().replace(".", "_"))(command[1:])

    def send(self, data: bytes) -> None:
        if not self.is_mute and not self.transport.is_closing():
            self.transport.write(data)

    def deliver(self, name: bytes, id_: MessageId, payload: bytes) -> None:
        for pattern in self.patterns:
            if fnmatch.fnmatchcase(name.decode(), pattern.decode()):
                self.send(push(b"pmessage", pattern, name, payload))
        if name in self.followed and self.is_writable and self.followed[name] < id_:
            self.followed[name] = id_
            self.send(push(b"bus.message", name, id_.to_bytes(), payload))

    def catch_up(self, name: bytes) -> None:
        channel = self.cluster.channel(name)
        since = self.followed[name]
        if since < channel.trimmed_to:
            self.send(push(b"bus.gap", name, since.to_bytes(), channel.trimmed_to.to_bytes()))
        for id_, fields in channel.log:
            if id_ > since and self.is_writable:
                self.followed[name] = id_
                self.send(push(b"bus.message", name, id_.to_bytes(), fields[1]))

    # --- commands -----------------------------------------------------------------------------------------------------

    def on_hello(self, rest: list[bytes]) -> None:
        if b"AUTH" in rest:
            self.is_known = rest[rest.index(b"AUTH") + 2] == self.cluster.password
            if not self.is_known:
                self.send(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")
                return
        self.send(b"%1\r\n$5\r\nproto\r\n:3\r\n")

    def on_ping(self, rest: list[bytes]) -> None:
        self.send(b"+PONG\r\n")

    def on_bus_publish(self, rest: list[bytes]) -> None:
        self.send(bulk(self.cluster.publish(rest[0], rest[1]).to_bytes()))

    def on_bus_publishrun(self, rest: list[bytes]) -> None:
        channel, producer, first = rest[0], rest[1], int(rest[2])
        known = self.cluster.numbers
        ids = []
        for number, payload in enumerate(rest[3:], first):
            if (producer, number) not in known:
                known[producer, number] = self.cluster.publish(channel, payload)
            ids.append(bulk(known[producer, number].to_bytes()))
        self.send(b"*%d\r\n" % len(ids) + b"".join(ids))

    def on_bus_subscribe(self, rest: list[bytes]) -> None:
        name = rest[0]
        last_id = self.cluster.channel(name).last_id
        self.send(push(b"bus.subscribe", name, last_id.to_bytes()))
        if len(rest) == 3:
            ms, seq = rest[2].split(b"-")
            self.followed[name] = MessageId(int(ms), int(seq))
            self.catch_up(name)
        else:
            self.followed[name] = last_id

    def on_bus_unsubscribe(self, rest: list[bytes]) -> None:
        self.followed.pop(rest[0], None)
        self.send(push(b"bus.unsubscribe", rest[0]))

    def on_psubscribe(self, rest: list[bytes]) -> None:
        self.patterns.append(rest[0])
        self.send(b">3\r\n" + bulk(b"psubscribe") + bulk(rest[0]) + b":1\r\n")

    def on_xlen(self, rest: list[bytes]) -> None:
        if not rest:
            self.send(b"-ERR wrong number of arguments for 'xlen' command\r\n")
            return
        self.send(b":%d\r\n" % len(self.cluster.channel(rest[0]).log))

    def on_xadd(self, rest: list[bytes]) -> None:
        channel = self.cluster.channel(rest[0])
        channel.last_id = MessageId(1000, channel.last_id.seq + 1)
        channel.log.append((channel.last_id, rest[2:]))
        self.send(bulk(channel.last_id.to_bytes()))

    def on_xrange(self, rest: list[bytes]) -> None:
        self._range(rest[0], rest[1], rest[2], rest[3:], False)

    def on_xrevrange(self, rest: list[bytes]) -> None:
        self._range(rest[0], rest[2], rest[1], rest[3:], True)

    def _range(self, name: bytes, first: bytes, last: bytes, options: list[bytes], reverse: bool) -> None:
        low, high = end(first, 0), end(last, 2**64 - 1)
        found = [
            (id_, fields)
            for id_, fields in self.cluster.channel(name).log
            if (low < id_ if first.startswith(b"(") else low <= id_)
            and (id_ < high if last.startswith(b"(") else id_ <= high)
        ]
        if reverse:
            found.reverse()
        if options:
            found = found[: int(options[1])]
        self.send(b"*%d\r\n" % len(found))
        for id_, fields in found:
            self.send(b"*2\r\n" + bulk(id_.to_bytes()) + b"*%d\r\n" % len(fields) + b"".join(map(bulk, fields)))


def end(text: bytes, default_seq: int) -> MessageId:
    text = text.removeprefix(b"(")
    if text in (b"-", b"+"):
        return ID_MIN if text == b"-" else MessageId(2**64 - 1, 2**64 - 1)
    ms, _, seq = text.partition(b"-")
    return MessageId(int(ms), int(seq) if seq else default_seq)


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def push(*items: bytes) -> bytes:
    return b">%d\r\n" % len(items) + b"".join(map(bulk, items))


@asynccontextmanager
async def fake_cluster(count: int = 1) -> AsyncIterator[list[Node]]:
    cluster = Cluster()
    nodes = [Node(cluster) for _ in range(count)]
    for node in nodes:
        await node.start()
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Turns the loop until it holds; each story has a deadline."""
    while not condition():  # noqa: ASYNC110 - what is awaited has no event
        await asyncio.sleep(0)


def url_of(nodes: list[Node], options: str = "") -> str:
    return "redis://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes) + options


Story = Callable[[list[Node]], Awaitable[None]]


def tell(story: Story, nodes: int = 1) -> None:
    async def told() -> None:
        async with asyncio.timeout(20), fake_cluster(nodes) as cluster:
            await story(cluster)

    asyncio.run(told())
