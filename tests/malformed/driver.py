"""Feeds generated inputs to an edge of a node, counts what becomes of them, and keeps what breaks something.

An `Edge` says how a subject is made from a seed and how its inputs are generated. Inputs go to it in episodes: a new
subject, some hundred inputs. An exception that the edge does not document, an episode that computes for longer than
`EPISODE_CPU_S`, or memory that grows beyond `GROWTH_BYTES_MAX` is a failure. A failing episode is made shorter (inputs
are left out while it still fails the same way), printed as a test that replays it, and saved.

A subject that hangs or dies in native code cannot be caught: then the file named by `Figures.watch` says which episode
it was, and faulthandler says where.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Protocol

EPISODE_CPU_S = (
    5.0  # some hundred inputs take milliseconds; a garbage collection or a busy machine takes no CPU of ours
)
NATIVE_HANG_S = 120.0
GROWTH_BYTES_MAX = 64 << 20  # of resident memory after the first quarter of a run
EPISODES_PER_LOOK = 32  # between two looks at the memory
SHRINK_S = 20.0
_PARTICULAR = re.compile(r"[0-9]+|b?'[^']*'|b?\"[^\"]*\"|, got .*")
PROGRAM_SHOWN = 4_000  # characters of a failing episode; all of it is in its file


class Subject(Protocol):
    """What the inputs of one episode are fed to."""

    def feed(self, data: bytes) -> str:
        """What became of it, in one of few words: outcomes are counted. Raises for what must not happen."""

    def finish(self) -> None:
        """The end of the episode: what must hold then."""


@dataclass(frozen=True)
class Edge:
    """`generator` of an episode's random numbers gives its inputs, one a call; it may be shared by episodes."""

    name: str
    begin: Callable[[int], Subject]
    generator: Callable[[Random], Callable[[], bytes]]
    per_episode: int


class Hang(BaseException):
    """Not an Exception: what is under test may catch those."""


class MemoryGrows(AssertionError):
    pass


@dataclass
class Figures:
    edge: str
    seed: int
    inputs: int = 0
    seconds: float = 0.0  # of this process' computing: the machine may be shared
    peak_bytes: int = 0
    grown_bytes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def refused(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome.startswith("refused"))

    def __str__(self) -> str:
        return (
            f"{self.edge}: {self.inputs} inputs, {self.refused} refused, {len(self.outcomes)} kinds of outcome, "
            f"{self.seconds:.1f} s of CPU ({self.inputs / max(self.seconds, 1e-9):.0f} a second), "
            f"peak {self.peak_bytes / 2**20:.0f} MiB (+{self.grown_bytes / 2**20:.0f}), seed {self.seed}"
        )


class Found(AssertionError):
    """A failing episode: its text has the reason and the test that replays it."""

    def __init__(self, edge: Edge, seed: int, inputs: Sequence[bytes], reason: str) -> None:
        self.edge, self.seed, self.inputs = edge, seed, list(inputs)
        self.program = regression(edge, seed, inputs)
        self.path = _saved(edge, seed, self.program)
        shown = self.program if len(self.program) <= PROGRAM_SHOWN else self.program[:PROGRAM_SHOWN] + "..."
        super().__init__(f"{edge.name}, episode {seed}, {len(inputs)} inputs: {reason}\n{self.path}:\n{shown}")


def run(edge: Edge, count: int, seed: int, until: float | None = None) -> Figures:
    """Feed `count` inputs, or as many as fit before `until` (of time.monotonic). Raises Found, MemoryGrows."""
    figures = Figures(edge.name, seed)
    watch = _Watch(edge)
    began = time.process_time()
    baseline = 0
    episode = 0
    try:
        while figures.inputs < count and (until is None or time.monotonic() < until):
            episode_seed = seed << 32 | episode
            watch.begin(episode_seed)
            _run_episode(edge, episode_seed, min(edge.per_episode, count - figures.inputs), figures)
            episode += 1
            if episode % EPISODES_PER_LOOK == 0:
                resident = resident_bytes()
                figures.peak_bytes = max(figures.peak_bytes, resident)
                if 4 * figures.inputs <= count:
                    baseline = max(baseline, resident)
                figures.grown_bytes = max(0, figures.peak_bytes - baseline) if baseline else 0
                if figures.grown_bytes > GROWTH_BYTES_MAX:
                    raise MemoryGrows(f"{edge.name}: from {baseline} to {resident} bytes after {figures.inputs} inputs")
    finally:
        watch.end()
        figures.seconds = time.process_time() - began
    return figures


