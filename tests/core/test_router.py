"""Route: each publish is told once how it ended, and never wrongly."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverbus.core.bus import Bus
from riverbus.core.entries import encode_entry
from riverbus.core.router import Route
from riverbus.core.rules import Rules
from riverbus.messages import BusError, Kind, MessageId, NotAccepted, OutcomeUnknown

ORIGIN = 77
LEADER = (1, 6)
NEXT_LEADER = (2, 7)


class Waiter:
    def __init__(self) -> None:
        self.outcomes: list[MessageId | BusError] = []
        self.abandoned = False

    def published(self, first: MessageId, receivers: int) -> None:
        self.outcomes.append(first)

    def failed(self, error: BusError) -> None:
        self.outcomes.append(error)

    def is_abandoned(self) -> bool:
        return self.abandoned


class Log:
    """Applies what a leader would have committed, and tells the route, as the engine does."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.bus = Bus(Rules(), 5)

    def apply(self, *batches: bytes) -> int:
        index = self.bus.applied_index + 1
        applied = self.bus.apply(index, encode_entry(1000 + index, list(batches)))
        for result in applied.results:
            self.route.on_applied(result.seq, result.runs, lambda _: 0)
        self.route.on_entry(index)
        self.route.invariants()
        return index


def new_route() -> Route:
    seqs = count(1)
    return Route(ORIGIN, lambda: next(seqs))


def submit(route: Route, channel: bytes = b"c", payloads: tuple[bytes, ...] = (b"x",), deadline: float = 1.0) -> Waiter:
    waiter = Waiter()
    route.submit(channel, Kind.PUBLISH, list(payloads), waiter, deadline)
    return waiter


def take(route: Route, target: tuple[int, int] = LEADER) -> tuple[int, bytes]:
    batch = route.next_batch(target)
    assert batch is not None
    return batch


def test_publishes_of_one_channel_share_a_run_and_get_consecutive_ids() -> None:
    route = new_route()
    waiters = [submit(route, payloads=(b"a", b"b")), submit(route), submit(route, channel=b"d"), submit(route)]
    _, batch = take(route)
    assert route.next_batch(LEADER) is None
    Log(route).apply(batch)
    ids = [waiter.outcomes for waiter in waiters]
    assert ids == [[MessageId(1006, 0)], [MessageId(1006, 2)], [MessageId(1006, 0)], [MessageId(1006, 3)]]


def test_another_entry_at_the_named_index_means_not_accepted() -> None:
    route = new_route()
    waiter = submit(route)
    seq, _ = take(route)
    log = Log(route)
    route.on_proposed(seq, 6, log.bus.applied_index)
    assert waiter.outcomes == []
    log.apply()
    assert [type(outcome) for outcome in waiter.outcomes] == [NotAccepted]


def test_a_named_index_that_was_applied_before_means_not_accepted() -> None:
    route = new_route()
    waiter = submit(route)
    seq, _ = take(route)
    log = Log(route)
    log.apply()
    route.on_proposed(seq, 6, log.bus.applied_index)
    assert [type(outcome) for outcome in waiter.outcomes] == [NotAccepted]


def test_what_a_snapshot_hides_is_unknown_whether_named_before_or_after() -> None:
    route = new_route()
    named_before, named_after = submit(route), Waiter()
    first, _ = take(route)
    route.on_proposed(first, 10, 5)
    route.submit(b"c", Kind.PUBLISH, [b"y"], named_after, 1.0)
    second, _ = take(route)
    route.on_snapshot(20)
    route.on_proposed(second, 15, 20)
    assert [type(outcome) for outcome in named_before.outcomes] == [OutcomeUnknown]
    assert [type(outcome) for outcome in named_after.outcomes] == [OutcomeUnknown]


def test_out_of_time_in_the_queue_is_not_accepted_and_after_it_unknown() -> None:
    route = new_route()
    flying = submit(route)
    take(route)
    waiting = submit(route)
    route.expire(0.5)
    assert flying.outcomes == waiting.outcomes == []
    route.expire(1.0)
    assert [type(outcome) for outcome in flying.outcomes] == [OutcomeUnknown]
    assert [type(outcome) for outcome in waiting.outcomes] == [NotAccepted]
    assert route.pending_bytes == 0


