"""Twelve scenarios: real processes under load, one kind of fault after another, then peace; and the verdict.

A scenario names its nodes and its faults; its seed draws which, when, to whom and for how long. What clients see is
recorded. Then everything heals, and liveness is demanded: within HEAL_S (longer on a machine whose load says that it is
slow) every node acknowledges publishes to every channel; then all replicas converge, every subscriber has everything,
every node gives the same full history. Checked are C1 to C10, C12, C13 as /status shows it (one leader a term), C15 and
C16; that no process ended by itself; and that nobody was told of a gap, as nothing is trimmed.

When one fails, its history, its faults and the nodes' logs are kept in a directory that is printed with the seed.

    RIVERBUS_FAULTS=long      60 s of faults each, in place of 7; RIVERBUS_FAULTS_SEED=N  another seed than 1

Leaves to others: faults (injections.py), clients (clients.py, workload.py), proxies (proxy.py), disks and clocks
(preload.py).
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import riverbus
from tests.faults import injections as do
from tests.faults.arena import Arena
from tests.faults.clients import TAIL_EVERY_S, Place, RestlessSubscriber, probe, publishing_raw, read_tail
from tests.faults.cluster import POLL_S, READY_S, Cluster, Node, make_cluster, until
from tests.faults.injections import Fault
from tests.faults.preload import Control, built
from tests.faults.proxy import CLIENTS, Network
from tests.faults.workload import History, assert_nothing_lost, reading, subscribing, wait_delivered, watching_hashes

IS_LONG = os.environ.get("RIVERBUS_FAULTS") == "long"
SEED = int(os.environ.get("RIVERBUS_FAULTS_SEED", "1"))
LONG_S, SHORT_S = 60.0, 7.0
LASTS_S = LONG_S if IS_LONG else SHORT_S
SHORT_RATE = 0.5  # of the long form's load: most of a short run's time is its start and its verdict
LONGEST_S = 10.0  # that one fault lasts
LONGEST_SHORT_S = 3.0  # ... in the short form: longer than an election
HEAL_S = 10.0
SLOWNESS_MAX = 4.0  # by which deadlines may be longer on a busy machine
CHANNELS = [f"c{i}" for i in range(8)]
SHARDS = 4
MIB = 1024 * 1024
DESCRIPTORS_SLACK = 16  # files that the log has more of than at the start
MEMORY_SLACK_BYTES = 160 * MIB  # beside what is retained, thrice

# A clock that jumps by a day must not expire what the checkers look for.
CONFIG = """
[limits]
snapshot_log = "{snapshot_log}"

