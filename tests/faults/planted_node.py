"""A node with a seeded bug: `python -m tests.faults.planted_node MUTANT serve ...`. For test_planted.py only."""

from __future__ import annotations

import sys

from riverbus.cli.main import main
from tests.sim.mutants import MUTANTS

if __name__ == "__main__":
    with MUTANTS[sys.argv.pop(1)].plant():
        main()
