"""The heap of what expires, against a dictionary; and that no single change of a million keys is long."""

from __future__ import annotations

import gc
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.core.state.keyspace import expiries
from riverbus.core.state.keyspace.expiries import Expiries
from riverbus.core.state.keyspace.keys import NO_EXPIRY, StringKey

NAMES = [b"%d" % number for number in range(12)]
CHANGES = st.tuples(st.sampled_from(NAMES), st.sampled_from([NO_EXPIRY, 1, 1, 2, 5, 30]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), CHANGES),
        st.tuples(st.just("new"), CHANGES),
        st.tuples(st.just("del"), st.sampled_from(NAMES)),
        st.tuples(st.just("wait"), st.integers(0, 3)),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=200,
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, tidy_steps=st.integers(1, 3))
def test_what_is_due_comes_in_order_once(steps: list[tuple[str, object]], tidy_steps: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expiries, "SLACK", 0)
        patch.setattr(expiries, "TIDY_STEPS", tidy_steps)
        there, keys = dict[bytes, StringKey](), Expiries()
        now_ms = 0

        def delete(name: bytes) -> None:
            key = there.pop(name, None)
            if key is not None and key.expire_ms != NO_EXPIRY:
                keys.leave(there.get)

        for what, about in steps:
            if isinstance(about, bytes):
                delete(about)
            elif isinstance(about, tuple):
                name, wait_ms = about
                at_ms = wait_ms if wait_ms == NO_EXPIRY else now_ms + wait_ms
                if what == "new":
                    delete(name)
                if name in there:
                    keys.change(there[name], at_ms, there.get)
                else:
                    key = there[name] = StringKey(name, 0, 0, b"", at_ms)
                    if at_ms != NO_EXPIRY:
                        keys.enter(key)
            elif what == "clear":
                there.clear()
                keys.clear()
            else:
                assert isinstance(about, int)
                now_ms += about
                due = sorted((key.expire_ms, key.name) for key in there.values() if 0 <= key.expire_ms <= now_ms)
                for place in due:
                    popped = keys.pop_due(now_ms, there.get)
                    assert popped is not None
                    assert (popped.expire_ms, popped.name) == place
                    del there[popped.name]
                    keys.leave(there.get)
                assert keys.pop_due(now_ms, there.get) is None
            expiring = [key for key in there.values() if key.expire_ms != NO_EXPIRY]
            keys.invariants(list(expiring))
            assert keys.next_ms is not None or not expiring
            assert all(keys.next_ms <= key.expire_ms for key in expiring if keys.next_ms is not None)


def test_no_change_of_a_million_keys_is_long() -> None:
    there = {b"%d" % at: StringKey(b"%d" % at, 0, 0, b"", 10**9 + at) for at in range(1_000_000)}
    keys = Expiries()
    for key in there.values():
        keys.enter(key)
    worst_s = 0.0
    gc.collect()
    gc.disable()
    try:
        for at in range(600_000):
            begun = time.thread_time()
            del there[b"%d" % at]
            keys.leave(there.get)
            worst_s = max(worst_s, time.thread_time() - begun)
    finally:
        gc.enable()
    print(f"the longest {worst_s * 1000:.1f} ms")
    assert worst_s < 0.02
