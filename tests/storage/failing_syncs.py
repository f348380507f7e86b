"""Log writers on a mounted disk, one after another, the N-th of which has its N-th fsync fail with EIO.

    python -m tests.storage.failing_syncs DISK POSITION...

Each lives in a directory of its own, `runN`, in a fork of this process (starting an interpreter each time would take
longer than the writing). A note `run N` in the trace begins it. Prints a line of JSON for each: [N, exit code, text].
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import msgspec

from tests.storage.fuse_disk import CONTROL, NOTES, Faults
from tests.storage.log_writer import CODE_FAILED, live

BATCHES_MAX = 1000


def tell(disk: Path, name: str, data: bytes) -> None:
    descriptor = os.open(disk / name, os.O_WRONLY)
    os.write(descriptor, data)
    os.close(descriptor)


def run(disk: Path, position: int) -> tuple[int, str]:
    """Exit code and what was said."""
    home = disk / f"run{position}"
    home.mkdir()
    tell(disk, NOTES, b"run %d" % position)
    tell(disk, CONTROL, msgspec.json.encode(Faults(fail_sync=position, seed=position)))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 2)
        failure = live(home, position, BATCHES_MAX)
        os.write(2, (failure or "").encode())
        os._exit(CODE_FAILED if failure is not None else 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as words:
        text = words.read().decode()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), text


def main() -> None:
    disk = Path(sys.argv[1])
    for position in map(int, sys.argv[2:]):
        print(json.dumps([position, *run(disk, position)]), flush=True)


if __name__ == "__main__":
    main()
