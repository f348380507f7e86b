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
from riverbus.core.access.acl import User, hashed, read_user
from riverbus.core.access.acl_state import AclState
from riverbus.core.clients.sessions import Sessions
from riverbus.core.consensus.router import said
from riverbus.core.ports import Done, Published, PublishedEarly, Written
from riverbus.core.state.bus import Bus, RunResult, WriteResult
from riverbus.core.state.entries import BatchBuilder, encode_entry
from riverbus.core.state.rules import ChannelRule, Rules
from riverbus.messages import BusError, NotAccepted
from riverbus.wire.command_table import ROWS
from riverbus.wire.encoders import Resp2Encoder, Resp3Encoder
from riverbus.wire.parse_acl import categories_of

RESP2 = Resp2Encoder()
RESP3 = Resp3Encoder()
START_MS = 1_000_000
CATEGORIES = categories_of(ROWS)


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
        self.arrived_bytes = 2**62  # no more of them arrive
        self.confirmed_bytes = self.slack = 0  # what was said to have arrived
        self.is_silent = False  # the world does not know
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

    def unacknowledged_bytes(self) -> int | None:
        """`slack` bytes are always under way, and what is lost is so for good."""
        if self.is_silent:
            return None
        self.confirmed_bytes = max(self.confirmed_bytes, min(self.arrived_bytes, self.written_bytes - self.slack))
        return self.written_bytes - self.confirmed_bytes

    def lose(self, count: int) -> None:
        """The newest bytes never arrive, nor does what follows: `count` of them if they are not confirmed yet."""
        count = min(count, len(self.data), self.written_bytes - self.confirmed_bytes)
        del self.data[len(self.data) - count :]
        self.arrived_bytes = self.written_bytes - count


class FakeAccess:
    """The users of `FakeNode.users`, who may do everything, and the categories of the real table."""

    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self.configured: dict[str, User] = {}  # users with rules, beside them

    def users(self) -> Mapping[str, User]:
        everything = ["on", "~*", "&*", "+@all"]
        plain = {
            name: read_user(name, [hashed(b">" + password), *everything]) for name, password in self._node.users.items()
        }
        return {**plain, **self.configured}

    def categories(self) -> Mapping[str, frozenset[str]]:
        return CATEGORIES

    def check_password(self, user: str, password: bytes, hashes: Sequence[str], done: Callable[[bool], None]) -> None:
        self._node.password_checks.append(lambda: done(hashed(b">" + password)[1:] in hashes))
        if not self._node.is_slow_to_check:
            self._node.release_passwords()

    def random_bytes(self, count: int) -> bytes:
        return bytes(count)

    def config(self) -> Mapping[str, str]:
        return self._node.settings


Queued = tuple[bytes, int, list[bytes], Published] | tuple[Command, Written]


class FakeNode:
    """The backend, its sessions, and the world around them in one. `peers` are asked PUBSUB's questions."""

    def __init__(self, rules: Rules | None = None, shards: int = 2) -> None:
        self.buses = [Bus(rules or Rules()) for _ in range(shards)]
        self.queues: list[list[Queued]] = [[] for _ in range(shards)]
        self.now = 100.0
        self.users: dict[str, bytes] = {}
        self.accounts = FakeAccess(self)
        self.password_checks: list[Callable[[], None]] = []
        self.is_slow_to_check = False  # then they wait for `release_passwords`
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

    def publish_early(self, channel: bytes, kind: int, payloads: list[bytes], waiter: PublishedEarly) -> None:
        self.publish(channel, kind, payloads, waiter)

    @property
    def has_special_rules(self) -> bool:
        return any(bus.has_special_rules for bus in self.buses)

    def rule_of(self, channel: bytes) -> ChannelRule:
        return self.bus(channel).rule_of(channel)

    def publish_fleeting(self, channel: bytes, kind: int, payloads: list[bytes]) -> None:
        for node in (self, *self.peers):
            node.sessions.fanout.deliver_now(channel, kind, payloads)

    def write(self, key: bytes, noun: Command, waiter: Written) -> None:
        self.write_shard(self.shard_of(key), noun, waiter)

    def write_shard(self, shard: int, noun: Command, waiter: Written) -> None:
        if self.refusal is not None:
            waiter.failed(self.refusal)
        else:
            self.queues[shard].append((noun, waiter))

    def fresh_shards(self, numbers: Sequence[int], done: Done) -> None:
        self.fresh((), done)

    def fresh(self, channels: Sequence[bytes], done: Done) -> None:
        if self.refusal is not None:
            done(self.refusal)
        else:
            self.waiting_reads.append(done)

    def bus(self, channel: bytes) -> Bus:
        return self.buses[self.shard_of(channel)]

    @property
    def shard_buses(self) -> Sequence[Bus]:
        return self.buses

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

    def access(self) -> FakeAccess:
        return self.accounts

    def replicated_users(self) -> AclState:
        return self.buses[0].users

    # --- what a test lets happen ------------------------------------------------------------------------------------

    def commit(self, shard: int | None = None, most: int = 1_000_000) -> None:
        """Apply one entry of the shard (or one of each) with the oldest `most` publishes that wait for it."""
        for number in range(len(self.buses)) if shard is None else [shard]:
            taken, self.queues[number] = self.queues[number][:most], self.queues[number][most:]
            self._apply(number, taken)

    def _apply(self, shard: int, taken: list[Queued]) -> None:
        """As Route and Engine do it: replies first, then deliveries."""
        builder = BatchBuilder(1)
        waiters: list[tuple[int, int, Any]] = []
        for waiting in taken:
            if waiting[-1].is_abandoned():
                self.abandoned += 1
                waiting[-1].failed(NotAccepted("abandoned"))
            elif len(waiting) == 2:
                waiters.append((builder.add_write(waiting[0]), 0, waiting[1]))
            else:
                run, offset = builder.add_run(*waiting[:3])
                waiters.append((run, offset, waiting[3]))
        bus, sessions = self.buses[shard], self.sessions
        applied = bus.apply(bus.applied_index + 1, encode_entry(self.wall_ms(), [builder.finish(1)]))
        results = applied.results[0].results
        for at, offset, waiter in waiters:
            result = results[at]
            if isinstance(result, WriteResult):
                waiter.written(said(result, self._receivers))
            elif result.first is None:
                assert result.error is not None
                waiter.failed(result.error)
            else:
                waiter.published(result.first, offset, self._receivers(result))
        for result in results:
            if isinstance(result, WriteResult):
                sessions.events.on_write(result)
            elif result.first is not None:
                sessions.fanout.on_run(result.run.channel, result.run, result.first)
        sessions.events.on_events(applied.events)

    def _receivers(self, result: RunResult) -> int:
        return self.sessions.fanout.receivers(result.run.channel, result.run.kind)

    def release_passwords(self) -> None:
        checks, self.password_checks = self.password_checks, []
        for check in checks:
            check()

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
