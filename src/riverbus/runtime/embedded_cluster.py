"""Several nodes inside a program: the real engines over links of memory, to be killed and cut off from each other.

For tests of programs that use the bus (contrib/pytest_plugin.py): what a client sees of a failover or a partition here
is what it sees of a cluster, since the very Raft runs. Logs and snapshots are in memory and outlive a killed node: it
comes back with what it had synced. Time is real: an election takes a second or two.

Leaves to others: one node's turn (embedded.py), the client's side (client/embedded_cluster.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from random import SystemRandom

from riverbus._native import Log
from riverbus.core.ports import SnapshotFile
from riverbus.peer_messages import PeerMessage
from riverbus.runtime.config import Config
from riverbus.runtime.embedded import Connection, EmbeddedNode, Membership

READY_S = 15.0  # an election, a second one after a split vote, and a machine with other work
POLL_S = 0.01


class MemoryLinks:
    """core/ports.py `Links` of one node: what it sends in a turn arrives at its peer in a later one, in order."""

    def __init__(self, cluster: EmbeddedCluster, node: int) -> None:
        self._cluster = cluster
        self._node = node
        self._gathered: dict[int, list[PeerMessage]] = {}

    def send(self, peer: int, message: PeerMessage) -> None:
        if peer not in self._gathered:
            self._gathered[peer] = []
            self._cluster.loop.call_soon(self._deliver, peer)
        self._gathered[peer].append(message)

    def flush(self) -> None:
        return None

    def is_up(self, peer: int) -> bool:
        return self._cluster.is_linked(self._node, peer)

    def backlog_bytes(self, peer: int) -> int:
        return 0

    def _deliver(self, peer: int) -> None:
        messages = self._gathered.pop(peer)
        if self.is_up(peer):
            self._cluster.nodes[peer].receive(self._node, messages)


class MemorySnapshotFile:
    """core/ports.py `SnapshotFile`."""

    backlog_bytes = 0

    def __init__(self, files: dict[tuple[int, int], list[bytes]], key: tuple[int, int]) -> None:
        self._files = files
        self._key = key
        self._slices: list[bytes] = []

    def write(self, framed_slice: bytes) -> None:
        self._slices.append(framed_slice)

    def commit(self, done: Callable[[str | None], None]) -> None:
        self._files[self._key] = self._slices
        asyncio.get_running_loop().call_soon(done, None)

    def abort(self) -> None:
        self._slices = []


class MemorySnapshots:
    """core/ports.py `Snapshots` of one node, fetched from the memory of another."""

    def __init__(self, cluster: EmbeddedCluster, node: int) -> None:
        self._cluster = cluster
        self._node = node
        self.files: dict[tuple[int, int], list[bytes]] = {}

    def create(self, shard: int, index: int) -> SnapshotFile:
        return MemorySnapshotFile(self.files, (shard, index))

    def indexes(self, shard: int) -> list[int]:
        return sorted(index for number, index in self.files if number == shard)

    def read(self, shard: int, index: int) -> Iterator[bytes]:
        if (shard, index) not in self.files:
            raise FileNotFoundError(f"snapshot {index} of shard {shard}")
        return iter(list(self.files[shard, index]))

    def delete(self, shard: int, index: int) -> None:
        self.files.pop((shard, index), None)

    def fetch(self, peer: int, shard: int, index: int, done: Callable[[str | None], None]) -> None:
        def finish() -> None:
            slices = self._cluster.snapshots[peer].files.get((shard, index))
            if not self._cluster.is_linked(self._node, peer):
                done("the peer cannot be reached")
            elif slices is None:
                done("not found")
            else:
                self.files[shard, index] = list(slices)
                done(None)

        self._cluster.loop.call_soon(finish)


class EmbeddedCluster:
    """`await start()`, connect, kill, restart, cut, mend, `await close()`. Nodes are numbered from 1."""

    def __init__(self, configs: Sequence[Config]) -> None:
        self.loop = asyncio.get_running_loop()
        self.numbers = tuple(config.node.id for config in configs)
        self.nodes: dict[int, EmbeddedNode] = {}
        self.snapshots = {number: MemorySnapshots(self, number) for number in self.numbers}
        self._configs = dict(zip(self.numbers, configs, strict=True))
        self._logs = {number: Log.in_memory(number) for number in self.numbers}
        self._cut: set[tuple[int, int]] = set()
        self._ports: dict[int, int] = {}
        self._servers: dict[int, asyncio.Server] = {}
        self._held: list[Connection] = []

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when every node can commit."""
        for number in self.numbers:
            self._open(number)
        for node in self.nodes.values():
            node.campaign()
        await self.wait_ready(self.numbers)

    async def close(self) -> None:
        """Idempotent."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        nodes, self.nodes = self.nodes, {}
        for node in nodes.values():
            await node.close()
        logs, self._logs = self._logs, {}
        for log in logs.values():
            log.close()

    async def kill(self, number: int) -> None:
        """Its connections end, what it had not synced is gone."""
        node = self.nodes.pop(number)
        server = self._servers.pop(number, None)
        if server is not None:
            server.close()
        await node.close()
        log = self._logs[number]
        self._logs[number] = log.crash(SystemRandom().getrandbits(64))
        log.close()
        for other in self.nodes:
            self._tell(other, number, is_up=False)

    async def restart(self, number: int) -> None:
        """With what it had synced. It is a follower until it is elected."""
        self._open(number)
        if number in self._ports:
            self._servers[number] = await self.nodes[number].listen("127.0.0.1", self._ports[number])
        for other in self.nodes:
            if other != number and self.is_linked(number, other):
                self._tell(other, number, is_up=True)

    async def listen(self, number: int) -> int:
        """A port on loopback for clients with sockets; a restarted node has the same again."""
        if number not in self._servers:
            self._servers[number] = await self.nodes[number].listen("127.0.0.1", self._ports.get(number, 0))
            self._ports[number] = self._servers[number].sockets[0].getsockname()[1]
        return self._ports[number]

    def _open(self, number: int) -> None:
        membership = Membership(self.numbers, MemoryLinks(self, number), self.snapshots[number], self._logs[number])
        node = self.nodes[number] = EmbeddedNode(self._configs[number], None, membership)
        node.bring_up()

    # --- the links ----------------------------------------------------------------------------------------------------

    def is_linked(self, one: int, other: int) -> bool:
        return one in self.nodes and other in self.nodes and (one, other) not in self._cut

    def cut_off(self, group: Sequence[int]) -> None:
        """No link between these nodes and the others."""
        for one, other in permutations(self.numbers, 2):
            if (one in group) != (other in group) and (one, other) not in self._cut:
                self._cut.add((one, other))
                self._tell(one, other, is_up=False)

    def mend(self) -> None:
        cut, self._cut = sorted(self._cut), set()
        for one, other in cut:
            if self.is_linked(one, other):
                self._tell(one, other, is_up=True)

    def _tell(self, number: int, peer: int, is_up: bool) -> None:
        def tell() -> None:
            if number in self.nodes:
                self.nodes[number].on_peer(peer, is_up)

        self.loop.call_soon(tell)

    # --- what is asked ------------------------------------------------------------------------------------------------

    async def wait_ready(self, numbers: Sequence[int]) -> None:
        """Until all of these can commit. Raises TimeoutError with what is missing."""
        give_up_at = self.loop.time() + READY_S
        while reasons := [f"node {number}: {each}" for number in numbers for each in self.nodes[number].unready()]:
            if self.loop.time() > give_up_at:
                raise TimeoutError(f"not ready after {READY_S:g} s: {'; '.join(reasons)}")
            await asyncio.sleep(POLL_S)

    def leader(self, channel: bytes) -> int:
        """The node that leads the channel's shard, as a majority sees it; 0 when there is none."""
        seen = [self.nodes[number].leader(channel) for number in sorted(self.nodes)]
        for leader in seen:
            if leader in self.nodes and seen.count(leader) * 2 > len(self.numbers):
                return leader
        return 0

    # --- subscribers that do not read ---------------------------------------------------------------------------------

    def hold_subscribers(self) -> None:
        """Nothing more reaches those that subscribe now, as if they did not read their sockets."""
        for number in sorted(self.nodes):
            for connection in self.nodes[number].subscribers():
                connection.hold()
                self._held.append(connection)

    def release_subscribers(self) -> None:
        held, self._held = self._held, []
        for connection in held:
            connection.release()
