"""A run of the simulator: one seed draws a cluster, its weather, its clients and its faults; then peace, and judgement.

Two phases. Chaos: faults come and go while clients work; the checkers' safety rules must hold whatever happens. Peace:
everything heals, and within bounded time there must be leaders, equal replicas, unblocked clients. Then every channel is
read in full from every node, and the whole history is judged. The digest of the trace is the same in every process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import xxhash

from riverbus import limits
from riverbus.core.rules import ChannelRule, Rules
from riverbus.sim.checkers import Event, Violation, check
from riverbus.sim.clock import Clock
from riverbus.sim.faults import Faults
from riverbus.sim.network import Network
from riverbus.sim.node import SimNode
from riverbus.sim.workload import Client, Publisher, Reader, Subscriber

ELECTION_S = limits.TICK_S * limits.ELECTION_TICKS * 2
CALM_S = 40.0  # time that a healed cluster has to converge; far more than it should need


@dataclass
class Options:
    """What a run is made of; None is drawn from the seed."""

    seed: int
    nodes: int | None = None
    shards: int = 2
    chaos_s: float = 60.0
    faults: bool = True
    only_faults: tuple[int, ...] | None = None  # positions in the list of faults: what shrinking keeps


@dataclass
class Report:
    seed: int
    nodes: int
    trace: str
    simulated_s: float
    faults: int
    acked: int
    refused: int
    delivered: int
    gaps: int
    events: int
    longest_wait_s: float
    violations: list[Violation] = field(default_factory=list)
    fault_log: list[str] = field(default_factory=list)


class World:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.random = Random(options.seed)
        self.clock = Clock()
        self.network = Network(self.clock, Random(self.random.getrandbits(64)))
        self.history: list[Event] = []
        self.acked = self.refused = self.delivered = self.gaps = 0
        self.longest_wait = 0.0
        self._trace = xxhash.xxh3_128()
        count = options.nodes or self.random.choice((1, 3, 3, 3, 5))
        rules = Rules(default=ChannelRule(count=10**6, age_ms=24 * 3600 * 1000, bytes=limits.GIB))
        snapshot_bytes = self.random.choice((2_000, 20_000, 10**9))
        voters = tuple(range(1, count + 1))
        self.nodes = [
            SimNode(
                number, voters, options.shards, rules, self.clock, self.network, Random(self.random.getrandbits(64)), snapshot_bytes
            )
            for number in voters
        ]
        for node in self.nodes:
            self.network.add(node)
            node.world_nodes = {other.id: other for other in self.nodes}
        self.faults = Faults(self)
        self.channels = [f"channel-{number}" for number in range(self.random.randint(1, 4))]
        self.clients: list[Client] = []

    def record(self, event: Event) -> None:
        self.history.append(event)
        self._trace.update(repr(event).encode())

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        for node in self.nodes:
            node.start()
        self.network.watch()
        self._add_clients()
        self.clock.run_until(3.0)
        if self.options.faults:
            self.faults.begin(until=3.0 + self.options.chaos_s)
        self.clock.run_until(3.0 + self.options.chaos_s)
        violations = self._make_peace()
        violations += check(self.history)
        for node in self.nodes:
            self._trace.update(repr([shard.replica.bus.running_hash for shard in node.engine.shards]).encode())  # type: ignore[union-attr]
        return Report(
            seed=self.options.seed,
            nodes=len(self.nodes),
            trace=self._trace.hexdigest(),
            simulated_s=self.clock.now,
            faults=len(self.faults.log),
            acked=self.acked,
            refused=self.refused,
            delivered=self.delivered,
            gaps=self.gaps,
            events=self.clock.events,
            longest_wait_s=self.longest_wait,
            violations=violations,
            fault_log=self.faults.log,
        )

    def _add_clients(self) -> None:
        rate = self.random.uniform(10.0, 25.0)
        size = self.random.choice((16, 100, 2000))
        for number in range(self.random.randint(2, 3)):
            in_flight = self.random.choice((1, 8, 64))
            self.clients.append(Publisher(self, f"p{number}", self.channels, rate, in_flight, size))
        for number, channel in enumerate(self.channels):
            self.clients.append(Subscriber(self, f"s{number}", channel, is_lazy=self.random.random() < 0.5))
        self.clients.append(Reader(self, "r", self.channels, 4.0))

    def _make_peace(self) -> list[Violation]:
        """Heal everything and demand liveness: C15, and C12 at the end."""
        self.faults.heal_all()
        healed_at = self.clock.now
        is_led = self.clock.run_until(healed_at + 3 * ELECTION_S + 5.0, self._is_led)
        violations = [] if is_led else [Violation("C15", "", "no leader of every shard in time after healing")]
        for client in self.clients:
            client.stop()
        if not self.clock.run_until(self.clock.now + CALM_S, self._is_converged):
            violations.append(Violation("C15", "", f"not converged in time: {self._describe()}"))
            return violations
        violations += self._compare_hashes()
        violations += self._read_everywhere()
        if not self.clock.run_until(self.clock.now + CALM_S, self._have_subscribers_all):
            violations.append(Violation("C15", "", "a subscriber did not get the last message in time"))
        return violations

    def _is_led(self) -> bool:
        return all(self._leads(shard) for shard in range(self.options.shards))

    def _leads(self, shard: int) -> bool:
        for node in self.nodes:
            if node.is_running and node.engine is not None:
                replica = node.engine.shards[shard].replica
                if replica.is_leader and replica.has_committed_in_term:
                    return True
        return False

    def _is_converged(self) -> bool:
        if not all(publisher.is_idle for publisher in self.clients if isinstance(publisher, Publisher)):
            return False
        if not self._is_led():
            return False
        for shard in range(self.options.shards):
            positions = set()
            for node in self.nodes:
                assert node.engine is not None
                raft = node.engine.shards[shard].replica.raft.status()
                positions.add((raft["last"], raft["applied"]))
            if len(positions) != 1 or any(last != applied for last, applied in positions):
                return False
        return True

    def _describe(self) -> str:
        return "; ".join(
            f"node {node.id} {[s.replica.raft.status() for s in node.engine.shards] if node.engine else 'down'}"
            for node in self.nodes
        )

    def _compare_hashes(self) -> list[Violation]:
        found = []
        for shard in range(self.options.shards):
            hashes = {node.engine.shards[shard].replica.bus.running_hash for node in self.nodes if node.engine}
            if len(hashes) != 1:
                found.append(Violation("C12", f"shard {shard}", "replicas at the same index have different hashes"))
        return found

    def _read_everywhere(self) -> list[Violation]:
        """A full-range read of each channel at each node, for C1."""
        found = []
        for node in self.nodes:
            for channel in self.channels:
                outcome: list[bool] = []
                reader = Reader(self, f"final-{node.id}-{channel}", [channel], 10**6)
                reader.connect_to(node)
                reader.read(channel, outcome.append)
                if not self.clock.run_until(self.clock.now + 10.0, lambda outcome=outcome: bool(outcome)):  # type: ignore[misc]
                    found.append(Violation("C15", channel, f"a read at node {node.id} was not answered in 10 s"))
                elif not outcome[0]:
                    found.append(Violation("C15", channel, f"a read at node {node.id} failed after healing"))
                reader.stop()
        return found

    def _have_subscribers_all(self) -> bool:
        for client in self.clients:
            if isinstance(client, Subscriber):
                node = self.nodes[0]
                assert node.engine is not None
                if client.last < node.engine.bus(client.channel.encode()).last_id(client.channel.encode()):
                    return False
        return True
