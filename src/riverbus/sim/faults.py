"""What goes wrong in a simulated world: drawn from the seed one after the other, each logged, each undone.

Some seeds take more than a minority of the nodes at a time, since safety must hold then too. What can't be undone
(a wiped directory, flipped bits) strikes a minority in all. Each fault has a generator of its own, so that
`Options.only_faults`, which replays a run with some of its faults only, changes no other: so a failure is shrunk.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from riverbus.sim.network import Way
from riverbus.sim.swarm import Weather

if TYPE_CHECKING:
    from riverbus.sim.node import SimNode
    from riverbus.sim.world import World


class Faults:
    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(world.random.getrandbits(64))
        self._kinds: list[Callable[[Random], str]] = [getattr(self, f"_{kind}") for kind in world.swarm.fault_kinds]
        self._until = 0.0
        self._drawn = 0
        self._casualties: set[int] = set()
        self._whole_from = 0.0  # then all nodes have had the time to recover what a restart made them forget
        self.log: list[str] = []
        self.struck: list[int] = []  # their positions, for `only_faults`

    def begin(self, until: float) -> None:
        self._until = until
        self._schedule()

    def _schedule(self) -> None:
        self._world.clock.after(self._random.expovariate(1 / self._world.swarm.fault_pace_s), self._strike)

    def _strike(self) -> None:
        world = self._world
        if world.clock.now >= self._until:
            return
        kind = self._random.choice(self._kinds)
        random = Random(self._random.getrandbits(64))
        only = world.options.only_faults
        if only is None or self._drawn in only:
            text = f"{self._drawn}: {world.clock.now:.3f} {kind(random)}"
            world.trace.add(text)
            self.log.append(text)
            self.struck.append(self._drawn)
        self._drawn += 1
        self._schedule()

    def heal(self, nodes: list[SimNode]) -> None:
        """No more faults; the network is well, and so are these nodes, but for what is lost for good."""
        self._until = 0.0
        self._world.network.heal()
        for node in nodes:
            node.disk.heal()
            if node.is_paused:
                node.resume()
            self._start(node)

    def is_casualty(self, node: SimNode) -> bool:
        """Was it wiped or damaged, whether or not that has been noticed?"""
        return node.id in self._casualties

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _later(self, random: Random, low: float, high: float, action: Callable[[], None]) -> float:
        lasts = random.uniform(low, high)
        self._world.clock.after(lasts, action)
        return lasts

    def _pick(self, random: Random) -> SimNode:
        return random.choice(self._world.nodes)

    def _pick_way(self, random: Random) -> Way:
        """From one node to another, where there are two."""
        source = self._pick(random)
        others = [node for node in self._world.nodes if node is not source]
        return (source.id, random.choice(others or [source]).id)

    def _pick_casualty(self, random: Random) -> SimNode | None:
        """A node that may be lost for good; None when no more can be spared."""
        node = self._pick(random)
        if node.id not in self._casualties:
            if len(self._casualties) >= (len(self._world.nodes) - 1) // 2:
                return None
            self._casualties.add(node.id)
        return node

    def _start(self, node: SimNode) -> None:
        if not node.is_alive and (node.lost_because is None or node.lost_because == "wiped"):
            node.start()

    def _cut(self, random: Random, ways: list[Way]) -> float:
        self._world.network.cut(ways)
        return self._later(random, 0.2, 10.0, lambda: self._world.network.mend(ways))

    # --- one method a fault: does it, schedules its end, says what it was ---------------------------------------------

    def _crash(self, random: Random) -> str:
        node = self._pick(random)
        if node.is_alive:
            node.crash()
        lasts = self._later(random, 0.05, 8.0, lambda: self._start(node))
        return f"power loss of node {node.id} for {lasts:.2f} s"

    def _crash_minority(self, random: Random) -> str:
        """A leader among them, while no disk works; never before the last of them have all their memory again."""
        nodes = self._world.nodes
        leader = self._world.leader_of(0, nodes)
        if leader is None or not self.is_whole():
            return "no node crashes: not all are whole"
        others = [node for node in nodes if node is not leader]
        random.shuffle(others)
        few = (len(nodes) - 1) // 2
        victims = [leader, *others[: random.randint(1, few) - 1]]
        # What they say last reaches nobody; or, of those who go on, some are deaf to it, and hear again too late.
        cut_off = victims if random.random() < 0.5 else others[-random.randint(1, few) :]
        return self._crash_forgetful(random, victims, cut_off)

    def _crash_everyone(self, random: Random) -> str:
        """As `_crash_minority`."""
        if not self.is_whole():
            return "no node crashes: not all are whole"
        return self._crash_forgetful(random, self._world.nodes, [])

    def is_whole(self) -> bool:
        """All nodes run, and what they lost at the last crash is long theirs again."""
        return self._world.clock.now >= self._whole_from and all(node.is_running for node in self._world.nodes)

    def _crash_forgetful(self, random: Random, victims: list[SimNode], cut_off: list[SimNode]) -> str:
        """No disk works for a moment, then they lose what they have in memory alone, and are back soon."""
        world = self._world
        self._whole_from = world.clock.now + 12.0
        for node in world.nodes:
            node.disk.is_stuck = True
        rest = [node for node in world.nodes if node not in cut_off]
        ways = [way for one in cut_off for other in rest for way in ((one.id, other.id), (other.id, one.id))]
        world.network.cut(ways)

        def strike() -> None:
            if not self._until:
                return  # peace has come meanwhile, and has healed all
            world.network.mend(ways)
            if len(victims) > len(world.nodes) // 2:
                world.memory_losses.append(world.clock.now)
            for node in victims:
                node.crash()
                self._later(random, 0.01, 0.6, lambda node=node: self._start(node))  # type: ignore[misc]
            for node in world.nodes:
                node.disk.heal()

        self._later(random, 0.2, 0.8, strike)
        return f"no disk works, nodes {[node.id for node in cut_off]} cut off, power loss of {[v.id for v in victims]}"

    def _crash_all(self, random: Random) -> str:
        for node in self._world.nodes:
            if node.is_alive:
                node.crash()
            self._later(random, 0.05, 3.0, lambda node=node: self._start(node))  # type: ignore[misc]
        return "power loss of all nodes"

    def _pause(self, random: Random) -> str:
        node = self._pick(random)
        if node.is_running:
            node.pause()
        longest = 30.0 if random.random() < 0.1 else 6.0
        lasts = self._later(random, 0.1, longest, lambda: node.resume() if node.is_paused else None)
        return f"pause of node {node.id} for {lasts:.2f} s"

    def _isolate(self, random: Random) -> str:
        node = self._pick(random)
        others = [other for other in self._world.nodes if other is not node]
        lasts = self._cut(random, [way for other in others for way in ((node.id, other.id), (other.id, node.id))])
        return f"node {node.id} cut off for {lasts:.2f} s"

    def _one_way(self, random: Random) -> str:
        way = self._pick_way(random)
        lasts = self._cut(random, [way])
        return f"nothing passes from node {way[0]} to node {way[1]} for {lasts:.2f} s"

    def _halves(self, random: Random) -> str:
        nodes = [node.id for node in self._world.nodes]
        random.shuffle(nodes)
        size = random.randint(0, len(nodes))
        left, right = nodes[:size], nodes[size:]
        lasts = self._cut(random, [way for one in left for other in right for way in ((one, other), (other, one))])
        return f"partition {left} | {right} for {lasts:.2f} s"

    def _ring(self, random: Random) -> str:
        """Each node hears its two neighbours only; or, of few nodes or by chance, only the one before it."""
        nodes = [node.id for node in self._world.nodes]
        random.shuffle(nodes)
        count = len(nodes)
        is_one_way = count <= 3 or random.random() < 0.3
        heard = (0, count - 1) if is_one_way else (0, 1, count - 1)
        ways = [
            (nodes[one], nodes[other])
            for one in range(count)
            for other in range(count)
            if (one - other) % count not in heard
        ]
        lasts = self._cut(random, ways)
        return f"{'one-way ring' if is_one_way else 'ring'} {nodes} for {lasts:.2f} s"

    def _bad_weather(self, random: Random) -> str:
        weather = Weather(
            delay_s=(0.001, random.uniform(0.002, 0.3)),
            loss=random.uniform(0, 0.3),
            duplication=random.uniform(0, 0.5),
            reorder=random.uniform(0, 0.5),
        )
        self._world.network.worsen(weather)
        lasts = self._later(random, 1.0, 10.0, self._world.network.clear_up)
        return f"loss {weather.loss:.2f}, delay {weather.delay_s[1]:.3f} s for {lasts:.2f} s"

    def _clog(self, random: Random) -> str:
        way = self._pick_way(random)
        self._world.network.clog(way, random.uniform(0.1, 2.5))
        lasts = self._later(random, 0.5, 10.0, lambda: self._world.network.unclog(way))
        return f"clogged from node {way[0]} to node {way[1]} for {lasts:.2f} s"

    def _trickle(self, random: Random) -> str:
        way = self._pick_way(random)
        self._world.network.trickle(way)
        lasts = self._later(random, 0.5, 10.0, lambda: self._world.network.flow(way))
        return f"a trickle from node {way[0]} to node {way[1]} for {lasts:.2f} s"

    def _reset(self, random: Random) -> str:
        way = self._pick_way(random)
        self._world.network.reset(way)
        return f"the connection of nodes {way[0]} and {way[1]} reset"

    def _stuck_disk(self, random: Random) -> str:
        disk = (node := self._pick(random)).disk
        disk.is_stuck = True
        lasts = self._later(random, 0.1, 5.0, lambda: setattr(disk, "is_stuck", False))
        return f"disk of node {node.id} stuck for {lasts:.2f} s"

    def _slow_disk(self, random: Random) -> str:
        disk = (node := self._pick(random)).disk
        disk.sync_s = (0.005, random.uniform(0.01, 0.4))
        lasts = self._later(random, 0.5, 10.0, disk.heal)
        return f"disk of node {node.id} slow for {lasts:.2f} s"

    def _full_disk(self, random: Random) -> str:
        disk = (node := self._pick(random)).disk
        disk.is_full = True
        lasts = self._later(random, 0.5, 5.0, lambda: setattr(disk, "is_full", False))
        return f"disk of node {node.id} full for {lasts:.2f} s"

    def _failing_sync(self, random: Random) -> str:
        node = self._pick(random)
        node.disk.is_failing = True
        lasts = self._later(random, 0.5, 8.0, lambda: self._start(node))
        return f"the next sync of node {node.id} fails; started again in {lasts:.2f} s"

    def _clock_jump(self, random: Random) -> str:
        node = self._pick(random)
        node.wall_offset_ms += random.choice((-3_600_000, -5_000, -50, 50, 5_000, 60_000))
        return f"wall clock of node {node.id} now off by {node.wall_offset_ms} ms"

    def _bit_rot(self, random: Random) -> str:
        node = self._pick_casualty(random)
        if node is None:
            return "no bit rot: no node can be spared"
        where = node.disk.rot(random)
        if node.is_alive and random.random() < 0.7:  # damage is found by reading: at the start
            node.crash()
            self._later(random, 0.1, 3.0, lambda: self._start(node))
        return f"{where} of node {node.id} damaged"

    def _wipe(self, random: Random) -> str:
        node = self._pick_casualty(random)
        if node is None:
            return "nothing wiped: no node can be spared"
        if node.is_alive:
            node.crash()
        node.wipe()
        lasts = self._later(random, 0.1, 3.0, lambda: self._start(node))
        return f"directory of node {node.id} wiped, started again in {lasts:.2f} s"
