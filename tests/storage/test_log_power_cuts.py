"""200 power cuts under the log: what was reported durable is there, to the byte, and the log opens (C14).

A process writes until it kills itself, with batches on their way, on our FUSE disk, which records every operation. Each
moment of that record is a moment the power may have gone: images are taken at random ones, each is opened and compared
with what had been reported by that moment. The next process goes on from the last image, so that cuts also fall into
recoveries, of images that were left by cuts.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.storage.budget import by_length
from tests.storage.disk_model import Op, Tree
from tests.storage.fuse_disk import Faults
from tests.storage.log_verdict import Lost, Promise, judge
from tests.storage.log_writer import FILE_BYTES
from tests.storage.mounted import (
    DEADLINE_S,
    REPOSITORY,
    cuts,
    die_with_parent,
    memory_directory,
    mounted,
    write_image,
)

CUTS_A_LIFE = 40
LIVES = by_length(5, 60)
BATCHES = 300


def write_until_killed(directory: Path, image: Tree, seed: int, faults: Faults | None = None) -> list[Op]:
    """One process' life on a disk that holds `image`; the disk's record of it."""
    with mounted(directory, image) as disk:
        if faults is not None:
            disk.control(faults)
        done = subprocess.run(
            [sys.executable, "-m", "tests.storage.log_writer", str(disk.path), str(seed), str(BATCHES)],
            env=os.environ | {"PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"},
            preexec_fn=die_with_parent,
            capture_output=True,
            timeout=2 * DEADLINE_S,
            check=False,
        )
        assert done.returncode == -9, done.stderr.decode()
        return disk.trace()


def judge_image(path: Path, image: Tree, promise: Promise) -> str | None:
    """None if all is there, else why the log refused."""
    if promise.done and "log" not in image:
        raise Lost("the log's directory is gone")
    write_image(path, image)
    return judge(path / "log", promise, FILE_BYTES)


@pytest.mark.timeout(1200)
def test_no_power_cut_loses_what_was_reported_durable() -> None:
    draw = random.Random(20)
    image: Tree = {}
    promise = Promise()
    tally: Counter[str] = Counter()
    with memory_directory() as directory:
        for life in range(LIVES):
            trace = write_until_killed(directory / "disk", image, draw.randrange(1 << 30))
            tally["operations"] += len(trace)
            moments = sorted(draw.randint(0, len(trace)) for _ in range(CUTS_A_LIFE))
            read = 0
            for moment, found in cuts(image, trace, moments, draw):
                promise.read(trace[read:moment])
                read = moment
                refusal = judge_image(directory / "cut", found, promise)
                tally["cuts"] += 1
                assert refusal is None, f"life {life}, operation {moment}: a power cut is no damage: {refusal}"
            image = found
            promise = _as_found(directory / "again", image, promise)
            tally["batches"] = promise.done
    print(dict(tally), "lost: 0, refused: 0")
    assert tally["cuts"] == LIVES * CUTS_A_LIFE
    assert promise.done > LIVES * BATCHES / 4


def _as_found(path: Path, image: Tree, promise: Promise) -> Promise:
    """What the next life begins with: a batch that survived without having been reported counts from now on."""
    from riverbus._native import Log

    log = Log.open(str(write_image(path, image) / "log"), file_bytes=FILE_BYTES)
    found = log.completed()
    log.close()
    promise.advance(found)
    promise.planned.clear()
    return promise


def test_a_disk_that_ignores_fsync_is_caught() -> None:
    """The same test must be able to fail: a log that does not sync is a log on a disk that does not."""
    draw = random.Random(21)
    with memory_directory() as directory:
        trace = write_until_killed(directory / "disk", {}, 1, Faults(is_sync_ignored=True))
        moments = sorted(draw.randint(len(trace) // 2, len(trace)) for _ in range(20))
        promise, read, lost = Promise(), 0, 0
        for moment, found in cuts({}, trace, moments, draw):
            promise.read(trace[read:moment])
            read = moment
            try:
                lost += judge_image(directory / "cut", found, promise) is not None
            except Lost:
                lost += 1
        assert lost >= 10
