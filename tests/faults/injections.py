"""The faults of the scenarios: each a coroutine that does harm for a while and then takes it back.

A fault is `async def name(arena, draw)`. It waits by `arena.rest`, which is cut short when the time for faults is over:
a fault is never cancelled halfway through starting a process. How long and to whom is drawn; whom it can mean is what
runs then. Several run at once: a node has one process fault at a time (`Arena.spare`), faults of the network add
up, the disk's latest holds. `Arena.heal` mends what is left.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from itertools import combinations

from tests.faults.arena import Arena
from tests.faults.cluster import POLL_S, Node
from tests.faults.proxy import CLIENTS, Pair, Weather

REFUSAL_WORDS = "a wiped node cannot come back"
REFUSAL_S = 8.0
INSTALLING_S = 4.0
DAY_S = 86_400.0


Fault = Callable[[Arena, random.Random], Awaitable[None]]


# --- processes --------------------------------------------------------------------------------------------------------


async def _kill_for(arena: Arena, nodes: list[Node], down_s: float) -> None:
    async with arena.taken(nodes):
        await asyncio.gather(*(node.kill() for node in nodes))
        await arena.rest(down_s)
        for node in nodes:
            await node.start()


async def kill_one(arena: Arena, draw: random.Random) -> None:
    if spare := arena.spare():
        node, down_s = draw.choice(spare), arena.lasts(draw, 0.05, 2.0)
        arena.note("kill", f"node {node.id}, down {down_s:.2f} s")
        await _kill_for(arena, [node], down_s)


async def kill_leader(arena: Arena, draw: random.Random) -> None:
    node, down_s = await arena.leader(draw), arena.lasts(draw, 0.05, 2.0)
    if node in arena.spare():
        arena.note("kill", f"node {node.id}, which leads, down {down_s:.2f} s")
        await _kill_for(arena, [node], down_s)


async def kill_all(arena: Arena, draw: random.Random) -> None:
    if spare := arena.spare():
        down_s = arena.lasts(draw, 0.05, 1.0)
        arena.note("kill", f"nodes {[node.id for node in spare]} at once, down {down_s:.2f} s")
        await _kill_for(arena, spare, down_s)
        await arena.rest(arena.lasts(draw, 1.0, 4.0))  # so that now and then there is a cluster


async def _pause_for(arena: Arena, nodes: list[Node], lasts_s: float) -> None:
    async with arena.taken(nodes):
        for node in nodes:
            node.pause()
        try:
            await arena.rest(lasts_s)
        finally:
            for node in nodes:
                node.resume()


async def pause_one(arena: Arena, draw: random.Random) -> None:
    if spare := arena.spare():
        node, lasts_s = draw.choice(spare), arena.lasts(draw, 0.1, 10.0)
        arena.note("pause", f"node {node.id} for {lasts_s:.2f} s")
        await _pause_for(arena, [node], lasts_s)


async def pause_leader(arena: Arena, draw: random.Random) -> None:
    node, lasts_s = await arena.leader(draw), arena.lasts(draw, 0.5, 5.0)
    if node in arena.spare():
        arena.note("pause", f"node {node.id}, which leads, for {lasts_s:.2f} s")
        await _pause_for(arena, [node], lasts_s)


async def pause_most(arena: Arena, draw: random.Random) -> None:
    majority = len(arena.cluster.nodes) // 2 + 1
    if len(spare := arena.spare()) >= majority:
        nodes, lasts_s = draw.sample(spare, majority), arena.lasts(draw, 0.1, 2.0)
        arena.note("pause", f"nodes {sorted(node.id for node in nodes)} for {lasts_s:.2f} s")
        await _pause_for(arena, nodes, lasts_s)


# --- the network ------------------------------------------------------------------------------------------------------


async def _cut(arena: Arena, draw: random.Random, pairs: list[Pair], kind: str, text: str, can_refuse: bool) -> None:
    lasts_s = arena.lasts(draw, 0.3, 6.0)
    is_refused = can_refuse and draw.random() < 0.3
    arena.note(kind, f"{text} for {lasts_s:.2f} s{', refused' if is_refused else ''}")
    with (arena.network.refused if is_refused else arena.network.held)(pairs):
        await arena.rest(lasts_s)


def _both(arena: Arena, ones: Iterable[int], others: Iterable[int]) -> list[Pair]:
    ones, others = list(ones), list(others)
    return [*arena.network.between(ones, others), *arena.network.between(others, ones)]


async def isolate_leader(arena: Arena, draw: random.Random) -> None:
    """From the other nodes; half of the time its clients are cut off too."""
    leader = (await arena.leader(draw)).id
    clients = [CLIENTS] if draw.random() < 0.5 else []
    pairs = _both(arena, [leader], [*(set(arena.ids) - {leader}), *clients])
    await _cut(arena, draw, pairs, "isolated", f"node {leader}, which leads", True)


async def halves(arena: Arena, draw: random.Random) -> None:
    """A majority on one side, or no more than one node anywhere."""
    ids = draw.sample(arena.ids, len(arena.ids))
    if draw.random() < 0.15:
        pairs = _both(arena, ids, ids)
        await _cut(arena, draw, sorted(set(pairs)), "halves", "no two nodes see each other", True)
        return
    at = draw.randint(1, len(ids) // 2)
    await _cut(arena, draw, _both(arena, ids[:at], ids[at:]), "halves", f"{ids[:at]} and {ids[at:]}", True)


async def ring(arena: Arena, draw: random.Random) -> None:
    """Each sees its two neighbours (of five), or two see one between them (of three)."""
    ids = draw.sample(arena.ids, len(arena.ids))
    count = len(ids)
    if count == 3:
        apart = [(ids[0], ids[2])]
    else:
        apart = [(ids[a], ids[b]) for a, b in combinations(range(count), 2) if (b - a) % count not in (1, count - 1)]
    pairs = [pair for one, other in apart for pair in _both(arena, [one], [other])]
    await _cut(arena, draw, pairs, "ring", str(ids), True)


async def bridge(arena: Arena, draw: random.Random) -> None:
    """Two halves that share one node."""
    ids = draw.sample(arena.ids, len(arena.ids))
    at = len(ids) // 2
    pairs = _both(arena, ids[:at], ids[at + 1 :])
    await _cut(arena, draw, pairs, "bridge", f"{ids[:at]} and {ids[at + 1 :]} see {ids[at]}", True)


async def one_way(arena: Arena, draw: random.Random) -> None:
    """Nothing that one says reaches another, or any other; or it hears nothing."""
    one = draw.choice(arena.ids)
    others = sorted(set(arena.ids) - {one})
    match draw.randrange(4):
        case 0:
            pairs, text = arena.network.between([one], others), f"nobody hears node {one}"
        case 1:
            pairs, text = arena.network.between(others, [one]), f"node {one} hears nobody"
        case 2:
            leader = (await arena.leader(draw)).id
            pairs, text = (
                arena.network.between([leader], [i for i in arena.ids if i != leader]),
                f"nobody hears {leader}",
            )
        case _:
            other = draw.choice(others)
            pairs, text = [(one, other)], f"node {other} does not hear node {one}"
    await _cut(arena, draw, pairs, "one way", text, False)


def _some_ways(arena: Arena, draw: random.Random) -> list[Pair]:
    """All, those of one node, or one."""
    every = sorted(arena.network.ways)
    one = draw.choice([CLIENTS, *arena.ids])
    return draw.choice([every, [pair for pair in every if one in pair], [draw.choice(every)]])


async def bad_weather(arena: Arena, draw: random.Random) -> None:
    lasts_s, pairs = arena.lasts(draw, 0.5, 8.0), _some_ways(arena, draw)
    weather = draw.choice(
        [
            Weather(delay_s=arena.lasts(draw, 0.005, 0.3), jitter_s=draw.choice([0.0, 0.05])),
            Weather(loss=draw.choice([0.01, 0.05, 0.2])),
            Weather(bytes_per_s=draw.choice([2_000.0, 20_000.0, 200_000.0])),
            Weather(delay_s=0.02, jitter_s=0.1, loss=0.05, bytes_per_s=500_000.0),
        ]
    )
    arena.note("weather", f"{len(pairs)} ways for {lasts_s:.2f} s: {weather}")
    with arena.network.under(pairs, weather):
        await arena.rest(lasts_s)


async def reset_connections(arena: Arena, draw: random.Random) -> None:
    """Answers that were under way are lost with them."""
    pipes = list(arena.network.pipes)
    share = draw.choice([0.2, 1.0])
    chosen = [pipe for pipe in pipes if draw.random() < share]
    arena.note("reset", f"{len(chosen)} of {len(pipes)} connections")
    for pipe in chosen:
        pipe.reset()


async def half_open(arena: Arena, draw: random.Random) -> None:
    pipes = [pipe for pipe in arena.network.pipes if pipe.target.is_open and pipe.dialer.is_open]
    if pipes:
        pipe = draw.choice(pipes)
        is_dialer_told = draw.random() < 0.5
        arena.note("half open", f"{pipe.pair}, only {pipe.pair[0 if is_dialer_told else 1]} is told")
        pipe.leave_half_open(pipe.dialer if is_dialer_told else pipe.target)


# --- disks and clocks -------------------------------------------------------------------------------------------------


async def _disks(arena: Arena, draw: random.Random, kind: str, lasts_s: float, **wrong: float | bool) -> None:
    minority = (len(arena.ids) - 1) // 2
    count = draw.choice([1, minority, len(arena.ids)])
    ids = sorted(draw.sample(arena.ids, count))
    arena.note(kind, f"nodes {ids} for {lasts_s:.2f} s {wrong}")
    try:
        for node in ids:
            arena.controls[node].set_disk(**wrong)  # type: ignore[arg-type]
        await arena.rest(lasts_s)
    finally:
        for node in ids:
            arena.controls[node].set_disk()


async def slow_disk(arena: Arena, draw: random.Random) -> None:
    delay_s = arena.lasts(draw, 0.01, 0.7)
    await _disks(arena, draw, "slow disk", arena.lasts(draw, 0.5, 8.0), sync_delay_s=delay_s)


async def stuck_disk(arena: Arena, draw: random.Random) -> None:
    await _disks(arena, draw, "stuck disk", arena.lasts(draw, 0.5, 6.0), is_stuck=True)


async def full_disk(arena: Arena, draw: random.Random) -> None:
    await _disks(arena, draw, "full disk", arena.lasts(draw, 0.5, 6.0), is_full=True)


async def clock_jump(arena: Arena, draw: random.Random) -> None:
    """Forward or back by up to a day, and it stays there until the next one; or home again."""
    node = draw.choice(arena.ids)
    control = arena.controls[node]
    sign = draw.choice([-1, 1])
    to_s = draw.choice([0.0, control.offset_s + sign * 0.1 * (DAY_S / 0.1) ** draw.random()])
    to_s = max(-DAY_S, min(DAY_S, to_s))
    arena.note("clock", f"node {node} jumps from {control.offset_s:+.1f} s to {to_s:+.1f} s")
    control.set_clock(to_s)


async def clock_drift(arena: Arena, draw: random.Random) -> None:
    node, lasts_s, drift = (
        draw.choice(arena.ids),
        arena.lasts(draw, 0.5, 8.0),
        draw.choice([-0.9, -0.2, 0.2, 1.0, 60.0]),
    )
    control = arena.controls[node]
    arena.note("clock", f"node {node} gains {drift:+g} s a second for {lasts_s:.2f} s")
    control.set_clock(control.offset_s, drift)
    try:
        await arena.rest(lasts_s)
    finally:
        control.set_clock(control.offset_s)


# --- state ------------------------------------------------------------------------------------------------------------


async def wipe(arena: Arena, draw: random.Random) -> None:
    """A node comes back without its directory: it is refused, and says why. Then it has its own again.

    That is membership as it exists: a node that lost its disk is not let in under its old id, and no other is.
    """
    spare = arena.spare()
    if len(spare) < len(arena.cluster.nodes):
        return  # what refuses it is a majority that knows it
    node = draw.choice(spare)
    arena.note("wipe", f"node {node.id}")
    kept = node.data.with_name(f"{node.data.name}.kept")
    async with arena.taken([node]):
        await node.kill()
        log_bytes = len(node.log_text())
        node.data.rename(kept)
        try:
            await node.start()
            await node.wait_exit(REFUSAL_S)
            if REFUSAL_WORDS in node.log_text()[log_bytes:]:
                arena.counts["wiped nodes refused"] += 1
        except TimeoutError:
            arena.note("wipe", f"node {node.id} found nobody to refuse it")
        finally:
            await node.kill()
            shutil.rmtree(node.data, ignore_errors=True)
            kept.rename(node.data)
        await node.start()


async def fall_behind(arena: Arena, draw: random.Random) -> None:
    """Down for long enough to need a snapshot; then killed while it gets it, maybe twice, over a slow link or not."""
    if not (spare := arena.spare()):
        return
    node, down_s = draw.choice(spare), arena.lasts(draw, 2.0, 6.0)
    kills = draw.choice([0, 1, 2])
    arena.note("behind", f"node {node.id} down {down_s:.2f} s")
    ways = [pair for pair in arena.network.ways if node.id in pair and CLIENTS not in pair]
    async with arena.taken([node]):
        await node.kill()
        await arena.rest(down_s)
        with ExitStack() as undo:
            if draw.random() < 0.5:
                undo.enter_context(arena.network.under(ways, Weather(bytes_per_s=300_000.0)))
            await node.start()
            for _ in range(kills):
                await _wait_installing(arena, node)
                await arena.rest(arena.lasts(draw, 0.01, 0.5))
                arena.note("kill", f"node {node.id} as it catches up")
                await node.kill()
                await node.start()
            await arena.rest(arena.lasts(draw, 0.5, 2.0))


async def _wait_installing(arena: Arena, node: Node) -> None:
    """Until it says that it receives a snapshot; or not for long, if the log was enough."""
    deadline = asyncio.get_running_loop().time() + INSTALLING_S
    while asyncio.get_running_loop().time() < deadline and not arena.is_over.is_set():
        try:
            if b"receiving a snapshot" in (await node.get("/readyz"))[1]:
                arena.counts["snapshots interrupted"] += 1
                return
        except (OSError, TimeoutError):
            pass
        await arena.rest(POLL_S / 5)