[[channel]]
match = "*"
history = {{ count = 10000000, age = "100000h", bytes = "2GiB" }}
"""


class Scenario(NamedTuple):
    name: str
    nodes: int
    faults: tuple[Fault, ...]
    tracks: int = 2  # faults at once
    rate: float = 2600.0  # messages a second that four raw publishers try for
    size: int = 100  # of a payload
    snapshot_log: str = "64MiB"


NETWORK_FAULTS = (do.isolate_leader, do.halves, do.ring, do.bridge, do.one_way)
WEATHER_FAULTS = (do.bad_weather, do.bad_weather, do.reset_connections, do.half_open)
PROCESS_FAULTS = (do.kill_one, do.kill_leader, do.pause_one, do.pause_leader)
DISK_FAULTS = (do.slow_disk, do.stuck_disk, do.full_disk)
CLOCK_FAULTS = (do.clock_jump, do.clock_jump, do.clock_drift)

SCENARIOS = (
    Scenario("kill", 3, (do.kill_one, do.kill_leader, do.kill_one, do.kill_all), tracks=1),
    Scenario("pause", 3, (do.pause_one, do.pause_leader, do.pause_most), tracks=1),
    Scenario("isolated leader", 5, (do.isolate_leader,)),
    Scenario("halves", 5, (do.halves,), tracks=1),
    Scenario("ring and bridge", 5, (do.ring, do.bridge), tracks=1),
    Scenario("one way", 3, (do.one_way,)),
    Scenario("weather", 3, WEATHER_FAULTS),
    Scenario("slow disk", 3, (do.slow_disk,)),
    Scenario("stuck and full disk", 3, (do.stuck_disk, do.full_disk)),
    Scenario("clocks", 3, CLOCK_FAULTS),
    Scenario("wiped and behind", 3, (do.wipe, do.fall_behind, do.fall_behind), 1, size=1000, snapshot_log="256KiB"),
    Scenario(
        "all together",
        5,
        (*PROCESS_FAULTS, *NETWORK_FAULTS, *WEATHER_FAULTS, *DISK_FAULTS, *CLOCK_FAULTS, do.fall_behind),
        tracks=3,
        rate=1500.0,
        snapshot_log="1MiB",
    ),
)


class SeenHistory(History):
    """And who led which term of which shard (C13)."""

    def __init__(self) -> None:
        super().__init__(CHANNELS)
        self.leaders: dict[tuple[int, int], set[int]] = {}

    def observe_status(self, status: dict[str, Any]) -> None:
        super().observe_status(status)
        for shard in status.get("shards", ()):
            if shard["role"] == "leader":
                self.leaders.setdefault((shard["shard"], shard["term"]), set()).add(status["node"])


@dataclass
class Run:
    """One scenario with one seed: what it is done with, and what came of it."""

    scenario: Scenario
    seed: int
    seconds: float
    arena: Arena
    history: SeenHistory = field(default_factory=SeenHistory)
    healed_s: float = -1.0
    resources: dict[int, tuple[int, int]] = field(default_factory=dict)  # at the start: descriptors, bytes
    descriptors_more: int = 0
    memory_bytes: int = 0
    lag_ms: float = 0.0

    def report(self) -> str:
        results, arena = self.history.results, self.arena
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(arena.counts.items()))
        gaps = sum(event.operation == "gap" for events in self.history.events.values() for event in events)
        return (
            f"{self.scenario.name}, {self.scenario.nodes} nodes, seed {self.seed}, {self.seconds:g} s: "
            f"{len(arena.happened)} faults ({kinds}); {results['ok']} acknowledged, {results['info']} unknown, "
            f"{results['fail']} refused, {gaps} gaps, slowest answer {self.history.slowest_answer_s:.2f} s, "
            f"healed in {self.healed_s:.2f} s, loop lag p99 under {self.lag_ms:g} ms, "
            f"{self.memory_bytes / MIB:.0f} MiB, {self.descriptors_more:+} descriptors"
        )


@dataclass
class Totals:
    runs: list[Run] = field(default_factory=list)

    def report(self) -> str:
        results = [run.history.results for run in self.runs]
        return (
            f"{len(self.runs)} scenarios: {sum(len(run.arena.happened) for run in self.runs)} faults, "
            f"{sum(each['ok'] for each in results)} acknowledged, {sum(each['info'] for each in results)} unknown, "
            f"{sum(each['fail'] for each in results)} refused, slowest answer "
            f"{max((run.history.slowest_answer_s for run in self.runs), default=0):.2f} s, "
            f"healed in {max((run.healed_s for run in self.runs), default=0):.2f} s at most"
        )


# --- the trip ---------------------------------------------------------------------------------------------------------


async def run_scenario(
    scenario: Scenario,
    path: Path,
    seed: int,
    seconds: float,
    program: tuple[str, ...] = Node.program,
    keep_in: Path | None = None,
) -> Run:
    """Raises AssertionError with what is broken and where it is kept: in `keep_in`, or where temporary files are.

    `program` is what the nodes run.
    """
    async with _arena(scenario, path, seed, seconds, program) as arena:
        run = Run(scenario, seed, seconds, arena)
        gc.disable()  # over a million events, a full collection would hold up the proxies as well
        try:
            await _live_through(run)
        except Exception as error:
            kept = keep(run, keep_in)
            slug = scenario.name.replace(" ", "_")
            again = f"RIVERBUS_FAULTS_SEED={seed} python -m pytest -s tests/faults/test_scenarios.py -k {slug}"
            raise AssertionError(f"{_words(error)}\n{run.report()}\nkept in {kept}; again: {again}") from error
        finally:
            gc.enable()
        return run


def _words(error: BaseException) -> str:
    """Of the errors that a group of tasks ended with, too."""
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(_words(each) for each in error.exceptions)
    return str(error) if isinstance(error, AssertionError) else f"{error!r}"


@asynccontextmanager
async def _arena(
    scenario: Scenario, path: Path, seed: int, seconds: float, program: tuple[str, ...]
) -> AsyncIterator[Arena]:
    """The cluster, ready, with its proxies, disks and clocks."""
    cluster = make_cluster(path, scenario.nodes, SHARDS, CONFIG.format(snapshot_log=scenario.snapshot_log))
    network = Network(random.Random(f"{seed} network"))
    library = built(path)
    controls = {node.id: Control(library, path / f"node{node.id}.control") for node in cluster.nodes}
    try:
        for node in cluster.nodes:
            node.program = program
            node.environment = controls[node.id].environment
            await _put_behind_proxies(node, cluster, network)
        await cluster.start()
        await cluster.wait_ready()
        yield Arena(cluster, network, controls, LONGEST_S if seconds >= LONG_S else LONGEST_SHORT_S)
    finally:
        await cluster.close()
        await network.close()
        for control in controls.values():
            control.close()


async def _put_behind_proxies(node: Node, cluster: Cluster, network: Network) -> None:
    """The node reaches each other one at a port of its own."""
    members = []
    for other in cluster.nodes:
        port = other.peer_port
        if other is not node:
            port = await network.open(node.id, other.id, other.peer_port)
        members.append(f"{other.id}=127.0.0.1:{port}")
    node.arguments[node.arguments.index("--cluster") + 1] = ",".join(members)


async def _live_through(run: Run) -> None:
    cluster, history, scenario = run.arena.cluster, run.history, run.scenario
    run.resources = {node.id: (node.descriptors(), node.rss_bytes()) for node in cluster.nodes}
    places = [Place(node.id, await run.arena.network.open(CLIENTS, node.id, node.resp_port)) for node in cluster.nodes]
    url = "redis://" + ",".join(f"127.0.0.1:{place.port}" for place in places)
    rate = scenario.rate * (1.0 if run.seconds >= LONG_S else SHORT_RATE)
    async with (
        riverbus.connect(url, deadline=READY_S) as bus,
        subscribing(history, bus),
        _restless(run, url),
        watching_hashes(history, cluster),
    ):
        async with (
            reading(history, cluster, read_tail, TAIL_EVERY_S),
            publishing_raw(history, cluster, places, rate, 20, scenario.size) as publishers,
        ):
            await _disturb(run)
            await run.arena.heal()
            await _wait_healed(run, [publisher.is_answered_since for publisher in publishers])
        await cluster.wait_ready(READY_S * slowness())
        await wait_delivered(history, cluster)
    await assert_nothing_lost(history, cluster)
    await _assert_at_peace(run)


@asynccontextmanager
async def _restless(run: Run, url: str) -> AsyncIterator[None]:
    subscriber = RestlessSubscriber("restless", run.history, url, random.Random(run.seed))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(subscriber.run())
        try:
            yield
        finally:
            task.cancel()


async def _disturb(run: Run) -> None:
    """Several tracks of faults beside each other; while they last, processes that end by themselves are noticed."""
    arena = run.arena

    async def track(number: int) -> None:
        draw = random.Random(f"{run.seed} {run.scenario.name} {number}")
        faults = list(run.scenario.faults)
        at = number * len(faults) // run.scenario.tracks
        while not arena.is_over.is_set():
            await arena.rest(draw.uniform(0.1, 1.0))
            await faults[at](arena, draw)
            at += 1
            if at == len(faults):  # each once in a round, so that a short run has all of them
                at = 0
                draw.shuffle(faults)

    async with asyncio.TaskGroup() as group:
        for number in range(run.scenario.tracks):
            group.create_task(track(number))
        await asyncio.sleep(run.seconds)
        arena.is_over.set()
    assert not arena.failures, "\n".join(arena.failures)


# --- peace ------------------------------------------------------------------------------------------------------------


def slowness() -> float:
    """How much longer than by itself a process takes on this machine now, about: load for each processor, from 1."""
    return min(SLOWNESS_MAX, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


async def _wait_healed(run: Run, waits: list[Any]) -> None:
    """C15: from when every process answers, each node acknowledges on each channel, and every publisher goes on."""
    arena, loop = run.arena, asyncio.get_running_loop()
    await until_alive(arena.cluster)
    begun = loop.time()
    deadline_s = HEAL_S * slowness()
    try:
        async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
            for node in arena.cluster.nodes:
                group.create_task(probe(run.history, node, f"probe{node.id}"))
            for wait in waits:
                group.create_task(wait(begun))
    except TimeoutError:
        states = "\n".join([await _state(node) for node in arena.cluster.nodes])
        raise AssertionError(f"C15: not healed after {deadline_s:.0f} s\n{states}") from None
    run.healed_s = loop.time() - begun


async def until_alive(cluster: Cluster) -> None:
    for node in cluster.nodes:
        deadline = asyncio.get_running_loop().time() + READY_S * slowness()
        while True:
            try:
                await node.get("/livez")
                break
            except (OSError, TimeoutError):
                assert asyncio.get_running_loop().time() < deadline, f"node {node.id} is not alive\n{node.log_tail()}"
                await asyncio.sleep(POLL_S)


async def _state(node: Node) -> str:
    try:
        return f"node {node.id}: {(await node.get('/readyz'))[1].decode()}\n{(await node.get('/status'))[1].decode()}"
    except (OSError, TimeoutError) as error:
        return f"node {node.id}: {error!r}"


async def _assert_at_peace(run: Run) -> None:
    """C13 and C16, and that no process ended and no subscriber was told of a gap."""
    arena, history = run.arena, run.history
    arena.look_for_ends()
    problems = list(arena.failures)
    problems += [
        f"C13 shard {shard}: term {term} was led by {sorted(nodes)}"
        for (shard, term), nodes in history.leaders.items()
        if len(nodes) > 1
    ]
    gaps = [event for events in history.events.values() for event in events if event.operation == "gap"]
    problems += [f"nothing is trimmed, but a subscriber was told of a gap: {event}" for event in gaps[:3]]
    for node in arena.cluster.nodes:
        status = await node.status()
        retained_bytes = sum(shard["bytes"] for shard in status["shards"])
        descriptors, memory = run.resources[node.id]
        if status["bad_messages"]:
            problems.append(f"node {node.id} got {status['bad_messages']} bad messages: {status['last_bad_message']}")
        await until(
            lambda node=node, descriptors=descriptors: node.descriptors() <= descriptors + DESCRIPTORS_SLACK,  # type: ignore[misc]
            f"C16: node {node.id} had {descriptors} descriptors at the start, and has {node.descriptors()}",
        )
        run.descriptors_more = max(run.descriptors_more, node.descriptors() - descriptors)
        run.memory_bytes = max(run.memory_bytes, node.rss_bytes())
        if node.rss_bytes() > memory + 3 * retained_bytes + MEMORY_SLACK_BYTES:
            problems.append(f"C16: node {node.id} had {memory} bytes, has {node.rss_bytes()}, retains {retained_bytes}")
        run.lag_ms = max(run.lag_ms, _lag_ms((await node.get("/metrics"))[1].decode()))
    assert not problems, "\n".join(problems)


def _lag_ms(metrics: str) -> float:
    """The bound under which 99 of 100 samples of the loop's lag are."""
    rows = re.findall(r'riverbus_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', metrics)
    total = float(rows[-1][1])
    return next(float(bound) * 1000 for bound, count in rows if float(count) >= 0.99 * total)


# --- what is kept -----------------------------------------------------------------------------------------------------


def keep(run: Run, where: Path | None) -> Path:
    """The history (JSON lines), the faults and the nodes' logs, in a directory of their own."""
    slug = run.scenario.name.replace(" ", "-")
    directory = Path(tempfile.mkdtemp(prefix=f"riverbus-faults-{slug}-seed{run.seed}-", dir=where))
    with (directory / "history.jsonl").open("wb") as file:
        for events in run.history.events.values():
            for event in events:
                file.write(msgspec.json.encode(event) + b"\n")
    with (directory / "hashes.jsonl").open("wb") as file:
        file.writelines(msgspec.json.encode(each) + b"\n" for each in run.history.hashes)
    (directory / "faults.txt").write_text("".join(f"{at:.3f} {text}\n" for at, text in run.arena.happened))
    for node in run.arena.cluster.nodes:
        if node.log.exists():
            shutil.copy(node.log, directory)
    return directory
