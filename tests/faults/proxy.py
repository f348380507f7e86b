"""The network between nodes, and between clients and nodes, as proxies that misbehave: one for each directed pair.

Node A reaches node B at a port of this network, where each connection is passed on to B's own. The two directions of a
connection are two `Way`s, (A, B) and (B, A), each with its own weather; clients are 0. What may be wrong with a way:

- held: nothing passes. Bytes, ends of connections and attempts to connect wait, as they do for TCP when packets are
  lost, and pass when it heals, unless an end has given up by then. Held one way only, the other direction still passes;
- weather: delay with jitter, loss (a lost packet is one that comes a retransmission later, with all behind it), a rate;
- refused: connections end at once, and so do attempts.

And a connection may be reset, or left half open: one end is told, the other is not. Faults are context managers, and
several at once add up. What waits is bounded: a sender whose bytes do not pass is not read.

Leaves to others: which faults, when, for how long (injections.py).
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, cast

CLIENTS = 0
WAITING_BYTES_MAX = 256 * 1024  # of one direction of a connection; then its sender is not read
SLICE_S = 0.05  # at a limited rate, bytes pass in pieces of that duration
RETRANSMIT_S = 0.2  # TCP's shortest; a packet lost twice comes after the double
CONNECT_S = 5.0
LINGER_NOT = struct.pack("ii", 1, 0)  # closing sends RST

Pair = tuple[int, int]


class Weather(NamedTuple):
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0  # share of pieces that TCP has to send again
    bytes_per_s: float = 0.0  # 0: unlimited


class Way:
    """One direction between two ends, for all their connections."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.holds = 0
        self.refusals = 0
        self.weathers: list[Weather] = []
        self.streams: dict[Stream, None] = {}

    @property
    def is_clear(self) -> bool:
        return not (self.holds or self.weathers)

    def changed(self) -> None:
        for stream in list(self.streams):
            stream.on_way_changed()


class Stream:
    """One direction of one connection: what came from `source` and is still on its way to `sink`."""

    def __init__(self, way: Way, draw: random.Random) -> None:
        self.way = way
        self.source: Side | None = None
        self.sink: Side | None = None  # None until connected
        self.is_broken = False  # what comes is lost, the end of the connection too
        self._draw = draw
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes]] = deque()  # when it arrives; b"" is the end
        self._waiting_bytes = 0
        self._last_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        way.streams[self] = None

    def feed(self, data: bytes) -> None:
        """Bytes from the source, or its end."""
        if self.is_broken:
            return
        if not self._waiting and self.way.is_clear and self.sink is not None and not self.sink.is_full:
            self._pass(data)
            return
        for piece in self._pieces(data):
            self._waiting.append((self._arrival(piece), piece))
        self._waiting_bytes += len(data)
        if self._waiting_bytes > WAITING_BYTES_MAX and self.source is not None:
            self.source.stop_reading()
        self.release()

    def release(self) -> None:
        """Let pass what has arrived."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self.sink is not None and not self.sink.is_full and not self.way.holds:
            at, data = self._waiting[0]
            if at > self._loop.time():
                self._timer = self._loop.call_at(at, self.release)
                return
            self._waiting.popleft()
            self._waiting_bytes -= len(data)
            self._pass(data)
        if self._waiting_bytes <= WAITING_BYTES_MAX and self.source is not None:
            self.source.read_again()

    def on_way_changed(self) -> None:
        if not self.way.weathers:
            self._waiting = deque((0.0, data) for _, data in self._waiting)
            self._last_at = 0.0
        self.release()

    def close(self) -> None:
        """There is nobody left to pass anything to."""
        self.is_broken = True
        self._waiting.clear()
        self._waiting_bytes = 0
        self.way.streams.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        if self.source is not None:
            self.source.read_again()

    def _pass(self, data: bytes) -> None:
        assert self.sink is not None
        if data:
            self.sink.transport.write(data)
        else:
            self.sink.transport.close()

    def _pieces(self, data: bytes) -> list[bytes]:
        rates = [each.bytes_per_s for each in self.way.weathers if each.bytes_per_s]
        size = max(1, int(min(rates) * SLICE_S)) if rates else len(data)
        return [data[at : at + size] for at in range(0, len(data), size)] if data else [data]

    def _arrival(self, data: bytes) -> float:
        """When a piece arrives: never before what was sent before it."""
        begun = at = self._loop.time()
        for weather in self.way.weathers:
            at += weather.delay_s + (self._draw.uniform(0.0, weather.jitter_s) if weather.jitter_s else 0.0)
            again_s = RETRANSMIT_S
            while self._draw.random() < weather.loss:
                at += again_s
                again_s *= 2
        for weather in self.way.weathers:
            if weather.bytes_per_s:
                at = max(at, max(begun, self._last_at) + len(data) / weather.bytes_per_s)
        self._last_at = max(at, self._last_at)
        return self._last_at


class Side(asyncio.Protocol):
    """The proxy's end towards one of the two that are connected."""

    transport: asyncio.Transport

    def __init__(self, pipe: Pipe, out: Stream, back: Stream) -> None:
        self._pipe = pipe
        self._out = out  # what this side says
        self._back = back  # what is said to it
        self._is_reading = True
        self.is_full = False
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.is_open = True
        self._out.source = self
        self._back.sink = self
        self._pipe.on_made(self)

    def data_received(self, data: bytes) -> None:
        self._out.feed(data)

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self._back.release()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._out.source = None
        self._out.feed(b"")
        self._back.close()
        self._pipe.on_lost()

    def stop_reading(self) -> None:
        if self._is_reading and self.is_open:
            self._is_reading = False
            self.transport.pause_reading()

    def read_again(self) -> None:
        if not self._is_reading and self.is_open:
            self._is_reading = True
            self.transport.resume_reading()

    def reset(self) -> None:
        if self.is_open:
            with socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            self.transport.abort()


