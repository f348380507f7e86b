"""A whole node on our disk: `riverbus serve`, published to with redis-py; and what an image of it holds.

A life: the node starts on a mounted image, everything in it is read, messages are published, and the process is killed.
What was acknowledged, and what was read, is noted on the disk itself, so that the trace says which of it was told to a
client before which operation of the disk.

`content_of` opens an image in this process, through all that a start of a node goes through: identity, log, snapshots,
replay (the embedded node; a few milliseconds).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from riverbus._native import LogError
from riverbus.core.state.entries import message_fields
from riverbus.messages import ID_MAX, ID_MIN
from riverbus.runtime.config import load
from riverbus.runtime.embedded import EmbeddedNode
from riverbus.runtime.identity import IdentityError
from tests.faults.cluster import free_ports
from tests.storage.disk_model import Op
from tests.storage.mounted import DEADLINE_S, MountedDisk, die_with_parent

SHARDS = 2
CHANNELS = [f"channel {number}" for number in range(5)]
BURST = 8
CONFIG = """
[limits]
snapshot_log = "6KiB"
snapshot_age = "100ms"
disk_reserve = "0"
"""

Content = dict[str, dict[str, str]]  # channel -> id -> payload


class Refused(Exception):
    """The directory was not served; the text says why."""


class Client:
    """Publishes and reads; each payload is unique."""

    def __init__(self, port: int, name: str, draw: random.Random) -> None:
        self._redis = redis.Redis(port=port, retry=Retry(NoBackoff(), 0), socket_timeout=3, decode_responses=True)
        self._name, self._draw = name, draw
        self.count = 0

    def publish(self) -> list[tuple[str, str, str]]:
        """A burst, half PUBLISH, half XADD; (channel, payload, id or "") of each that was acknowledged."""
        pipeline = self._redis.pipeline(transaction=False)
        sent = []
        for _ in range(self._draw.randint(1, BURST)):
            self.count += 1
            channel = self._draw.choice(CHANNELS)
            payload = f"{self._name}:{self.count} " + "x" * self._draw.choice([0, 100, 600])
            sent.append((channel, payload))
            if channel == CHANNELS[0]:
                pipeline.xadd(channel, {"message": payload})
            else:
                pipeline.publish(channel, payload)
        replies = pipeline.execute(raise_on_error=False)
        return [
            (channel, payload, reply if isinstance(reply, str) else "")
            for (channel, payload), reply in zip(sent, replies, strict=True)
            if not isinstance(reply, Exception)
        ]

    def content(self) -> Content:
        found: Content = {}
        for channel in CHANNELS:
            rows: Any = self._redis.xrange(channel)
            found[channel] = {id_: fields["message"] for id_, fields in rows}
        return found

    def close(self) -> None:
        self._redis.close()


class NodeProcess:
    def __init__(self, process: subprocess.Popen[bytes], port: int, admin: int, log: Path) -> None:
        self.process, self.port, self._admin, self._log = process, port, admin, log

    def wait_ready(self) -> None:
        """Raises Refused when it ends instead."""
        watched = os.pidfd_open(self.process.pid)
        try:
            for _ in range(DEADLINE_S * 50):
                if self._is_ready():
                    return
                if select.select([watched], [], [], 0.02)[0]:
                    raise Refused(f"code {self.process.wait()}: {self.words()}")
        finally:
            os.close(watched)
        raise AssertionError(f"not ready: {self.words()}")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def words(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


@contextmanager
def node_process(data: Path, directory: Path) -> Iterator[NodeProcess]:
    """`riverbus serve`, killed at the end of the block if it has not ended before."""
    config, log = directory / "riverbus.toml", directory / "node.log"
    config.write_text(CONFIG)
    resp, admin, peer, http = free_ports(4)
    places = {"--resp": resp, "--admin": admin, "--peer": peer, "--http": http}
    arguments = [word for flag, port in places.items() for word in (flag, f"127.0.0.1:{port}")]
    with log.open("wb") as words:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "riverbus.cli", "serve", "--data", str(data), "--shards", str(SHARDS)),
                *("--config", str(config), *arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env={name: value for name, value in os.environ.items() if not name.startswith("RIVERBUS_")},
            preexec_fn=die_with_parent,
        )
    node = NodeProcess(process, resp, admin, log)
    try:
        yield node
    finally:
        node.kill()


class Told:
    """What clients know: acknowledged messages, by payload, and everything that a read has shown."""

    def __init__(self) -> None:
        self.acked: dict[str, tuple[str, str]] = {}  # payload -> channel, id or ""
        self.seen: dict[tuple[str, str], str] = {}  # (channel, id) -> payload

    def note_acked(self, disk: MountedDisk, acked: list[tuple[str, str, str]]) -> None:
        disk.note(json.dumps(["acked", acked]).encode())

    def note_seen(self, disk: MountedDisk, content: Content) -> None:
        """By what is new: a note has to fit into one write."""
        rows = [(channel, id_, payload) for channel, found in content.items() for id_, payload in found.items()]
        new = [row for row in rows if row[:2] not in self.seen]
        for at in range(0, len(new), 20):
            disk.note(json.dumps(["seen", new[at : at + 20]]).encode())

    def read(self, ops: Iterable[Op]) -> None:
        for op in ops:
            if op[0] == "note":
                assert isinstance(op[1], bytes)
                what, rows = json.loads(op[1])
                for channel, second, third in rows:
                    if what == "acked":
                        self.acked[second] = (channel, third)
                    else:
                        self.seen[channel, second] = third

    def check(self, content: Content) -> None:
        """All of it is there, in one place each, with its id, and ids are in order."""
        places: dict[str, tuple[str, str]] = {}
        for channel, found in content.items():
            ids = [tuple(map(int, id_.split("-"))) for id_ in found]
            assert ids == sorted(set(ids)), f"{channel}: ids out of order"
            for id_, payload in found.items():
                assert payload not in places, f"{payload[:20]} is there twice"
                places[payload] = (channel, id_)
        lost = [payload[:20] for payload in self.acked if payload not in places]
        assert not lost, f"{len(lost)} of {len(self.acked)} acknowledged messages are lost: {lost[:5]}"
        for payload, (channel, id_) in self.acked.items():
            assert places[payload][0] == channel
            assert id_ in ("", places[payload][1]), f"{payload[:20]}: another id than was answered"
        for (channel, id_), payload in self.seen.items():
            assert content.get(channel, {}).get(id_) == payload, f"{channel} {id_} was read before, and is not the same"


def content_of(data: Path) -> Content:
    """Everything that a node would serve from this directory. Raises Refused."""
    return asyncio.run(_content_of(data))


async def _content_of(data: Path) -> Content:
    config = load(flags={"node": {"shards": SHARDS}}, environ={})
    node = EmbeddedNode(config, data)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await node.start()
    except (IdentityError, LogError, OSError) as error:
        raise Refused(f"{type(error).__name__}: {error}") from error
    try:
        engine = node._engine
        assert engine is not None
        return {
            name.decode(): {
                str(message.id): message_fields(message.kind, message.body)[1].decode()
                for message in shard.replica.bus.range(name, ID_MIN, ID_MAX)
            }
            for shard in engine.shards
            for name in shard.replica.bus.names()
        }
    finally:
        await node.close()
