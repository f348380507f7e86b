"""Results as people and programs read them: results.json (kept over partial runs), results.md, results.png.

A partial run replaces the rows of the benchmarks that it ran; every row carries when it was measured and on what.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import FULL, Row

_STYLES = {"aim": "green", "floor": "yellow", "below floor": "bold red", "error": "bold red", "shown": "dim"}
_COLUMNS = ("question", "Riverbus", "peer", "ratio", "floor", "aim", "verdict")


def machine() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cores": str(os.cpu_count()),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version() + (" of the distribution" if sys.base_prefix == "/usr" else ""),
        "redis-server": _output("redis-server", "--version").split(" sha=")[0].removeprefix("Redis server "),
        "nats-server": _output("nats-server", "--version").removeprefix("nats-server: "),
        "riverbus": _output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
    }


def _field(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return "?"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "?")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip() or "?"
    except OSError:
        return "absent"


# --- the terminal -----------------------------------------------------------------------------------------------------


def show(rows: Sequence[Row], console: Console) -> None:
    table = Table(show_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("question", "verdict") else "right")
    for row in rows:
        style = _STYLES[row.verdict]
        table.add_row(*_cells(row), f"[{style}]{row.verdict}[/{style}]")
        if row.error:
            table.add_row(f"[red]  {row.error}[/red]")
    console.print(table)


def _cells(row: Row) -> list[str]:
    peer = f"{_number(row.peer)} {row.peer_name}" if row.peer_name else ""
    ratio = f"{row.ratio:.2f}x" if row.ratio is not None else ""
    return [row.figure, f"{_number(row.ours)} {row.unit}", peer, ratio, _bound(row, row.floor), _aim(row)]


def _aim(row: Row) -> str:
    aim = _bound(row, row.aim)
    return f"{aim}, {_number(row.aim_ours)}" if row.aim_ours else aim


def _bound(row: Row, bound: float | None) -> str:
    if bound is None:
        return ""
    return f"{bound:g}x" if row.judged == "ratio" else f"{_number(bound)} {row.unit}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# --- files ------------------------------------------------------------------------------------------------------------


def save(rows: Sequence[Row], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "results.json"
    kept: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    measured = {row.benchmark for row in rows}
    on = machine()
    entries = [entry for entry in kept if entry["benchmark"] not in measured]
    entries += [asdict(row) | {"verdict": row.verdict, "on": on} for row in rows]
    order = {name: at for at, name in enumerate(NAMES)}
    entries.sort(key=lambda entry: order.get(entry["benchmark"], len(order)))
    path.write_text(json.dumps({"rows": entries}, indent=1) + "\n")
    (directory / "results.md").write_text(_markdown(entries))
    _plot(entries, directory / "results.png")


NAMES = (
    "publish_pipelined",
    "publish_many",
    "streams_add",
    "streams_group",
    "fanout",
    "publish_none",
    "latency",
    "pause",
    "snapshot",
    "memory",
)


def _row(entry: dict[str, Any]) -> Row:
    return Row(**{name: value for name, value in entry.items() if name not in ("verdict", "on")})


def _markdown(entries: Sequence[dict[str, Any]]) -> str:
    lines = [
        "# Benchmarks: results",
        "",
        "Made by `make bench`; do not edit. [README.md](README.md) says what each row asks and how it is measured.",
        f"Medians of {FULL.pairs} interleaved pairs, servers and load generator on the same cores; ratios above 1 mean",
        "that Riverbus is better. *shown*: for orientation, without a floor.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for entry in entries:
        row = _row(entry)
        verdict = f"**{row.verdict}**" if row.verdict in ("below floor", "error") else row.verdict
        lines.append("| " + " | ".join([*_cells(row), verdict + (f": {row.error}" if row.error else "")]) + " |")
    lines += ["", "![ratios and bounds](results.png)", "", "## Where and when", ""]
    for text, names in _machines(entries).items():
        lines.append(f"- {', '.join(names)}: {text}")
    lines += ["", "## Every sample", "", "| question | Riverbus | peer | details |", "|---|---|---|---|"]
    for entry in entries:
        row = _row(entry)
        ours, peer = (", ".join(map(_number, samples)) for samples in (row.samples_ours, row.samples_peer))
        details = "; ".join(f"{name}: {_detail(value)}" for name, value in row.details.items())
        lines.append(f"| {row.figure} | {ours} | {peer} | {details} |")
    return "\n".join(lines) + "\n"


def _detail(value: object) -> str:
    values = value if isinstance(value, list) else [value]
    return ", ".join(_number(item) if isinstance(item, int | float) else str(item) for item in values)


def _machines(entries: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Descriptions of machine and time, each with the benchmarks that ran there."""
    result: dict[str, list[str]] = {}
    for entry in entries:
        names = result.setdefault(", ".join(f"{key} {value}" for key, value in entry["on"].items()), [])
        if entry["benchmark"] not in names:
            names.append(entry["benchmark"])
    return result


def _plot(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars on logarithmic axes: left the ratios to the peers, right what has a bound of its own unit."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot, ticker

    rows = [row for row in map(_row, entries) if row.ours is not None]
    ratios = [row for row in rows if row.judged == "ratio" and row.ratio is not None]
    bounded = [row for row in rows if row.judged == "ours" and row.floor is not None]
    figure, panels = pyplot.subplots(1, 2, figsize=(15, 0.6 + 0.42 * max(len(ratios), len(bounded), 4)))
    for panel, chosen, title in (
        (panels[0], ratios, "times the peer (longer is better)"),
        (panels[1], bounded, "ms or bytes (shorter is better)"),
    ):
        values = [float((row.ratio if row.judged == "ratio" else row.ours) or 0) for row in chosen]
        colours = [_COLOURS[row.verdict] for row in chosen]
        panel.barh(range(len(chosen)), values, color=colours, height=0.6)
        for at, (row, value) in enumerate(zip(chosen, values, strict=True)):
            for bound, colour in ((row.floor, "black"), (row.aim, "tab:blue")):
                if bound is not None:
                    panel.plot([bound, bound], [at - 0.4, at + 0.4], color=colour, linewidth=2)
            panel.annotate(f" {value:.3g}", (value, at), va="center", fontsize=8)
        panel.set_yticks(range(len(chosen)), [row.figure for row in chosen], fontsize=8)
        panel.invert_yaxis()
        panel.set_title(f"{title}; black: floor, blue: aim", fontsize=9)
        if chosen:
            panel.set_xscale("log")
            panel.set_xlim(min(values) / 2, max(values + [row.floor or 0 for row in chosen]) * 1.3)
            panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
            panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


_COLOURS = {"aim": "tab:green", "floor": "gold", "below floor": "tab:red", "error": "tab:red", "shown": "lightgrey"}
