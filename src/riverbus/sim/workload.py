"""What the simulated clients do, and the history that they write for the checkers.

Publishers send unique values, several at once on one connection, and move to another node when theirs is gone or slow;
some retry what was refused or not answered, and hang up with commands in flight. Readers take channels now and then,
whole or their newest part, each time at another node. Followers use BUS.SUBSCRIBE ... SINCE, resume on another node
from the last id that they saw, at times do not read, at times vanish. Listeners use plain SUBSCRIBE. All is drawn from
the seed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING

import hiredis

from riverbus.core.clients.lag import before
from riverbus.messages import ID_MIN, MessageId
from riverbus.sim.checkers import Event, Operation, Result
from riverbus.sim.clients import SimConnection, command
from riverbus.wire.parsing import GAP_CHANNEL

if TYPE_CHECKING:
    from riverbus.sim.node import SimNode
    from riverbus.sim.world import World

PATIENCE_S = 4.0  # without an answer a client goes elsewhere; below the 5 s of redis-py
_TAIL_COUNT = 30
_new = tuple.__new__  # makes an id, or an event, in half the time


@lru_cache(1 << 14)  # each id is met some ten times: by its publisher, its subscribers, and each read
def parse_id(text: bytes) -> MessageId:
    ms, seq = text.split(b"-")
    return _new(MessageId, (int(ms), int(seq)))


def value_of(payload: bytes) -> str:
    end = payload.find(b".")
    return (payload if end < 0 else payload[:end]).decode()


class Client:
    """Keeps a connection to some running node."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.random = Random(world.random.getrandbits(64))
        self.connection: SimConnection | None = None
        self.connections = 0
        self.is_stopped = False
        world.clock.after(self.random.uniform(0.0, 0.5), self.connect)

    @property
    def node_id(self) -> int:
        return 0 if self.connection is None else self.connection.node.id

    def stop(self) -> None:
        self.is_stopped = True

    def connect(self) -> None:
        serving = [node for node in self.world.nodes if node.is_serving]
        if not serving or self.connection is not None:
            self.world.clock.after(0.2, self.connect)
            return
        self.connect_to(self.random.choice(serving))

    def connect_to(self, node: SimNode) -> None:
        self.connections += 1
        connection: SimConnection

        def on_closed() -> None:
            if self.connection is connection:
                self._leave()

        address = f"{self.name}:{self.connections}"
        connection = SimConnection(self.world.clock, self.random, node, address, self.on_reply, on_closed)
        self.connection = connection
        self.on_connected()

    def leave(self) -> None:
        """Hang up, and go elsewhere."""
        if self.connection is not None:
            self.connection.hang_up()
            self._leave()

    def _leave(self) -> None:
        self.connection = None
        self.on_closed()
        self.world.clock.after(self.random.uniform(0.05, 0.5), self.connect)

    def on_connected(self) -> None:
        raise AssertionError("each kind of client says what it does first")

    def on_reply(self, reply: object) -> None:
        raise AssertionError("each kind of client knows what it asked")

    def on_closed(self) -> None: ...


