"""A consumer group on real nodes that are killed: C11. Each entry is handled, and none after its acknowledgement.

The simulator has many more such runs (sim/group_workload.py); here are real sockets, disks and processes, one clock.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from redis.exceptions import RedisError

from riverbus.messages import MessageId
from riverbus.sim.checkers import Event
from riverbus.sim.group_checkers import Entries, GroupEvent, GroupOperation, check_groups
from tests.faults.cluster import POLL_S, Cluster, Node, running
from tests.faults.workload import client_of, result_of

STREAM, GROUP = "jobs", "workers"
KILLS = 3
IDLE_MS = 1500
CLOCK_MS = 100  # a node's turn may have read the clock a little before it read the command


class Work:
    """All that members and producers did."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.events: list[GroupEvent] = []
        self.added: list[Event] = []
        self.is_stopping = False

    async def ask(
        self,
        client: redis.Redis,
        node: Node,
        member: str,
        operation: GroupOperation,
        question: Any,
        entries: Entries = (),
        idle_ms: int = 0,
    ) -> Entries:
        """Records what came of it; raises what it raised."""
        invoked, began_ms = time.monotonic(), int(time.time() * 1000)
        event = GroupEvent(invoked, invoked, member, operation, STREAM, GROUP, entries, "info", node.id, began_ms)
        try:
            reply = await question
        except (RedisError, OSError) as error:
            self.events.append(event._replace(done=time.monotonic(), result=result_of(error), idle_ms=idle_ms))
            raise
        ended_ms = int(time.time() * 1000) + CLOCK_MS
        event = event._replace(done=time.monotonic(), result="ok", ended_ms=ended_ms, idle_ms=idle_ms)
        if operation == "ack":
            event = event._replace(counted=reply)
        else:
            found = reply[1] if operation == "claim" else reply[0][1] if reply else []
            event = event._replace(entries=tuple((id_of(id_), fields[b"message"].decode()) for id_, fields in found))
        self.events.append(event)
        return event.entries


def id_of(text: bytes) -> MessageId:
    ms, seq = text.split(b"-")
    return MessageId(int(ms), int(seq))


async def produce(work: Work, name: str) -> None:
    count = 0
    while not work.is_stopping:
        node = work.cluster.nodes[count % len(work.cluster.nodes)]
        client = client_of(node)
        try:
            while not work.is_stopping:
                count += 1
                invoked, value = time.monotonic(), f"{name}:{count}"
                id_: Any = await client.xadd(STREAM, {"message": value})
                done = time.monotonic()
                work.added.append(Event(invoked, done, name, "publish", STREAM, value, "ok", id_of(id_), node.id))
                await asyncio.sleep(0.005)
        except (RedisError, OSError):
            await asyncio.sleep(POLL_S)
        finally:
            await client.aclose()


async def consume(work: Work, member: str, *, drains: bool = False) -> None:
    """Until told to stop; or, to drain, until nothing is new or pending."""
    chance = random.Random(member)
    while not work.is_stopping or drains:
        node = chance.choice(work.cluster.nodes)
        client = client_of(node)
        try:
            while not work.is_stopping or drains:
                read = client.xreadgroup(GROUP, member, {STREAM: ">"}, count=20, block=None if drains else 300)
                given = await work.ask(client, node, member, "new", read)
                if drains or chance.random() < 0.2:
                    idle_ms = 0 if drains else IDLE_MS
                    claim = client.xautoclaim(STREAM, GROUP, member, idle_ms, "0-0", count=100)
                    given += await work.ask(client, node, member, "claim", claim, idle_ms=idle_ms)
                    if drains and not given:
                        return
                if given and (drains or chance.random() < 0.9):  # else it forgets them
                    ids = [id_.to_bytes() for id_, _ in given]
                    named = tuple((id_, None) for id_, _ in given)
                    await work.ask(client, node, member, "ack", client.xack(STREAM, GROUP, *ids), named)
        except (RedisError, OSError):
            await asyncio.sleep(POLL_S)
        finally:
            await client.aclose()


async def kill_in_turn(cluster: Cluster) -> None:
    for kill in range(KILLS):
        await asyncio.sleep(1.0)
        node = await cluster.busiest_leader() if kill % 2 == 0 else cluster.nodes[kill]
        await node.kill()
        await asyncio.sleep(1.0)
        await node.start()
        await node.wait_ready()


async def whole_stream(node: Node) -> list[Event]:
    client = client_of(node)
    try:
        found: Any = await client.xrange(STREAM)
    finally:
        await client.aclose()
    now = time.monotonic()
    return [
        Event(now, now, f"reader{node.id}", "read", STREAM, fields[b"message"].decode(), "ok", id_of(id_), node.id)
        for id_, fields in found
    ]


@pytest.mark.timeout(180)
def test_a_group_handles_all_of_its_stream_while_nodes_are_killed(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as cluster:
            work = Work(cluster)
            client = client_of(cluster.nodes[0])
            await client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
            await client.aclose()
            async with asyncio.TaskGroup() as tasks:
                for name in ("p0", "p1"):
                    tasks.create_task(produce(work, name))
                for name in ("m0", "m1", "m2"):
                    tasks.create_task(consume(work, name))
                try:
                    await kill_in_turn(cluster)
                finally:
                    work.is_stopping = True
            await cluster.wait_ready()
            await asyncio.wait_for(consume(work, "drainer", drains=True), 30)
            history = list(work.added)
            for node in cluster.nodes:
                history += await whole_stream(node)
            violations = check_groups(work.events, history, is_drained=True)
            assert not violations, "\n".join(map(str, violations))
            given = sum(len(event.entries) for event in work.events if event.operation != "ack")
            acked = sum(event.counted for event in work.events)
            lost = sum(event.result == "info" for event in work.events)
            print(f"\n{KILLS} kills, {len(work.added)} added, {given} handed out, {acked} acknowledged, {lost} unknown")
            assert acked > 100

    asyncio.run(story())
