"""A state that was replaced is freed by counting references alone, bit by bit: nobody collects its cycles."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from riverbus.core.state.bus import Bus
from riverbus.core.state.entries import BatchBuilder, encode_entry
from riverbus.core.state.rules import Rules
from riverbus.core.state.snapshot import BusRestore, DamagedSnapshot

CHANNELS = 6_000


def filled() -> Bus:
    bus = Bus(Rules())
    builder = BatchBuilder(1)
    for number in range(CHANNELS):
        builder.add_run(b"channel %d" % number, 0, [b"x" * 500])
    bus.apply(1, encode_entry(1_000, [builder.finish(1)]))
    return bus


def grown_bytes(made: Bus | BusRestore) -> int:
    """What is still held of it after it was released."""
    steps = 1
    while made.release_some():
        steps += 1
    assert steps > 2, "a large state is freed in several steps"
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture(autouse=True)
def no_collector() -> object:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


def test_a_released_state_is_gone() -> None:
    before = tracemalloc.get_traced_memory()[0]
    bus = filled()
    assert tracemalloc.get_traced_memory()[0] - before > CHANNELS * 500
    left = grown_bytes(bus)
    assert left - before < 200_000


def test_a_restore_that_failed_is_gone() -> None:
    source = filled()
    writer = source.begin_snapshot()
    slices = []
    while (framed := writer.next_slice(100_000)) is not None:
        slices.append(framed)
    before = tracemalloc.get_traced_memory()[0]
    restore = BusRestore(Rules())
    for framed in slices[:-1]:
        restore.feed(framed)
    with pytest.raises(DamagedSnapshot):
        restore.finish()
    assert tracemalloc.get_traced_memory()[0] - before > CHANNELS * 500
    left = grown_bytes(restore)
    assert left - before < 200_000
