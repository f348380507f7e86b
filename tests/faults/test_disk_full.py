"""A data directory on a file system of its own that runs full: publishes are refused with an error, nothing that was
acknowledged is lost, and publishes are taken again once there is room. Mounting needs root (as CI's containers are).
"""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.exceptions import RedisError, ResponseError

from tests.faults.cluster import KEEP_EVERYTHING, POLL_S, READY_S, Node, make_cluster, supervised
from tests.faults.preload import Control, built
from tests.faults.scenarios import until_alive
from tests.faults.workload import History, assert_nothing_lost, client_of, is_refusal, publishing

DISK_BYTES = 192 * 1024 * 1024
RESERVE_BYTES = 32 * 1024 * 1024
CONFIG = f"[limits]\ndisk_reserve = {RESERVE_BYTES}\n" + KEEP_EVERYTHING


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "riverbus-test", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"this test mounts a small tmpfs, for which it must be root with CAP_SYS_ADMIN: {done.stderr}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path, leave_bytes: int) -> None:
    """Takes the room of a file system but for `leave_bytes`, while a node goes on writing there."""
    with path.open("wb") as ballast:
        while (room := _room_bytes(path) - leave_bytes) > 0:
            try:
                os.posix_fallocate(ballast.fileno(), ballast.seek(0, os.SEEK_END), room)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def _room_bytes(path: Path) -> int:
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


async def publish_until(node: Node, is_wanted: bool) -> str:
    """Publish until it is accepted, or refused, as wanted; the last error's text."""
    deadline = asyncio.get_running_loop().time() + READY_S
    text = ""
    while asyncio.get_running_loop().time() < deadline:
        client = client_of(node)
        try:
            await client.publish("probe", "x")
            if is_wanted:
                return text
        except ResponseError as error:
            text = str(error)
            if not is_wanted and is_refusal(text):
                return text
        except (RedisError, OSError) as error:
            text = str(error)
        finally:
            await client.aclose()
        await asyncio.sleep(POLL_S)
    raise AssertionError(f"publishes are not {'accepted' if is_wanted else 'refused'}: {text}\n{node.log_tail()}")


@pytest.mark.timeout(150)
def test_a_node_whose_disk_is_full_refuses_and_recovers(tmp_path: Path) -> None:
    async def story(disk: Path) -> None:
        history = History(["c0", "c1"])
        cluster = make_cluster(tmp_path, 1, 2, CONFIG)
        (node,) = cluster.nodes
        node.put_data_at(disk / "node")
        async with supervised(cluster):
            for leave_bytes in (RESERVE_BYTES // 2, 0):  # below the reserve, and not a byte left
                async with publishing(history, cluster, count=4):
                    await asyncio.sleep(1)
                    fill(disk / "ballast", leave_bytes)
                    refusal = await publish_until(node, is_wanted=False)
                    assert refusal.startswith("MISCONF"), refusal
                    assert not await node.is_ready()
                    (disk / "ballast").unlink()
                    await publish_until(node, is_wanted=True)
                    await node.wait_ready()
                    await asyncio.sleep(1)
                await assert_nothing_lost(history, cluster)
            await node.kill()
            await node.start()
            await node.wait_ready()
            await assert_nothing_lost(history, cluster)

    with small_disk(tmp_path / "disk") as disk:
        asyncio.run(story(disk))


@pytest.mark.timeout(150)
def test_a_cluster_with_one_full_disk_goes_on(tmp_path: Path) -> None:
    """The full node leads no shard for long: the others take what it would refuse."""

    async def story(disk: Path) -> None:
        history = History(["c0", "c1", "c2", "c3"])
        cluster = make_cluster(tmp_path, 3, 4, CONFIG)
        full = cluster.nodes[0]
        full.put_data_at(disk / "node")
        async with supervised(cluster):
            async with publishing(history, cluster):
                await asyncio.sleep(1)
                fill(disk / "ballast", RESERVE_BYTES // 2)
                await asyncio.sleep(3)
                acked = history.results["ok"]
                await asyncio.sleep(3)
                assert history.results["ok"] > acked, "nothing is accepted although two disks have room"
                (disk / "ballast").unlink()
                await publish_until(full, is_wanted=True)
            await cluster.wait_ready()
            await assert_nothing_lost(history, cluster)

    with small_disk(tmp_path / "disk") as disk:
        asyncio.run(story(disk))


@pytest.mark.timeout(90)
def test_a_node_restarted_on_a_full_disk_starts_and_serves_once_there_is_room(tmp_path: Path) -> None:
    """Its lock file says which process holds it: that there was no room for the number once ended the start."""

    async def story() -> None:
        history = History(["c"])
        cluster = make_cluster(tmp_path, 1, 2, CONFIG)
        (node,) = cluster.nodes
        control = Control(built(tmp_path), tmp_path / "control")
        node.environment = control.environment
        async with supervised(cluster):
            async with publishing(history, cluster, count=2):
                await asyncio.sleep(1)
            await node.kill()
            control.set_disk(is_full=True)
            await node.start()
            await until_alive(cluster)
            assert not await node.is_ready()
            control.heal()
            await node.wait_ready()
            await publish_until(node, is_wanted=True)
            await assert_nothing_lost(history, cluster)
        control.close()

    asyncio.run(story())
