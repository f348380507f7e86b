"""Timers: what is due fires once, in order, and may schedule and cancel as it does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from riverbus.core.timers import Timer, Timers


@given(st.lists(st.integers(0, 20)), st.integers(0, 20))
def test_what_is_due_fires_in_order_of_time_then_of_scheduling(times: list[int], now: int) -> None:
    timers = Timers()
    fired: list[tuple[int, int]] = []
    for order, at in enumerate(times):
        timers.schedule(at, lambda key=(at, order): fired.append(key))  # type: ignore[misc]
    timers.fire(now)
    assert fired == sorted((at, order) for order, at in enumerate(times) if at <= now)
    later = [at for at in times if at > now]
    assert timers.next_at() == (min(later) if later else None)


def test_a_cancelled_timer_does_not_fire_and_is_not_waited_for() -> None:
    timers = Timers()
    fired: list[str] = []
    first = timers.schedule(1, lambda: fired.append("first"))
    timers.schedule(2, lambda: fired.append("second"))
    first.cancel()
    assert timers.next_at() == 2
    timers.fire(5)
    assert fired == ["second"]


def test_a_callback_may_cancel_another_that_is_due_and_schedule_a_new_one() -> None:
    timers = Timers()
    fired: list[str] = []
    second: Timer | None = None

    def first() -> None:
        assert second is not None
        second.cancel()
        timers.schedule(0, lambda: fired.append("new"))

    timers.schedule(1, first)
    second = timers.schedule(1, lambda: fired.append("second"))
    timers.fire(1)
    assert fired == []
    timers.fire(1)
    assert fired == ["new"]
