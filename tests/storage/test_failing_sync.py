"""fsync and fdatasync that fail with EIO, at every position: the process stops and says so; nothing is lost.

After the failure the disk may have kept or lost what was not synced, and a second fsync would succeed and bring nothing
back: the trap that "try again" falls into. Each run is judged twice, on what programs still see (the process is started
again) and on what a power cut leaves.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.storage.budget import by_length
from tests.storage.disk_model import ROOT, Disk, File, Op, Tree
from tests.storage.fuse_disk import Faults
from tests.storage.log_verdict import Promise, judge
from tests.storage.log_writer import CODE_FAILED
from tests.storage.mounted import REPOSITORY, die_with_parent, memory_directory, mounted, write_image
from tests.storage.node_life import Client, Refused, Told, content_of, node_process

POSITIONS = by_length([1, 2, 3, 4, 5, 6, 7, 8, 12, 20, 40, 70, 110, 200], list(range(1, 201)))
NODE_POSITIONS = by_length([5, 40], [*range(1, 16), *range(20, 100, 8)])
BURSTS_MAX = 2000


@pytest.mark.timeout(1200)
def test_a_log_whose_fsync_fails_stops_and_keeps_what_it_acknowledged() -> None:
    with memory_directory() as directory:
        with mounted(directory / "disk") as disk:
            done = subprocess.run(
                [sys.executable, "-m", "tests.storage.failing_syncs", str(disk.path), *map(str, POSITIONS)],
                env=os.environ | {"PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"},
                preexec_fn=die_with_parent,
                capture_output=True,
                check=True,
            )
            trace = disk.trace()
        results = {position: (code, text) for position, code, text in map(json.loads, done.stdout.splitlines())}
        assert sorted(results) == sorted(POSITIONS)
        for position, (code, text) in results.items():
            assert code == CODE_FAILED, f"fsync {position} failed: code {code}, {text!r}"
            assert "os error 5" in text, f"fsync {position}: {text!r}"
            assert "panicked" not in text, f"fsync {position}: {text!r}"
        batches = sum(_judge(directory / "cut", position, ops) for position, ops in _runs(trace).items())
    print(f"{len(results)} failed fsyncs, {batches} batches acknowledged, lost: 0")


def _runs(trace: list[Op]) -> dict[int, list[Op]]:
    """The operations of each run, from the making of its directory on."""
    runs: dict[int, list[Op]] = {}
    for op in trace:
        if op[0] == "mkdir" and op[1] == ROOT:
            runs[int(str(op[2]).removeprefix("run"))] = ops = [op, ("sync", ROOT)]
        else:
            ops.append(op)
    return runs


def _int(value: str | int | bytes) -> int:
    assert isinstance(value, int)
    return value


def _judge(directory: Path, position: int, ops: list[Op]) -> int:
    """How many batches had been acknowledged, all of which are there."""
    draw = random.Random(position)
    disk = Disk()
    for op in ops:
        disk.apply(op)
    promise = Promise()
    promise.read(op for op in ops if op[0] == "note" and not str(op[1]).startswith("b'run "))
    failed = next(at for at, op in enumerate(ops) if op[0] == "sync failed")
    again = {op[0] for op in ops[failed + 1 :] if op[0] != "note" and op[1] == ops[failed][1]}
    # While it is being opened nothing has been promised, and raft-engine's destructor closes with a sync. A directory
    # is used by the purge too, which runs beside the writer and may be a step ahead of its failure.
    is_open = any(op[0] == "note" and str(op[1]).startswith("b'start") for op in ops[:failed])
    is_file = isinstance(disk.inodes[_int(ops[failed][1])], File)
    assert not (is_open and is_file and again), f"fsync {position} failed, and the same file saw {again}"
    for image in (disk.image(), disk.cut(draw), disk.cut(draw)):
        home = image[f"run{position}"]
        assert isinstance(home, dict)
        assert not promise.done or "log" in home
        refusal = judge(write_image(directory, home) / "log", promise)
        assert refusal is None, f"fsync {position}: {refusal}"
    return promise.done


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("position", NODE_POSITIONS)
def test_a_node_whose_fsync_fails_stops(position: int) -> None:
    """The log's, the identity's or a snapshot's: with a message."""
    image: Tree = {}
    draw = random.Random(position)
    told = Told()
    with memory_directory() as directory, mounted(directory / "disk", image) as disk:
        disk.control(Faults(fail_sync=position, seed=position))
        with node_process(disk.path / "node", directory) as node:
            try:
                node.wait_ready()
                client = Client(node.port, "only", draw)
                for _ in range(BURSTS_MAX):
                    told.note_acked(disk, client.publish())
                    if node.process.poll() is not None or _failed_at(disk.trace()) is not None:
                        break
                client.close()
            except (Refused, redis.RedisError):
                pass
            trace = disk.trace()
            failed = _failed_at(trace)
            assert failed is not None, f"there was no fsync {position}"
            assert node.process.wait(30) == 1, node.words()
            assert "Input/output error" in node.words() or "os error 5" in node.words(), node.words()
            assert "Traceback" not in node.words().splitlines()[-1]
            if _is_of_snapshot(trace, failed):
                assert "cannot sync snapshot" in node.words(), node.words()
        trace = disk.trace()
        replayed = Disk(image)
        for op in trace:
            replayed.apply(op)
        told.read(trace)
        for found in (replayed.image(), replayed.cut(draw), replayed.cut(draw)):
            told.check(content_of(write_image(directory / "cut", found) / "node"))


def _failed_at(trace: list[Op]) -> int | None:
    return next((at for at, op in enumerate(trace) if op[0] == "sync failed"), None)


def _is_of_snapshot(trace: list[Op], failed: int) -> bool:
    """The inode whose sync failed was made as a snapshot's file, or as their directory."""
    made = {op[3]: str(op[2]) for op in trace if op[0] in ("create", "mkdir")}
    name = made.get(trace[failed][1], "")
    return name.endswith(".part") or name == "snapshots"
