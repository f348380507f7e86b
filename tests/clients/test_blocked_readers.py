"""Readers that wait, beside a real server: random commands wake the same ones, with the same replies.

The commands go over one connection, one at a time; four others wait (XREAD and XREADGROUP with BLOCK 0), are ended by
CLIENT UNBLOCK, or hang up. After each command what each of them got is compared, and how many still wait. Debian's
redis-server (7.0) has other words for a reader that lost its key or group, and looks at one key of several; with a
server of 7.2's behaviour in RIVERBUS_TEST_VALKEY the words are compared, and readers wait for two keys.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import time
from collections import deque
from pathlib import Path
from random import Random
from typing import Any

import hiredis
import pytest

from tests.clients.resp_tree import Words, encode
from tests.faults.cluster import die_with_parent, free_ports, running

VALKEY = os.environ.get("RIVERBUS_TEST_VALKEY")
SERVER = VALKEY or shutil.which("redis-server")
STEPS = int(os.environ.get("RIVERBUS_BLOCKED_STEPS", "1500"))
READERS = 4
WAIT_S = 10.0
SHOWN = 40
KEYS = (b"{k}0", b"{k}1", b"{k}2")
GROUPS = (b"g1", b"g2")
CONSUMERS = (b"alice", b"bob")

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server here")


class Link:
    """A connection whose replies can be looked for without waiting. Errors are told by their text."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), WAIT_S)
        self._reader = hiredis.Reader(notEnoughData=...)
        self.number: bytes = b"%d" % self.ask(b"CLIENT", b"ID")

    def send(self, words: Words) -> None:
        self._socket.sendall(encode(words))

    def ask(self, *words: bytes) -> Any:
        self.send(words)
        while (reply := self._reader.gets()) is ...:
            self._feed(self._socket.recv(65536))
        return _plain(reply)

    def arrived(self) -> list[Any]:
        self._socket.setblocking(False)
        try:
            while True:
                self._feed(self._socket.recv(65536))
        except BlockingIOError:
            pass
        self._socket.settimeout(WAIT_S)
        replies = []
        while (reply := self._reader.gets()) is not ...:
            replies.append(_plain(reply))
        return replies

    def _feed(self, data: bytes) -> None:
        assert data, "the server closed the connection"
        self._reader.feed(data)

    def close(self) -> None:
        self._socket.close()


def _plain(reply: Any) -> Any:
    if isinstance(reply, list):
        return list(map(_plain, reply))
    return f"-{reply}" if isinstance(reply, hiredis.ReplyError) else reply


def _told(replies: list[Any]) -> list[Any]:
    """As it is compared: Redis 7.0 has two texts of its own for a key or group that is gone."""
    lost = ("-NOGROUP", "-WRONGTYPE", "-UNBLOCKED the")
    return [
        "lost" if VALKEY is None and isinstance(reply, str) and reply.startswith(lost) else reply for reply in replies
    ]


