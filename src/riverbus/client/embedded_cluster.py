"""A cluster in this process, for tests: buses that clients hold, and the faults that a cluster has.

The nodes are real (runtime/embedded_cluster.py); what goes wrong is asked for by name: `failover`, `partition`,
`slow_consumers`. `connect` gives the bus of riverbus.connect(), `listen` a URL for any Redis client.
Used by contrib/pytest_plugin.py, and by programs that test without pytest. It starts at its first use, on the loop that
runs then, and ends with that loop if nobody closed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from riverbus.client.address import Address
from riverbus.client.bus import Bus
from riverbus.client.connection import Connection, PushHandler, handshake
from riverbus.client.lifetime import until_loop_ends
from riverbus.client.nouns import ConnectionLost, name_to_bytes
from riverbus.runtime import embedded_cluster
from riverbus.runtime.config import load

NODES_DEFAULT = 3


class ClusterDialer:
    """Goes round the nodes that are alive, from a given one."""

    def __init__(self, cluster: EmbeddedCluster, first: int) -> None:
        self._cluster = cluster
        self._next = cluster.numbers.index(first)

    async def dial(self, on_push: PushHandler | None = None) -> Connection:
        await self._cluster.start()
        numbers = self._cluster.numbers
        number = numbers[self._next]
        self._next = (self._next + 1) % len(numbers)
        node = self._cluster.running.nodes.get(number)
        if node is None:
            raise ConnectionError(f"node {number} is dead")
        connection = Connection(Address.reply_timeout, on_push)
        node.connect(connection)
        try:
            await connection.call(handshake(None, None, None))
        except ConnectionLost as lost:
            raise ConnectionError(f"node {number}: {lost}") from None
        return connection

    async def close(self) -> None:
        return None


class EmbeddedCluster:
    """`async with EmbeddedCluster() as cluster: async with cluster.connect() as bus: ...`

    `settings` is what a configuration file would say, such as {"history": {"count": 100}}. One shard unless it says
    otherwise, so that one node leads all channels.
    """

    def __init__(self, nodes: int = NODES_DEFAULT, settings: Mapping[str, Any] | None = None) -> None:
        """Raises ConfigError for bad settings."""
        given = settings or {}
        self._configs = [
            load(flags={**given, "node": {"shards": 1, **given.get("node", {}), "id": number}}, environ={})
            for number in range(1, nodes + 1)
        ]
        self._cluster: embedded_cluster.EmbeddedCluster | None = None
        self._starting: asyncio.Task[None] | None = None
        self._lifetime: AsyncGenerator[None, None] | None = None
        self._buses: list[Bus] = []
        self.numbers = tuple(range(1, nodes + 1))

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that it runs on, while it runs."""
        return None if self._cluster is None else self._cluster.loop

    async def __aenter__(self) -> EmbeddedCluster:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Returns when every node can commit; every call that needs it does this first.

        Raises RuntimeError on another loop than the one that it runs on.
        """
        if self._starting is None:
            self._cluster = embedded_cluster.EmbeddedCluster(self._configs)
            self._lifetime = await until_loop_ends(self._end)
            self._starting = self._cluster.loop.create_task(self._cluster.start())
        elif self.loop is not asyncio.get_running_loop():
            raise RuntimeError("the cluster runs on another event loop")
        if not self._starting.done() or self._starting.exception() is not None:
            await asyncio.shield(self._starting)

    async def close(self) -> None:
        """Idempotent. Closes the buses that `connect` gave."""
        if self._lifetime is not None:
            await self._lifetime.aclose()

    async def _end(self) -> None:
        self._lifetime = None
        starting, self._starting = self._starting, None
        if starting is not None and not starting.done():
            starting.cancel()
            await asyncio.wait([starting])
        buses, self._buses = self._buses, []
        for bus in buses:
            await bus.close()
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.close()

    # --- clients ------------------------------------------------------------------------------------------------------

    def connect(self, node: int = 1, deadline: float = Address.deadline) -> Bus:
        """A bus that begins at this node and goes on to the others when it fails, as over sockets."""
        bus = Bus(ClusterDialer(self, node), deadline)
        self._buses.append(bus)
        return bus

    async def listen(self) -> str:
        """A URL of all nodes for clients with sockets: redis-py, or riverbus.connect(), on ports of loopback."""
        await self.start()
        cluster = self.running
        ports = [await cluster.listen(number) for number in cluster.numbers if number in cluster.nodes]
        return "redis://" + ",".join(f"127.0.0.1:{port}" for port in ports)

    # --- faults -------------------------------------------------------------------------------------------------------

    def leader(self, channel: str | bytes = b"") -> int:
        """The number of the node that leads the channel; 0 while none does. Raises RuntimeError before the start."""
        return self.running.leader(name_to_bytes(channel))

    async def failover(self, channel: str | bytes = b"") -> int:
        """Kill the node that leads the channel, wait for its successor, and bring it back. Its number.

        Its connections end, and what was in flight on them has an unknown outcome. Takes an election: a second or two.
        """
        await self.start()
        number = self.leader(channel)
        if number == 0:
            raise RuntimeError("no node leads: is another fault still there?")
        if (len(self.running.nodes) - 1) * 2 <= len(self.numbers):
            raise RuntimeError("without this node there is no majority: nobody can take over")
        await self.kill(number)
        await self.running.wait_ready(sorted(self.running.nodes))
        await self.restart(number)
        return number

    async def kill(self, node: int) -> None:
        """Its connections end, its port is closed; the others elect a new leader if they are a majority."""
        await self.start()
        await self.running.kill(node)

    async def restart(self, node: int) -> None:
        """A killed node comes back with what it had on its disk. Returns when it can serve, if a majority is there."""
        cluster = self.running
        await cluster.restart(node)
        if len(cluster.nodes) * 2 > len(cluster.numbers):
            await cluster.wait_ready([node])

    @asynccontextmanager
    async def partition(self, *nodes: int) -> AsyncIterator[tuple[int, ...]]:
        """While it lasts, these nodes (the leader alone, if none is named) are cut off from the others.

        Clients stay connected to all. The smaller side answers writes with -UNKNOWN or -CLUSTERDOWN within a second:
        buses of `connect` go on to other nodes, plain Redis clients raise it. At its end the links are mended, and
        every node can commit again.
        """
        await self.start()
        cluster = self.running
        group = nodes or (self.leader(),)
        cluster.cut_off(group)
        try:
            yield group
        finally:
            if self._cluster is cluster:
                cluster.mend()
                await cluster.wait_ready(sorted(cluster.nodes))

    @asynccontextmanager
    async def slow_consumers(self) -> AsyncIterator[None]:
        """While it lasts, nothing reaches those that subscribe when it begins, as if they did not read.

        At its end they get what is still in the channels' windows, and are told of the gap if there is one. A client
        that misses its heartbeat's answer for its reply time-out (3 s) connects anew instead.
        """
        await self.start()
        self.running.hold_subscribers()
        try:
            yield
        finally:
            if self._cluster is not None:
                self._cluster.release_subscribers()

    @property
    def running(self) -> embedded_cluster.EmbeddedCluster:
        """The nodes. Raises RuntimeError before the start."""
        if self._cluster is None:
            raise RuntimeError("the cluster is not running: await start() first")
        return self._cluster
