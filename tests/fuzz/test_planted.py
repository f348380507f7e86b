"""Three bugs planted in the fast store: each is found, and shrunk to a few calls, in less than ten seconds."""

from __future__ import annotations

import time

import pytest

from riverbus.fuzz import Disagreement, assert_equivalent
from riverbus.fuzz.printing import why_not_reproduced
from tests.fuzz.stores import EqualIdAccepted, FastStore, ListStore, NewestSinceNewest, OneOverTheLimit, Store

FOUND_S_MAX = 10.0
CALLS_MAX = 6


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("planted", [OneOverTheLimit, EqualIdAccepted, NewestSinceNewest])
def test_a_planted_bug_is_found_and_printed_as_a_short_test(planted: type[FastStore], seed: int) -> None:
    start = time.process_time()
    with pytest.raises(Disagreement) as caught:
        assert_equivalent(Store, reference=ListStore, test=planted, seed=seed)
    assert time.process_time() - start < FOUND_S_MAX
    found = caught.value
    lines = found.source.splitlines()
    assert 1 <= sum("both." in line for line in lines) == found.calls <= CALLS_MAX, found.source
    assert found.is_runnable
    assert found.source in str(found)
    assert not why_not_reproduced(found.source)
    assert why_not_reproduced(found.source.replace(planted.__name__, "FastStore")), "without the bug it must pass"


def test_the_same_seed_prints_the_same_test() -> None:
    printed = []
    for _ in range(2):
        with pytest.raises(Disagreement) as caught:
            assert_equivalent(Store, reference=ListStore, test=EqualIdAccepted, seed=7)
        printed.append(caught.value.source)
    assert printed[0] == printed[1]