class Side:
    """One server: where commands go, and those who wait."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.main = Link(port)
        self.readers = [Link(port) for _ in range(READERS)]

    def blocked(self) -> int:
        found = re.search(rb"blocked_clients:(\d+)", self.main.ask(b"INFO", b"clients"))
        assert found is not None
        return int(found[1])

    def replace(self, at: int) -> None:
        self.readers[at].close()
        self.readers[at] = Link(self._port)

    def close(self) -> None:
        for link in (self.main, *self.readers):
            link.close()


class Commands:
    """What may wake somebody. Ids rise."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ms = 1

    def pick(self, *choices: bytes) -> bytes:
        return self._random.choice(choices)

    def new_id(self) -> bytes:
        self._ms += self._random.choice((0, 1, 1))
        return b"%d-%d" % (self._ms, self._random.choice((0, 1, 2)))

    def id(self) -> bytes:
        return b"%d-%d" % (max(0, self._random.randint(self._ms - 6, self._ms)), self._random.choice((0, 1)))

    def waiting(self) -> Words:
        keys = self._random.sample(KEYS, 1 if VALKEY is None else self._random.choice((1, 1, 2)))
        count = [b"COUNT", b"1"] if self._random.random() < 0.4 else []
        if self._random.random() < 0.4:  # of one key: who waits for two learns that one is a string at another moment
            return [b"XREAD", *count, b"BLOCK", b"0", b"STREAMS", keys[0], self.pick(b"$", b"0", self.id())]
        no_ack = [b"NOACK"] if self._random.random() < 0.2 else []
        group = [b"XREADGROUP", b"GROUP", self.pick(*GROUPS), self.pick(*CONSUMERS)]
        return [*group, *count, b"BLOCK", b"0", *no_ack, b"STREAMS", *keys, *[b">"] * len(keys)]

    def small(self) -> Words:
        """Of one stream, which is no other afterwards."""
        key, group = self.pick(*KEYS), self.pick(*GROUPS)
        choices: list[tuple[float, Words]] = [
            (10, [b"XADD", key, self.new_id(), b"f", b"v"]),
            (1, [b"XADD", key, b"MAXLEN", b"1", self.new_id(), b"f", b"v"]),
            (1, [b"XDEL", key, self.id()]),
            (0.5, [b"XTRIM", key, b"MAXLEN", b"0"]),
            (1, [b"XACK", key, group, self.id()]),
            (1, [b"XREADGROUP", b"GROUP", group, self.pick(*CONSUMERS), b"STREAMS", key, b">"]),
            (1, [b"XGROUP", b"DELCONSUMER", key, group, self.pick(*CONSUMERS)]),
            (1, [b"XPENDING", key, group]),
            (1, [b"XLEN", key]),
        ]
        return self._random.choices([words for _, words in choices], [weight for weight, _ in choices])[0]

    def any(self) -> Words:
        if self._random.random() < 0.6:
            return self.small()
        key, group = self.pick(*KEYS), self.pick(*GROUPS)
        create = [b"XGROUP", b"CREATE", key, group, self.pick(b"$", b"0", self.id()), b"MKSTREAM"]
        choices: list[tuple[float, Words]] = [
            (10, create),
            (2, [b"XGROUP", b"DESTROY", key, group]),
            (2, [b"DEL", key]),
            (2, [b"SET", key, b"v"]),
            (3, [b"RENAME", key, self.pick(*KEYS)]),
            (1, [b"GETDEL", key]),
            (1, [b"XSETID", key, self.new_id()]),
            (1, [b"EXPIRE", key, b"-1"]),
            (0.3, [b"FLUSHALL"]),
        ]
        return self._random.choices([words for _, words in choices], [weight for weight, _ in choices])[0]


