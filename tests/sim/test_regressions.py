"""Bugs that need a moment so rare that no seed keeps it: each is brought about by hand. The others are scenarios."""

from __future__ import annotations

import pytest

from riverbus.core.consensus.snapshot_keeper import SnapshotKeeper
from riverbus.peer_messages import Health, PeerMessage
from riverbus.sim.campaign import run_seed
from riverbus.sim.scenario import Story
from riverbus.sim.world import Options


def publish_until_a_second_snapshot_then_lose_power_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> Story:
    """A tick comes in the turn that records the snapshot; then, before the log is flushed, the power is gone."""
    story = Story()
    story.carry_out("cluster nodes=1 snapshot_bytes=200")
    node = story.world.nodes[0]
    on_committed = SnapshotKeeper._on_committed
    recorded: list[int] = []

    def recording(keeper: SnapshotKeeper, failure: str | None) -> None:
        on_committed(keeper, failure)
        recorded.append(keeper.last_index)
        if len(recorded) == 2:
            assert node.engine is not None
            node.engine.on_tick()
            story.world.clock.at(story.world.clock.now, node.crash)

    with monkeypatch.context() as patching:
        patching.setattr(SnapshotKeeper, "_on_committed", recording)
        story.carry_out("ann @1")
        while node.is_alive:
            story.carry_out("ann< PUBLISH news x*100")
            story.carry_out("wait 0.5")
    assert len(recorded) == 2
    return story


def test_a_snapshots_file_outlives_the_record_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    story = publish_until_a_second_snapshot_then_lose_power_in_its_turn(monkeypatch)
    assert story.carry_out("start 1") == []
    assert story.carry_out("leaders") == ["shard 0: node 1 leads in term 7"]


def test_that_test_finds_the_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was: the batch flushed last was taken for the one with the record."""
    delete = SnapshotKeeper._delete_obsolete

    def hasty(keeper: SnapshotKeeper, flushed: int, completed: int) -> None:
        delete(keeper, flushed - 1, completed)

    monkeypatch.setattr(SnapshotKeeper, "_delete_obsolete", hasty)
    story = publish_until_a_second_snapshot_then_lose_power_in_its_turn(monkeypatch)
    with pytest.raises(Exception, match="cannot be read"):
        story.carry_out("start 1")


def test_a_node_waits_for_its_first_write_by_the_right_number() -> None:
    """It counted from before the batch that its start writes, and might not have heard that its first write is done."""
    story = Story()
    story.carry_out("cluster nodes=1")
    engine = story.world.nodes[0].engine
    assert engine is not None
    awaited = [shard.replica.awaits_batch for shard in engine.shards]
    assert awaited == [engine.flushed_batch] * len(engine.shards)


def test_a_trickle_falls_behind_by_seconds_not_minutes() -> None:
    """It held back what was sent for half a minute after the network had healed (seed 2000012): C15, but no bug."""
    story = Story()
    story.carry_out("cluster nodes=2")
    network, began = story.world.network, story.world.clock.now
    arrived: list[float] = []
    node = story.world.nodes[1]
    on_messages = node.on_messages

    def noting(peer: int, messages: list[PeerMessage]) -> None:
        arrived.append(story.world.clock.now)
        on_messages(peer, messages)

    node.on_messages = noting  # type: ignore[method-assign]
    network.trickle((1, 2))
    for _ in range(1000):
        network.send(1, 2, [Health(True)])
    network.heal()
    story.carry_out("wait 3")
    assert len(arrived) > 1000
    assert began + 1.9 < arrived[1000] < began + 2.2


def test_a_publisher_that_was_stopped_publishes_no_more() -> None:
    """It connected anew and sent again what had been refused, after the final reads (seed 20122): C1, but no bug."""
    assert not run_seed(Options(seed=20122)).is_failed


@pytest.mark.parametrize(("seed", "fault"), [(1824, 1), (1804, 5)])
def test_messages_that_grew_too_old_while_a_snapshot_was_on_its_way_are_a_gap(seed: int, fault: int) -> None:
    """The channel had no state any more where its subscriber's node looked for what the snapshot had brought: C6."""
    assert not run_seed(Options(seed=seed, only_faults=(fault,))).is_failed
