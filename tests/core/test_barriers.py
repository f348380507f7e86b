"""Barriers: a read waits for its index, is asked again when nobody answers, and gives up in time."""

from __future__ import annotations

from riverbus.core.consensus.barriers import Barriers
from riverbus.messages import BusError, NotAccepted


class Shard:
    def __init__(self) -> None:
        self.applied = 10
        self.asked: list[bytes] = []
        self.told: list[BusError | None] = []
        self.barriers = Barriers(self._ask, lambda: self.applied)

    def _ask(self, context: bytes) -> bool:
        self.asked.append(context)
        return True

    def read(self, deadline: float = 1.0) -> None:
        self.barriers.add(self.told.append, deadline)


def test_reads_of_a_turn_share_a_request_and_wait_until_its_index_is_applied() -> None:
    shard = Shard()
    shard.read()
    shard.read()
    shard.barriers.submit(0.0)
    assert len(shard.asked) == 1
    shard.barriers.on_ready(shard.asked[0], 12)
    assert shard.told == []
    shard.applied = 11
    shard.barriers.on_applied()
    assert shard.told == []
    shard.applied = 12
    shard.barriers.on_applied()
    assert shard.told == [None, None]


def test_an_index_that_is_applied_already_releases_at_once() -> None:
    shard = Shard()
    shard.read()
    shard.barriers.submit(0.0)
    shard.barriers.on_ready(shard.asked[0], 10)
    assert shard.told == [None]


def test_a_request_without_answer_is_made_again_and_only_one_answer_counts() -> None:
    shard = Shard()
    shard.read()
    shard.barriers.submit(0.0)
    shard.barriers.on_tick(0.1)
    assert len(shard.asked) == 1
    shard.barriers.on_tick(0.3)
    assert len(shard.asked) == 2
    shard.barriers.on_ready(shard.asked[1], 5)
    shard.barriers.on_ready(shard.asked[0], 5)
    assert shard.told == [None]


def test_out_of_time_the_read_fails_whether_asked_or_waiting_for_its_index() -> None:
    shard = Shard()
    shard.read()
    shard.barriers.submit(0.0)
    shard.read()
    shard.barriers.submit(0.0)
    shard.barriers.on_ready(shard.asked[1], 99)
    shard.barriers.on_tick(1.0)
    assert [type(error) for error in shard.told] == [NotAccepted, NotAccepted]
    shard.applied = 99
    shard.barriers.on_applied()
    assert len(shard.told) == 2
