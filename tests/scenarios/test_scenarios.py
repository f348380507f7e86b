"""Each story in this folder, told again: the cluster does now what the text says that it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from riverbus.sim import scenario

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_the_story_comes_out_as_it_is_written(file: Path, request: pytest.FixtureRequest) -> None:
    written = file.read_text()
    told = scenario.run(written)
    if request.config.getoption("--rewrite", default=False):
        file.write_text(told)
    else:
        assert told == written


def test_there_are_enough_stories_to_read_the_cluster_by() -> None:
    assert len(FILES) >= 25