def _run_episode(edge: Edge, seed: int, count: int, figures: Figures) -> None:
    generate = edge.generator(Random(seed))
    fed: list[bytes] = []
    outcomes = figures.outcomes
    try:
        with _CpuLimit():
            subject = edge.begin(seed)
            feed = subject.feed
            for _ in range(count):
                data = generate()
                fed.append(data)
                outcomes[feed(data)] += 1
            subject.finish()
    except (Exception, Hang) as error:
        reason = traceback.format_exc()
        raise Found(edge, seed, _shrunk(edge, seed, fed, type(error)), reason) from error
    figures.inputs += count


def replay(edge: Edge, seed: int, inputs: Sequence[bytes]) -> None:
    """One episode with these inputs; raises what it raises."""
    with _CpuLimit():
        subject = edge.begin(seed)
        for data in inputs:
            subject.feed(data)
        subject.finish()


def regression(edge: Edge, seed: int, inputs: Sequence[bytes]) -> str:
    """A test that replays an episode."""
    lines = "".join(f'    "{data.hex()}",\n' for data in inputs)
    return (
        "from tests.malformed.driver import replay\n"
        "from tests.malformed.edges import EDGES\n\n\n"
        f"def test_{edge.name}_{seed:x}() -> None:\n"
        f"    inputs = [\n{''.join('    ' + line + chr(10) for line in lines.splitlines())}    ]\n"
        f'    replay(EDGES["{edge.name}"], {seed}, [bytes.fromhex(each) for each in inputs])\n'
    )


def _shrunk(edge: Edge, seed: int, fed: list[bytes], expected: type[BaseException]) -> list[bytes]:
    """Fewer inputs that fail with the same exception: halves, quarters, and so on are left out (delta debugging)."""
    until = time.monotonic() + SHRINK_S
    best = fed
    size = len(best)
    while size >= 1 and time.monotonic() < until:
        size = max(1, size // 2)
        start = 0
        while start < len(best) and time.monotonic() < until:
            fewer = best[:start] + best[start + size :]
            if _fails(edge, seed, fewer, expected):
                best = fewer
            else:
                start += size
        if size == 1:
            break
    return best


def _fails(edge: Edge, seed: int, inputs: list[bytes], expected: type[BaseException]) -> bool:
    try:
        replay(edge, seed, inputs)
    except (Exception, Hang) as error:  # noqa: BLE001 - whatever it is, it is compared
        return type(error) is expected
    return False


def _saved(edge: Edge, seed: int, program: str) -> Path:
    path = _directory() / f"test_{edge.name}_{seed:x}.py"
    path.write_text(program)
    return path


def _directory() -> Path:
    directory = Path(tempfile.gettempdir()) / "riverbus-malformed"
    directory.mkdir(exist_ok=True)
    return directory


def kind_of(text: str) -> str:
    """A refusal's words without what makes it one of thousands: numbers, and bytes that it quotes."""
    return _PARTICULAR.sub("", text)[:40]


def resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * 4096


class _CpuLimit:
    """Raises Hang in the main thread after EPISODE_CPU_S of this process' computing."""

    def __enter__(self) -> None:
        signal.signal(signal.SIGVTALRM, _on_alarm)
        signal.setitimer(signal.ITIMER_VIRTUAL, EPISODE_CPU_S)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _on_alarm(number: int, frame: FrameType | None) -> None:
    raise Hang(f"an episode computes for more than {EPISODE_CPU_S} s")


class _Watch:
    """Notes which episode runs, for when the process does not survive it."""

    def __init__(self, edge: Edge) -> None:
        self._file = os.open(_directory() / f"{edge.name}.{os.getpid()}", os.O_CREAT | os.O_WRONLY, 0o600)
        self._path = _directory() / f"{edge.name}.{os.getpid()}"
        self._episodes = 0

    def begin(self, seed: int) -> None:
        os.pwrite(self._file, b"%032d" % seed, 0)
        if self._episodes % 64 == 0:
            faulthandler.dump_traceback_later(NATIVE_HANG_S, exit=True, file=sys.__stderr__ or sys.stderr)
        self._episodes += 1

    def end(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.close(self._file)
        self._path.unlink()
