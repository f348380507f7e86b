"""What every benchmark stands on: rows, interleaved pairs, child processes, ports, compiled helpers.

A figure of one system says little on a shared machine, so each question is asked of both in turn, A B A B, each time
of servers freshly started; a row gives both medians and the median of the pairs' ratios. Children are started by path
and stopped by their own process id, everything waits with a deadline, and all files live in one temporary directory.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NATIVE = Path(__file__).parent / "native"
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0


class BenchmarkError(Exception):
    """A measurement that cannot be made or is void; its text goes into the row."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to measure: the full run, or `--quick`, which only shows that everything works."""

    pairs: int
    seconds: float
    warmup_seconds: float
    is_quick: bool

    def scaled(self, count: int) -> int:
        """A number of messages that is a full run's; a fiftieth of it in a quick one."""
        return count // 50 if self.is_quick else count


FULL = Budget(pairs=3, seconds=5.0, warmup_seconds=1.5, is_quick=False)
QUICK = Budget(pairs=1, seconds=0.3, warmup_seconds=0.2, is_quick=True)


@dataclass(slots=True)
class Row:
    """One line of the table. `floor` and `aim` bound `ratio` if `judged` is "ratio", else `ours`."""

    benchmark: str
    figure: str
    unit: str
    peer_name: str = ""
    ours: float | None = None
    peer: float | None = None
    ratio: float | None = None  # above 1: Riverbus is better
    judged: str = "ratio"
    is_more_better: bool = True  # of `ours` and `peer`; a ratio is always the more the better
    floor: float | None = None  # none: shown for orientation, and not judged
    aim: float | None = None
    aim_ours: float | None = None  # the aim asks this much of `ours` too
    samples_ours: list[float] = field(default_factory=list)
    samples_peer: list[float] = field(default_factory=list)
    details: dict[str, object] = field(default_factory=dict)
    error: str = ""

    @property
    def verdict(self) -> str:
        if self.error:
            return "error"
        if self.floor is None:
            return "shown"
        value = self.ratio if self.judged == "ratio" else self.ours
        if value is None:
            return "error"
        is_rising = self.judged == "ratio" or self.is_more_better

        def reaches(bound: float) -> bool:
            return value >= bound if is_rising else value <= bound

        if not reaches(self.floor):
            return "below floor"
        if self.aim is None or not reaches(self.aim):
            return "floor"
        return "aim" if self.aim_ours is None or (self.ours or 0.0) >= self.aim_ours else "floor"

    def take(self, ours: Sequence[float], peer: Sequence[float]) -> Row:
        """Fill in medians and the median of the pairs' ratios."""
        self.samples_ours, self.samples_peer = list(ours), list(peer)
        if ours:
            self.ours = statistics.median(ours)
        if peer:
            self.peer = statistics.median(peer)
        pairs = [(a, b) if self.is_more_better else (b, a) for a, b in zip(ours, peer, strict=False)]
        if pairs and all(lower > 0 for _, lower in pairs):
            self.ratio = statistics.median(upper / lower for upper, lower in pairs)
        return self


Measure = Callable[[], dict[str, float]]


@dataclass(slots=True)
class Pairs:
    """Samples of two systems by figure, and what kept either from being measured."""

    ours: dict[str, list[float]] = field(default_factory=dict)
    peer: dict[str, list[float]] = field(default_factory=dict)
    error_ours: str = ""
    error_peer: str = ""

    def fill(self, row: Row, figure: str) -> Row:
        row.take(self.ours.get(figure, []), self.peer.get(figure, []))
        row.error = "; ".join(error for error in (self.error_ours, self.error_peer) if error)
        return row


def interleave(ours: Measure, peer: Measure, pairs: int) -> Pairs:
    """Peer, Riverbus, peer, Riverbus, ...: each call starts its servers, measures its figures and stops them."""
    result = Pairs()
    for _ in range(pairs):
        if not result.error_peer:
            result.error_peer = _sample(peer, result.peer)
        if not result.error_ours:
            result.error_ours = _sample(ours, result.ours)
    return result


def _sample(measure: Measure, samples: dict[str, list[float]]) -> str:
    try:
        for figure, value in measure().items():
            samples.setdefault(figure, []).append(value)
    except BenchmarkError as error:
        return str(error)
    return ""


# --- processes --------------------------------------------------------------------------------------------------------


def find_program(name: str, debian_package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise BenchmarkError(f"{name} is not on this machine: `apt-get install {debian_package}`")
    return path


@contextlib.contextmanager
def child(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server for the length of a `with`: SIGTERM to it at the end, SIGKILL to its process group if it stays."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own group, made above: nobody else is in it
        process.wait(STOP_SECONDS_MAX)


def wait_until(is_ready: Callable[[], bool], what: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Raises BenchmarkError with the end of the log if the child dies or is not ready in time."""
    until = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until:
        if process.poll() is not None:
            raise BenchmarkError(f"{what} ended with code {process.returncode}: {_tail(log)}")
        try:
            if is_ready():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise BenchmarkError(f"{what} was not ready after {START_SECONDS_MAX:.0f} s: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-300:].replace("\n", " | ")


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="riverbus-bench-") as name:
        yield Path(name)


def free_ports(count: int) -> int:
    """The first of `count` consecutive free ports on loopback, below those of the tests and of clients."""
    for _ in range(200):
        base = random.randrange(10_000, 20_000)
        if all(_is_free(base + offset) for offset in range(count)):
            return base
    raise BenchmarkError(f"no {count} consecutive free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_compiled: dict[str, Path] = {}


def compiled(name: str) -> Path:
    """The program made of native/NAME.c, compiled once a process into a directory that lives as long."""
    if name not in _compiled:
        compiler = find_program("cc", "gcc")
        program = Path(_compile_directory().name) / name
        command = [compiler, "-O2", "-o", str(program), str(NATIVE / f"{name}.c")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise BenchmarkError(f"{' '.join(command)}: {done.stderr.strip()[:300]}")
        _compiled[name] = program
    return _compiled[name]


_directories: list[tempfile.TemporaryDirectory[str]] = []


def _compile_directory() -> tempfile.TemporaryDirectory[str]:
    if not _directories:
        _directories.append(tempfile.TemporaryDirectory(prefix="riverbus-bench-cc-"))
    return _directories[0]
