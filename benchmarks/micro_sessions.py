"""How much of a core a session and fan-out take, without sockets and Raft: microseconds a publish, a run, a subscriber.

    .venv/bin/python benchmarks/micro_sessions.py

Each figure is the best of several rounds, so that a busy machine disturbs it little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from riverbus.commands import Command, Publish, Subscribe
from riverbus.core.access.acl_state import AclState
from riverbus.core.access.open_access import OpenAccess
from riverbus.core.clients.session import Session
from riverbus.core.clients.sessions import Sessions
from riverbus.core.ports import Access, Cancellable, Done, Published, PublishedEarly, Written
from riverbus.core.state.bus import Bus
from riverbus.core.state.entries import Run
from riverbus.core.state.rules import ChannelRule
from riverbus.messages import Kind, MessageId
from riverbus.wire.encoders import Resp2Encoder, Resp3Encoder

ROUNDS = 7
RESP2, RESP3 = Resp2Encoder(), Resp3Encoder()


class Sink:
    """An output that forgets."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def unacknowledged_bytes(self) -> int | None:
        return 0


class Waiting:
    """A backend on which publishes wait until they are told how they ended."""

    def __init__(self) -> None:
        self.waiters: list[Published] = []
        self._users = AclState()

    @property
    def has_special_rules(self) -> bool:
        return False

    def rule_of(self, channel: bytes) -> ChannelRule:
        return ChannelRule()

    def publish_fleeting(self, channel: bytes, kind: int, payloads: list[bytes]) -> None:
        raise AssertionError("there are no channels of durability none")

    def publish_early(self, channel: bytes, kind: int, payloads: list[bytes], waiter: PublishedEarly) -> None:
        raise AssertionError("there are no channels of durability memory")

    def publish(self, channel: bytes, kind: int, payloads: list[bytes], waiter: Published) -> None:
        self.waiters.append(waiter)

    def write(self, key: bytes, noun: Command, waiter: Written) -> None:
        raise NotImplementedError

    def write_shard(self, shard: int, noun: Command, waiter: Written) -> None:
        raise NotImplementedError

    def fresh_shards(self, numbers: Sequence[int], done: Done) -> None:
        done(None)

    @property
    def shard_buses(self) -> Sequence[Bus]:
        return []

    def fresh(self, channels: Sequence[bytes], done: Done) -> None:
        done(None)

    def bus(self, channel: bytes) -> Bus:
        raise NotImplementedError

    def shard_of(self, channel: bytes) -> int:
        return 0

    def ask_peers(self, question: bytes, done: Callable[[list[bytes]], None]) -> None:
        done([])

    def time(self) -> float:
        return 0.0

    def wall_ms(self) -> int:
        return 0

    def schedule(self, at: float, callback: Callable[[], None]) -> Cancellable:
        raise NotImplementedError

    def status(self) -> dict[str, object]:
        return {}

    def config(self) -> Mapping[str, str]:
        return {}

    def access(self) -> Access:
        return OpenAccess(self.config())

    def replicated_users(self) -> AclState:
        return self._users


def best_us(work: Callable[[], None], times: int = 1000) -> float:
    """Microseconds a call."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, time.perf_counter() - start)
    return best / times * 1e6


def connect(sessions: Sessions) -> Session:
    return sessions.open(Sink(), RESP2, RESP3, "127.0.0.1:1", "127.0.0.1:2", 0.0)


def publishing(payloads: int, nouns: int = 2000) -> tuple[float, float]:
    """Microseconds a noun: handle() up to the backend; and being told, encoding and taking the output."""
    backend = Waiting()
    sessions = Sessions(backend)
    session = connect(sessions)
    commands = [Publish(b"c", int(Kind.PUBLISH), [b"x" * 100] * payloads, "receivers") for _ in range(nouns)]
    asking = telling = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        session.handle(commands)
        middle = time.perf_counter()
        for waiter in backend.waiters:
            waiter.published(MessageId(1, 0), 0, 3)
        sessions.end_turn()
        sessions.flush()
        asking = min(asking, middle - start)
        telling = min(telling, time.perf_counter() - middle)
        backend.waiters.clear()
    return asking / nouns * 1e6, telling / nouns * 1e6


def delivering(subscribers: int, messages: int, patterns: int = 0, size: int = 100) -> tuple[float, float]:
    """Microseconds for one run: on_run and the turn's end; and all sessions' take_output."""
    backend = Waiting()
    sessions = Sessions(backend)
    for _ in range(subscribers):
        connect(sessions).handle([Subscribe("channel", (b"c",))])
    for at in range(patterns):
        connect(sessions).handle([Subscribe("pattern", (b"other.%d.*" % at,))])
    sessions.flush()
    run = Run.of(b"c", int(Kind.PUBLISH), [b"x" * size] * messages)
    first = MessageId(1, 0)
    handing = taking = float("inf")
    turns = 200 if subscribers < 100 else 20
    for _ in range(ROUNDS):
        spent = [0.0, 0.0]
        for _ in range(turns):
            start = time.perf_counter()
            sessions.fanout.receivers(b"c", 0)
            sessions.fanout.on_run(b"c", run, first)
            sessions.end_turn()
            middle = time.perf_counter()
            sessions.flush()
            spent[0] += middle - start
            spent[1] += time.perf_counter() - middle
        handing, taking = min(handing, spent[0]), min(taking, spent[1])
    return handing / turns * 1e6, taking / turns * 1e6


def main() -> None:
    print(f"{'one Publish noun of':28}{'handle us':>12}{'answer us':>12}{'us a message':>14}")
    for payloads in (1, 16, 64, 512):
        asking, telling = publishing(payloads)
        print(f"{payloads:>8} payloads {'':10}{asking:12.2f}{telling:12.2f}{(asking + telling) / payloads:14.3f}")
    print(f"\n{'a run of 64 x 100 B to':28}{'fan-out us':>12}{'output us':>12}{'ns a delivery':>14}")
    for subscribers in (0, 1, 10, 100, 1000):
        handing, taking = delivering(subscribers, 64)
        each = (handing + taking) * 1000 / max(1, subscribers * 64)
        print(f"{subscribers:>8} subscribers {'':7}{handing:12.2f}{taking:12.2f}{each:14.2f}")
    handing, taking = delivering(0, 64, patterns=1000)
    print(f"{0:>8}, 1,000 patterns  {'':3}{handing:12.2f}{taking:12.2f}")
    handing, taking = delivering(1000, 1)
    print(f"{'one message to 1,000':28}{handing:12.2f}{taking:12.2f}{(handing + taking):14.2f}")
    sessions = Sessions(Waiting())
    run, first = Run.of(b"c", 0, [b"x"]), MessageId(1, 0)
    idle = best_us(sessions.end_turn)
    unheard = best_us(lambda: sessions.fanout.on_run(b"c", run, first))
    print(f"\nan idle end_turn: {idle:.2f} us; on_run that nobody hears: {unheard:.2f} us")


if __name__ == "__main__":
    main()
