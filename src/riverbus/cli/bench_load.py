"""The load of `riverbus bench`: raw RESP on a few connections, no client library in the loop.

Closed loop: each publisher keeps `pipeline` commands in flight. Open loop (`rate` > 0): commands leave when they are
due, whatever the replies, and a latency counts from that moment, so that a stall is not hidden by the commands that it
held up (coordinated omission). Subscribers count bytes: all messages of a run have one size. For careful figures, and
for what the server costs without this program beside it, see benchmarks/.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from time import perf_counter
from typing import cast

from riverbus.client.address import Address
from riverbus.client.connection import encode_command

STALL_S = 10.0
PACE_S = 0.001  # between two looks at what is due


class BenchError(Exception):
    """The run says nothing: a target that does not answer, or refuses."""


@dataclass(frozen=True)
class Work:
    messages: int
    size: int
    clients: int
    subscribers: int
    pipeline: int
    rate: float  # messages a second, of all clients together; 0: as fast as they are answered
    channel: bytes


@dataclass(frozen=True)
class Outcome:
    seconds: float
    messages: int
    delivered: int
    errors: int
    latencies: list[tuple[float, int]]  # seconds and how many commands had it, from the least

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    @property
    def delivered_rate(self) -> float:
        return self.delivered / self.seconds

    def percentile(self, share: float) -> float:
        """Seconds."""
        wanted = share * sum(count for _, count in self.latencies)
        for seconds, count in self.latencies:
            wanted -= count
            if wanted <= 0:
                return seconds
        return self.latencies[-1][0] if self.latencies else 0.0


class _Run:
    """What the connections of one run share."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.command = encode_command(b"PUBLISH", work.channel, b"x" * work.size)
        self.left_to_send = work.messages
        self.answered = 0
        self.errors = 0
        self.received_bytes = 0
        self.first_error = ""
        self.latencies: list[tuple[float, int]] = []
        self.started = 0.0
        self.lost = ""

    @property
    def is_answered(self) -> bool:
        return self.answered >= self.work.messages


class _Publisher(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._sent: deque[tuple[float, int]] = deque()  # when, or when due, and how many
        self._transport: asyncio.Transport
        self._at_line_start = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, count: int, at: float) -> None:
        count = min(count, self._run.left_to_send)
        if count:
            self._run.left_to_send -= count
            self._sent.append((at, count))
            self._transport.write(self._run.command * count)

    def data_received(self, data: bytes) -> None:
        run, now = self._run, perf_counter()
        replies = data.count(b"\n")
        errors = data.count(b"\n-") + (self._at_line_start and data.startswith(b"-"))
        if errors and not run.first_error:
            run.first_error = data[data.index(b"-") :].split(b"\r\n")[0].decode(errors="replace")
        run.errors += errors
        self._at_line_start = data.endswith(b"\n")
        run.answered += replies
        left = replies
        while left:
            at, count = self._sent[0]
            taken = min(left, count)
            run.latencies.append((now - at, taken))
            left -= taken
            if taken == count:
                self._sent.popleft()
            else:
                self._sent[0] = (at, count - taken)
        if not run.work.rate:
            self.send(replies, now)

    def connection_lost(self, error: Exception | None) -> None:
        self._run.lost = self._run.lost or str(error or "the target closed a connection")


class _Login(asyncio.Protocol):
    """Authenticates, then hands its connection over."""

    def __init__(self, successor: asyncio.Protocol, command: bytes) -> None:
        self._successor = successor
        self._command = command
        self._reply = bytearray()
        self._transport: asyncio.Transport
        self.is_done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._command)

    def data_received(self, data: bytes) -> None:
        self._reply += data
        if not self._reply.endswith(b"\n"):
            return
        if not self._reply.startswith(b"+"):
            self.is_done.set_exception(BenchError(self._reply.decode(errors="replace").strip()))
            return
        self._transport.set_protocol(self._successor)
        self._successor.connection_made(self._transport)
        self.is_done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.is_done.done():
            self.is_done.set_exception(BenchError(str(error or "the target closed a connection")))


