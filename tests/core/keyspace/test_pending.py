"""The pending entries of a group against a plain dict."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.core.state.keyspace import pending as module
from riverbus.core.state.keyspace.pending import Entry, Pending
from riverbus.messages import ID_MAX, ID_MIN, MessageId

some_ids = st.builds(MessageId, st.integers(0, 6), st.integers(0, 5))
id_lists = st.lists(some_ids, unique=True, max_size=12)
steps = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 12), st.integers(0, 3), st.integers(0, 2)),
    st.tuples(st.just("put"), some_ids, st.integers(0, 9), st.integers(0, 2)),
    st.tuples(st.just("remove"), id_lists),
    st.tuples(st.just("remove_consumer"), st.integers(0, 2)),
    st.tuples(st.just("freeze")),
)


@settings(max_examples=200, deadline=None)
@given(script=st.lists(steps, max_size=25), first=some_ids, last=some_ids, until_ms=st.integers(0, 9))
def test_it_is_a_sorted_map_and_frozen_copies_stay(
    script: list[tuple[object, ...]], first: MessageId, last: MessageId, until_ms: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ENTRIES", 4)
        pending, model, epoch = Pending(), dict[MessageId, Entry](), 0
        copies: list[tuple[Pending, list[Entry]]] = []
        for step in script:
            match step:
                case ("append", int(count), int(time_ms), int(consumer)):
                    start = max(model, default=MessageId(0, 0)).seq + 1
                    ms = max(model, default=MessageId(0, 0)).ms
                    new = [MessageId(ms, start + at) for at in range(count)]
                    columns = array("Q", [ms] * count), array("Q", [each.seq for each in new])
                    pending.append(*columns, time_ms, consumer, epoch)
                    model |= {each: Entry(each, time_ms, 1, consumer) for each in new}
                case ("put", MessageId() as id_, int(time_ms), int(consumer)):
                    pending.put(Entry(id_, time_ms, 7, consumer), epoch)
                    model[id_] = Entry(id_, time_ms, 7, consumer)
                case ("remove", list(ids)):
                    taken = pending.remove(ids, epoch)
                    gone = [model.pop(each) for each in ids if each in model]
                    assert sorted(taken) == sorted(each.consumer for each in gone)
                case ("remove_consumer", int(consumer)):
                    pending.remove_consumer(consumer, epoch)
                    model = {id_: each for id_, each in model.items() if each.consumer != consumer}
                case _:
                    copies.append((pending.frozen(), [model[id_] for id_ in sorted(model)]))
                    epoch += 1
            pending.invariants()
        in_order = [model[id_] for id_ in sorted(model)]
        assert list(pending.entries(ID_MIN, ID_MAX)) == in_order
        assert list(pending.entries(first, last)) == [each for each in in_order if first <= each.id <= last]
        assert list(pending.entries(first, last, 1)) == [
            each for each in in_order if first <= each.id <= last and each.consumer == 1
        ]
        assert pending.find(first) == model.get(first)
        idle = sorted((each.time_ms, each.id) for each in in_order if each.time_ms <= until_ms)
        for limit in (1, 3, None):
            found = pending.delivered_until(until_ms, limit)
            assert [(each.time_ms, each.id) for each in found] == idle[:limit]
        for copy, expected in copies:
            copy.invariants()
            assert list(copy.entries(ID_MIN, ID_MAX)) == expected
