"""Faults do what their names say: a fault that does nothing would pass every seed."""

from __future__ import annotations

from random import Random

import pytest

from riverbus._native import LogDamaged, Raft
from riverbus.peer_messages import Ask, Health, PeerMessage
from riverbus.sim.disk import Disk
from riverbus.sim.faults import Faults
from riverbus.sim.swarm import FAULT_KINDS, Weather
from riverbus.sim.world import Options, World

CALM = {"weather": Weather(delay_s=(0.001, 0.001)), "drift": 0.0, "shards": 1}


def calm_world(nodes: int = 3) -> World:
    world = World(Options(5, nodes=nodes, has_faults=False, changes=CALM))
    world.begin()
    return world


def heard_from(world: World, source: int, target: int) -> list[tuple[float, PeerMessage]]:
    """Every Ask of node `source` that reaches node `target` from now on, and when."""
    heard: list[tuple[float, PeerMessage]] = []
    node = world.nodes[target - 1]
    on_messages = node.on_messages

    def listening(peer: int, messages: list[PeerMessage]) -> None:
        heard.extend((world.clock.now, message) for message in messages if peer == source and type(message) is Ask)
        on_messages(peer, messages)

    node.on_messages = listening  # type: ignore[method-assign]
    return heard


def test_every_fault_that_a_swarm_may_draw_is_there() -> None:
    world = calm_world()
    for kind in FAULT_KINDS:
        assert callable(getattr(Faults(world), f"_{kind}"))


def test_a_trickle_brings_a_turn_in_pieces_and_whole() -> None:
    world = calm_world()
    heard = heard_from(world, 1, 2)
    events = world.clock.events
    world.network.trickle((1, 2))
    asked: list[PeerMessage] = [Ask(number, b"x" * 500) for number in range(4)]
    world.network.send(1, 2, asked)
    world.clock.run_until(world.clock.now + 1.0)
    assert [message for _, message in heard] == asked
    assert len({at for at, _ in heard}) > 1, "frames come as their last piece does"
    assert world.clock.events > events


def test_a_reset_connection_loses_what_is_in_flight_and_both_ends_know() -> None:
    world = calm_world()
    heard = heard_from(world, 1, 2)
    world.network.send(1, 2, [Ask(1, b"")])
    world.network.reset((2, 1))
    assert not world.network.is_up(1, 2)
    assert not world.network.is_up(2, 1)
    world.clock.run_until(world.clock.now + 2.0)
    assert heard == []
    assert world.network.is_up(1, 2), "a new connection is made"
    world.network.send(1, 2, [Ask(2, b""), Health(True)])
    world.clock.run_until(world.clock.now + 0.1)
    assert [message for _, message in heard] == [Ask(2, b"")]


@pytest.mark.parametrize(("nodes", "cut"), [(3, 3), (4, 8), (5, 15)])
def test_in_a_one_way_ring_each_node_is_heard_by_one(nodes: int, cut: int) -> None:
    world = calm_world(nodes)
    faults = Faults(world)
    for seed in range(100):
        text = faults._ring(Random(seed))
        if text.startswith("one-way"):
            break
        world.network.heal()
    ways = [(one.id, other.id) for one in world.nodes for other in world.nodes if one is not other]
    assert sum(world.network.is_cut(*way) for way in ways) == cut
    for node in world.nodes:
        assert sum(not world.network.is_cut(*way) for way in ways if way[0] == node.id) == 1


def filled(disk: Disk) -> Raft:
    Raft.bootstrap(disk.log, 0, [1])
    disk.log.flush()
    disk.sync()
    return Raft(
        disk.log, 0, 1, seed=1, applied=5, election_ticks=10, heartbeat_ticks=1, max_size_per_msg=1 << 20,
        max_inflight_msgs=64, max_uncommitted_size=1 << 20, max_committed_size_per_ready=1 << 20,
    )  # fmt: skip


def write(disk: Disk, count: int) -> None:
    for number in range(count):
        disk.log.put_meta(0, b"%d" % number, b"x" * 300)
        disk.log.flush()


def test_an_old_image_of_the_log_is_refused() -> None:
    """By the batch that was reported as durable; what a damaged log says of the reason tells which damage it was."""
    reasons = set()
    for seed in range(60):
        disk = Disk(1, Random(seed))
        filled(disk)
        disk.power_loss(seed)
        write(disk, 3)
        disk.sync()
        assert disk.rot(Random(seed)) == "the log"
        disk.power_loss(seed)
        with pytest.raises(LogDamaged) as refused:
            disk.log.get_meta(0, b"0")
        reasons.add("was reported durable but" in str(refused.value))
    assert reasons == {True, False}


def test_a_power_loss_keeps_batches_up_to_the_first_torn_one() -> None:
    kept = set()
    for seed in range(200):
        disk = Disk(1, Random(seed))
        filled(disk)
        write(disk, 6)
        disk.power_loss(seed)
        present = [number for number in range(6) if disk.log.get_meta(0, b"%d" % number) is not None]
        assert present == list(range(len(present)))
        kept.add(len(present))
    assert kept == set(range(7))
