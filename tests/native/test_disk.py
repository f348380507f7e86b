"""The log on a real disk: killed processes, flipped bits, full disks, failing fsyncs, reclaimed space."""

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from riverbus._native import Log, LogDamaged, LogError, Raft
from tests.native.cluster import log_content, make_raft, until_purged
from tests.native.test_log_contract import elected, settle

ROOT = Path(__file__).resolve().parents[2]


def run_child(script: str, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A process of its own, to be killed or to fail; it sees this package and tests.native."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


WRITE_UNTIL_KILLED = """
import sys
from riverbus._native import Log
from tests.native.test_log_contract import elected, settle
log = Log.open(sys.argv[1])
raft = elected(log)
number = 0
while True:
    raft.propose(b"%d" % number * 50)
    for index, _, _, data in settle(log, raft):
        print(index, flush=True)
    number += 1
"""


def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    child = run_child(WRITE_UNTIL_KILLED, path)
    assert child.stdout is not None
    acknowledged = [int(child.stdout.readline()) for _ in range(200)]
    child.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in child.communicate()[0].splitlines()]
    log = Log.open(path)
    raft = make_raft(log, 1, group=7, applied=5)
    raft.campaign()
    found = {index: data for index, _, _, data in settle(log, raft)}
    for index in acknowledged[1:]:
        assert found[index] == b"%d" % (index - 7) * 50
    log.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    log = Log.open(str(tmp_path / "log"))
    with pytest.raises(LogError, match="lock"):
        Log.open(str(tmp_path / "log"))
    log.close()


def busy_log(path: Path, file_bytes: int = 32 << 20) -> Log:
    """Three groups with entries of many sizes, compactions and meta records."""
    draw = random.Random(1)
    log = Log.open(str(path), file_bytes=file_bytes)
    for group in (1, 2, 3):
        raft = elected(log, group)
        for _ in range(30):
            raft.propose(draw.randbytes(draw.choice([3, 100, 2000])))
            settle(log, raft)
        log.put_meta(group, b"meta", b"value of %d" % group)
        raft.compact(15)
        log.flush()
        log.sync()
    return log


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """Where hundreds of logs can be opened without hundreds of fsyncs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as path:
        yield Path(path)


@pytest.mark.parametrize("ending", ["killed", "closed"])
def test_any_flipped_bit_is_harmless_or_found(fast_path: Path, ending: str) -> None:
    log = busy_log(fast_path / "log")
    if ending == "killed":
        until_purged(log)
        shutil.copytree(fast_path / "log", fast_path / "copy")  # with the preallocated tail, as SIGKILL leaves it
        log.close()
        check_flips(fast_path, fast_path / "copy", 150)
    else:
        log.close()
        check_flips(fast_path, fast_path / "log", 150)


def test_any_flipped_bit_is_found_in_rewritten_files_too(fast_path: Path) -> None:
    """Small files and many purges: most of groups 1 and 2, and their records, live in raft-engine's rewrite queue."""
    log = busy_log(fast_path / "log", file_bytes=32 << 10)
    raft = make_raft(log, 1, group=3, applied=log.first_index(3) - 1)
    raft.campaign()
    settle(log, raft)
    for _ in range(200):
        raft.propose(bytes(2000))
        settle(log, raft)
        raft.compact(log.last_index(3) - 3)
        log.flush()
        log.purge()
    log.sync()
    log.close()
    assert sum(file.stat().st_size for file in (fast_path / "log").glob("*.rewrite")) > 20_000
    check_flips(fast_path, fast_path / "log", 200)