def test_an_abandoned_publish_is_dropped_before_it_is_proposed() -> None:
    route = new_route()
    gone, stays = submit(route, payloads=(b"gone",)), submit(route, payloads=(b"stays",))
    gone.abandoned = True
    _, batch = take(route)
    assert b"gone" not in batch
    Log(route).apply(batch)
    assert [type(outcome) for outcome in gone.outcomes] == [NotAccepted]
    assert stays.outcomes == [MessageId(1006, 0)]


def test_nothing_but_abandoned_publishes_makes_no_batch() -> None:
    route = new_route()
    submit(route).abandoned = True
    assert route.next_batch(LEADER) is None
    route.invariants()


@pytest.mark.parametrize("payload", [b"", b"x" * 1000])
def test_batches_are_bounded_by_bytes_whatever_the_payloads_size(payload: bytes) -> None:
    route = new_route()
    waiters = [submit(route, payloads=(payload,) * 1000) for _ in range(100)]
    log, batches = Log(route), 0
    while (batch := route.next_batch(LEADER)) is not None:
        assert len(batch[1]) < 2 * 1024 * 1024
        log.apply(batch[1])
        batches += 1
    assert batches > 1
    assert all(len(waiter.outcomes) == 1 for waiter in waiters)


@given(st.lists(st.sampled_from(["submit", "take", "apply", "lose", "reject", "expire", "abandon"]), max_size=60))
def test_each_waiter_is_told_exactly_once_whatever_happens(actions: list[str]) -> None:
    route = new_route()
    log = Log(route)
    waiters: list[Waiter] = []
    taken: list[tuple[int, bytes]] = []
    now = 0.0
    for action in actions:
        if action == "submit":
            waiters.append(submit(route, deadline=now + 1.0))
        elif action == "take" and (batch := route.next_batch(LEADER)) is not None:
            taken.append(batch)
        elif action == "apply" and taken:
            seq, batch_bytes = taken.pop(0)
            route.on_proposed(seq, log.bus.applied_index + 1, log.bus.applied_index)
            log.apply(batch_bytes)
        elif action == "lose" and taken:
            seq, _ = taken.pop(0)
            route.on_proposed(seq, log.bus.applied_index + 1, log.bus.applied_index)
            log.apply()
        elif action == "reject" and taken:
            route.on_rejected(taken.pop(0)[0], "BUSY", "no")
        elif action == "expire":
            now += 0.6
            route.expire(now)
        elif action == "abandon" and waiters:
            waiters[-1].abandoned = True
        route.invariants()
    route.next_batch(LEADER)
    route.expire(now + 10)
    assert [len(waiter.outcomes) for waiter in waiters] == [1] * len(waiters)
    assert route.pending_bytes == 0


def test_a_batch_refused_by_a_former_leader_goes_to_the_next_one_in_order() -> None:
    route = new_route()
    waiters = [submit(route, payloads=(b"1",))]
    first, _ = take(route)
    waiters.append(submit(route, payloads=(b"2",)))
    second, _ = take(route)
    waiters.append(submit(route, payloads=(b"3",)))
    route.on_rejected(first, "CLUSTERDOWN", "leads no more")
    assert route.next_batch(LEADER) is None, "the refused target is not asked again"
    route.on_rejected(second, "CLUSTERDOWN", "leads no more")
    log = Log(route)
    log.apply(take(route, NEXT_LEADER)[1])
    assert [waiter.outcomes for waiter in waiters] == [[MessageId(1006, seq)] for seq in range(3)]


def test_a_refused_batch_is_not_accepted_when_later_ones_went_to_the_next_leader() -> None:
    route = new_route()
    early = submit(route)
    seq, _ = take(route)
    late = submit(route)
    _, batch = take(route, NEXT_LEADER)
    route.on_rejected(seq, "CLUSTERDOWN", "leads no more")
    Log(route).apply(batch)
    assert [type(outcome) for outcome in early.outcomes] == [NotAccepted]
    assert late.outcomes == [MessageId(1006, 0)]


def test_what_was_returned_runs_out_of_time_as_not_accepted() -> None:
    route = new_route()
    waiter = submit(route)
    seq, _ = take(route)
    route.on_rejected(seq, "CLUSTERDOWN", "leads no more")
    route.expire(1.0)
    assert [type(outcome) for outcome in waiter.outcomes] == [NotAccepted]
