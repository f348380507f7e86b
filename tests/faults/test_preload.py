"""The library that stands before a process' clock and disk: it does what its control says, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.preload import Control, built

PROGRAM = """
import os, sys, time
file = open(sys.argv[1], "wb", 0)
for _ in sys.stdin:
    begun, error = time.monotonic(), "-"
    try:
        file.write(b"x")
        os.fdatasync(file.fileno())
    except OSError as failure:
        error = failure.errno
    print(time.time(), time.monotonic(), time.monotonic() - begun, error, os.statvfs(sys.argv[1]).f_bavail, flush=True)
"""
ENOSPC = 28


class Program:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self) -> None:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)

    def answer(self) -> tuple[float, float, float, str, int]:
        """Its wall clock, its monotonic clock, how long a write and its sync took, the error, and the room."""
        assert self.process.stdout is not None
        wall, monotonic, took, error, room = self.process.stdout.readline().split()
        return float(wall), float(monotonic), float(took), error, int(room)


@contextmanager
def running(path: Path) -> Iterator[tuple[Program, Control]]:
    control = Control(built(path), path / "control")
    arguments = [sys.executable, "-c", PROGRAM, str(path / "data")]
    environment = os.environ | control.environment
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield Program(process), control
        finally:
            process.kill()
            control.close()


def test_the_wall_clock_jumps_and_drifts_and_the_monotonic_one_does_not(tmp_path: Path) -> None:
    with running(tmp_path) as (program, control):
        for offset_s in (0.0, 86_400.0, -3600.0):
            control.set_clock(offset_s)
            program.ask()
            wall, monotonic, *_ = program.answer()
            assert abs(wall - time.time() - offset_s) < 1
            assert abs(monotonic - time.monotonic()) < 1
        control.set_clock(0.0, drift=1000.0)
        program.ask()
        first, *_ = program.answer()
        program.ask()
        second, *_ = program.answer()
        assert second > first
        ahead_s = control.offset_s
        control.heal()
        assert control.offset_s >= ahead_s


def test_a_disk_is_slow_stuck_and_full_and_well_again(tmp_path: Path) -> None:
    with running(tmp_path) as (program, control):
        control.set_disk(sync_delay_s=0.2)
        program.ask()
        _, _, took_s, error, room = program.answer()
        assert took_s >= 0.2
        assert (error, room > 0) == ("-", True)
        control.set_disk(is_full=True)
        program.ask()
        *_, error, room = program.answer()
        assert (error, room) == (str(ENOSPC), 0)
        control.set_disk(is_stuck=True)
        program.ask()
        begun = time.monotonic()
        while time.monotonic() < begun + 0.3:
            assert program.process.poll() is None
        control.heal()
        _, _, took_s, error, room = program.answer()
        assert took_s > 0.2
        assert (error, room > 0) == ("-", True)