def check_flips(path: Path, source: Path, count: int) -> None:
    draw = random.Random(2)
    groups = (1, 2, 3)
    whole = path / "whole"
    shutil.copytree(source, whole)
    log = Log.open(str(whole))
    expected = log_content(log, groups)
    log.close()
    files = {file: len(file.read_bytes().rstrip(b"\0")) for file in sorted(source.iterdir())}
    found = harmless = 0
    for _ in range(count):
        damaged = path / "damaged"
        shutil.copytree(source, damaged)
        # By size of what is used, and now and then the zeros behind it; the small files get their share too.
        weights = [size + 500 if size else 0 for size in files.values()]
        file = draw.choices(list(files), weights)[0]
        content = bytearray(file.read_bytes())
        end = files[file] if draw.random() < 0.9 else len(content)
        bit = draw.randrange(end * 8)
        content[bit // 8] ^= 1 << bit % 8
        (damaged / file.name).write_bytes(content)
        try:
            log = Log.open(str(damaged))
            assert log_content(log, groups) == expected, f"silent: bit {bit} of {file.name}"
            harmless += 1
            log.close()
        except LogDamaged:
            found += 1
        shutil.rmtree(damaged)
    assert found > count // 4
    assert found + harmless == count


def test_a_lost_tail_is_told_from_a_torn_write(tmp_path: Path) -> None:
    log = busy_log(tmp_path / "log")
    log.close()
    file = max((tmp_path / "log").glob("*.raftlog"))
    content = file.read_bytes()
    file.write_bytes(content + b"\x00\x00\x00torn write of a batch nobody was told of")
    log = Log.open(str(tmp_path / "log"))
    log.close()
    file.write_bytes(content[:-20])
    with pytest.raises(LogDamaged, match="reported durable"):
        Log.open(str(tmp_path / "log"))


def test_a_missing_marker_beside_a_log_is_damage(tmp_path: Path) -> None:
    log = busy_log(tmp_path / "log")
    log.close()
    (tmp_path / "log" / "marker").unlink()
    with pytest.raises(LogDamaged, match="marker"):
        Log.open(str(tmp_path / "log"))


def read_all(raft: Raft) -> None:
    while raft.ready() is not None:
        pass


def test_a_read_of_damaged_data_poisons_the_log(tmp_path: Path) -> None:
    log = Log.open(str(tmp_path / "log"))
    raft = elected(log)
    for number in range(90):
        raft.propose(bytes([number]) * (1 << 20))
        settle(log, raft)
    for file in (tmp_path / "log").glob("*.raftlog"):
        with file.open("r+b") as stream:
            for offset in range(100_000, file.stat().st_size, 500_000):
                stream.seek(offset)
                stream.write(b"damage")
    reader = make_raft(log, 1, group=7, applied=5)
    with pytest.raises(LogDamaged):
        read_all(reader)
    for call in (raft.tick, log.flush, log.completed):
        with pytest.raises(LogDamaged):
            call()
    log.close()
    with pytest.raises(LogDamaged):
        Log.open(str(tmp_path / "log"))


def test_purging_gives_the_space_back(tmp_path: Path) -> None:
    """One busy group that compacts, beside idle ones whose old records sit in the first file."""
    log = Log.open(str(tmp_path / "log"))
    idle = elected(log, 1)
    for _ in range(100):
        idle.propose(bytes(1000))
        settle(log, idle)
    log.put_meta(1, b"meta", b"value")
    raft = elected(log, 2)
    for number in range(300):
        raft.propose(bytes([number % 256]) * (1 << 20))
        settle(log, raft)
        if number % 10 == 9:
            raft.compact(log.last_index(2) - 10)
            log.purge()
    log.purge()
    log.close()
    size = sum(file.stat().st_size for file in (tmp_path / "log").iterdir())
    assert size < 160 << 20
    log = Log.open(str(tmp_path / "log"))
    assert (log.first_index(1), log.last_index(1)) == (6, 106)
    assert log.get_meta(1, b"meta") == b"value"
    make_raft(log, 1, group=1, applied=5)
    raft = make_raft(log, 1, group=2, applied=log.first_index(2) - 1)
    assert [data[0] for _, _, _, data in settle(log, raft)][-3:] == [296 % 256, 297 % 256, 298 % 256]
    log.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def wait_until_stalled(log: Log) -> str:
    for _ in range(300):
        if (reason := log.stalled()) is not None:
            return reason
        select.select([log.fileno()], [], [], 0.02)
        log.completed()
    raise AssertionError("never stalled")


def fill_disk(log: Log, raft: Raft) -> int:
    """Proposes until the disk is full; returns the number of entries proposed."""
    for number in range(400):
        raft.propose(b"%03d" % number * 10_000)
        while raft.ready() is not None:
            pass
        log.flush()
    wait_until_stalled(log)
    return 400


def test_a_full_disk_stalls_the_writer_and_nothing_is_lost(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    path = str(small_disk / "log")
    log = Log.open(path)
    raft = elected(log)
    proposed = fill_disk(log, raft)
    assert "No space" in str(log.stalled())
    stuck = log.completed()
    assert stuck < log.flush()
    raft.tick()  # the rest of the node goes on
    with pytest.raises((LogError, AssertionError)):
        assert log.completed() > stuck  # no batch completes without room
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    log.sync()
    assert log.stalled() is None
    raft.persisted(log.completed())
    settle(log, raft)
    log.close()
    log = Log.open(path)
    raft = make_raft(log, 1, group=7, applied=5)
    raft.campaign()
    found = [data for _, _, _, data in settle(log, raft) if data]
    assert found == [b"%03d" % number * 10_000 for number in range(proposed)]
    log.close()


@pytest.mark.parametrize("ending", ["close", "kill"])
def test_a_stop_while_the_disk_is_full_keeps_what_was_completed(small_disk: Path, ending: str) -> None:
    path = str(small_disk / "log")
    log = Log.open(path)
    raft = elected(log)
    fill_disk(log, raft)
    if ending == "kill":
        # What SIGKILL would leave, as another directory on a disk with room.
        completed = log.completed()
        copy = small_disk.parent / "copy"
        shutil.copytree(path, copy)
        log.close()
        path = str(copy)
    else:
        completed = log.completed()
        log.close()
    log = Log.open(path)
    assert log.completed() >= completed
    raft = make_raft(log, 1, group=7, applied=5)
    last = log.last_index(7)
    if ending == "kill":
        raft.campaign()
        found = [data for _, _, _, data in settle(log, raft) if data]
        assert found == [b"%03d" % number * 10_000 for number in range(last - 6)]
    log.close()


FAIL_TO_SYNC = """
import sys
from riverbus._native import Log, LogError
from tests.native.test_log_contract import elected, settle
log = Log.open(sys.argv[1])
raft = elected(log)
errors = []
try:
    for _ in range(100):
        raft.propose(b"x")
        settle(log, raft)
except LogError as error:
    errors.append(str(error))
for call in (log.completed, log.flush, log.sync, raft.ready, raft.tick):
    try:
        call()
    except LogError as error:
        errors.append(str(error))
syncs = log.statistics()["syncs"]
log.close()
print(len(errors), syncs, log.statistics()["syncs"], errors[0])
"""


@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_an_io_error_poisons_the_log_and_is_never_retried(tmp_path: Path, call: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-o", str(trace), "-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when=20+")
    child = run_child(FAIL_TO_SYNC, str(tmp_path / "log"), prefix=strace)
    output, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert "panicked" not in errors
    count, before, after, message = output.split(maxsplit=3)
    assert count == "6"
    assert before == after
    assert "failed" in message
    assert trace.read_text().count("INJECTED") == 1
    log = Log.open(str(tmp_path / "log"))
    assert log.last_index(7) > 6
    log.close()


def test_a_directory_that_is_a_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="file"):
        Log.open(str(tmp_path / "file"))
