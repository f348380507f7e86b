"""The fast window of a channel does what the obvious list does, whatever is called in any order."""

from __future__ import annotations

from riverbus.fuzz import assert_equivalent
from tests.fuzz.stores import FastStore, ListStore, Store, count_is_within_the_limit


def test_the_fast_store_does_what_the_list_does() -> None:
    figures = assert_equivalent(
        Store, reference=ListStore, test=FastStore, invariants=[count_is_within_the_limit], examples=120
    )
    assert figures.runs >= 120
    assert set(figures.calls_by_member) >= {"put", "put_all", "entries_since", "lost_since", "as_list", "__iter__"}