class Pipe:
    """One connection through the proxy: accepted from one end, made to the other once the way is open."""

    def __init__(self, network: Network, there: Way, back: Way, port: int) -> None:
        self.pair = there.pair
        self._network = network
        self._ways = (there, back)
        self._port = port
        self._there = Stream(there, network.draw)
        self._back = Stream(back, network.draw)
        self.dialer = Side(self, self._there, self._back)
        self.target = Side(self, self._back, self._there)
        self._connecting: asyncio.Task[None] | None = None

    def on_made(self, side: Side) -> None:
        if side is self.target:
            self._there.release()
            return
        self._network.pipes[self] = None
        if any(way.refusals for way in self._ways):
            side.reset()
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def on_lost(self) -> None:
        if not self.dialer.is_open and self._connecting is not None:
            self._connecting.cancel()  # if it is under way still, it was given up
        if not self.dialer.is_open and not self.target.is_open:
            self._network.forget(self)
            self._there.close()
            self._back.close()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while any(way.holds for way in self._ways):
                await self._network.wait_change()
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(lambda: self.target, "127.0.0.1", self._port)
        except (OSError, TimeoutError):
            self.dialer.reset()
        finally:
            self._connecting = None

    def reset(self) -> None:
        for side in (self.dialer, self.target):
            side.reset()

    def leave_half_open(self, told: Side) -> None:
        """`told` gets a reset; to the other end the connection seems alive, and nothing comes of what it says."""
        self._there.is_broken = self._back.is_broken = True
        told.reset()


class Network:
    """All proxies. `open` gives the port at which `source` reaches `target`."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.ways: dict[Pair, Way] = {}
        self.pipes: dict[Pipe, None] = {}
        self._servers: list[asyncio.Server] = []
        self._change = asyncio.Event()

    async def open(self, source: int, target: int, port: int) -> int:
        there, back = (self.ways.setdefault(pair, Way(pair)) for pair in ((source, target), (target, source)))
        server = await asyncio.get_running_loop().create_server(
            lambda: Pipe(self, there, back, port).dialer, "127.0.0.1", 0
        )
        self._servers.append(server)
        found: int = server.sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for pipe in list(self.pipes):
            pipe.reset()
        while self.pipes:
            await self.wait_change()

    def forget(self, pipe: Pipe) -> None:
        self.pipes.pop(pipe, None)
        self._tell(())

    async def wait_change(self) -> None:
        await self._change.wait()

    def between(self, ones: Iterable[int], others: Iterable[int]) -> list[Pair]:
        """All ways from one group to the other, in this direction."""
        return [pair for one in ones for other in others if (pair := (one, other)) in self.ways]

    @contextmanager
    def held(self, pairs: Iterable[Pair]) -> Iterator[None]:
        ways = [self.ways[pair] for pair in pairs]
        for way in ways:
            way.holds += 1
        try:
            yield
        finally:
            for way in ways:
                way.holds -= 1
            self._tell(ways)

    @contextmanager
    def under(self, pairs: Iterable[Pair], weather: Weather) -> Iterator[None]:
        ways = [self.ways[pair] for pair in pairs]
        for way in ways:
            way.weathers.append(weather)
        try:
            yield
        finally:
            for way in ways:
                way.weathers.remove(weather)
            self._tell(ways)

    @contextmanager
    def refused(self, pairs: Iterable[Pair]) -> Iterator[None]:
        """Also what is connected now ends."""
        ways = [self.ways[pair] for pair in pairs]
        refused = {way.pair for way in ways}
        with ExitStack() as undo:
            for way in ways:
                way.refusals += 1
                undo.callback(_allow, way)
            for pipe in list(self.pipes):
                if pipe.pair in refused or pipe.pair[::-1] in refused:
                    pipe.reset()
            yield

    def _tell(self, ways: Iterable[Way]) -> None:
        for way in ways:
            way.changed()
        change, self._change = self._change, asyncio.Event()
        change.set()


def _allow(way: Way) -> None:
    way.refusals -= 1
