"""The benchmarks work: each runs for a moment against real servers. Their figures are not looked at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import fanout, pause, publish_pipelined, run, snapshot
from benchmarks.harness import QUICK


def test_fan_out_and_pauses_are_measured_for_both(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = run.main(["--quick", "--out", str(tmp_path), "fanout", "pause", "snapshot"])
    shown = capsys.readouterr().out
    if shutil.which("redis-server") is None:
        assert code == 1
        assert "apt-get install redis-server" in shown
    else:
        assert code == 0, shown
    assert shown.count("1 publisher with") == len(fanout.CASES)
    assert f"window of {QUICK.scaled(pause.RETAINED):,}" in shown
    assert f"snapshots of {QUICK.scaled(snapshot.RETAINED):,}" in shown
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "results.md", "results.png"}


def test_streams_are_measured_for_both(capsys: pytest.CaptureFixture[str]) -> None:
    code = run.main(["--quick", "streams_add", "streams_group"])
    shown = capsys.readouterr().out
    assert code == (1 if shutil.which("redis-server") is None else 0), shown
    assert "1 publisher by XADD" in shown
    assert "4 consumers of a group" in shown


def test_an_absent_peer_is_an_error_that_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "nats-server" else which(name))
    rows = publish_pipelined.measure(QUICK)
    assert [row.verdict for row in rows] == ["error"] * 3
    assert all("`apt-get install nats-server`" in row.error for row in rows)
    assert all(row.samples_ours for row in rows), rows[0].error


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(SystemExit):
        run.main(["fan-out"])
