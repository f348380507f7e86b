"""1,000 flipped bits, over all files of a node's directory: each is without effect, or refused with words (G9, C14).

The directory has all kinds of files in it: log, marker, snapshots (an older one that is not needed among them),
identity, lock. Each flip is followed by a whole start and a read of everything (`content_of`). To answer anything else
than what was published, or less, is the one thing that must not happen.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import riverbus
from tests.storage.budget import by_length
from tests.storage.disk_model import Disk, Tree
from tests.storage.fuse_disk import read_image
from tests.storage.log_verdict import Lost, Promise, judge
from tests.storage.mounted import memory_directory, write_image
from tests.storage.node_life import CHANNELS, SHARDS, Content, Refused, content_of
from tests.storage.test_log_power_cuts import write_until_killed

FLIPS = by_length(400, 3000)
LOG_FLIPS = by_length(600, 3000)
SETTINGS: dict[str, Any] = {
    "node": {"shards": SHARDS},
    "limits": {"snapshot_log": "6KiB", "snapshot_age": "50ms"},
}
MESSAGES = 300


def busy_directory(path: Path) -> Tree:
    """As SIGKILL leaves it: snapshots, a log behind and beyond them, and room allocated ahead."""

    async def publish() -> Tree:
        draw = random.Random(50)
        async with riverbus.embedded(path, SETTINGS) as bus:
            for number in range(MESSAGES):
                await bus.publish(draw.choice(CHANNELS), draw.randbytes(draw.choice([10, 300])).hex())
                if number % 50 == 49:
                    await asyncio.sleep(0.15)  # a tick, and with it a snapshot
            for number in range(20):
                await bus.publish(draw.choice(CHANNELS), f"tail {number}")
            return read_image(path)

    return asyncio.run(publish())


def files_of(image: Tree, prefix: str = "") -> dict[str, bytes]:
    found = {}
    for name, content in image.items():
        found.update({prefix + name: content} if isinstance(content, bytes) else files_of(content, f"{prefix}{name}/"))
    return found


def kind_of(name: str) -> str:
    return name.rpartition(".")[2] if name.startswith(("log/0", "snapshots/")) else name


@pytest.mark.timeout(1200)
def test_no_flipped_bit_of_a_log_that_was_rewritten_is_served() -> None:
    """Small files, many purges: raft-engine's second queue is in use, which a node fills only after gigabytes."""
    draw = random.Random(52)
    with memory_directory() as directory:
        trace = write_until_killed(directory / "disk", {}, 5)
        disk, promise = Disk(), Promise()
        for op in trace:
            disk.apply(op)
        promise.read(trace)
        image = disk.image()
        files = {name: content for name, content in files_of(image).items() if content}
        outcomes: Counter[str] = Counter()
        for _ in range(LOG_FLIPS):
            name = draw.choice(sorted(files)) if draw.random() < 0.5 else draw.choices(*_by_size(files))[0]
            bit = _flip(directory / "flipped", image, name, draw)
            try:
                refusal = judge(directory / "flipped" / "log", promise)
            except Lost as lost:
                raise AssertionError(f"bit {bit} of {name} was served: {lost}") from lost
            outcomes[f"{kind_of(name)}: {'no effect' if refusal is None else 'refused'}"] += 1
    print(dict(sorted(outcomes.items())), "served: 0")
    assert outcomes["raftlog: refused"]
    assert outcomes["rewrite: refused"]


@pytest.mark.timeout(1200)
def test_no_flipped_bit_is_served() -> None:
    draw = random.Random(51)
    with memory_directory() as directory:
        image = busy_directory(directory / "made")
        expected = content_of(write_image(directory / "whole", image))
        assert sum(map(len, expected.values())) == MESSAGES + 20
        files = {name: content for name, content in files_of(image).items() if content}
        kinds = {kind_of(name) for name in files}
        assert kinds >= {"raftlog", "rewrite", "snap", "log/marker", "identity.json", "lock"}, kinds
        outcomes: Counter[str] = Counter()
        for _ in range(FLIPS):
            name = draw.choice(sorted(files)) if draw.random() < 0.5 else draw.choices(*_by_size(files))[0]
            outcomes[f"{kind_of(name)}: {_flip_and_read(directory / 'flipped', image, name, draw, expected)}"] += 1
    print(dict(sorted(outcomes.items())), "served: 0")
    for kind in ("raftlog", "snap", "identity.json"):
        assert outcomes[f"{kind}: refused"], f"no flip in {kind} was found"


def _by_size(files: dict[str, bytes]) -> tuple[list[str], list[int]]:
    """What is used counts: a file made in advance ends in zeros."""
    return list(files), [len(content.rstrip(b"\0")) for content in files.values()]


def _flip(path: Path, image: Tree, name: str, draw: random.Random) -> int:
    write_image(path, image)
    content = bytearray((path / name).read_bytes())
    used = len(content.rstrip(b"\0"))
    bit = draw.randrange(8 * (min(used + 64, len(content)) if draw.random() < 0.95 else len(content)))
    content[bit // 8] ^= 1 << bit % 8
    (path / name).write_bytes(content)
    return bit


def _flip_and_read(path: Path, image: Tree, name: str, draw: random.Random, expected: Content) -> str:
    bit = _flip(path, image, name, draw)
    try:
        found = content_of(path)
    except Refused as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert len(refusal) > 20, f"bit {bit} of {name}: refused without words: {refusal}"
        return "refused"
    assert found == expected, f"bit {bit} of {name} was served: {_difference(found, expected)}"
    return "no effect"


def _difference(found: Content, expected: Content) -> str:
    names = sorted(found.keys() | expected.keys())
    rows = [f"{name}: {len(found.get(name, {}))} messages for {len(expected.get(name, {}))}" for name in names]
    return "; ".join(rows)
