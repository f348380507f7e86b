"""A node without Raft: the `Backend` that sessions run on in tests, with real shards (`Bus`), sessions and encoders.

Publishes wait until `commit`, reads until `release_reads`, questions until `release_questions`: a test decides in which
order things happen; `settle` lets all of it happen. A `FakeClient` is a session with its output, and reads what it gets
with hiredis, as clients do.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hiredis

from riverbus.commands import Command, Hello
from riverbus.core.bus import Bus
from riverbus.core.entries import BatchBuilder, encode_entry
from riverbus.core.ports import Done, Published
from riverbus.core.rules import Rules
from riverbus.core.sessions import Sessions
from riverbus.messages import BusError
from riverbus.wire.encoders import Resp2Encoder, Resp3Encoder

RESP2 = Resp2Encoder()
RESP3 = Resp3Encoder()
START_MS = 1_000_000


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeOutput:
    """Keeps what is written; `capacity` bytes fit before the session is told that it is blocked."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.written_bytes = 0
        self.is_closed = False
        self.is_aborted = False
        self.on_write: Callable[[], None] | None = None

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        assert not self.is_aborted
        self.data += data
        self.written_bytes += len(data)
        if self.on_write is not None:
            self.on_write()

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True


class FakeNode:
    """The backend, its sessions, and the world around them in one. `peers` are asked PUBSUB's questions."""

    def __init__(self, rules: Rules | None = None, shards: int = 2) -> None:
        self.buses = [Bus(rules or Rules()) for _ in range(shards)]
        self.queues: list[list[tuple[bytes, int, list[bytes], Published]]] = [[] for _ in range(shards)]
        self.now = 100.0
        self.users: dict[str, bytes] = {}
        self.settings: dict[str, str] = {"riverbus-version": "test"}
        self.peers: list[FakeNode] = []
        self.refusal: BusError | None = None  # of all publishes and reads
        self.waiting_reads: list[Done] = []
        self.questions: list[tuple[bytes, Callable[[list[bytes]], None]]] = []
        self.timers: list[tuple[float, int, FakeTimer]] = []
        self.timer_count = 0
        self.abandoned = 0
        self.sessions = Sessions(self)

    # --- Backend ----------------------------------------------------------------------------------------------------

    def publish(self, channel: bytes, kind: int, payloads: list[bytes], waiter: Published) -> None:
        if self.refusal is not None:
            waiter.failed(self.refusal)
        else:
            self.queues[self.shard_of(channel)].append((channel, kind, payloads, waiter))

    def fresh(self, channels: Sequence[bytes], done: Done) -> None:
        if self.refusal is not None:
            done(self.refusal)
        else:
            self.waiting_reads.append(done)

    def bus(self, channel: bytes) -> Bus:
        return self.buses[self.shard_of(channel)]

    def shard_of(self, channel: bytes) -> int:
        return sum(channel) % len(self.buses)

    def ask_peers(self, question: bytes, done: Callable[[list[bytes]], None]) -> None:
        self.questions.append((question, done))

    def time(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return START_MS + int(self.now * 1000)

    def schedule(self, at: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
        self.timer_count += 1
        heapq.heappush(self.timers, (at, self.timer_count, timer))
        return timer

    def status(self) -> dict[str, object]:
        return {"node": 1, "ready": True, "shards": []}

    def config(self) -> Mapping[str, str]:
        return self.settings

    def authenticate(self, user: str, password: bytes) -> bool:
        return self.users.get(user) == password

    def has_users(self) -> bool:
        return bool(self.users)

    # --- what a test lets happen ------------------------------------------------------------------------------------

    def commit(self, shard: int | None = None, most: int = 1_000_000) -> None:
        """Apply one entry of the shard (or one of each) with the oldest `most` publishes that wait for it."""
        for number in range(len(self.buses)) if shard is None else [shard]:
            taken, self.queues[number] = self.queues[number][:most], self.queues[number][most:]
            self._apply(number, taken)

    def _apply(self, shard: int, taken: list[tuple[bytes, int, list[bytes], Published]]) -> None:
        builder = BatchBuilder(1)
        waiters = []
        for channel, kind, payloads, waiter in taken:
            if waiter.is_abandoned():
                self.abandoned += 1
                continue
            run, offset = builder.add_run(channel, kind, payloads)
            waiters.append((run, offset, waiter))
        bus, fanout = self.buses[shard], self.sessions.fanout
        applied = bus.apply(bus.applied_index + 1, encode_entry(self.wall_ms(), [builder.finish(1)]))
        runs = applied.results[0].runs
        for at, offset, waiter in waiters:
            result = runs[at]
            if result.first is None:
                assert result.error is not None
                waiter.failed(result.error)
            else:
                waiter.published(result.first.plus(offset), fanout.receivers(result.run.channel, result.run.kind))
        for result in runs:
            if result.first is not None:
                fanout.on_run(result.run.channel, result.run, result.first)

    def release_reads(self) -> None:
        reads, self.waiting_reads = self.waiting_reads, []
        for done in reads:
            done(None)

    def release_questions(self) -> None:
        questions, self.questions = self.questions, []
        for question, done in questions:
            done([peer.sessions.answer(question) for peer in self.peers])

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.fire_timers()
        self.end_turn()

    def fire_timers(self) -> None:
        due = []
        while self.timers and self.timers[0][0] <= self.now:
            due.append(heapq.heappop(self.timers)[2])
        for timer in due:
            if timer.callback is not None:
                timer.callback()

    def end_turn(self) -> None:
        self.sessions.end_turn()
        self.sessions.flush()
        self.sessions.invariants()

    @property
    def is_busy(self) -> bool:
        is_due = any(at <= self.now and timer.callback is not None for at, _, timer in self.timers)
        return bool(any(self.queues) or self.waiting_reads or self.questions or self.sessions.dirty or is_due)

    def settle(self) -> None:
        """Turn after turn, until nothing but a client or the clock can bring more."""
        for _ in range(10_000):
            self.fire_timers()
            if any(self.queues):
                self.commit()
            self.release_reads()
            self.release_questions()
            self.end_turn()
            if not self.is_busy:
                return
        raise AssertionError("never quiet")

    def connect(self, version: int = 2, name: str = "client") -> FakeClient:
        return FakeClient(self, version, name)


class FakeClient:
    """A session and the client behind it. Errors are read as `hiredis.ReplyError`, pushes as lists."""

    def __init__(self, node: FakeNode, version: int, name: str) -> None:
        self.node = node
        self.output = FakeOutput()
        self.session = node.sessions.open(self.output, RESP2, RESP3, f"127.0.0.1:{name}", "127.0.0.1:6380", node.now)
        if version == 3:
            self.do(Hello(3, None, None, None))

    def send(self, *commands: Command) -> None:
        """Hand commands to the session, and end the turn."""
        self.session.handle(commands)
        self.node.end_turn()

    def do(self, *commands: Command) -> Any:
        """Send commands, let everything happen; the reply, or if there isn't just one, the list of replies."""
        self.send(*commands)
        self.node.settle()
        replies = self.read()
        return replies[0] if len(replies) == 1 else replies

    def read(self) -> list[Any]:
        """All that has arrived since the last call."""
        reader = hiredis.Reader(notEnoughData=...)
        reader.feed(bytes(self.output.data))
        self.output.data.clear()
        items = []
        while (item := reader.gets()) is not ...:
            items.append(_plain(item))
        return items

    def disconnect(self) -> None:
        self.session.on_closed()
        self.node.end_turn()


def _plain(item: Any) -> Any:
    return list(map(_plain, item)) if isinstance(item, list) else item


def error_text(reply: object) -> str:
    """The text of an error reply; fails for any other."""
    assert isinstance(reply, hiredis.ReplyError), reply
    return str(reply)