class _Subscriber(asyncio.Protocol):
    """The confirmation is in its first bytes; all that follows is messages."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._transport: asyncio.Transport
        self._confirmation = bytearray()
        self.is_confirmed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(encode_command(b"SUBSCRIBE", self._run.work.channel))

    def data_received(self, data: bytes) -> None:
        if self.is_confirmed.done():
            self._run.received_bytes += len(data)
            return
        self._confirmation += data
        if self._confirmation.startswith(b"-"):
            self.is_confirmed.set_exception(BenchError(self._confirmation.decode(errors="replace").strip()))
        elif (end := self._confirmation.find(b":1\r\n")) >= 0:
            self._run.received_bytes += len(self._confirmation) - end - 4
            self.is_confirmed.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._run.lost = self._run.lost or str(error or "the target closed a subscriber")


async def measure(target: Address, work: Work) -> Outcome:
    """Raises BenchError, OSError."""
    run = _Run(work)
    transports: list[asyncio.BaseTransport] = []
    publishers: list[_Publisher] = []
    try:
        for number in range(work.subscribers):
            subscriber = _Subscriber(run)
            transports.append(await _connect(target, number, subscriber))
            await asyncio.wait_for(subscriber.is_confirmed, STALL_S)
        for number in range(work.clients):
            publisher = _Publisher(run)
            transports.append(await _connect(target, number, publisher))
            publishers.append(publisher)
        run.started = perf_counter()
        if work.rate:
            await _pace(run, publishers)
        else:
            for publisher in publishers:
                publisher.send(work.pipeline, run.started)
        frame_bytes = len(_frame(work))
        expected = work.messages * work.subscribers * frame_bytes
        await _until_done(run, expected)
        seconds = perf_counter() - run.started
    finally:
        for transport in transports:
            cast(asyncio.Transport, transport).abort()
    if run.errors:
        raise BenchError(f"{run.errors} of {work.messages} publishes were refused: {run.first_error}")
    return Outcome(seconds, work.messages, run.received_bytes // frame_bytes, run.errors, sorted(run.latencies))


async def _connect(target: Address, number: int, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
    """Spread over the target's hosts; authenticated, if the URL says as whom, before the protocol takes over."""
    loop = asyncio.get_running_loop()
    host, port = target.hosts[number % len(target.hosts)]
    if target.password is None:
        transport, _ = await loop.create_connection(lambda: protocol, host, port, ssl=target.tls)
    else:
        user = (target.user or "default").encode()
        login = _Login(protocol, encode_command(b"AUTH", user, target.password.encode()))
        transport, _ = await loop.create_connection(lambda: login, host, port, ssl=target.tls)
        await asyncio.wait_for(login.is_done, STALL_S)
    return transport


async def _pace(run: _Run, publishers: list[_Publisher]) -> None:
    """Send what is due, each command with the moment at which it was due."""
    rate, sent = run.work.rate, 0
    while run.left_to_send:
        due = min(run.work.messages, int((perf_counter() - run.started) * rate))
        while sent < due:
            publishers[sent % len(publishers)].send(1, run.started + sent / rate)
            sent += 1
        if run.lost:
            return
        await asyncio.sleep(PACE_S)


async def _until_done(run: _Run, expected_bytes: int) -> None:
    """Raises BenchError when nothing has moved for a while."""
    moved, moved_at = -1, perf_counter()
    while not run.is_answered or run.received_bytes < expected_bytes:
        if run.lost:
            raise BenchError(run.lost)
        if run.answered + run.received_bytes != moved:
            moved, moved_at = run.answered + run.received_bytes, perf_counter()
        elif perf_counter() - moved_at > STALL_S:
            raise BenchError(f"{run.answered} of {run.work.messages} publishes were answered, then nothing came")
        await asyncio.sleep(PACE_S)


def _frame(work: Work) -> bytes:
    """A message as a RESP2 subscriber gets it."""
    return encode_command(b"message", work.channel, b"x" * work.size)
