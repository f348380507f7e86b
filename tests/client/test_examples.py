"""The examples are programs that run: each against a node of its own, as a newcomer would start it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.faults.cluster import running

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.timeout(60)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_to_its_end(example: Path, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, count=1, shards=2) as cluster:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(example),
                env={**os.environ, "RIVERBUS_URL": cluster.url},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            async with asyncio.timeout(30):
                output, _ = await process.communicate()
            assert process.returncode == 0, output.decode()
            assert output

    asyncio.run(story())
