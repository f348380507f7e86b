"""A cluster and all that can be done to it, for faults (injections.py) and those who heal it (scenarios.py).

It knows what happened and to whom something is being done, draws durations, and notices a process that ended by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.faults.cluster import Cluster, Node
from tests.faults.preload import Control
from tests.faults.proxy import Network


@dataclass
class Arena:
    """A cluster and all that can be done to it."""

    cluster: Cluster
    network: Network
    controls: dict[int, Control]
    longest_s: float  # of one fault
    happened: list[tuple[float, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)  # what nodes did that no fault explains
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: set[int] = field(default_factory=set)

    def note(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self.happened.append((asyncio.get_running_loop().time(), f"{kind}: {text}"))

    def lasts(self, draw: random.Random, shortest_s: float, longest_s: float) -> float:
        """As many short ones as long ones, on a scale of ratios."""
        longest_s = max(shortest_s, min(longest_s, self.longest_s))
        return float(shortest_s * (longest_s / shortest_s) ** draw.random())

    async def rest(self, seconds: float) -> None:
        """As long as a fault lasts, or until all are over."""
        try:
            async with asyncio.timeout(seconds):
                await self.is_over.wait()
        except TimeoutError:
            pass

    @property
    def ids(self) -> list[int]:
        return [node.id for node in self.cluster.nodes]

    def spare(self) -> list[Node]:
        """Nodes that no other fault of processes is at."""
        return [node for node in self.cluster.nodes if node.id not in self._busy and node.process is not None]

    @asynccontextmanager
    async def taken(self, nodes: Iterable[Node]) -> AsyncIterator[None]:
        ids = {node.id for node in nodes}
        assert not ids & self._busy
        self._busy |= ids
        try:
            yield
        finally:
            self._busy -= ids

    async def leader(self, draw: random.Random) -> Node:
        """The node that leads most, as one that answers says; any if none does."""
        for node in draw.sample(self.cluster.nodes, len(self.cluster.nodes)):
            if node.process is None or node.is_paused:
                continue
            try:
                leaders = [shard["leader"] for shard in (await node.status()).get("shards", ()) if shard["leader"]]
            except (OSError, TimeoutError):
                continue
            if leaders:
                return self.cluster.node(max(sorted(set(leaders)), key=leaders.count))
        return draw.choice(self.cluster.nodes)

    def look_for_ends(self) -> None:
        """A process that ended by itself, whatever was done to its surroundings, has failed."""
        for node in self.cluster.nodes:
            if node.id in self._busy or node.process is None or node.process.returncode is None:
                continue
            self.failures.append(f"node {node.id} ended by itself, code {node.process.returncode}\n{node.log_tail()}")
            node.process = None

    async def heal(self) -> None:
        """After all faults have ended: every node runs, on a disk that is well."""
        self.look_for_ends()
        for control in self.controls.values():
            control.heal()
        for node in self.cluster.nodes:
            if node.is_paused:
                node.resume()
        await self.cluster.start()
