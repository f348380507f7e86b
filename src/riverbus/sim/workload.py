"""What the simulated clients do, and the history that they write for the checkers.

Publishers send unique values, several at once on one connection, and move to another node when theirs is gone. Readers
take whole channels now and then, each time at another node. Subscribers use BUS.SUBSCRIBE ... SINCE, resume on another
node from the last id that they saw, and at times do not read. All is drawn from the seed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import hiredis

from riverbus.messages import ID_MIN, MessageId
from riverbus.sim.checkers import Event
from riverbus.sim.clients import SimConnection, command

if TYPE_CHECKING:
    from riverbus.sim.node import SimNode
    from riverbus.sim.world import World


def parse_id(text: bytes) -> MessageId:
    ms, seq = text.split(b"-")
    return MessageId(int(ms), int(seq))


class Client:
    """Keeps a connection to some running node."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.random = Random(world.random.getrandbits(64))
        self.connection: SimConnection | None = None
        self.connections = 0
        self.is_stopped = False
        world.clock.after(self.random.uniform(0.0, 0.5), self._connect)

    @property
    def node_id(self) -> int:
        return 0 if self.connection is None else self.connection.node.id

    def stop(self) -> None:
        self.is_stopped = True

    def _connect(self) -> None:
        running = [node for node in self.world.nodes if node.is_running]
        if not running or self.connection is not None:
            self.world.clock.after(0.2, self._connect)
            return
        self.connect_to(self.random.choice(running))

    def connect_to(self, node: SimNode) -> None:
        self.connections += 1
        self.connection = SimConnection(self.world.clock, self.random, node, self.on_reply, self._on_closed)
        self.on_connected()

    def _on_closed(self) -> None:
        if self.connection is not None:
            self.connection = None
            self.on_closed()
            self.world.clock.after(self.random.uniform(0.05, 0.5), self._connect)

    def on_connected(self) -> None:
        raise AssertionError("each kind of client says what it does first")

    def on_reply(self, reply: object) -> None:
        raise AssertionError("each kind of client says what it does with replies")

    def on_closed(self) -> None: ...


class Publisher(Client):
    """Up to `in_flight` publishes at once; every second one by PUBLISH, the others by BUS.PUBLISH, which tells the id."""

    def __init__(self, world: World, name: str, channels: list[str], rate: float, in_flight: int, size: int) -> None:
        self._channels = channels
        self._rate = rate
        self._in_flight = in_flight
        self._size = size
        self._waiting: deque[tuple[float, str, str]] = deque()
        self._count = 0
        super().__init__(world, name)
        world.clock.after(self.random.uniform(0.5, 1.0), self._publish)

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def _publish(self) -> None:
        if self.is_stopped:
            return
        burst = 1 + self.random.randrange(3)
        if self.connection is not None and len(self._waiting) + burst <= self._in_flight:
            data = b""
            channel = self.random.choice(self._channels)
            for _ in range(burst):
                self._count += 1
                value = f"{self.name}:{self._count}"
                verb = b"PUBLISH" if self._count % 2 else b"BUS.PUBLISH"
                data += command(verb, channel.encode(), value.encode().ljust(self._size, b"."))
                self._waiting.append((self.world.clock.now, channel, value))
            self.connection.send(data)
        self.world.clock.after(self.random.expovariate(self._rate / 2), self._publish)

    def on_connected(self) -> None: ...

    def on_reply(self, reply: object) -> None:
        invoked, channel, value = self._waiting.popleft()
        match reply:
            case bytes():
                self._record(invoked, channel, value, "ok", parse_id(reply))
            case int():
                self._record(invoked, channel, value, "ok", None)
            case hiredis.ReplyError():
                self._record(invoked, channel, value, "info" if str(reply).startswith("UNKNOWN") else "fail", None)
                self.world.refused += 1
            case _:
                raise AssertionError(f"a publish was answered with {reply!r}")

    def on_closed(self) -> None:
        for invoked, channel, value in self._waiting:
            self._record(invoked, channel, value, "info", None)
        self._waiting.clear()

    def _record(self, invoked: float, channel: str, value: str, result: str, id_: MessageId | None) -> None:
        now = self.world.clock.now
        self.world.acked += result == "ok"
        self.world.longest_wait = max(self.world.longest_wait, now - invoked)
        self.world.record(
            Event(invoked, now, self.name, "publish", channel, value, result, id_, self.node_id)  # type: ignore[arg-type]
        )


