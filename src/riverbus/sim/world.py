"""A run of the simulator: one seed draws a cluster, its weather, its clients and its faults; then peace, and judgement.

Two phases. Chaos: faults come and go while clients work; the checkers' safety rules must hold whatever happens. Peace:
a majority heals, or all, and within bounded time there must be leaders and unblocked clients, then equal replicas.
Then every channel is read in full from every node, and the whole history is judged. The trace is the same in every
process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random

from riverbus import limits
from riverbus.core.clients.lag import before
from riverbus.core.slots import ShardMap
from riverbus.core.state.rules import MEMORY, QUORUM
from riverbus.messages import ID_MAX, MessageId
from riverbus.sim.checkers import Event, Violation, check
from riverbus.sim.clients import SimConnection
from riverbus.sim.clock import Clock
from riverbus.sim.excuses import count_unread, without_excused
from riverbus.sim.faults import Faults
from riverbus.sim.group_checkers import GroupEvent, check_groups
from riverbus.sim.group_workload import Drainer, Member
from riverbus.sim.network import Network
from riverbus.sim.node import SimNode
from riverbus.sim.observer import Observer
from riverbus.sim.swarm import Swarm, draw
from riverbus.sim.workload import Client, Follower, Listener, Publisher, Reader, parse_id

ELECTION_S = limits.TICK_S * limits.ELECTION_TICKS * 2
FOUNDING_S = 15.0
LED_S = 3 * ELECTION_S + 1.0  # three election timeouts, and the time in which links come up
UNBLOCKED_S = 10.0
CALM_S = 40.0  # time that a healed cluster has to converge; far more than it should need
ANSWER_S = 1.3  # promise 4 says a second; some for the way to and fro, and for clocks that drift


@dataclass
class Options:
    """What a run is made of; what is not said is drawn from the seed."""

    seed: int
    nodes: int | None = None
    chaos_s: float = 60.0
    has_faults: bool = True
    only_faults: tuple[int, ...] | None = None  # positions in the list of faults: what shrinking keeps
    publishes_per_s: float | None = None  # that clients want to make, all together; faults let them make fewer
    changes: Mapping[str, object] = field(default_factory=dict)  # of the swarm's fields


@dataclass
class Report:
    seed: int
    nodes: int
    trace: str
    simulated_s: float
    faults: int
    published: int  # sent, with every retry
    acked: int
    refused: int
    delivered: int
    gaps: int
    reads: int
    elections: int
    snapshots_installed: int
    nodes_lost: int
    events: int
    longest_wait_s: float
    handed_out: int
    group_acked: int
    early_acked: int  # of durability memory, and of these those that are lost with a majority's memory
    early_lost: int
    violations: list[Violation] = field(default_factory=list)
    fault_log: list[str] = field(default_factory=list)
    struck: list[int] = field(default_factory=list)

    @property
    def operations(self) -> int:
        return self.acked + self.refused + self.reads


class World:
    """Built from options; `run` once. The scenarios build on one without its own clients and faults."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.random = Random(options.seed)
        self.swarm: Swarm = draw(Random(~options.seed))  # apart from what follows: a new option changes no scenario
        if options.nodes is not None:
            self.swarm = replace(self.swarm, nodes=options.nodes)
        if options.publishes_per_s is not None:
            self.swarm = replace(self.swarm, publishes_per_s=options.publishes_per_s)
        self.swarm = replace(self.swarm, **options.changes)  # type: ignore[arg-type]
        self.clock = Clock()
        self.network = Network(self.clock, Random(self.random.getrandbits(64)), self.swarm.weather)
        self.observer = Observer()
        self.trace = self.observer.trace
        self.history: list[Event] = []
        self.group_history: list[GroupEvent] = []
        self.handed_out = self.group_acked = 0
        self.published = self.acked = self.refused = self.delivered = self.gaps = self.reads = 0
        self.memory_losses: list[float] = []  # when a majority lost its memory at once
        self.longest_wait_s = 0.0
        self.violations: list[Violation] = []
        rules = self.swarm.window.rules(MEMORY if self.swarm.is_memory else QUORUM)
        self.nodes = [
            SimNode(
                number, self.swarm, rules, self.clock, self.network, self.observer, Random(self.random.getrandbits(64))
            )
            for number in range(1, self.swarm.nodes + 1)
        ]
        for node in self.nodes:
            self.network.add(node)
            node.others = {other.id: other for other in self.nodes}
        self.faults = Faults(self)
        self.channels = [f"channel-{number}" for number in range(self.swarm.channels)]
        self._map = ShardMap(self.swarm.shards)
        streams = max(self.swarm.streams, self.swarm.members > 0)
        self.streams = [f"stream-{number}" for number in range(streams)]
        self.clients: list[Client] = []

    # --- clients tell -----------------------------------------------------------------------------------------------

    def record(self, event: Event) -> None:
        self.history.append(event)
        self.trace.add(event)
        self.reads += event.operation == "read_all"

    def record_read(self, events: list[Event]) -> None:
        """The messages of one read."""
        self.history += events
        self.trace.add_all(events)

    def record_group(self, event: GroupEvent) -> None:
        self.group_history.append(event)
        self.trace.add(event)

    def log_ms(self, channel: str) -> int:
        """The time of the newest entry that anyone has applied of the channel's shard."""
        return self.observer.time_ms.get(self._map.shard_of(channel.encode()), 0)

    def on_answered(self, connection: SimConnection | None, invoked: float) -> None:
        """Promise 4: everything is answered within a second, by a node that was not itself asleep."""
        waited = self.clock.now - invoked
        if connection is not None and connection.node.resumed_at < invoked:
            self.longest_wait_s = max(self.longest_wait_s, waited)
            if waited > ANSWER_S:
                text = f"a command sent at {invoked:.3f} to node {connection.node.id} was answered after {waited:.2f} s"
                self.violations.append(Violation("P4", "", text))

    def on_gap(self, channel: str, until: MessageId) -> None:
        """A gap is told only of what the window excludes: never of the channel's newest messages."""
        self.gaps += 1
        window = self.swarm.window
        if window.is_memory_short or window.age_ms is not None:
            return
        kept = 10**6 if window.count is None else window.count
        if (newer := self.observer.newer_than(channel.encode(), until, kept)) < kept:
            text = f"a gap up to {until} was told with {newer} messages behind it and a window of {kept}"
            self.violations.append(Violation("C6", channel, text))

    def trimmed_until(self, channel: str, first: MessageId | None, count: int) -> MessageId | None:
        """Up to where a read that found `count` messages from `first` on may lack messages, by the window's rule."""
        window = self.swarm.window
        if channel in self.streams:
            return None
        if window.is_memory_short:
            return ID_MAX if first is None else before(first)
        if window.count is not None and first is not None and count >= window.count:
            return before(first)
        if window.age_ms is not None:
            now_ms = max(
                shard.replica.bus.time_ms for node in self.nodes if node.engine for shard in node.engine.shards
            )
            return MessageId(max(0, now_ms - window.age_ms), 2**64 - 1)
        return None

    # --- the run ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start all nodes and wait until the cluster is founded and led."""
        for node in self.nodes:
            node.start()
        self.network.watch()
        if not self.clock.run_until(FOUNDING_S, lambda: self.is_led(self.nodes)):
            self.violations.append(Violation("C15", "", f"not founded and led within {FOUNDING_S} s"))

    def run(self) -> Report:
        self.begin()
        self._add_clients()
        until = self.clock.now + self.options.chaos_s
        if self.options.has_faults:
            self.faults.begin(until)
        self.clock.run_until(until)
        self._make_peace()
        history, excused = without_excused(self.history, self.memory_losses)
        self.violations += [*self.observer.violations, *check(history)]
        self.violations += check_groups(self.group_history, history, is_drained=True)
        self.trace.add((self.clock.digest(), [str(violation) for violation in self.violations]))
        return Report(
            seed=self.options.seed,
            nodes=len(self.nodes),
            trace=self.trace.hexdigest(),
            simulated_s=self.clock.now,
            faults=len(self.faults.log),
            published=self.published,
            acked=self.acked,
            refused=self.refused,
            delivered=self.delivered,
            gaps=self.gaps,
            reads=self.reads,
            elections=self.observer.elections,
            snapshots_installed=self.observer.snapshots_installed,
            nodes_lost=sum(node.lost_because is not None for node in self.nodes),
            events=self.clock.events,
            longest_wait_s=self.longest_wait_s,
            handed_out=self.handed_out,
            group_acked=self.group_acked,
            early_acked=sum(event.is_early for event in self.history),
            early_lost=count_unread(excused, self.history),
            violations=self.violations,
            fault_log=self.faults.log,
            struck=self.faults.struck,
        )

    def free(self) -> None:
        """Give up what is large: all is in cycles, and the collector would look through each event."""
        for node in self.nodes:
            node.free()
        self.history.clear()
        self.group_history.clear()
        self.observer.free()
        parse_id.cache_clear()  # the collector would look through what it remembers, too

    def _add_clients(self) -> None:
        swarm = self.swarm
        rate = swarm.publishes_per_s / (swarm.publishers + len(self.streams))
        for number in range(swarm.publishers):
            self.clients.append(Publisher(self, f"p{number}", self.channels, rate))
        for number, stream in enumerate(self.streams):
            self.clients.append(Publisher(self, f"x{number}", [], rate, stream))
        for number, channel in enumerate(self.channels):
            self.clients.append(Follower(self, f"f{number}", channel, is_lazy=self.random.random() < 0.5))
            if swarm.has_plain_subscribers:
                self.clients.append(Listener(self, f"l{number}", channel))
        self.clients.append(Reader(self, "r", [*self.channels, *self.streams], 2.0))
        for number in range(swarm.members):
            self.clients.append(Member(self, f"m{number}", self.streams[0]))

    # --- peace ------------------------------------------------------------------------------------------------------

    def _make_peace(self) -> None:
        """C15: heal a majority, then all, and demand liveness."""
        fit = [node for node in self.nodes if node.lost_because is None]
        # Under durability memory a node that is left dead while another has just lost its memory makes a majority that
        # lost it: more than an early acknowledgement survives.
        may_leave_some = not self.swarm.is_memory or self.faults.is_whole()
        if not self.swarm.heals_all_at_once and may_leave_some:
            majority = len(self.nodes) // 2 + 1
            fit.sort(key=self.faults.is_casualty)  # damage may show only at the start
            for node in fit[majority:]:
                if node.is_alive:
                    node.crash()
            fit = fit[:majority]
        self._demand_service(fit)
        self.faults.heal(self.nodes)
        for client in self.clients:
            client.stop()
        self._demand(CALM_S, self._is_converged, "replicas did not converge")
        if self.swarm.members:
            drainer = Drainer(self, "drainer", self.streams[0])
            self._demand(CALM_S, lambda: drainer.is_done, "a group could not be read to its end")
        self._read_everywhere()
        if not self.swarm.window.is_memory_short:
            self._demand(CALM_S, self._have_followers_all, "a subscriber did not get the last message")
        for node in self.nodes:
            node.walk()

    def _demand_service(self, fit: list[SimNode]) -> None:
        self.faults.heal(fit)
        healed_at = self.clock.now
        self._demand(LED_S, lambda: self.is_led(self.nodes), "no leader of every shard")
        if self.swarm.window.is_memory_short:
            return  # then streams are refused, and rightly so
        publishers = [client for client in self.clients if isinstance(client, Publisher)]
        for publisher in publishers:
            publisher.urge(healed_at)
        self._demand(UNBLOCKED_S, lambda: all(p.last_ok >= healed_at for p in publishers), "a publisher stayed blocked")

    def _demand(self, within_s: float, is_done: object, text: str) -> None:
        assert callable(is_done)
        if not self.clock.run_until(self.clock.now + within_s, is_done):
            self.violations.append(Violation("C15", "", f"{text} within {within_s} s of healing: {self.describe()}"))

    def is_led(self, nodes: list[SimNode]) -> bool:
        return all(self.leader_of(shard, nodes) is not None for shard in range(self.swarm.shards))

    def leader_of(self, shard: int, nodes: list[SimNode]) -> SimNode | None:
        """The node that leads and has committed in its term."""
        for node in nodes:
            if node.is_serving and node.engine is not None:
                replica = node.engine.shards[shard].replica
                if replica.is_leader and replica.has_committed_in_term:
                    return node
        return None

    def _serving(self) -> list[SimNode]:
        return [node for node in self.nodes if node.is_serving]

    def _is_converged(self) -> bool:
        fit = [node for node in self.nodes if node.lost_because is None]
        if not all(node.is_serving for node in fit) or not self.is_led(fit):
            return False
        if not all(client.is_idle for client in self.clients if isinstance(client, Publisher)):
            return False
        for shard in range(self.swarm.shards):
            positions = set()
            for node in fit:
                assert node.engine is not None
                replica = node.engine.shards[shard].replica
                positions.add((replica.applied_index, replica.bus.running_hash))
                if replica.raft.status()["last"] != replica.applied_index:
                    return False
            if len(positions) != 1:
                return False
        return True

    def describe(self) -> str:
        """Where each replica stands, for whoever reads a violation."""
        lines = []
        for node in self.nodes:
            if node.engine is None:
                lines.append(f"node {node.id} down ({node.lost_because or 'no engine'})")
                continue
            for shard in node.engine.shards:
                status = shard.replica.raft.status()
                keys = ("role", "term", "leader", "commit", "applied", "first", "last", "progress")
                lines.append(f"node {node.id} shard {shard.number} " + " ".join(f"{k}={status[k]}" for k in keys))
        return "; ".join(lines)

    def _read_everywhere(self) -> None:
        """A full-range read of each channel at each node, for C1."""
        for node in self._serving():
            for channel in (*self.channels, *self.streams):
                reader = Reader(self, f"final-{node.id}-{channel}", [channel], 10**6)
                reader.connect_to(node)
                if not self._read_until_it_works(reader, channel):
                    text = f"no read at node {node.id} worked within {UNBLOCKED_S} s"
                    self.violations.append(Violation("C15", channel, text))
                reader.stop()

    def _read_until_it_works(self, reader: Reader, channel: str) -> bool:
        """What a link had in flight before it healed may still delay a first read beyond its deadline."""
        until = self.clock.now + UNBLOCKED_S
        outcome: list[bool] = []
        while self.clock.now < until and True not in outcome and reader.connection is not None:
            asked = len(outcome)
            reader.read(channel, True, outcome.append)
            self.clock.run_until(until, lambda asked=asked: len(outcome) > asked)  # type: ignore[misc]
        return True in outcome

    def _have_followers_all(self) -> bool:
        node = self._serving()[0]
        assert node.engine is not None
        for client in self.clients:
            if isinstance(client, Follower):
                name = client.channel.encode()
                if client.last < node.engine.bus(name).last_id(name):
                    return False
        return True
