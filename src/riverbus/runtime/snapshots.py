"""Snapshot files: one a (shard, index), written and synced by one thread, so that no disk makes the loop wait.

    file   := slice*, footer                                       little endian
    slice  := u32 length, u64 xxh3_64 of the payload, payload      as core/state/snapshot.py frames them
    footer := magic, u64 bytes of the slices, xxh3_128 of them

A snapshot grows as `shard-<s>-<index>.<n>.part` and is not there until its commit: footer, fsync, rename to `.snap`,
fsync of the directory. A fetched one grows as `shard-<s>-<index>.<digest>.part`; it outlives a restart and is continued
after its last slice that passes its checksum, if the peer still offers the same digest. A sync that fails stops the
node (`SyncFailed`), as the log's does: after it nobody knows what is on the disk.

Leaves to others: what is in a slice, when a snapshot is taken or deleted (core/snapshots.py), the network (bulk.py).
Invariants: `.snap` files are complete (a damaged footer is found at start, damaged slices at read); what a full disk
cut short is removed at once; callbacks come on the loop, none after `abort` or `close`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import structlog
import xxhash

from riverbus.limits import DISK_RESERVE_BYTES, PEER_FRAME_BYTES_MAX, SNAPSHOT_SYNC_BYTES
from riverbus.runtime.file_thread import FileThread
from riverbus.runtime.identity import sync_directory

log = structlog.get_logger("riverbus.snapshots")

Done = Callable[[str | None], None]
Fetcher = Callable[[int, int, int, Done], None]

FOOTER = struct.Struct("<8sQ16s")
FOOTER_MAGIC = b"RBSNAP1\n"
_SLICE = struct.Struct("<IQ")
_SNAP = re.compile(r"shard-(\d+)-(\d+)\.snap")
_FETCHED = re.compile(r"shard-(\d+)-(\d+)\.[0-9a-f]{32}\.part")
_ROOM_FOR_RAFT_BYTES = DISK_RESERVE_BYTES // 4  # a snapshot gives up before the log has no room at all


class SyncFailed(Exception):
    """What the page cache shows may not be on the disk, now and later: the node must stop."""


class SnapshotFile:
    """Implements core.ports.SnapshotFile. Methods without an underscore are the loop's, the others the thread's."""

    def __init__(self, store: SnapshotStore, shard: int, index: int, part: Path, descriptor: int = -1) -> None:
        self.shard = shard
        self.index = index
        self.part = part
        self.size = 0  # the thread's: bytes of whole writes in the file
        self._store = store
        self._descriptor = descriptor
        self._hash = xxhash.xxh3_128()
        self._unsynced = 0
        self._failure: str | None = None
        self._queued_bytes = 0
        self._written_bytes = 0
        self._is_over = False  # committed, aborted or released: the loop's
        self._is_aborted = False

    @property
    def backlog_bytes(self) -> int:
        return self._queued_bytes - self._written_bytes

    @property
    def failure(self) -> str | None:
        """Why writing failed, as soon as it has; `commit` will say the same."""
        return self._failure

    def write(self, framed_slice: bytes) -> None:
        assert not self._is_over
        self._queued_bytes += len(framed_slice)
        self._store.writer.submit(lambda: self._write(framed_slice))

    def commit(self, done: Done) -> None:
        self._finish(done, None)

    def commit_as(self, size: int, digest: bytes, done: Done) -> None:
        """Commit if the whole has this size and xxh3_128; else remove it."""
        self._finish(done, (size, digest))

    def abort(self) -> None:
        """Also after `commit`, whose `done` then does not come."""
        self._is_aborted = True
        if not self._is_over:
            self._is_over = True
            self._store.writer.submit(self._discard)

    def release(self) -> None:
        """Close the file and keep what was written, to be continued."""
        if not self._is_over:
            self._is_over = True
            self._store.writer.submit(self._close)

    def _finish(self, done: Done, expected: tuple[int, bytes] | None) -> None:
        assert not self._is_over
        self._is_over = True

        def tell(failure: str | None) -> None:
            if self._is_aborted:
                if failure is None:
                    self._store.on_committed(self.shard, self.index)
                    self._store.delete(self.shard, self.index)
                return
            if failure is None:
                self._store.on_committed(self.shard, self.index)
            done(failure)

        self._store.writer.submit_then(lambda: self._commit(expected), tell)

    def _open(self) -> None:
        self._descriptor = os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def _continue(self) -> None:
        """Open what an earlier fetch left, cut after its last whole slice, and read its digest anew."""
        self._descriptor = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(self._descriptor, "rb", closefd=False) as file:
            for framed in _read_slices(file, os.fstat(self._descriptor).st_size):
                if xxhash.xxh3_64_intdigest(framed[_SLICE.size :]) != _SLICE.unpack_from(framed)[1]:
                    break
                self._hash.update(framed)
                self.size += len(framed)
        os.ftruncate(self._descriptor, self.size)
        os.lseek(self._descriptor, self.size, os.SEEK_SET)

    def _write(self, data: bytes) -> None:
        try:
            if self._failure is None:
                if self._descriptor < 0:
                    self._open()
                self._write_all(data)
                self._hash.update(data)
                self.size += len(data)
        except OSError as error:
            self._fail(error)
        finally:
            self._written_bytes += len(data)

    def _write_all(self, data: bytes) -> None:
        room = os.fstatvfs(self._descriptor)
        if room.f_bavail * room.f_frsize < len(data) + _ROOM_FOR_RAFT_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.part))
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._unsynced += len(data)
        if self._unsynced >= SNAPSHOT_SYNC_BYTES:
            self._sync(lambda: os.fdatasync(self._descriptor))
            self._unsynced = 0

    def _commit(self, expected: tuple[int, bytes] | None) -> str | None:
        if self._failure is not None:
            return self._failure
        try:
            if self._is_aborted:
                raise OSError(errno.ECANCELED, "aborted")
            if expected is not None and expected != (self.size, self._hash.digest()):
                raise OSError(errno.EIO, "what was fetched is not what was offered: size or digest differ")
            if self._descriptor < 0:
                self._open()
            size = self.size
            self._write_all(FOOTER.pack(FOOTER_MAGIC, size, self._hash.digest()))
            self._sync(lambda: os.fsync(self._descriptor))
            self._close()
            self.part.rename(self._store.path_of(self.shard, self.index))
            self._sync(lambda: sync_directory(self.part.parent))
        except OSError as error:
            return self._fail(error)
        return None

    def _sync(self, sync: Callable[[], None]) -> None:
        """Raises SyncFailed; OSError only where there is no room, as writing does."""
        try:
            sync()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise SyncFailed(
                f"cannot sync snapshot {self.index} of shard {self.shard}: {error.strerror or error}. What is on the "
                "disk is not known any more: have it looked at, then start the node again"
            ) from error

    def _fail(self, error: OSError) -> str:
        self._failure = f"cannot write snapshot {self.index} of shard {self.shard}: {error.strerror or error}"
        self._discard()
        return self._failure

    def _discard(self) -> None:
        self._close()
        self.part.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class Source(NamedTuple):
    """A committed snapshot, open to be sent. It stays whole when the file is deleted meanwhile."""

    descriptor: int
    size: int
    digest: bytes


class SnapshotStore:
    """Implements core.ports.Snapshots in `snapshots/` of a data directory. `fetcher` is set by peers.py."""

    def __init__(self, loop: asyncio.AbstractEventLoop, data: Path) -> None:
        self.directory = data / "snapshots"
        self.fetcher: Fetcher | None = None
        self.writer = FileThread(loop, "snapshot writer")
        self.reader = FileThread(loop, "snapshot reader")  # a commit's fsync must not stop what is being sent
        self._loop = loop
        self._indexes: dict[int, list[int]] = {}
        self._created = 0
        self.directory.mkdir(parents=True, exist_ok=True)
        self._recover()

    def create(self, shard: int, index: int) -> SnapshotFile:
        self._created += 1
        return SnapshotFile(self, shard, index, self.directory / f"shard-{shard}-{index}.{self._created}.part")

    def indexes(self, shard: int) -> list[int]:
        return list(self._indexes.get(shard, ()))

    def read(self, shard: int, index: int) -> Iterator[bytes]:
        """Raises OSError, at the first slice if the file is not there, and when a slice is cut short."""
        with self.path_of(shard, index).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            size, _ = _read_footer(file.fileno())
            done = 0
            for framed in _read_slices(file, size):
                done += len(framed)
                yield framed
            if done != size:
                raise OSError(errno.EIO, "a slice is damaged or cut short", file.name)

    def delete(self, shard: int, index: int) -> None:
        if index in self._indexes.get(shard, ()):
            self._indexes[shard].remove(index)
        path = self.path_of(shard, index)
        self.writer.submit(lambda: path.unlink(missing_ok=True))

    def fetch(self, peer: int, shard: int, index: int, done: Done) -> None:
        assert self.fetcher is not None, "a node alone has nowhere to fetch from"
        self.fetcher(peer, shard, index, done)

    def close(self) -> None:
        """Finish what is queued; unfinished files are removed at the next start."""
        self.writer.close()
        self.reader.close()

    # --- for bulk.py --------------------------------------------------------------------------------------------------

    async def open_source(self, shard: int, index: int) -> Source:
        """Raises OSError."""
        path = self.path_of(shard, index)

        def open_file() -> Source:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return Source(descriptor, *_read_footer(descriptor))
            except OSError:
                os.close(descriptor)
                raise

        return await self.reader.run(open_file, undo=self.release_source)

    def release_source(self, source: Source) -> None:
        self.reader.submit(lambda: os.close(source.descriptor))  # behind a read that may still be queued

    async def open_fetched(self, shard: int, index: int, digest: bytes) -> SnapshotFile:
        """The file of a fetch, with what an earlier try left of the same snapshot. Raises OSError."""
        part = self.directory / f"shard-{shard}-{index}.{digest.hex()}.part"
        file = SnapshotFile(self, shard, index, part)

        def open_file() -> None:
            for other in self.directory.glob(f"shard-{shard}-*.part"):
                if other != part and _FETCHED.fullmatch(other.name):
                    other.unlink()  # of an older snapshot, or another node's
            file._continue()

        await self.writer.run(open_file)
        return file

    # --- files --------------------------------------------------------------------------------------------------------

    def path_of(self, shard: int, index: int) -> Path:
        return self.directory / f"shard-{shard}-{index}.snap"

    def on_committed(self, shard: int, index: int) -> None:
        self._indexes[shard] = sorted({*self._indexes.get(shard, ()), index})

    def _recover(self) -> None:
        """Take stock at the start: whole snapshots, and what fetches left; all else was being written: removed."""
        for path in sorted(self.directory.iterdir()):
            if match := _SNAP.fullmatch(path.name):
                try:
                    with path.open("rb") as file:
                        _read_footer(file.fileno())
                except OSError as error:
                    log.error("a snapshot is damaged and will not be used", file=str(path), reason=str(error))
                else:
                    self.on_committed(int(match[1]), int(match[2]))
        for path in sorted(self.directory.glob("*.part")):
            match = _FETCHED.fullmatch(path.name)
            if match is None or int(match[2]) <= max(self.indexes(int(match[1])), default=0):
                path.unlink()


def _read_footer(descriptor: int) -> tuple[int, bytes]:
    """(bytes of the slices, their digest). Raises OSError when it is not the footer of this file."""
    size = os.fstat(descriptor).st_size - FOOTER.size
    data = os.pread(descriptor, FOOTER.size, max(size, 0))
    if size >= 0 and len(data) == FOOTER.size:
        magic, slices, digest = FOOTER.unpack(data)
        if magic == FOOTER_MAGIC and slices == size:
            return slices, digest
    raise OSError(errno.EIO, "a snapshot file is cut short or damaged")


def _read_slices(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Whole slices of the first `size` bytes; ends early at one that cannot be whole."""
    at = 0
    while at + _SLICE.size <= size:
        head = file.read(_SLICE.size)
        length = _SLICE.unpack(head)[0] if len(head) == _SLICE.size else size
        if length > PEER_FRAME_BYTES_MAX or at + _SLICE.size + length > size:
            return
        payload = file.read(length)
        if len(payload) < length:
            return
        yield head + payload
        at += _SLICE.size + length
