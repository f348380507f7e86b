"""Malformed input, the long form: `python -m tests.malformed [EDGE ...] [--inputs N] [--seed N] [--minutes M]`.

A million inputs to each edge, or as many as fit into its share of the minutes. Prints a line of figures per edge, its
outcomes with --outcomes, the lines of the code under test that ran with --coverage (slow: use it with few inputs). The
first thing that breaks ends it with exit code 1, its regression printed and saved.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.malformed.coverage import Coverage
from tests.malformed.driver import Found, MemoryGrows, run
from tests.malformed.edges import EDGES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.malformed")
    parser.add_argument("edges", nargs="*", metavar="EDGE", help=f"of {', '.join(EDGES)}; all if none is named")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="to each edge")
    parser.add_argument("--seed", type=int, help="where all inputs come from; else drawn, and printed")
    parser.add_argument("--minutes", type=float, help="for all edges together")
    parser.add_argument("--outcomes", action="store_true", help="print what became of the inputs")
    parser.add_argument("--coverage", action="store_true", help="print which lines of the code under test ran")
    options = parser.parse_args()
    if unknown := [name for name in options.edges if name not in EDGES]:
        parser.error(f"there is no edge {unknown[0]!r}; there are {', '.join(EDGES)}")
    seed = time.time_ns() % 2**31 if options.seed is None else options.seed
    names = options.edges or list(EDGES)
    for name in names:
        until = None if options.minutes is None else time.monotonic() + options.minutes * 60 / len(names)
        with Coverage(options.coverage) as coverage:
            try:
                figures = run(EDGES[name], options.inputs, seed, until)
            except (Found, MemoryGrows) as error:
                print(error, file=sys.stderr)
                return 1
        print(figures, flush=True)
        if options.outcomes:
            for outcome, count in figures.outcomes.most_common():
                print(f"  {count:8} {outcome}")
        for line in coverage.lines():
            print(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
