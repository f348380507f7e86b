"""What goes wrong in a simulated world: drawn from the seed one after the other, each logged, each undone.

At most a minority of the nodes is down, paused or cut off at a time for most seeds; some seeds take more, since safety
must hold then too. `Options.only_faults` replays a run with some of its faults only: that is how a failure is shrunk.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riverbus.sim.node import SimNode
    from riverbus.sim.world import World


class Faults:
    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(world.random.getrandbits(64))
        self._kinds: list[Callable[[Random], str]] = [
            self._crash,
            self._crash_all,
            self._pause,
            self._isolate,
            self._one_way,
            self._halves,
            self._bad_weather,
            self._stuck_disk,
            self._full_disk,
            self._clock_jump,
        ]
        # Swarm: each seed has its own subset of faults, so that combinations differ from run to run.
        self._swarm = [kind for kind in self._kinds if self._random.random() < 0.6] or [self._crash]
        self._pace_s = self._random.uniform(0.5, 4.0)
        self._until = 0.0
        self._drawn = 0
        self.log: list[str] = []

    def begin(self, until: float) -> None:
        self._until = until
        self._schedule()

    def _schedule(self) -> None:
        self._world.clock.after(self._random.expovariate(1 / self._pace_s), self._strike)

    def _strike(self) -> None:
        if self._world.clock.now >= self._until:
            return
        kind = self._random.choice(self._swarm)
        random = Random(self._random.getrandbits(64))  # each fault has its own, so that leaving one out changes no other
        only = self._world.options.only_faults
        if only is None or self._drawn in only:
            self.log.append(f"{self._drawn}: {self._world.clock.now:.3f} {kind(random)}")
        self._drawn += 1
        self._schedule()

    def heal_all(self) -> None:
        self._until = 0.0
        world = self._world
        world.network.heal()
        world.network.weather.loss = world.network.weather.duplication = world.network.weather.reorder = 0.0
        world.network.weather.delay_s = (0.0002, 0.002)
        for node in world.nodes:
            node.disk.is_stuck = node.disk.is_full = False
            node.disk.sync_s = (0.0001, 0.002)
            if node.is_paused:
                node.resume()
            if not node.is_alive:
                node.start()

    # --- one method a fault: does it, schedules its end, says what it was -----------------------------------------------

    def _later(self, random: Random, low: float, high: float, action: Callable[[], None]) -> float:
        lasts = random.uniform(low, high)
        self._world.clock.after(lasts, action)
        return lasts

    def _pick(self, random: Random) -> SimNode:
        return random.choice(self._world.nodes)

    def _start(self, node: SimNode) -> None:
        if not node.is_alive:
            node.start()

    def _crash(self, random: Random) -> str:
        node = self._pick(random)
        if node.is_alive:
            node.crash()
        lasts = self._later(random, 0.05, 8.0, lambda: self._start(node))
        return f"power loss of node {node.id} for {lasts:.2f} s"

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
        lasts = self._later(random, 0.1, 6.0, lambda: node.resume() if node.is_paused else None)
        return f"pause of node {node.id} for {lasts:.2f} s"

    def _isolate(self, random: Random) -> str:
        node = self._pick(random)
        for other in self._world.nodes:
            if other is not node:
                self._world.network.cut(node.id, other.id)
                self._world.network.cut(other.id, node.id)
        lasts = self._later(random, 0.2, 10.0, self._world.network.heal)
        return f"node {node.id} cut off for {lasts:.2f} s"

    def _one_way(self, random: Random) -> str:
        source, target = self._pick(random), self._pick(random)
        self._world.network.cut(source.id, target.id)
        lasts = self._later(random, 0.2, 10.0, self._world.network.heal)
        return f"nothing passes from node {source.id} to node {target.id} for {lasts:.2f} s"

    def _halves(self, random: Random) -> str:
        nodes = list(self._world.nodes)
        random.shuffle(nodes)
        size = random.randint(0, len(nodes))
        for one in nodes[:size]:
            for other in nodes[size:]:
                self._world.network.cut(one.id, other.id)
                self._world.network.cut(other.id, one.id)
        lasts = self._later(random, 0.2, 10.0, self._world.network.heal)
        return f"partition {[n.id for n in nodes[:size]]} | {[n.id for n in nodes[size:]]} for {lasts:.2f} s"

    def _bad_weather(self, random: Random) -> str:
        weather = self._world.network.weather
        weather.loss, weather.duplication = random.uniform(0, 0.3), random.uniform(0, 0.5)
        weather.reorder = random.uniform(0, 0.5)
        weather.delay_s = (0.001, random.uniform(0.002, 0.3))

        def clear() -> None:
            weather.loss = weather.duplication = weather.reorder = 0.0
            weather.delay_s = (0.0002, 0.002)

        lasts = self._later(random, 1.0, 10.0, clear)
        return f"loss {weather.loss:.2f} for {lasts:.2f} s"

    def _stuck_disk(self, random: Random) -> str:
        node = self._pick(random)
        node.disk.is_stuck = True

        def unstick() -> None:
            node.disk.is_stuck = False

        lasts = self._later(random, 0.1, 5.0, unstick)
        return f"disk of node {node.id} stuck for {lasts:.2f} s"

    def _full_disk(self, random: Random) -> str:
        node = self._pick(random)
        node.disk.is_full = True

        def free() -> None:
            node.disk.is_full = False

        lasts = self._later(random, 0.5, 5.0, free)
        return f"disk of node {node.id} full for {lasts:.2f} s"

    def _clock_jump(self, random: Random) -> str:
        node = self._pick(random)
        node.wall_offset_ms += random.choice((-3_600_000, -5_000, -50, 50, 5_000, 60_000))
        return f"wall clock of node {node.id} now off by {node.wall_offset_ms} ms"
