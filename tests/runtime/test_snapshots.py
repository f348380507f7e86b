"""Snapshot files are whole or not there: after a crash, a full disk, a cut, an abort."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riverbus import limits
from riverbus.runtime import snapshots as snapshots_module
from riverbus.runtime.snapshots import SnapshotStore, SyncFailed
from tests.runtime.linked import WAIT_S, run
from tests.runtime.snapshot_files import answer, names, put, slice_of, slices


def in_store(path: Path, story: Callable[[SnapshotStore], Any]) -> None:
    async def told() -> None:
        store = SnapshotStore(asyncio.get_running_loop(), path)
        try:
            await story(store)
        finally:
            store.close()

    run(told())


def test_a_committed_snapshot_is_read_back_slice_by_slice_and_found_again(tmp_path: Path) -> None:
    content = [*slices(20), slice_of(b""), slice_of(bytes(3 * limits.MIB))]

    async def story(store: SnapshotStore) -> None:
        file = store.create(3, 70)
        for framed in content:
            file.write(framed)
        assert store.indexes(3) == []
        assert await answer(file.commit) is None
        assert file.backlog_bytes == 0
        await put(store, 3, 9, [])
        assert store.indexes(3) == [9, 70]
        assert list(store.read(3, 70)) == content
        assert list(store.read(3, 9)) == []

    async def again(store: SnapshotStore) -> None:
        assert store.indexes(3) == [9, 70]
        assert store.indexes(4) == []
        assert list(store.read(3, 70)) == content
        store.delete(3, 9)
        assert store.indexes(3) == [70]
        await put(store, 3, 9, slices(1))  # queued behind the deletion
        assert list(store.read(3, 9)) == slices(1)

    in_store(tmp_path, story)
    in_store(tmp_path, again)


def test_what_is_not_committed_does_not_exist(tmp_path: Path) -> None:
    async def story(store: SnapshotStore) -> None:
        file, aborted, late = store.create(0, 1), store.create(0, 2), store.create(0, 3)
        for each in (file, aborted, late):
            each.write(slices(1)[0])
        aborted.abort()
        calls: list[str | None] = []
        late.commit(calls.append)
        late.abort()
        await store.writer.run(lambda: None)
        await store.writer.run(lambda: None)
        assert names(store) == ["shard-0-1.1.part"]
        assert calls == []
        assert store.indexes(0) == []
        with pytest.raises(FileNotFoundError):
            next(store.read(0, 1))

    async def again(store: SnapshotStore) -> None:
        assert names(store) == []

    in_store(tmp_path, story)
    in_store(tmp_path, again)


@pytest.mark.parametrize("cut", [1, 31, 32, 40, 2000])
def test_a_file_cut_short_is_an_error_and_not_taken_at_the_next_start(tmp_path: Path, cut: int) -> None:
    async def story(store: SnapshotStore) -> None:
        await put(store, 0, 5, slices(3))
        path = store.path_of(0, 5)
        os.truncate(path, path.stat().st_size - cut)
        with pytest.raises(OSError, match="cut short or damaged"):
            list(store.read(0, 5))

    async def again(store: SnapshotStore) -> None:
        assert store.indexes(0) == []

    in_store(tmp_path, story)
    in_store(tmp_path, again)


def test_a_damaged_length_is_an_error(tmp_path: Path) -> None:
    async def story(store: SnapshotStore) -> None:
        await put(store, 0, 5, slices(3))
        with store.path_of(0, 5).open("r+b") as file:
            file.write(struct.pack("<I", 2**31))
        with pytest.raises(OSError, match="a slice is damaged"):
            list(store.read(0, 5))

    in_store(tmp_path, story)


def test_a_full_disk_fails_the_commit_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    written: list[int] = []

    def write_until_full(descriptor: int, data: bytes) -> int:
        if sum(written) >= 2500:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(descriptor, data[:700])  # and never all at once
        written.append(count)
        return count

    async def story(store: SnapshotStore) -> None:
        monkeypatch.setattr(os, "write", write_until_full)
        file = store.create(1, 8)
        for framed in slices(5):
            file.write(framed)
        failure = await answer(file.commit)
        assert failure == "cannot write snapshot 8 of shard 1: No space left on device"
        assert file.failure == failure
        assert file.backlog_bytes == 0
        assert names(store) == []
        monkeypatch.undo()
        await put(store, 1, 8, slices(5))
        assert list(store.read(1, 8)) == slices(5)

    in_store(tmp_path, story)


@pytest.mark.parametrize(("name", "size"), [("fdatasync", 3 * limits.MIB), ("fsync", 1000)])
def test_a_sync_that_fails_is_for_the_node_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    monkeypatch.setattr(snapshots_module, "SNAPSHOT_SYNC_BYTES", 2 * limits.MIB)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def story(store: SnapshotStore) -> None:
        heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.set_result(context["exception"]))
        monkeypatch.setattr(os, name, fail)
        file = store.create(1, 8)
        told: list[str | None] = []
        file.write(slice_of(bytes(size)))
        if name == "fsync":
            file.commit(told.append)
        async with asyncio.timeout(WAIT_S):
            failure = await heard
        assert isinstance(failure, SyncFailed)
        assert str(failure).startswith("cannot sync snapshot 8 of shard 1: Input/output error. ")
        await store.writer.run(lambda: None)
        assert told == []
        assert store.indexes(1) == []

    in_store(tmp_path, story)


def test_no_room_at_the_sync_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    async def story(store: SnapshotStore) -> None:
        monkeypatch.setattr(os, "fsync", fail)
        file = store.create(1, 8)
        assert "quota" in str(await answer(file.commit))
        assert names(store) == []

    in_store(tmp_path, story)


def test_the_last_of_the_disk_is_left_to_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Room:
        f_frsize = 4096
        f_bavail = limits.DISK_RESERVE_BYTES // 4 // 4096

    async def story(store: SnapshotStore) -> None:
        monkeypatch.setattr(os, "fstatvfs", lambda _: Room)
        file = store.create(1, 8)
        file.write(slices(1)[0])
        assert "No space left" in str(await answer(file.commit))
        assert names(store) == []

    in_store(tmp_path, story)