class Publisher(Client):
    """Unique values over some channels, `in_flight` at once; asks for ids on every other one, always, or never."""

    def __init__(self, world: World, name: str, channels: list[str], rate: float, stream: str | None = None) -> None:
        swarm = world.swarm
        self._channels = channels
        self._stream = stream
        self._rate = rate
        self._burst = swarm.burst
        self._in_flight = swarm.in_flight
        self._size = swarm.payload_bytes
        self._has_keys = swarm.retries and swarm.has_keys and stream is None
        # Where windows are small, an id that only the acknowledgement tells decides whether a message may be gone.
        self._wants_all_ids = not swarm.window.is_unlimited or swarm.retries
        # Of durability memory: replies keep their order, so one that waits for the log would hold back the early ones.
        self._is_early = swarm.is_memory and name.endswith("0")
        self._count = 0
        self._waiting: deque[tuple[float, str, str]] = deque()
        self._again: deque[tuple[str, str]] = deque()
        self.last_ok = -1.0
        super().__init__(world, name)
        world.clock.after(self.random.expovariate(rate), self._publish)
        if swarm.retries:
            world.clock.after(self.random.uniform(3.0, 15.0), self._eat_acks)

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def urge(self, since: float) -> None:
        """Publish now and then, whatever the rate, until something sent after `since` is acknowledged."""
        if self.last_ok < since and not self.is_stopped:
            if self.connection is not None and not self._waiting:
                self._count += 1
                channel = self._stream or self.random.choice(self._channels)
                self.connection.send(self._command(channel, f"{self.name}:{self._count}"))
            self.world.clock.after(0.5, lambda: self.urge(since))

    def _publish(self) -> None:
        if self.is_stopped:
            return
        now = self.world.clock.now
        if self._waiting and now - self._waiting[0][0] > PATIENCE_S:
            self.leave()
        burst = 1
        if self.connection is not None and len(self._waiting) < self._in_flight:
            data = b""
            if self._again and self.random.random() < 0.5:
                data = self._command(*self._again.popleft())
            else:
                burst = self.random.randint(1, self._burst)
                channel = self._stream or self.random.choice(self._channels)
                for _ in range(burst):
                    self._count += 1
                    data += self._command(channel, f"{self.name}:{self._count}")
            self.connection.send(data)
        # The rate is that of messages, whatever the bursts.
        self.world.clock.after(self.random.expovariate(self._rate / burst), self._publish)

    def _command(self, channel: str, value: str) -> bytes:
        self._waiting.append((self.world.clock.now, channel, value))
        self.world.published += 1
        payload = value.encode().ljust(self._size, b".")
        if self._stream is not None:
            return command(b"XADD", channel.encode(), b"*", b"message", payload)
        if self._has_keys:
            return command(b"BUS.PUBLISH", channel.encode(), payload, b"KEY", value.encode())
        is_plain = self._is_early or (self._count % 2 and not self._wants_all_ids)
        verb = b"PUBLISH" if is_plain else b"BUS.PUBLISH"
        return command(verb, channel.encode(), payload)

    def _eat_acks(self) -> None:
        """What is in flight is never answered, and sent again from another connection: all at once."""
        if self.is_stopped:
            return
        if self.connection is not None and self._waiting:
            self.leave()
        self.world.clock.after(self.random.uniform(3.0, 15.0), self._eat_acks)

    def on_connected(self) -> None:
        if self.is_stopped:
            return  # the final reads may be under way
        again = [self._again.popleft() for _ in range(min(len(self._again), self._in_flight))]
        if again and self.connection is not None:
            self.connection.send(b"".join(self._command(*each) for each in again))

    def on_reply(self, reply: object) -> None:
        invoked, channel, value = self._waiting.popleft()
        match reply:
            case bytes():
                self._record(invoked, channel, value, "ok", parse_id(reply))
            case int():
                is_early = self.world.swarm.is_memory
                self._record(invoked, channel, value, "ok", None, is_early)
            case hiredis.ReplyError():
                is_unknown = str(reply).startswith("UNKNOWN")
                self._record(invoked, channel, value, "info" if is_unknown else "fail", None)
                self.world.refused += 1
                if self.world.swarm.retries:
                    self._again.append((channel, value))
            case _:
                raise AssertionError(f"a publish was answered with {reply!r}")
        self.world.on_answered(self.connection, invoked)

    def on_closed(self) -> None:
        for invoked, channel, value in self._waiting:
            self._record(invoked, channel, value, "info", None)
            if self.world.swarm.retries and not self.is_stopped:
                self._again.append((channel, value))
        self._waiting.clear()

    def _record(
        self, invoked: float, channel: str, value: str, result: Result, id_: MessageId | None, is_early: bool = False
    ) -> None:
        now = self.world.clock.now
        if result == "ok":
            self.world.acked += 1
            self.last_ok = invoked
        key = value if self._has_keys else None
        node = self.node_id
        event = (invoked, now, self.name, "publish", channel, value, result, id_, node, None, key, is_early)
        self.world.record(_new(Event, event))


class Follower(Client):
    """One channel, from its start, without a gap that the window does not explain, whatever happens to the nodes."""

    def __init__(self, world: World, name: str, channel: str, is_lazy: bool) -> None:
        self.channel = channel
        self.last = ID_MIN
        super().__init__(world, name)
        if is_lazy:
            world.clock.after(self.random.uniform(1.0, 5.0), self._doze)
        world.clock.after(self.random.uniform(5.0, 40.0), self._wander)

    def _doze(self) -> None:
        if self.is_stopped:
            return
        if self.connection is not None:
            connection = self.connection
            connection.stop_reading()
            self.world.clock.after(self.random.uniform(0.5, 6.0), connection.read_again)
        self.world.clock.after(self.random.uniform(7.0, 12.0), self._doze)

    def _wander(self) -> None:
        """To another node, unforced: with a word, or without."""
        if self.is_stopped:
            return
        if self.connection is not None and self.random.random() < 0.5:
            self.connection.vanish()
        self.leave()
        self.world.clock.after(self.random.uniform(5.0, 40.0), self._wander)

    def on_connected(self) -> None:
        assert self.connection is not None
        self.connection.send(
            command(b"HELLO", b"3") + command(b"BUS.SUBSCRIBE", self.channel.encode(), b"SINCE", self.last.to_bytes())
        )
        self._record("subscribe", None, self.last, None)

    def on_reply(self, reply: object) -> None:
        if not isinstance(reply, list):
            if isinstance(reply, Exception):
                raise AssertionError(f"a subscriber got {reply!r}")
            return
        if reply[0] == b"bus.message":
            _, _, id_, payload = reply
            self.last = parse_id(id_)
            self.world.delivered += 1
            self._record("deliver", value_of(payload), self.last, None)
        elif reply[0] == b"bus.gap":
            _, _, after, until = reply
            self.last = max(self.last, parse_id(until))
            self.world.on_gap(self.channel, parse_id(until))
            self._record("gap", None, parse_id(until), parse_id(after))
        # else the confirmation, and HELLO's reply

    def _record(self, operation: Operation, value: str | None, id_: MessageId, after: MessageId | None) -> None:
        now = self.world.clock.now
        session = f"{self.name}/{self.connections}"
        node = self.node_id
        event = (now, now, session, operation, self.channel, value, "ok", id_, node, after, None, False)
        self.world.record(_new(Event, event))


