"""A row's verdict, ratio and files, without any server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.harness import BenchmarkError, Row, interleave


def a_row(**fields: Any) -> Row:
    return Row("fanout", "to 10", "deliveries/s", "redis", **fields)


@pytest.mark.parametrize(("ours", "verdict"), [(50.0, "below floor"), (90.0, "floor"), (120.0, "aim"), (121.0, "aim")])
def test_a_ratio_is_judged_by_floor_and_aim(ours: float, verdict: str) -> None:
    row = a_row(floor=0.8, aim=1.2).take([ours], [100.0])
    assert row.verdict == verdict


@pytest.mark.parametrize(("ours", "verdict"), [(30.0, "below floor"), (25.0, "floor"), (4.0, "aim")])
def test_a_bound_of_less_is_better_is_judged_by_our_figure(ours: float, verdict: str) -> None:
    row = a_row(judged="ours", is_more_better=False, floor=25, aim=5).take([ours], [1.0])
    assert row.verdict == verdict


def test_an_aim_can_ask_for_a_figure_beside_the_ratio() -> None:
    row = a_row(floor=2, aim=4, aim_ours=200_000)
    assert row.take([199_000.0], [40_000.0]).verdict == "floor"
    assert row.take([201_000.0], [40_000.0]).verdict == "aim"


def test_ratios_are_taken_per_pair_and_turned_when_less_is_better() -> None:
    assert a_row().take([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]).ratio == 3.0
    assert a_row(is_more_better=False).take([2.0], [8.0]).ratio == 4.0


def test_a_system_that_fails_is_not_asked_again_and_the_other_is_still_measured() -> None:
    asked = []

    def peer() -> dict[str, float]:
        asked.append("peer")
        raise BenchmarkError("it is not on this machine")

    pairs = interleave(lambda: {"rate": 5.0}, peer, 3)
    row = pairs.fill(a_row(floor=1), "rate")
    assert asked == ["peer"]
    assert row.samples_ours == [5.0, 5.0, 5.0]
    assert (row.verdict, row.error) == ("error", "it is not on this machine")


def test_a_partial_run_keeps_the_rows_of_other_benchmarks(tmp_path: Path) -> None:
    fanout = a_row(floor=0.8, aim=1.2).take([100.0], [100.0])
    pause = Row("pause", "worst pause", "ms", judged="ours", is_more_better=False, floor=20, aim=8).take([9.0], [4.0])
    report.save([fanout, pause], tmp_path)
    report.save([a_row(floor=0.8, aim=1.2).take([200.0], [100.0])], tmp_path)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["benchmark"], row["ratio"], row["verdict"]) for row in rows] == [
        ("fanout", 2.0, "aim"),
        ("pause", 4.0 / 9.0, "floor"),
    ]
    text = (tmp_path / "results.md").read_text()
    assert "| to 10 | 200 deliveries/s | 100 redis | 2.00x | 0.8x | 1.2x | aim |" in text
    assert (tmp_path / "results.png").stat().st_size < 200_000
