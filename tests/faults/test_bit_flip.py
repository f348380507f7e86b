"""One bit of a node's data turns over while it is down. The node refuses to start, saying what is damaged, or it finds
the damage later; in no case does it serve a message that was not published, or come back with fewer than it had acked.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest

from tests.faults.cluster import POLL_S, Node, running
from tests.faults.workload import History, assert_nothing_lost, publishing

PLACES = (0.0, 0.2, 0.5, 0.8, 0.999, 0.999)  # where in the used part of the log, the last batch among them
DAMAGE_WORDS = ("damage", "corrupt", "checksum", "cannot be read")


def data_files(node: Node) -> list[Path]:
    """Files that hold what was logged, the largest first."""
    files = [path for path in node.data.rglob("*") if path.is_file() and path.stat().st_size > 4096]
    return sorted(files, key=lambda path: -path.stat().st_size)


def flip_bit(path: Path, place: float, rng: random.Random) -> str:
    """Within what is not zero: a file made in advance has an empty tail, where there is nothing to damage."""
    data = bytearray(path.read_bytes())
    used = len(data.rstrip(b"\0"))
    at, bit = min(used - 1, int(used * place) + rng.randrange(64)), rng.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(bytes(data))
    return f"{path.name}, byte {at} of {used}, bit {bit}"


async def wait_verdict(node: Node) -> str:
    """Either the process ends with an error, or it becomes ready."""
    deadline = asyncio.get_running_loop().time() + 20
    while asyncio.get_running_loop().time() < deadline:
        assert node.process is not None
        if node.process.returncode is not None:
            return "refused" if await node.wait_exit() != 0 else "ended without an error"
        if await node.is_ready():
            return "ready"
        await asyncio.sleep(POLL_S)
    return "neither"


@pytest.mark.timeout(180)
def test_a_flipped_bit_is_found_and_never_served(tmp_path: Path) -> None:
    async def story() -> None:
        history = History(["c0", "c1", "c2"])
        rng = random.Random(7)
        verdicts: list[str] = []
        async with running(tmp_path, shards=2) as cluster:
            async with publishing(history, cluster, burst=50):
                await asyncio.sleep(3)
            await assert_nothing_lost(history, cluster)
            damaged = cluster.nodes[2]
            await damaged.kill()
            kept = tmp_path / "kept"
            shutil.copytree(damaged.data, kept)
            for place in PLACES:
                where = flip_bit(data_files(damaged)[0], place, rng)
                damaged.log.write_bytes(b"")
                await damaged.start()
                verdict = await wait_verdict(damaged)
                print(f"{where}: {verdict}")
                verdicts.append(verdict)
                if verdict == "refused":
                    said = damaged.log_text().lower()
                    assert any(word in said for word in DAMAGE_WORDS), damaged.log_tail()
                else:
                    assert verdict == "ready", f"{where}: {verdict}\n{damaged.log_tail()}"
                    await assert_nothing_lost(history, cluster)
                await damaged.kill()
                damaged.wipe()
                shutil.copytree(kept, damaged.data)
            assert "refused" in verdicts, f"no flip was found: {verdicts}"
            await damaged.start()
            await damaged.wait_ready()
            await assert_nothing_lost(history, cluster)

    asyncio.run(story())
