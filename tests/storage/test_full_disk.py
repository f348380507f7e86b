"""A disk that runs full in the middle of a write, and that takes only a part of each.

The log waits and says so, and goes on when there is room; nothing that it reported is lost by a kill or a power cut
while it waits. A node refuses, or answers nothing, and acknowledges again once there is room.
"""

from __future__ import annotations

import random
import select
from pathlib import Path

import pytest
import redis

from tests.storage.budget import by_length
from tests.storage.disk_model import Disk, Op, Tree
from tests.storage.fuse_disk import Faults
from tests.storage.log_verdict import Promise, judge
from tests.storage.log_writer import Writer
from tests.storage.mounted import MountedDisk, memory_directory, mounted, write_image
from tests.storage.node_life import Client, NodeProcess, Told, content_of, node_process

ROUNDS = by_length(4, 40)
ROOM_BYTES = 30_000


def room_left(disk: MountedDisk, room_bytes: int, seed: int) -> Faults:
    """So many bytes beyond what is used now, and every third write cut short."""
    replayed = replay(disk.trace())
    return Faults(room_bytes=replayed.used_bytes() + room_bytes, short_writes=0.3, seed=seed)


def replay(trace: list[Op]) -> Disk:
    disk = Disk()
    for op in trace:
        disk.apply(op)
    return disk


def write_until_stalled(writer: Writer) -> None:
    for _ in range(2000):
        if writer.log.stalled() is not None:
            return
        if writer.handed - writer.done > 50:
            select.select([writer.log.fileno()], [], [], 0.05)
        else:
            writer.batch(may_wait=False)
        writer.look()
    raise AssertionError("never stalled")


def wait_until_going(writer: Writer) -> None:
    """The thread that purges may have met the full disk as well: it tries again every 100 ms."""
    for _ in range(200):
        if writer.log.stalled() is None:
            return
        select.select([writer.log.fileno()], [], [], 0.05)
        writer.look()
    raise AssertionError(f"still stalled: {writer.log.stalled()}")


@pytest.mark.timeout(600)
def test_a_log_on_a_full_disk_waits_loses_nothing_and_goes_on() -> None:
    draw = random.Random(60)
    with memory_directory() as directory, mounted(directory / "disk") as disk:
        disk.control(Faults(short_writes=0.3))
        writer = Writer(disk.path, 60)
        for number in range(ROUNDS):
            for _ in range(20):
                writer.batch()
            disk.control(room_left(disk, draw.randrange(ROOM_BYTES), number))
            write_until_stalled(writer)
            assert "No space left on device" in str(writer.log.stalled())
            done, full = writer.done, replay(disk.trace())
            promise = Promise()
            promise.read(disk.trace())
            for image in (full.image(), full.cut(draw), full.cut(draw)):
                assert judge(write_image(directory / "cut", image) / "log", promise) is None
            disk.control(Faults(short_writes=0.3, seed=number))
            writer.log.sync()
            writer.look()
            wait_until_going(writer)
            assert writer.done == writer.handed > done
        writer.log.close()
        promise = Promise()
        trace = disk.trace()
        promise.read(trace)
        assert promise.done == writer.handed
        assert judge(write_image(directory / "cut", replay(trace).image()) / "log", promise) is None


@pytest.mark.timeout(600)
def test_a_node_on_a_full_disk_acknowledges_nothing_that_is_lost_and_recovers(tmp_path: Path) -> None:
    told = Told()
    draw = random.Random(61)
    image: Tree = {}
    with memory_directory() as directory, mounted(directory / "disk", image) as disk:
        with node_process(disk.path / "node", directory) as node:
            node.wait_ready()
            for number in range(by_length(2, 10)):
                client = Client(node.port, f"before {number}", draw)
                for _ in range(20):
                    told.note_acked(disk, client.publish())
                disk.control(room_left(disk, draw.randrange(ROOM_BYTES), number))
                assert not _publish_until_refused(disk, told, client), "a full disk, and all is acknowledged"
                disk.control(Faults())
                client.close()
                _publish_until_taken(disk, told, node, f"after {number}", draw)
            assert node.process.poll() is None, node.words()
        replayed = replay(disk.trace())
        told.read(disk.trace())
        for found in (replayed.image(), replayed.cut(draw)):
            told.check(content_of(write_image(directory / "cut", found) / "node"))


def _publish_until_refused(disk: MountedDisk, told: Told, client: Client) -> bool:
    """False as soon as a burst is refused, in part at least, or not answered."""
    for _ in range(2000):
        count = client.count
        try:
            acked = client.publish()
        except redis.RedisError:
            return False
        told.note_acked(disk, acked)
        if len(acked) < client.count - count:
            return False
    return True


def _publish_until_taken(disk: MountedDisk, told: Told, node: NodeProcess, name: str, draw: random.Random) -> None:
    failure = ""
    for number in range(100):
        client = Client(node.port, f"{name} {number}", draw)
        try:
            acked = client.publish()
            told.note_acked(disk, acked)
            if len(acked) == client.count:
                return
        except redis.RedisError as error:
            failure = repr(error)
        finally:
            client.close()
        select.select([], [], [], 0.1)
    raise AssertionError(f"publishes are not taken again although there is room: {failure}\n{node.words()}")
