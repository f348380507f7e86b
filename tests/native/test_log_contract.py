"""One contract for both logs: the disk's and the simulator's must behave the same towards Raft and its driver."""

import select
from collections.abc import Callable
from pathlib import Path

import pytest

from riverbus._native import Log, LogDamaged, LogError, Raft
from tests.native.cluster import GROUP, make_raft


class Kind:
    """How a log of this kind is made and comes back after the end of its process."""

    def __init__(self, make: Callable[[], Log], reopen: Callable[[Log], Log]) -> None:
        self.make, self.reopen = make, reopen


@pytest.fixture(params=["disk", "memory"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    def reopen_disk(log: Log) -> Log:
        log.close()
        return Log.open(str(tmp_path / "log"))

    if request.param == "disk":
        return Kind(lambda: Log.open(str(tmp_path / "log")), reopen_disk)
    return Kind(lambda: Log.in_memory(1), lambda log: log.crash(1))


def elected(log: Log, group: int = GROUP) -> Raft:
    Raft.bootstrap(log, group, [1])
    raft = make_raft(log, 1, group=group, applied=5)
    raft.campaign()
    settle(log, raft)
    return raft


def settle(log: Log, raft: Raft) -> list[tuple[int, int, int, bytes]]:
    committed: list[tuple[int, int, int, bytes]] = []
    while True:
        had_ready = False
        while (ready := raft.ready()) is not None:
            had_ready = True
            committed += ready.committed
            if ready.committed:
                raft.applied(ready.committed[-1][0])
        log.flush()
        raft.persisted(log.sync())
        if not had_ready:
            return committed


def test_what_was_synced_is_there_again(kind: Kind) -> None:
    log = kind.make()
    raft = elected(log)
    for number in range(50):
        raft.propose(b"%d" % number * 100)
        settle(log, raft)
    log.put_meta(GROUP, b"key", b"value")
    log.put_meta(GROUP, b"gone", b"value")
    log.put_meta(GROUP, b"gone", None)
    log.put_meta(0, b"node", b"identity")
    batch = log.flush()
    assert log.sync() == batch
    log = kind.reopen(log)
    assert log.completed() == batch
    assert log.groups() == [GROUP]
    assert (log.first_index(GROUP), log.last_index(GROUP)) == (6, 56)
    assert log.get_meta(GROUP, b"key") == b"value"
    assert log.get_meta(GROUP, b"gone") is None
    assert log.get_meta(0, b"node") == b"identity"
    raft = make_raft(log, 1, applied=5)
    assert [data for _, _, _, data in settle(log, raft)] == [b""] + [b"%d" % number * 100 for number in range(50)]
    log.close()


def test_many_groups_share_a_batch(kind: Kind) -> None:
    log = kind.make()
    rafts = {group: elected(log, group) for group in range(1, 9)}
    before = log.completed()
    for group, raft in rafts.items():
        raft.propose(b"entry of %d" % group)
        while raft.ready() is not None:
            pass
    assert log.flush() == before + 1
    assert log.sync() == before + 1
    log = kind.reopen(log)
    assert log.groups() == list(rafts)
    for group in rafts:
        assert log.last_index(group) == 7
    log.close()


def test_the_eventfd_tells_of_completion_and_completed_drains_it(kind: Kind) -> None:
    log = kind.make()
    poller = select.poll()
    poller.register(log.fileno(), select.POLLIN)
    assert poller.poll(0) == []
    log.put_meta(1, b"key", b"value")
    batch = log.flush()
    assert batch == 1
    log.sync()
    log.put_meta(1, b"key", b"other")
    second = log.flush()
    if log.completed() < second:
        log.sync()
    log.completed()
    assert log.completed() == second
    assert poller.poll(0) == []
    log.close()


def test_flush_of_nothing_returns_the_last_number(kind: Kind) -> None:
    log = kind.make()
    assert log.flush() == 0
    assert log.sync() == 0
    log.put_meta(1, b"key", b"value")
    assert log.flush() == 1
    assert log.flush() == 1
    assert log.sync() == 1
    log.close()


def test_compaction_drops_the_front_and_keeps_its_term(kind: Kind) -> None:
    log = kind.make()
    raft = elected(log)
    for number in range(10):
        raft.propose(b"%d" % number)
        settle(log, raft)
    raft.compact(10)
    log.compact(GROUP, 12)
    log.compact(GROUP, 8)  # long gone
    log.flush()
    log.sync()
    log.purge()
    assert (log.first_index(GROUP), raft.term_of(12), raft.term_of(11)) == (13, 6, None)
    with pytest.raises(ValueError, match="can't compact"):
        log.compact(GROUP, 99)
    log = kind.reopen(log)
    assert (log.first_index(GROUP), log.last_index(GROUP)) == (13, 16)
    assert [data for _, _, _, data in settle(log, make_raft(log, 1, applied=12))] == [b"6", b"7", b"8", b"9"]
    with pytest.raises(LogDamaged, match="applied index"):
        make_raft(log, 1, applied=11)
    log.close()


def test_reads_below_the_cache_come_from_the_store(kind: Kind) -> None:
    log = kind.make()
    raft = elected(log)
    for number in range(100):
        raft.propose(bytes([number]) * (1 << 20))
        settle(log, raft)
    statistics = log.statistics()
    assert statistics["cache_bytes"] <= 66 << 20
    assert statistics["live_bytes"] > 99 << 20
    log = kind.reopen(log)
    assert log.statistics()["cache_bytes"] <= 9 << 20
    raft = make_raft(log, 1, applied=5)
    raft.campaign()  # its last commit index was never flushed
    committed = settle(log, raft)[:-1]
    assert [data[:1] for _, _, _, data in committed[1:]] == [bytes([number]) for number in range(100)]
    log.close()


def test_a_closed_log_refuses(kind: Kind) -> None:
    log = kind.make()
    raft = elected(log)
    log.close()
    log.close()
    for call in (log.flush, log.completed, log.sync, log.groups, raft.ready, raft.tick):
        with pytest.raises(LogError, match="closed"):
            call()


def test_an_empty_log_reopens(kind: Kind) -> None:
    log = kind.reopen(kind.make())
    assert log.groups() == []
    assert log.completed() == 0
    log.close()


def test_in_memory_a_crash_keeps_a_prefix_of_what_was_not_synced() -> None:
    kept = set()
    for seed in range(50):
        log = Log.in_memory(1)
        log.put_meta(1, b"0", b"synced")
        log.flush()
        log.sync()
        for number in range(1, 5):
            log.put_meta(1, b"%d" % number, b"flushed")
            log.flush()
        log.put_meta(1, b"9", b"not even flushed")
        survivor = log.crash(seed)
        present = [number for number in range(10) if survivor.get_meta(1, b"%d" % number) is not None]
        assert present == list(range(len(present)))
        kept.add(len(present))
        with pytest.raises(LogError, match="crashed"):
            log.flush()
    assert kept == {1, 2, 3, 4, 5}


def test_in_memory_a_flipped_bit_is_found() -> None:
    assert not Log.in_memory(1).flip_bit(1)
    for seed in range(200):
        log = Log.in_memory(seed)
        raft = elected(log)
        raft.propose(b"some payload")
        settle(log, raft)
        log.put_meta(GROUP, b"key", b"value")
        log.flush()
        log.sync()
        assert log.flip_bit(seed)
        survivor = log.crash(seed)
        with pytest.raises(LogDamaged):
            make_raft(survivor, 1, applied=5)
        with pytest.raises(LogDamaged):
            survivor.get_meta(GROUP, b"key")
