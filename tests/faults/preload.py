"""A process' wall clock and its disk, made to misbehave from outside: the library of preload.c, and its controls.

`built(directory)` compiles it with cc, which building the native crate needs as well. A process that was started with
`Control.environment` in its environment then does what the control says, from the moment it is said.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("preload.c")
FIELDS = struct.Struct("=6q")  # as struct control in preload.c


def built(directory: Path) -> Path:
    """The library, compiled into `directory`."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.fail("the fault scenarios compile a small library for slow disks and clocks that jump: they need cc")
    library = directory / "preload.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


class Control:
    """What is wrong with one process, until `heal`. It holds over restarts of the process."""

    def __init__(self, library: Path, path: Path) -> None:
        path.write_bytes(bytes(FIELDS.size))
        self.environment = {"LD_PRELOAD": str(library), "FAULT_CONTROL": str(path)}
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), FIELDS.size)
        self._offset_s = 0.0
        self._drift = 0.0
        self._anchor_ns = time.time_ns()
        self.sync_delay_s = 0.0
        self.is_stuck = False
        self.is_full = False

    @property
    def offset_s(self) -> float:
        """How far the process' wall clock is ahead now."""
        return self._offset_s + (time.time_ns() - self._anchor_ns) / 1e9 * self._drift

    def set_clock(self, offset_s: float, drift: float = 0.0) -> None:
        """Ahead by `offset_s`, from now on gaining `drift` seconds a second."""
        self._offset_s, self._drift, self._anchor_ns = offset_s, drift, time.time_ns()
        self._write()

    def set_disk(self, sync_delay_s: float = 0.0, is_stuck: bool = False, is_full: bool = False) -> None:
        self.sync_delay_s, self.is_stuck, self.is_full = sync_delay_s, is_stuck, is_full
        self._write()

    def heal(self) -> None:
        """The disk is well again. The clock stays where it is, and keeps time."""
        self.set_clock(self.offset_s)
        self.set_disk()

    def close(self) -> None:
        self._shared.close()

    def _write(self) -> None:
        clock = int(self._offset_s * 1e9), int(self._drift * 1e6), self._anchor_ns
        disk = int(self.sync_delay_s * 1e6), int(self.is_stuck), int(self.is_full)
        self._shared[:] = FIELDS.pack(*clock, *disk)
