"""Route: each publish is told once how it ended, and never wrongly."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverbus.commands import Command, Publish
from riverbus.core.consensus.router import Route, fault_of
from riverbus.core.state.bus import Bus
from riverbus.core.state.entries import DamagedEntry, encode_entry
from riverbus.core.state.rules import Rules
from riverbus.keyspace_commands import SetString, Transaction
from riverbus.limits import MIB
from riverbus.messages import BusError, Kind, MessageId, NotAccepted, OutcomeUnknown, Overloaded, Status

ORIGIN = 77
LEADER = (1, 6)
NEXT_LEADER = (2, 7)


class Waiter:
    def __init__(self) -> None:
        self.outcomes: list[object] = []  # ids, replies, errors
        self.abandoned = False

    def published(self, run: MessageId, offset: int, receivers: int) -> None:
        self.outcomes.append(run.plus(offset))

    def written(self, reply: object) -> None:
        self.outcomes.append(reply)

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
            self.route.on_applied(result.seq, result.results, lambda _: 3)
        self.route.on_entry(index)
        self.route.invariants()
        return index


def new_route(pending_bytes_max: int = MIB) -> Route:
    seqs = count(1)
    return Route(ORIGIN, lambda: next(seqs), pending_bytes_max)


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


def submit_write(route: Route, noun: Command, deadline: float = 1.0) -> Waiter:
    waiter = Waiter()
    route.submit_write(noun, waiter, deadline)
    return waiter


def test_writes_and_publishes_travel_together_in_their_order() -> None:
    route = new_route()
    waiters = [
        submit_write(route, SetString(b"k", b"1")),
        submit(route),
        submit(route),
        submit_write(route, SetString(b"k", b"2", get=True)),
        submit(route),
        submit_write(route, Transaction((), (Publish(b"c", Kind.PUBLISH, [b"x"]), SetString(b"k", b"3", get=True)))),
    ]
    _, batch = take(route)
    Log(route).apply(batch)
    outcomes = [outcome for waiter in waiters for outcome in waiter.outcomes]
    assert outcomes == [Status("OK"), MessageId(1006, 0), MessageId(1006, 1), b"1", MessageId(1006, 2), [3, b"2"]]
    assert route.pending_bytes == 0


def test_a_write_is_told_of_what_publishes_are_told_of() -> None:
    route = new_route()
    abandoned, late = submit_write(route, SetString(b"k", b"1")), submit_write(route, SetString(b"k", b"2"), 2.0)
    abandoned.abandoned = True
    seq, _ = take(route)
    assert isinstance(abandoned.outcomes[0], NotAccepted)
    route.on_rejected(seq, NotAccepted.code, "leads no more")
    route.invariants()
    _, batch = take(route, NEXT_LEADER)
    route.expire(3.0)
    assert isinstance(late.outcomes[0], OutcomeUnknown)
    Log(route).apply(batch)
    assert len(late.outcomes) == 1
    queued = submit_write(route, SetString(b"k", b"3"), 4.0)
    route.expire(5.0)
    assert isinstance(queued.outcomes[0], NotAccepted)
    assert route.pending_bytes == 0


def test_a_write_that_no_replica_could_read_is_refused_here() -> None:
    route = new_route()
    waiter = submit_write(route, SetString(b"k" * 2000, b"1"))
    assert str(waiter.outcomes[0]).startswith("ERR the command cannot be replicated: ")
    assert not route.is_waiting


def test_a_batch_of_a_peer_is_read_before_it_is_proposed() -> None:
    route = new_route()
    submit_write(route, SetString(b"k", b"1"))
    _, batch = take(route)
    assert fault_of(batch) is None
    with pytest.raises(DamagedEntry):
        fault_of(batch[:-1])
    at = batch.index(b"\x03")  # the opcode of a write, then its code
    newer = batch[: at + 1] + b"\xff" + batch[at + 2 :]
    assert "older version" in str(fault_of(newer))


class EarlyWaiter(Waiter):
    def held(self, receivers: int) -> None:
        self.outcomes.append(("held", receivers))


def submit_early(route: Route, channel: bytes = b"c") -> EarlyWaiter:
    waiter = EarlyWaiter()
    route.submit_early(channel, Kind.PUBLISH, [b"x"], waiter, 1.0)
    return waiter


def test_what_a_majority_has_in_memory_is_told_once_and_how_it_ended_after_that() -> None:
    route = new_route()
    log = Log(route)
    early, plain = submit_early(route), submit(route)
    seq, batch = take(route)
    route.on_held(LEADER[1], 6, lambda *_: 4)
    assert early.outcomes == []  # the leader has not said where it is
    route.on_proposed(seq, 6, 5)
    for _ in range(2):
        route.on_held(LEADER[1], 6, lambda *_: 4)
    assert early.outcomes == [("held", 4)]
    assert plain.outcomes == []
    log.apply(batch)
    assert early.outcomes[1:] == [MessageId(1006, 0)]
    assert plain.outcomes == [MessageId(1006, 1)]


def test_only_what_the_leader_of_that_term_has_up_to_there_is_told() -> None:
    route = new_route()
    first = submit_early(route)
    route.on_proposed(take(route)[0], 6, 5)
    second = submit_early(route)
    route.on_proposed(take(route)[0], 8, 5)
    route.on_held(LEADER[1] + 1, 9, lambda *_: 0)
    assert first.outcomes == []
    route.on_held(LEADER[1], 7, lambda *_: 0)
    assert first.outcomes == [("held", 0)]
    assert second.outcomes == []


def test_an_early_answer_whose_entry_was_lost_is_told_so_too() -> None:
    route = new_route()
    log = Log(route)
    early = submit_early(route)
    route.on_proposed(take(route)[0], 6, 5)
    route.on_held(LEADER[1], 6, lambda *_: 0)
    log.apply()  # another leader's entry stands there
    assert early.outcomes[0] == ("held", 0)
    assert isinstance(early.outcomes[1], NotAccepted)
    assert route.pending_bytes == 0


def test_what_a_full_route_has_no_room_for_is_refused_until_something_was_committed() -> None:
    route = new_route(pending_bytes_max=100)
    first = submit(route, payloads=(b"x" * 100,))
    refused = submit(route), submit_write(route, SetString(b"k", b"1"))
    assert [type(outcome) for waiter in refused for outcome in waiter.outcomes] == [Overloaded, Overloaded]
    _, batch = take(route)
    assert [type(outcome) for outcome in submit(route).outcomes] == [Overloaded]
    Log(route).apply(batch)
    assert first.outcomes == [MessageId(1006, 0)]
    assert submit(route).outcomes == submit_write(route, SetString(b"k", b"1")).outcomes == []
    route.invariants()