class Listener(Client):
    """Plain SUBSCRIBE, as any Redis client: no ids, nothing before it came, nothing left out while it is there."""

    def __init__(self, world: World, name: str, channel: str) -> None:
        self.channel = channel
        super().__init__(world, name)

    def on_connected(self) -> None:
        assert self.connection is not None
        self.connection.send(command(b"SUBSCRIBE", self.channel.encode()))

    def on_reply(self, reply: object) -> None:
        assert isinstance(reply, list), f"a subscriber got {reply!r}"
        now = self.world.clock.now
        session = f"{self.name}/{self.connections}"
        if reply[0] != b"message":
            return
        if reply[1] == GAP_CHANNEL:
            _, after, until = reply[2].rsplit(b" ", 2)
            event = Event(
                now, now, session, "gap", self.channel, None, "ok", parse_id(until), self.node_id, parse_id(after)
            )
            self.world.on_gap(self.channel, parse_id(until))
        else:
            self.world.delivered += 1
            event = Event(now, now, session, "deliver", self.channel, value_of(reply[2]), "ok", None, self.node_id)
        self.world.record(event)


class Reader(Client):
    """Reads a channel, whole by XRANGE or its newest part by XREVRANGE, then hangs up and goes elsewhere."""

    def __init__(self, world: World, name: str, channels: list[str], period_s: float) -> None:
        self._channels = channels
        self._period_s = period_s
        self._reads = 0
        self._reading: tuple[str, float, bool] | None = None
        self._on_done: Callable[[bool], None] | None = None
        super().__init__(world, name)

    def on_connected(self) -> None:
        if self._on_done is None:
            self.world.clock.after(self.random.uniform(0, self._period_s), self._maybe_read)

    def _maybe_read(self) -> None:
        if self.connection is not None and not self.is_stopped and self._reading is None:
            self.read(self.random.choice(self._channels), self.random.random() < 0.1, None)

    def read(self, channel: str, is_whole: bool, on_done: Callable[[bool], None] | None) -> None:
        assert self.connection is not None
        self._on_done = on_done
        self._reading = (channel, self.world.clock.now, is_whole)
        if is_whole:
            self.connection.send(command(b"XRANGE", channel.encode(), b"-", b"+"))
        else:
            self.connection.send(command(b"XREVRANGE", channel.encode(), b"+", b"-", b"COUNT", b"%d" % _TAIL_COUNT))

    def on_reply(self, reply: object) -> None:
        assert self._reading is not None
        channel, invoked, is_whole = self._reading
        self._reading = None
        is_ok = isinstance(reply, list)
        if isinstance(reply, list):
            self._record(channel, invoked, reply if is_whole else reply[::-1], is_whole)
        self.world.on_answered(self.connection, invoked)
        if (on_done := self._on_done) is not None:
            self._on_done = None
            on_done(is_ok)
        else:
            self.leave()

    def _record(self, channel: str, invoked: float, entries: list[tuple[bytes, list[bytes]]], is_whole: bool) -> None:
        self._reads += 1
        name = f"{self.name}#{self._reads}"
        world, now, node = self.world, self.world.clock.now, self.node_id
        first = parse_id(entries[0][0]) if entries else None
        after = world.trimmed_until(channel, first, len(entries))
        if not is_whole and first is not None and len(entries) == _TAIL_COUNT:
            after = max(after or ID_MIN, before(first))
        world.record(Event(invoked, now, name, "read_all", channel, node=node, after=after))
        start, end = (invoked, now, name, "read", channel), (node, None, None, False)
        world.record_read(
            [_new(Event, (*start, value_of(fields[1]), "ok", parse_id(id_), *end)) for id_, fields in entries]
        )

    def on_closed(self) -> None:
        self._reading = None
        if (on_done := self._on_done) is not None:
            self._on_done = None
            on_done(False)
