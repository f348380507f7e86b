"""A file system of our own, mounted with FUSE: it records all that is done to it, and fails when it is told to.

    python -m tests.storage.fuse_disk MOUNTPOINT TRACE [IMAGE]

It begins with the files in the directory IMAGE. Each operation is done on the model (`disk_model.py`) and appended to
the file TRACE (msgpack arrays, each behind its length in u32) before the caller has its answer; so what the trace
holds up to a point is what the disk had been told when the caller knew of that point. Two names are not files, in
whatever directory:

- `.notes`: a write of any program becomes a note in the trace, in order with the operations;
- `.control`: takes JSON, the faults from now on: `Faults`.

One thread, one operation at a time. Ends, unmounted, at SIGTERM, and when the process that started it ends.
Leaves to others: power cuts (`Disk.cut`), mounting and cleaning up (`mounted.py`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import signal
import stat
import sys
from pathlib import Path

import msgspec

from tests.storage.disk_model import ROOT, SECTOR_BYTES, Directory, Disk, Op, Tree

PR_SET_PDEATHSIG = 1
BLOCK_BYTES = 4096
HIDDEN_PREFIX = ".fuse_hidden"  # libfuse renames a file that is removed while it is open
NOTES, CONTROL = ".notes", ".control"


class Faults(msgspec.Struct):
    """`fail_sync` and `fail_write` count from when they are set: the first is 1; 0 is never.

    With less than no room (`room_bytes` below what is used) writes in place fail as well, as on a disk that copies on
    write. `short_writes` is the share of writes that are cut short, of those longer than a sector.
    """

    fail_sync: int = 0
    fail_write: int = 0
    room_bytes: int = 1 << 40
    short_writes: float = 0.0
    is_sync_ignored: bool = False
    seed: int = 0


def read_image(path: Path) -> Tree:
    return {entry.name: read_image(entry) if entry.is_dir() else entry.read_bytes() for entry in sorted(path.iterdir())}


class FuseDisk:
    """The operations that libfuse calls, by mfusepy's names. A path that is absent is OSError(ENOENT), and so on."""

    use_ns = True

    def __init__(self, trace: Path, image: Tree) -> None:
        self._disk = Disk(image)
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._hidden: dict[str, int] = {}
        self._faults = Faults()
        self._draw = random.Random(0)

    def _do(self, op: Op) -> None:
        self._disk.apply(op)
        data = msgspec.msgpack.encode(op)
        os.write(self._trace, len(data).to_bytes(4, "little") + data)

    def _find(self, path: str) -> int:
        number = self._hidden.get(path, ROOT)
        if number != ROOT:
            return number
        for name in path.split("/")[1:]:
            if name:
                inode = self._disk.inodes[number]
                if not isinstance(inode, Directory):
                    raise OSError(errno.ENOTDIR, path)
                if name not in inode.live:
                    raise OSError(errno.ENOENT, path)
                number = inode.live[name]
        return number

    def _parent(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        return self._find(parent), name

    # --- names --------------------------------------------------------------------------------------------------------

    def init(self, path: str) -> None:
        print("mounted", flush=True)

    def getattr(self, path: str, handle: int | None = None) -> dict[str, int]:
        if _is_special(path):
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_uid": os.getuid(), "st_gid": os.getgid()}
        inode = self._disk.inodes[self._find(path)]
        is_directory = isinstance(inode, Directory)
        size = 0 if is_directory else len(inode.live)
        return {
            "st_mode": stat.S_IFDIR | 0o700 if is_directory else stat.S_IFREG | 0o600,
            "st_nlink": 2 if is_directory else 1,
            "st_size": size,
            "st_blocks": size // 512,
            "st_uid": os.getuid(),
            "st_gid": os.getgid(),
        }

    def readdir(self, path: str, handle: int) -> list[str]:
        return [".", "..", *self._disk.directory(self._find(path)).live]

    def create(self, path: str, mode: int, flags: int) -> int:
        parent, name = self._parent(path)
        number = self._disk.next_inode
        self._do(("create", parent, name, number))
        return number

    def mkdir(self, path: str, mode: int) -> int:
        parent, name = self._parent(path)
        self._do(("mkdir", parent, name, self._disk.next_inode))
        return 0

    def unlink(self, path: str) -> int:
        if self._hidden.pop(path, None) is None:
            parent, name = self._parent(path)
            self._do(("unlink", parent, name))
        return 0

    def rmdir(self, path: str) -> int:
        if self._disk.directory(self._find(path)).live:
            raise OSError(errno.ENOTEMPTY, path)
        return self.unlink(path)

    def rename(self, old: str, new: str) -> int:
        (parent, name), (new_parent, new_name) = self._parent(old), self._parent(new)
        if new_name.startswith(HIDDEN_PREFIX):
            self._hidden[new] = self._find(old)
            self._do(("unlink", parent, name))
        elif parent != new_parent:
            raise OSError(errno.EXDEV, old)
        else:
            self._do(("rename", parent, name, new_name))
        return 0

    # --- content ------------------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        return 0 if _is_special(path) else self._find(path)

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        return bytes(self._disk.file(handle).live[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, handle: int) -> int:
        if path.endswith(f"/{NOTES}"):
            self._do(("note", data))
            return len(data)
        if path.endswith(f"/{CONTROL}"):
            self._faults = msgspec.json.decode(data, type=Faults)
            self._draw = random.Random(self._faults.seed)
            return len(data)
        if self._is_due("fail_write"):
            raise OSError(errno.EIO, path)
        accepted = len(data)
        if accepted > SECTOR_BYTES and self._draw.random() < self._faults.short_writes:
            accepted = self._draw.randrange(1, accepted)
        room = max(0, len(self._disk.file(handle).live) - offset) + self._room_bytes()
        accepted = min(accepted, room)
        if accepted <= 0 < len(data):
            raise OSError(errno.ENOSPC, path)
        self._do(("write", handle, offset, data[:accepted]))
        return accepted

    def truncate(self, path: str, size: int, handle: int | None = None) -> int:
        number = self._find(path) if handle is None else handle
        self._check_room(size - len(self._disk.file(number).live))
        self._do(("resize", number, size))
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, handle: int) -> int:
        if mode:
            raise OSError(errno.EOPNOTSUPP, path)
        now = len(self._disk.file(handle).live)
        if offset + size > now:
            self._check_room(offset + size - now)
            self._do(("resize", handle, offset + size))
        return 0

    def fsync(self, path: str, is_data_only: int, handle: int) -> int:
        if not _is_special(path):
            self._sync(handle)
        return 0

    def fsyncdir(self, path: str, is_data_only: int, handle: int) -> int:
        self._sync(self._find(path))
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        blocks = max(0, self._room_bytes()) // BLOCK_BYTES
        total = blocks + self._disk.used_bytes() // BLOCK_BYTES
        sizes = {"f_bsize": BLOCK_BYTES, "f_frsize": BLOCK_BYTES, "f_namemax": 255}
        return sizes | {"f_blocks": total, "f_bavail": blocks, "f_bfree": blocks}

    def utimens(self, path: str, times: object) -> int:
        return 0

    def chmod(self, path: str, mode: int) -> int:
        return 0

    # --- faults -------------------------------------------------------------------------------------------------------

    def _sync(self, number: int) -> None:
        if self._is_due("fail_sync"):
            self._do(("sync failed", number, self._draw.randrange(1 << 30)))
            raise OSError(errno.EIO, "sync")
        if not self._faults.is_sync_ignored:
            self._do(("sync", number))

    def _is_due(self, name: str) -> bool:
        left: int = getattr(self._faults, name)
        if left:
            setattr(self._faults, name, left - 1)
        return left == 1

    def _room_bytes(self) -> int:
        limit = self._faults.room_bytes
        return limit if limit == Faults().room_bytes else limit - self._disk.used_bytes()

    def _check_room(self, growth: int) -> None:
        if growth > 0 and growth > self._room_bytes():
            raise OSError(errno.ENOSPC, "no room")


def _is_special(path: str) -> bool:
    return path.endswith((f"/{NOTES}", f"/{CONTROL}"))


def main() -> None:
    import mfusepy  # type: ignore[import-untyped]  # here, so that the tests can say what is missing

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    mountpoint, trace, *images = sys.argv[1:]
    disk = FuseDisk(Path(trace), read_image(Path(images[0])) if images else {})
    is_old = mfusepy.fuse_version_major == 2  # libfuse 3 writes big pieces by itself
    # Only programs above change anything, so the kernel may believe what it has seen.
    caches = {"attr_timeout": 3600, "entry_timeout": 3600}
    mfusepy.FUSE(disk, mountpoint, foreground=True, nothreads=True, fsname="riverbus-test", big_writes=is_old, **caches)


if __name__ == "__main__":
    main()
