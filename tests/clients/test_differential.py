"""Random commands to Riverbus and to a real redis-server at once: the same replies, byte for byte, in RESP2 and RESP3.

The server beside it is Debian's 7.0; what 7.2 changed, and what Riverbus does otherwise on purpose, is listed in
differences.py, which points to docs/divergence.md. A failure prints the last commands, and the seed that makes them
again: RIVERBUS_DIFFERENTIAL_SEED=<seed>. RIVERBUS_DIFFERENTIAL=long sends 100,000 commands to three nodes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter, deque
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from tests.clients.differences import Names, normal, reason, show
from tests.clients.random_commands import Generator, Words
from tests.clients.resp_tree import Tree, Wire
from tests.faults.cluster import die_with_parent, free_ports, running

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="Debian's redis-server is not installed")

IS_LONG = os.environ.get("RIVERBUS_DIFFERENTIAL") == "long"
COMMANDS = 50_000 if IS_LONG else 3_000  # of each protocol
NODES = 3 if IS_LONG else 1
BATCH = 40
EPOCH_COMMANDS = 1_000  # then both are emptied
SHOWN = 60


class Pair:
    """One connection to each server."""

    def __init__(self, ours: int, theirs: int, protocol: int) -> None:
        self.ours, self.theirs = Wire(ours), Wire(theirs)
        for wire in (self.ours, self.theirs):
            wire.ask(b"HELLO", b"%d" % protocol)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


class Listener:
    """A subscriber to all keyspace events on each server: what they are told must be the same."""

    def __init__(self, ours: int, theirs: int) -> None:
        self._wires = Wire(ours), Wire(theirs)
        for wire in self._wires:
            wire.ask(b"PSUBSCRIBE", b"__key*@0__:*")

    def heard(self) -> list[dict[bytes, list[bytes]]]:
        """By channel, in order, since the last time; on both servers."""
        found = []
        for wire in self._wires:
            wire.send([[b"PING"]])
            events: dict[bytes, list[bytes]] = {}
            while (message := wire.read()[1])[0][1] != b"pong":
                events.setdefault(message[2][1], []).append(message[3][1])
            found.append(events)
        return found

    def close(self) -> None:
        for wire in self._wires:
            wire.close()


class Comparison:
    def __init__(self, pair: Pair, seed: int, listener: Listener | None = None) -> None:
        self._pair = pair
        self._listener = listener
        self._random = Random(seed)
        self.seed = seed
        self.sent = 0
        self.listed: Counter[str] = Counter()
        self._past: deque[Words] = deque(maxlen=SHOWN)

    def run(self, count: int) -> None:
        while self.sent < count:
            flags = b"KEA" if self._listener is not None else b""
            self._send([[b"FLUSHALL"], [b"CONFIG", b"SET", b"notify-keyspace-events", flags]], Names(), Names())
            self._epoch(min(self.sent + EPOCH_COMMANDS, count))

    def _epoch(self, until: int) -> None:
        generator = Generator(self._random)
        names = Names(), Names()
        while self.sent < until:
            batch: list[Words] = []
            while len(batch) < BATCH:
                if self._random.random() < 0.03:
                    batch += generator.transaction()
                elif (some := generator.commands())[0][0] == b"SCAN":
                    self._send(batch, *names)
                    self._scan(some[0])
                    batch = []
                elif self._listener is None or some[0][0] != b"CONFIG":
                    batch += some
            self._send(batch, *names)
            self._listen()

    def _listen(self) -> None:
        if self._listener is None:
            return
        ours, theirs = self._listener.heard()
        for channel in ours.keys() | theirs.keys():
            if channel.startswith(b"__keyspace"):  # of one key, so in one order; the others are of several shards
                same = ours.get(channel) == theirs.get(channel)
            else:
                same = sorted(ours.get(channel, ())) == sorted(theirs.get(channel, ()))
            assert same, self._report([channel], ("*", ours.get(channel)), ("*", theirs.get(channel)))

    def _scan(self, words: Words) -> None:
        """A cursor is each server's own: all steps are compared at once."""
        self._past.append(words)
        found: list[set[Tree]] = []
        for wire in (self._pair.ours, self._pair.theirs):
            names: set[Tree] = set()
            cursor = b"0" if words[1].isdigit() else words[1]
            while True:
                reply = wire.ask(words[0], cursor, *words[2:])
                if reply[0] == "-":
                    names.add(reply)
                    break
                cursor = reply[1][0][1]
                names.update(reply[1][1][1])
                if cursor == b"0":
                    break
            found.append(names)
        self.sent += 1
        if found[0] != found[1]:
            self._compare(words, ("*", sorted(found[0])), ("*", sorted(found[1])), Names(), Names())

    def _send(self, batch: list[Words], our_names: Names, their_names: Names) -> None:
        queued: list[Words] | None = None
        self._pair.ours.send(batch)
        self._pair.theirs.send(batch)
        for words in batch:
            self._past.append(words)
            ours, theirs = self._pair.ours.read(), self._pair.theirs.read()
            self.sent += 1
            name = words[0].upper()
            if name == b"EXEC" and queued is not None and ours[0] == theirs[0] == "*" and ours[1] and theirs[1]:
                assert len(ours[1]) == len(theirs[1]), self._report(words, ours, theirs)
                for inner, our_part, their_part in zip(queued, ours[1], theirs[1], strict=True):
                    self._compare(inner, our_part, their_part, our_names, their_names)
            else:
                self._compare(words, ours, theirs, our_names, their_names)
            if name in (b"FLUSHALL", b"FLUSHDB"):
                our_names.forget()
                their_names.forget()
            if name == b"MULTI" and queued is None:
                queued = []
            elif name in (b"EXEC", b"DISCARD") and len(words) == 1:
                queued = None
            elif queued is not None and theirs == ("+", b"QUEUED"):
                queued.append(words)

    def _compare(self, words: Words, ours: Tree, theirs: Tree, our_names: Names, their_names: Names) -> None:
        left, right = normal(words, ours, our_names), normal(words, theirs, their_names)
        if left == right:
            return
        listed = reason(words, left, right)
        assert listed is not None, self._report(words, left, right)
        self.listed[listed] += 1

    def _report(self, words: Words, ours: object, theirs: object) -> str:
        past = "\n".join(" ".join(map(_word, each)) for each in self._past)
        return (
            f"{past}\n\nseed {self.seed}, command {self.sent}: {' '.join(map(_word, words))}\n"
            f"Riverbus: {show(ours)}\nRedis:    {show(theirs)}"
        )