class Comparison:
    def __init__(self, ours: Side, theirs: Side, seed: int) -> None:
        self._ours, self._theirs = ours, theirs
        self._random = Random(seed)
        self._commands = Commands(self._random)
        self._waiting: set[int] = set()  # readers
        self._past: deque[str] = deque([f"seed {seed}"], maxlen=SHOWN)
        self.woken = 0

    def step(self) -> None:
        chance = self._random.random()
        if chance < 0.35 and len(self._waiting) < READERS:
            self._wait(self._random.choice([at for at in range(READERS) if at not in self._waiting]))
        elif chance < 0.43 and self._waiting:
            self._end(self._random.choice(sorted(self._waiting)))
        elif chance < 0.52:
            self._both([b"MULTI"])
            for _ in range(self._random.randint(1, 4)):
                self._both(self._commands.small())
            self._both([b"EXEC"])
        else:
            self._both(self._commands.any())
        self._compare_readers()

    def _wait(self, at: int) -> None:
        words = self._commands.waiting()
        self._note(f"{at}:", words)
        before = self._theirs.blocked()
        for side in (self._ours, self._theirs):
            side.readers[at].send(words)
        self._waiting.add(at)
        deadline = time.monotonic() + WAIT_S
        while self._theirs.blocked() == before:  # or else it is answered
            if answered := self._theirs.readers[at].arrived():
                self._expect(at, answered)
                return
            assert time.monotonic() < deadline

    def _end(self, at: int) -> None:
        if self._random.random() < 0.4:
            self._note(f"{at} hangs up", [])
            self._ours.replace(at)
            self._theirs.replace(at)
            self._waiting.remove(at)
            return
        how = self._commands.pick(b"TIMEOUT", b"ERROR")
        self._note(f"{at} unblocked:", [how])
        for side in (self._ours, self._theirs):
            assert side.main.ask(b"CLIENT", b"UNBLOCK", side.readers[at].number, how) == 1

    def _both(self, words: Words) -> None:
        self._note("", words)
        ours, theirs = self._ours.main.ask(*words), self._theirs.main.ask(*words)
        assert ours == theirs, self._report(ours, theirs)

    def _compare_readers(self) -> None:
        """Redis has answered whom a command wakes before it reads the next."""
        self._theirs.main.ask(b"PING")
        for at in sorted(self._waiting):
            if wanted := self._theirs.readers[at].arrived():
                self._expect(at, wanted)
        wanted_blocked = self._theirs.blocked()
        deadline = time.monotonic() + WAIT_S
        while (blocked := self._ours.blocked()) != wanted_blocked:
            assert time.monotonic() < deadline, self._report(f"{blocked} wait", f"{wanted_blocked} wait")
        for at in sorted(self._waiting):
            got = self._ours.readers[at].arrived()
            assert not got, self._report(f"{at}: {got}", f"{at} waits")

    def _expect(self, at: int, wanted: list[Any]) -> None:
        """This reader gets the same of ours."""
        self._waiting.remove(at)
        self._note(f"  {at} got {wanted}", [])
        self.woken += 1
        if VALKEY is None and isinstance(wanted[0], list) and not wanted[0][0][1]:
            # 7.0 answers so, with nothing, where 7.2 goes on waiting: what woke it is gone again.
            assert self._ours.main.ask(b"CLIENT", b"UNBLOCK", self._ours.readers[at].number) == 1, self._report("", "")
            wanted = [None]
        deadline = time.monotonic() + WAIT_S
        while not (got := self._ours.readers[at].arrived()):
            assert time.monotonic() < deadline, self._report(f"{at} waits", f"{at}: {wanted}")
        assert _told(got) == _told(wanted), self._report(f"{at}: {got}", f"{at}: {wanted}")

    def _note(self, beginning: str, words: Words) -> None:
        self._past.append(" ".join([beginning, *(word.decode() for word in words)]))

    def _report(self, ours: object, theirs: object) -> str:
        return "\n".join([*self._past, f"Riverbus: {ours}", f"Redis:    {theirs}"])


@pytest.mark.timeout(600)
def test_who_waits_is_woken_as_by_redis(tmp_path: Path) -> None:
    comparison = asyncio.run(compare(tmp_path))
    assert comparison.woken > STEPS / 10


async def compare(path: Path) -> Comparison:
    (port,) = free_ports(1)
    assert SERVER is not None
    redis = await asyncio.create_subprocess_exec(
        *(SERVER, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(path), "--save", ""),
        stdout=asyncio.subprocess.DEVNULL,
        preexec_fn=die_with_parent,
    )
    try:
        async with running(path, 1) as cluster:
            return await asyncio.to_thread(_compare, cluster.node(1).resp_port, port)
    finally:
        redis.kill()
        await redis.wait()


def _compare(ours: int, theirs: int) -> Comparison:
    sides = Side(ours), Side(theirs)
    try:
        seed = int(os.environ.get("RIVERBUS_BLOCKED_SEED", "1"))
        comparison = Comparison(*sides, seed)
        for _ in range(STEPS):
            comparison.step()
        return comparison
    finally:
        for side in sides:
            side.close()
