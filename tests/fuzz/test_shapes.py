"""What the fuzzer can do, each with a bug that only it finds, and the test that it prints."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from riverbus.fuzz import Disagreement, Unusable, assert_equivalent, equivalence_test, hint, pair
from riverbus.fuzz.printing import why_not_reproduced
from tests.fuzz import shapes


def found(interface: Any, reference: Any, test: Any, **options: Any) -> str:
    """The test that is printed, after it was run by itself."""
    with pytest.raises(Disagreement) as caught:
        assert_equivalent(interface, reference=reference, test=test, examples=100, **options)
    assert caught.value.is_runnable, caught.value.source
    assert not why_not_reproduced(caught.value.source)
    return caught.value.source.partition("as both:\n")[2]


def test_results_of_earlier_calls_are_each_sides_own() -> None:
    calls = found(shapes.Tickets, shapes.CountedTickets, shapes.ReusableTickets)
    assert [line.partition("  #")[0].strip() for line in calls.splitlines()] == [
        "issue_1 = both.issue()",
        "both.redeem(issue_1)",
        "both.redeem(issue_1)",
    ]


def test_another_type_of_exception_is_a_difference() -> None:
    calls = found(shapes.Account, shapes.StrictAccount, shapes.OtherError)
    assert "StrictAccount raised Overdrawn(" in calls
    assert "OtherError raised ValueError(" in calls
    assert calls.count("both.") == 1


def test_another_member_of_an_enumeration_is_a_difference() -> None:
    assert "both.light()  # Lights returned <Light.RED: 1>; StuckLights returned <Light.GREEN: 2>" in found(
        shapes.Lights, shapes.Lights, shapes.StuckLights
    )


def test_an_implementation_that_exits_differs_and_does_not_end_the_search() -> None:
    assert "both.light()  # Lights returned <Light.RED: 1>; ExitingLights raised SystemExit(0)" in found(
        shapes.Lights, shapes.Lights, shapes.ExitingLights
    )


def test_another_message_is_one_only_when_it_is_asked_for() -> None:
    assert_equivalent(shapes.Account, reference=shapes.StrictAccount, test=shapes.OtherMessage, examples=40)
    assert "raised Overdrawn('no')" in found(
        shapes.Account, shapes.StrictAccount, shapes.OtherMessage, errors="message"
    )
    hints = {"pay": hint(errors="message")}
    assert "both.pay(1)" in found(shapes.Account, shapes.StrictAccount, shapes.OtherMessage, hints=hints)


def test_a_broken_invariant_is_a_difference() -> None:
    calls = found(shapes.Account, shapes.StrictAccount, shapes.LaxAccount, errors="any", compare=_anything)
    assert "StrictAccount raised" in calls or "LaxAccount broke the invariant" in calls
    with pytest.raises(Disagreement, match="reference broke the invariant balance_is_at_or_above_the_floor"):
        assert_equivalent(shapes.Account, reference=shapes.LaxAccount, test=shapes.LaxAccount, examples=40)


def test_an_invariant_of_both_sees_both() -> None:
    assert "broke the invariant _same_floor" in found(
        shapes.Account, shapes.StrictAccount, _LowerFloor, invariants=[_same_floor]
    )


def _anything(reference: object, test: object) -> bool:
    return True


def _same_floor(reference: shapes.StrictAccount, test: shapes.StrictAccount) -> bool:
    return reference.floor == test.floor


class _LowerFloor(shapes.StrictAccount):
    def __init__(self) -> None:
        super().__init__()
        self._floor = -1


def test_comparisons_forgive_what_they_should_and_no_more() -> None:
    assert_equivalent(shapes.Sums, reference=shapes.PlainSums, test=shapes.OtherSums, examples=60)
    assert "both.mean([1])" in found(shapes.Sums, shapes.PlainSums, shapes.WorseSums)


def test_async_iterators_and_nested_contexts_are_compared() -> None:
    assert_equivalent(shapes.Streams, reference=shapes.ListStreams, test=shapes.ListStreams, examples=40)
    calls = found(shapes.Streams, shapes.ListStreams, shapes.BackwardStreams)
    assert calls.count("both.put(") == 2
    assert "both.later()" in calls


def test_what_is_called_inside_a_context_is_printed_inside_a_with() -> None:
    calls = found(shapes.Streams, shapes.ListStreams, shapes.LeakyStreams)
    assert 'with both.held(""):\n            with both.held(""):' in calls


def test_a_generic_interface_takes_its_argument() -> None:
    calls = found(shapes.Box[int], shapes.OneBox, shapes.GrowingBox)
    assert calls.count("both.swap(") == 2
    with pytest.raises(Unusable, match=r"Box\.swap, parameter 'item'.*a type variable"):
        assert_equivalent(shapes.Box, reference=shapes.OneBox, test=shapes.OneBox)


test_a_helper_for_pytest = equivalence_test(
    shapes.Tickets, reference=shapes.CountedTickets, test=shapes.CountedTickets, examples=20
)


def test_what_cannot_be_imported_is_said() -> None:
    with pytest.raises(Disagreement) as caught:
        assert_equivalent(shapes.Tickets, reference=shapes.CountedTickets, test=lambda: shapes.ReusableTickets())
    assert not caught.value.is_runnable
    assert "# NOT RUNNABLE AS IT IS: test is " in caught.value.source
    assert "which cannot be imported" in caught.value.source
    assert "test=..." in caught.value.source


def test_what_differs_only_sometimes_is_said() -> None:
    _Fickle.calls = 0
    with pytest.raises(Disagreement, match="NOT REPRODUCED"):
        assert_equivalent(shapes.Tickets, reference=shapes.CountedTickets, test=_Fickle)


class _Fickle(shapes.CountedTickets):
    calls = 0

    def issue(self) -> shapes.Ticket:
        _Fickle.calls += 1
        return shapes.Ticket("") if _Fickle.calls == 20 else super().issue()


def test_a_pair_written_by_hand_stops_at_the_first_difference() -> None:
    with pair(shapes.Streams, reference=shapes.ListStreams, test=shapes.BackwardStreams) as both:
        both.put(1)
        both.later()
        with both.held("x") as depth:
            assert repr(depth) == "Paired(reference=1, test=1)"
            both.put(2)
        both.put(3)
        with pytest.raises(Disagreement, match=r"later\(\): ListStreams returned \[1, 3\]; Backward.* \[3, 1\]"):
            both.later()


def test_what_is_missing_is_said_before_any_call() -> None:
    class NoRedeem:
        def issue(self) -> str:
            return "A1"

    with pytest.raises(Unusable, match=r"NoRedeem has no redeem\(\), which Tickets asks for"):
        assert_equivalent(shapes.Tickets, reference=shapes.CountedTickets, test=NoRedeem)
    with pytest.raises(Unusable, match=r"Tickets has no member 'isue'; it has: issue, redeem"):
        assert_equivalent(
            shapes.Tickets, reference=shapes.CountedTickets, test=shapes.CountedTickets, hints={"isue": hint()}
        )
    with pytest.raises(Unusable, match="is abstract"):
        assert_equivalent(shapes.Tickets, reference=shapes.Tickets, test=shapes.CountedTickets)


def test_inside_a_running_loop_it_refuses_instead_of_comparing_nothing() -> None:
    async def story() -> None:
        with pytest.raises(Unusable, match="a loop of their own"):
            assert_equivalent(shapes.Streams, reference=shapes.ListStreams, test=shapes.ListStreams, examples=5)

    asyncio.run(story())


def test_how_many_calls_raised_is_counted() -> None:
    figures = assert_equivalent(
        shapes.Account, reference=shapes.StrictAccount, test=shapes.StrictAccount, examples=20, seed=1
    )
    assert 0 < figures.raised < figures.calls
