"""The disk beneath the storage tier keeps what was synced, may lose all else, and is the same when replayed."""

import os
import random
from pathlib import Path

from tests.storage.disk_model import ROOT, Disk, Op, Tree
from tests.storage.fuse_disk import Faults, read_image
from tests.storage.mounted import cuts, is_mounted, memory_directory, mounted

OLD, NEW = b"o" * 2048, b"n" * 2048


def outcomes(image: Tree, *ops: Op) -> list[Tree]:
    disk = Disk(image)
    for op in ops:
        disk.apply(op)
    return [disk.cut(random.Random(seed)) for seed in range(300)]


def test_what_was_synced_is_kept() -> None:
    write: Op = ("write", 2, 0, NEW)
    assert all(found == {"file": NEW} for found in outcomes({"file": OLD}, write, ("sync", 2)))


def test_an_unsynced_write_is_kept_dropped_or_torn_at_sectors() -> None:
    found = {outcome["file"] for outcome in outcomes({"file": OLD}, ("write", 2, 0, NEW))}
    assert {OLD, NEW} < found
    for content in found:
        assert isinstance(content, bytes)
        assert all(len(set(content[at : at + 512])) == 1 for at in range(0, 2048, 512))


def test_a_sector_never_has_a_later_write_without_an_earlier_one() -> None:
    ops: list[Op] = [("write", 2, 0, b"1" * 10), ("write", 2, 10, b"2" * 10)]
    rest = OLD[20:]
    found = {outcome["file"] for outcome in outcomes({"file": OLD}, *ops)}
    assert found == {OLD, b"1" * 10 + b"o" * 10 + rest, b"1" * 10 + b"2" * 10 + rest}


def test_an_unsynced_append_may_lose_its_bytes_its_size_or_both() -> None:
    found = {outcome["file"] for outcome in outcomes({"file": b""}, ("write", 2, 0, NEW))}
    assert {b"", NEW, bytes(2048), NEW[:512], bytes(1536) + NEW[:512]} < found


def test_a_name_is_durable_only_with_its_directory() -> None:
    ops: list[Op] = [("create", ROOT, "file", 2), ("write", 2, 0, NEW), ("sync", 2)]
    found = outcomes({}, *ops)
    assert {} in found
    assert {"file": NEW} in found
    assert all(outcome == {"file": NEW} for outcome in outcomes({}, *ops, ("sync", ROOT)))


def test_a_rename_happens_as_a_whole_or_not() -> None:
    ops: list[Op] = [("write", 2, 0, NEW), ("sync", 2), ("rename", ROOT, "a", "b")]
    found = outcomes({"a": b"", "b": OLD}, *ops)
    assert {"a": NEW, "b": OLD} in found
    assert {"b": NEW} in found
    assert all(outcome in ({"a": NEW, "b": OLD}, {"b": NEW}) for outcome in found)


def test_after_a_failed_sync_a_second_one_brings_nothing_back() -> None:
    ops: list[Op] = [("write", 2, 0, NEW), ("sync failed", 2, 7), ("sync", 2)]
    drawn = {outcomes({"file": OLD}, ops[0], ("sync failed", 2, seed), ops[2])[0]["file"] for seed in range(20)}
    assert drawn == {OLD, NEW}
    assert len({str(outcome) for outcome in outcomes({"file": OLD}, *ops)}) == 1


def test_the_mounted_disk_does_and_records_what_programs_do() -> None:
    with memory_directory() as directory:
        with mounted(directory, {"kept": OLD, "sub": {"inner": b"x"}}) as disk:
            assert read_image(disk.path) == {"kept": OLD, "sub": {"inner": b"x"}}
            with (disk.path / "new").open("wb") as file:
                file.write(NEW)
                os.posix_fallocate(file.fileno(), 0, 5000)
                (disk.path / "new").rename(disk.path / "moved")
                (disk.path / "kept").unlink()
                os.ftruncate(file.fileno(), 3000)
            open_file = os.open(disk.path / "moved", os.O_RDWR)
            (disk.path / "moved").unlink()
            assert os.pread(open_file, 4096, 0) == NEW + bytes(952)
            os.close(open_file)
            disk.note(b"now")
            found, trace = read_image(disk.path), disk.trace()
        assert not is_mounted(disk.path)
    assert found == {"sub": {"inner": b"x"}}
    assert trace[-1] == ("note", b"now")
    replayed = Disk({"kept": OLD, "sub": {"inner": b"x"}})
    for op in trace:
        replayed.apply(op)
    assert replayed.image() == found
    assert len(list(cuts({"kept": OLD}, [], [0, 0], random.Random(1)))) == 2


def test_the_mounted_disk_fails_as_it_is_told() -> None:
    def error_of(path: Path) -> int:
        try:
            with path.open("wb", buffering=0) as file:
                assert file.write(bytes(8000)) in range(1, 8001)
                os.fsync(file.fileno())
        except OSError as error:
            return error.errno or -1
        return 0

    with memory_directory() as directory, mounted(directory) as disk:
        disk.control(Faults(fail_sync=2))
        assert [os.strerror(error_of(disk.path / "a")) for _ in range(3)] == [
            "Success",
            "Input/output error",
            "Success",
        ]
        disk.control(Faults(room_bytes=10_000))
        assert error_of(disk.path / "b") == 0  # in part: the rest has no room
        assert os.strerror(error_of(disk.path / "c")) == "No space left on device"
        assert os.statvfs(disk.path).f_bavail == 0
        disk.control(Faults(short_writes=1.0))
        with (disk.path / "d").open("wb", buffering=0) as file:
            assert file.write(bytes(8000)) < 8000
