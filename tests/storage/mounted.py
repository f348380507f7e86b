"""Our disk, mounted for a test: started, told of faults, read back as a trace, and never left behind.

`mounted(path)` gives a `MountedDisk`. At its end, also after a failure, the daemon is gone and the mount with it; the
daemon does the same by itself when the test's process is killed. Where FUSE cannot be mounted the test fails and says
what is missing: a skip would hide that nothing was shown.

Traces and images live in memory (/dev/shm) if the machine has that: it is not their disk that is tested.
"""

from __future__ import annotations

import ctypes
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.storage.disk_model import Disk, Op, Tree
from tests.storage.fuse_disk import CONTROL, NOTES, Faults

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_S = 30
PACKAGES = "the packages fuse3 (Debian, Ubuntu: apt-get install fuse3) and mfusepy, and /dev/fuse"


@contextmanager
def memory_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="riverbus-storage-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as path:
        yield Path(path)


class MountedDisk:
    def __init__(self, path: Path, trace: Path) -> None:
        self.path = path
        self._trace = trace

    def control(self, faults: Faults) -> None:
        self._tell(CONTROL, msgspec.json.encode(faults))

    def note(self, text: bytes) -> None:
        """Into the trace, behind all that was done before the call."""
        self._tell(NOTES, text)

    def _tell(self, name: str, data: bytes) -> None:
        descriptor = os.open(self.path / name, os.O_WRONLY)
        try:
            assert os.write(descriptor, data) == len(data)
        finally:
            os.close(descriptor)

    def trace(self) -> list[Op]:
        """What was done since the mount."""
        return [tuple(msgspec.msgpack.decode(piece)) for piece in _pieces(self._trace.read_bytes())]


def _pieces(data: bytes) -> Iterator[bytes]:
    """The trace's values, each prefixed by its length."""
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        yield data[at + 4 : end]
        at = end


@contextmanager
def mounted(directory: Path, image: Tree | None = None) -> Iterator[MountedDisk]:
    """A disk that holds `image`. `directory` takes the mount point, the trace and the daemon's words."""
    directory.mkdir(parents=True, exist_ok=True)
    start, mountpoint, trace = directory / "image", directory / "mnt", directory / "trace"
    for path in (start, mountpoint):
        path.mkdir(exist_ok=True)
    trace.unlink(missing_ok=True)
    write_image(start, image or {})
    words = directory / "words"
    with words.open("wb") as errors:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.fuse_disk", str(mountpoint), str(trace), str(start)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"},
        )
    try:
        assert daemon.stdout is not None
        select.select([daemon.stdout], [], [], DEADLINE_S)
        if not os.path.ismount(mountpoint):
            daemon.kill()
            daemon.wait()
            pytest.fail(f"the storage tests mount a FUSE disk: they need {PACKAGES}. {words.read_text()}")
        yield MountedDisk(mountpoint, trace)
    finally:
        daemon.terminate()
        try:
            daemon.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        if daemon.stdout is not None:
            daemon.stdout.close()
        unmount(mountpoint)


def unmount(path: Path) -> None:
    """What the daemon does by itself, unless it was killed."""
    if not is_mounted(path):
        return
    for command in (["umount", "--lazy"], ["fusermount3", "-u", "-z"], ["fusermount", "-u", "-z"]):
        if shutil.which(command[0]):
            subprocess.run([*command, str(path)], capture_output=True, check=False)
    assert not is_mounted(path), f"{path} is still mounted"


def is_mounted(path: Path) -> bool:
    return any(line.split()[1] == str(path) for line in Path("/proc/self/mounts").read_text().splitlines())


def write_image(path: Path, image: Tree) -> Path:
    """The directory `path` with exactly these files in it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    for name, content in image.items():
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
        else:
            write_image(path / name, content)
    return path


def cuts(
    image: Tree | None, trace: Sequence[Op], moments: Sequence[int], draw: random.Random
) -> Iterator[tuple[int, Tree]]:
    """For each moment (operations done) in order, what a power cut then leaves of a disk that began as `image`."""
    disk = Disk(image)
    done = 0
    for moment in sorted(moments):
        for op in trace[done:moment]:
            disk.apply(op)
        done = moment
        yield moment, disk.cut(draw)


def die_with_parent() -> None:
    """For `preexec_fn`: a process that a killed test started ends with it."""
    ctypes.CDLL(None).prctl(1, 9)
