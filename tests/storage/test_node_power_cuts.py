"""Power cuts under a whole node: what redis-py was told is there, with its id, whatever was cut short (C1, C4, C14).

`riverbus serve` runs on our FUSE disk with tiny snapshots, so that the log, the snapshots, their records and the
identity are all in flight; it is killed, and the disk's record gives images of power cuts at random moments, each of
which is opened through all of a node's start. The next life goes on from one of them, as a process again.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.storage.budget import by_length
from tests.storage.disk_model import Op, Tree
from tests.storage.mounted import cuts, memory_directory, mounted, write_image
from tests.storage.node_life import Client, Told, content_of, node_process

LIVES = by_length(4, 25)
CUTS_A_LIFE = by_length(20, 40)
BURSTS = 150


def live(directory: Path, image: Tree, told: Told, name: str, draw: random.Random) -> list[Op]:
    """One process on a disk that holds `image`: reads all, publishes, is killed. The disk's record."""
    with mounted(directory, image) as disk:
        with node_process(disk.path / "node", directory) as node:
            node.wait_ready()
            client = Client(node.port, name, draw)
            content = client.content()
            told.check(content)
            told.note_seen(disk, content)
            for _ in range(BURSTS):
                told.note_acked(disk, client.publish())
            client.close()
        return disk.trace()


@pytest.mark.timeout(1200)
def test_no_power_cut_loses_what_a_node_acknowledged() -> None:
    draw = random.Random(31)
    image: Tree = {}
    told = Told()
    tally: Counter[str] = Counter()
    with memory_directory() as directory:
        for number in range(LIVES):
            trace = live(directory / "disk", image, told, f"life{number}", draw)
            moments = sorted(draw.randint(0, len(trace)) for _ in range(CUTS_A_LIFE))
            next_life = draw.randrange(CUTS_A_LIFE)
            read = 0
            for at, (moment, found) in enumerate(cuts(image, trace, moments, draw)):
                told.read(trace[read:moment])
                read = moment
                tally["cuts"] += 1
                write_image(directory / "cut", found)
                try:
                    told.check(content_of(directory / "cut" / "node"))
                except BaseException:
                    print(f"life {number}, operation {moment} of {len(trace)}: {_names(found)}")
                    raise
                if at == next_life:
                    following = found, copy.deepcopy(told)
            tally["acknowledged"] += sum(payload.startswith(f"life{number}:") for payload in told.acked)
            image, told = following
            tally["lives"] += 1
            tally["snapshots"] += sum(op[0] == "rename" and str(op[3]).endswith(".snap") for op in trace)
    print(dict(tally), "lost: 0, refused: 0")
    assert tally["snapshots"] >= LIVES


def _names(tree: Tree, prefix: str = "") -> list[str]:
    found = []
    for name, content in tree.items():
        found += (
            [f"{prefix}{name} {len(content)}"] if isinstance(content, bytes) else _names(content, f"{prefix}{name}/")
        )
    return found