def _word(word: bytes) -> str:
    text = word.decode("utf-8", "backslashreplace")
    return text if text and " " not in text else f'"{text}"'


@pytest.mark.timeout(3600 if IS_LONG else 120)
@pytest.mark.parametrize("protocol", [2, 3])
def test_random_commands_get_the_same_replies(tmp_path: Path, protocol: int) -> None:
    """With RESP2 the keyspace events are compared as well."""
    comparison = asyncio.run(compare(tmp_path, protocol))
    print(f"RESP{protocol}: {comparison.sent} commands, listed differences: {dict(comparison.listed)}")
    assert comparison.listed.total() < COMMANDS / 20


async def compare(path: Path, protocol: int) -> Comparison:
    seed = int(os.environ.get("RIVERBUS_DIFFERENTIAL_SEED", protocol))
    (port,) = free_ports(1)
    redis = await asyncio.create_subprocess_exec(
        *("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(path), "--save", ""),
        stdout=asyncio.subprocess.DEVNULL,
        preexec_fn=die_with_parent,
    )
    try:
        async with running(path, NODES) as cluster:
            ours = cluster.node(1).resp_port
            with closing(Pair(ours, port, protocol)) as pair, closing(Listener(ours, port)) as listener:
                comparison = Comparison(pair, seed, listener if protocol == 2 else None)
                await asyncio.to_thread(comparison.run, COMMANDS)
            return comparison
    finally:
        redis.kill()
        await redis.wait()
