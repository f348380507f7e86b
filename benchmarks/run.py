"""`python -m benchmarks.run [--quick] [--out DIR] [NAME ...]`, which is what `make bench` calls.

Runs the named benchmarks, or all, and prints one table. A full run writes docs/benchmarks/; a quick one (seconds each)
only shows that all works: its figures are noise, it writes nothing unless told where, and it fails on errors only.
Exit code 1: a row has an error or, in a full run, is below its floor.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks import report
from benchmarks.harness import FULL, QUICK, Row

MODULES = {"memory": "retained"}  # benchmarks/memory.py is a program of its own
RESULTS = Path(__file__).parent.parent / "docs" / "benchmarks"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(report.NAMES))
    parser.add_argument("--quick", action="store_true", help="a few seconds each; the figures mean nothing")
    parser.add_argument("--out", type=Path, help=f"where to write the results (full runs: {RESULTS})")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in report.NAMES]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(report.NAMES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave every `with`: the servers stop
    budget = QUICK if options.quick else FULL
    console = Console(width=None if sys.stdout.isatty() else 180)
    rows: list[Row] = []
    for name in options.names or report.NAMES:
        started = time.monotonic()
        module = importlib.import_module(f"benchmarks.{MODULES.get(name, name)}")
        rows += module.measure(budget)
        console.print(f"{name}: {time.monotonic() - started:.0f} s")
    report.show(rows, console)
    directory = options.out or (None if options.quick else RESULTS)
    if directory is not None:
        report.save(rows, directory)
        console.print(f"written to {directory}")
    failing = {"error"} if options.quick else {"error", "below floor"}
    return 1 if any(row.verdict in failing for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
