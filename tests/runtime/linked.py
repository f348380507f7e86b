"""Nodes on loopback that have links and snapshots and nothing else: the cluster of this folder's tests.

Nothing here waits for time to pass: `until` waits for a condition, looked at whenever a handler hears something.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import structlog
import uvloop

from riverbus.peer_messages import PeerMessage
from riverbus.runtime.handshake import Handshake, hello_of
from riverbus.runtime.identity import Identity, open_identity
from riverbus.runtime.peers import PeerLinks
from riverbus.runtime.snapshots import SnapshotStore
from riverbus.wire.frame_nouns import Frame, Hello, Role
from riverbus.wire.frames import HANDSHAKE, LINK, FrameDecoder, encode

SECRET = b"the secret of the test cluster"
WAIT_S = 15.0
NOWHERE = ("127.0.0.1", 1)


def run(story: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine on uvloop; an exception that only the loop hears of fails it too."""
    errors: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: errors.append(context))
        runner.run(story)
    assert errors == [], errors


class Node:
    """One node's links, started and stopped at will over the same data directory, and what its handler heard."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.cluster = cluster
        self.id = node_id
        self.path = cluster.path / f"node-{node_id}"
        self.secret = SECRET
        self.shards = 8
        self.members = cluster.ids
        self.server_ssl: ssl.SSLContext | None = None
        self.client_ssl: ssl.SSLContext | None = None
        self.snapshot_bytes_per_s = 1 << 30
        self.heard: list[tuple[Any, ...]] = []  # of this run
        self.messages: list[tuple[int, PeerMessage]] = []
        self.chunks: list[int] = []  # how many messages came together
        self.is_running = False
        self.identity: Identity
        self.links: PeerLinks
        self.store: SnapshotStore

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.heard, self.messages, self.chunks = [], [], []
        self.identity = open_identity(self.path, self.id, self.shards, self.members)
        self.store = SnapshotStore(loop, self.path)
        self.links = PeerLinks(
            loop,
            self.identity,
            self.secret,
            self.cluster.addresses.get(self.id, ("127.0.0.1", 0)),
            {peer: self.cluster.addresses.get(peer, NOWHERE) for peer in self.members},
            self,
            Random(self.id),
            server_ssl=self.server_ssl,
            client_ssl=self.client_ssl,
            snapshots=self.store,
            snapshot_bytes_per_s=self.snapshot_bytes_per_s,
        )
        self.is_running = True
        await self.links.start()
        self.cluster.addresses[self.id] = self.links.address
        for node in self.cluster.nodes.values():
            if node.is_running:
                node.links.set_address(self.id, self.links.address)

    async def stop(self) -> None:
        if self.is_running:
            self.is_running = False
            self.links.close()
            await self.links.wait_closed()
            self.store.close()
            self.identity.close()

    def wipe(self) -> None:
        shutil.rmtree(self.path)

    @property
    def is_bootstrapped(self) -> bool:
        return ("bootstrapped",) in self.heard

    @property
    def up(self) -> list[int]:
        return [peer for peer in self.cluster.ids if peer != self.id and self.links.is_up(peer)]

    @property
    def fatal(self) -> str | None:
        return next((event[1] for event in self.heard if event[0] == "refused" and event[2]), None)

    def on_bootstrapped(self) -> None:
        assert self.heard == [], "it comes first and once"
        self._hear("bootstrapped")

    def on_up(self, peer: int) -> None:
        assert self.is_bootstrapped
        assert self._ups(peer) == 0
        self._hear("up", peer)

    def on_down(self, peer: int) -> None:
        assert self._ups(peer) == 1
        self._hear("down", peer)

    def on_messages(self, peer: int, messages: list[PeerMessage]) -> None:
        assert self._ups(peer) == 1
        self.messages += [(peer, message) for message in messages]
        self.chunks.append(len(messages))
        self.cluster.notify()

    def on_refused(self, reason: str, fatal: bool) -> None:
        self._hear("refused", reason, fatal)

    def _ups(self, peer: int) -> int:
        return self.heard.count(("up", peer)) - self.heard.count(("down", peer))

    def _hear(self, *event: object) -> None:
        self.heard.append(event)
        self.cluster.notify()


class Cluster:
    """`async with Cluster(path, 3) as cluster`: stops what runs at the end."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.ids = tuple(range(1, size + 1))
        self.addresses: dict[int, tuple[str, int]] = {}
        self.logged = structlog.testing.LogCapture()
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._old_processors: Any = None
        self.nodes = {node_id: Node(self, node_id) for node_id in self.ids}

    def __getitem__(self, node_id: int) -> Node:
        return self.nodes[node_id]

    async def __aenter__(self) -> Cluster:
        self._old_processors = structlog.get_config()["processors"]
        structlog.configure(processors=[self._on_log, self.logged])
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self.nodes.values():
            await node.stop()
        structlog.configure(processors=self._old_processors)

    async def start(self, *ids: int) -> None:
        for node_id in ids or self.ids:
            await self[node_id].start()

    async def found(self) -> None:
        await self.start()
        await self.until(lambda: all(len(node.up) == len(self.ids) - 1 for node in self.nodes.values()))

    async def until(self, condition: Callable[[], bool]) -> None:
        if condition():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((condition, waiter))
        try:
            async with asyncio.timeout(WAIT_S):
                await waiter
        except TimeoutError:
            heard = {node.id: node.heard for node in self.nodes.values()}
            raise AssertionError(f"waited in vain; heard {heard}; logged {self.logged.entries[-20:]}") from None

    def said(self, text: str) -> bool:
        return any(text in f"{entry['event']} {entry.get('reason', '')}" for entry in self.logged.entries)

    def notify(self) -> None:
        for condition, waiter in list(self._waiters):
            if condition():
                self._waiters.remove((condition, waiter))
                if not waiter.done():
                    waiter.set_result(None)

    def _on_log(self, _: object, __: str, event: Any) -> Any:
        asyncio.get_running_loop().call_soon(self.notify)
        return event


class Stranger:
    """A raw connection to a node's peer port, that may go as far as the handshake's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = FrameDecoder(HANDSHAKE)

    @classmethod
    async def dial(cls, node: Node) -> Stranger:
        return cls(*await asyncio.open_connection(*node.links.address))

    async def shake_hands(self, hello: Hello, secret: bytes = SECRET) -> Handshake:
        handshake = Handshake(hello, secret, True, lambda _: None)
        self.writer.write(b"".join(map(encode, handshake.start())))
        while not handshake.is_over:
            self.writer.write(b"".join(map(encode, handshake.receive(await self.next()))))
        self.decoder.phase = LINK
        return handshake

    async def next(self) -> Frame:
        while (frame := self.decoder.next()) is None:
            data = await self.reader.read(1 << 16)
            if not data:
                raise EOFError
            self.decoder.feed(data)
        return frame

    async def read_to_end(self) -> bytes:
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


def hello_to(node: Node, identity: Identity, **changes: Any) -> Hello:
    return hello_of(identity, Role.LINK, node.id, "ab" * 8, bytes(32))._replace(**changes)