class Subscriber(Client):
    """One channel, from its start, without a gap, whatever happens to the nodes."""

    def __init__(self, world: World, name: str, channel: str, is_lazy: bool) -> None:
        self.channel = channel
        self._is_lazy = is_lazy
        self.last = ID_MIN
        super().__init__(world, name)
        if is_lazy:
            world.clock.after(self.random.uniform(1.0, 5.0), self._doze)

    def _doze(self) -> None:
        if self.connection is not None and not self.is_stopped:
            connection = self.connection
            connection.stop_reading()
            self.world.clock.after(self.random.uniform(0.5, 6.0), connection.read_again)
        if not self.is_stopped:
            self.world.clock.after(self.random.uniform(7.0, 12.0), self._doze)

    def on_connected(self) -> None:
        assert self.connection is not None
        self.connection.send(command(b"HELLO", b"3"))
        self.connection.send(command(b"BUS.SUBSCRIBE", self.channel.encode(), b"SINCE", self.last.to_bytes()))
        self._record("subscribe", None, self.last, None)

    def on_reply(self, reply: object) -> None:
        if not isinstance(reply, list):
            if isinstance(reply, Exception):
                raise AssertionError(f"a subscriber got {reply!r}")
            return
        match reply:
            case [b"bus.message", _, id_, payload]:
                self.last = parse_id(id_)
                self.world.delivered += 1
                self._record("deliver", payload.rstrip(b".").decode(), self.last, None)
            case [b"bus.gap", _, after, until]:
                self.last = max(self.last, parse_id(until))
                self.world.gaps += 1
                self._record("gap", None, parse_id(until), parse_id(after))
            case _:
                pass  # the confirmation, and HELLO's reply

    def _record(self, operation: str, value: str | None, id_: MessageId, after: MessageId | None) -> None:
        now = self.world.clock.now
        session = f"{self.name}/{self.connections}"
        self.world.record(
            Event(now, now, session, operation, self.channel, value, "ok", id_, self.node_id, after)  # type: ignore[arg-type]
        )


class Reader(Client):
    """Reads a whole channel by XRANGE, then hangs up and goes elsewhere."""

    def __init__(self, world: World, name: str, channels: list[str], period_s: float) -> None:
        self._channels = channels
        self._period_s = period_s
        self._reads = 0
        self._reading: tuple[str, float] | None = None
        self._on_done: Callable[[bool], None] | None = None
        super().__init__(world, name)

    def on_connected(self) -> None:
        if self._on_done is None:
            self.world.clock.after(self.random.uniform(0, self._period_s), self._maybe_read)

    def _maybe_read(self) -> None:
        if self.connection is not None and not self.is_stopped and self._reading is None:
            self.read(self.random.choice(self._channels), None)

    def read(self, channel: str, on_done: Callable[[bool], None] | None) -> None:
        assert self.connection is not None
        self._on_done = on_done
        self._reading = (channel, self.world.clock.now)
        self.connection.send(command(b"XRANGE", channel.encode(), b"-", b"+"))

    def on_reply(self, reply: object) -> None:
        assert self._reading is not None
        channel, invoked = self._reading
        self._reading = None
        is_ok = isinstance(reply, list)
        if isinstance(reply, list):
            self._reads += 1
            name = f"{self.name}#{self._reads}"
            now = self.world.clock.now
            self.world.record(Event(invoked, now, name, "read_all", channel, node=self.node_id))
            for id_, (_, payload) in reply:
                value = payload.rstrip(b".").decode()
                self.world.record(Event(invoked, now, name, "read", channel, value, "ok", parse_id(id_), self.node_id))
        if (on_done := self._on_done) is not None:
            self._on_done = None
            on_done(is_ok)
        elif self.connection is not None:
            self.connection.close()

    def on_closed(self) -> None:
        self._reading = None
        if (on_done := self._on_done) is not None:
            self._on_done = None
            on_done(False)
