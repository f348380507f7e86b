"""C13 and C14, which look at logs and terms: each finds what it is there for, and takes what Raft and disks may do."""

from __future__ import annotations

from collections.abc import Callable

from riverbus._native import FOLLOWER, LEADER
from riverbus.core.state.bus import Applied
from riverbus.sim.observer import LogState, Observer

NOTHING = Applied(0, [])
OLD = LogState(batch=4, term=7, vote=2, commit=20, last=22, last_term=7)
NEWER = LogState(batch=5, term=7, vote=2, commit=21, last=24, last_term=7)


def recovered(found: LogState, *, durable_batch: int = 4, flushed: tuple[LogState, ...] = (OLD,)) -> list[str]:
    observer = Observer()
    for state in flushed:
        observer.on_flushed(1, 0, state)
    observer.on_recovered(1, 0, durable_batch, found)
    return [violation.rule for violation in observer.violations]


def log_of(terms: dict[int, int]) -> Callable[[int], int | None]:
    return lambda index: terms.get(index)


def test_what_was_synced_is_there_again() -> None:
    assert recovered(OLD) == []
    assert recovered(OLD._replace(commit=21)) == []  # a commit index alone travels with any batch


def test_what_was_not_synced_may_be_there_or_not() -> None:
    assert recovered(OLD, flushed=(OLD, NEWER)) == []
    assert recovered(NEWER, flushed=(OLD, NEWER)) == []
    overwritten = NEWER._replace(term=8, vote=0, last=21, last_term=8)
    assert recovered(overwritten, flushed=(OLD, overwritten)) == []


def test_term_vote_and_commit_index_never_go_back() -> None:
    assert recovered(OLD._replace(term=6)) == ["C13"]
    assert recovered(OLD._replace(vote=3)) == ["C13"]
    assert recovered(OLD._replace(vote=0)) == ["C13"]
    assert recovered(OLD._replace(commit=19)) == ["C13"]


def test_a_log_that_lost_its_tail_or_was_mixed_is_found() -> None:
    assert recovered(OLD._replace(last=21)) == ["C14"]
    assert recovered(OLD._replace(last_term=6)) == ["C14"]
    assert recovered(OLD, durable_batch=5, flushed=(OLD, NEWER)) == ["C13", "C14"]
    assert recovered(NEWER._replace(last=23), flushed=(OLD, NEWER)) == ["C14"]


def test_two_leaders_of_a_term_are_found() -> None:
    observer = Observer()
    observer.on_role(1, 0, LEADER, 7, 1)
    observer.on_role(2, 1, LEADER, 7, 2)  # of another shard
    observer.on_role(2, 0, FOLLOWER, 7, 1)
    observer.on_role(1, 0, LEADER, 7, 1)
    assert observer.violations == []
    observer.on_role(2, 0, LEADER, 7, 2)
    assert [violation.rule for violation in observer.violations] == ["C13"]


def test_an_applied_entry_of_two_terms_is_found() -> None:
    observer = Observer()
    observer.on_applied(1, 0, 9, 7, b"hash", NOTHING)
    observer.on_applied(2, 0, 9, 7, b"hash", NOTHING)
    observer.on_applied(3, 0, 9, None, b"hash", NOTHING)
    assert observer.violations == []
    observer.on_applied(3, 0, 9, 8, b"hash", NOTHING)
    assert [violation.rule for violation in observer.violations] == ["C13"]


def test_a_leader_without_what_was_applied_is_found() -> None:
    observer = Observer()
    observer.on_applied(1, 0, 9, 7, b"hash", NOTHING)
    observer.on_leading(2, 0, 8, log_of({9: 7, 10: 8}), 10)
    observer.on_leading(2, 0, 8, log_of({}), 10)  # compacted away: it is in the snapshot
    observer.on_leading(2, 0, 6, log_of({}), 5)  # of a term before that: deposed, and does not know it
    assert observer.violations == []
    observer.on_leading(2, 0, 8, log_of({8: 7}), 8)
    observer.on_leading(2, 0, 8, log_of({9: 6}), 9)
    assert [violation.rule for violation in observer.violations] == ["C13", "C13"]


def test_a_replica_whose_state_differs_is_found() -> None:
    observer = Observer()
    observer.on_applied(1, 0, 9, 7, b"hash", NOTHING)
    observer.on_applied(2, 0, 9, 7, b"other", NOTHING)
    assert [violation.rule for violation in observer.violations] == ["C12"]
