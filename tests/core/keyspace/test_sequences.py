"""Numbered publishes (BUS.PUBLISHRUN): one effect for each number, however runs are cut, repeated and mixed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.commands import XLen
from riverbus.core.state.keyspace import sequences
from riverbus.core.state.keyspace.sequences import FORGOTTEN, Sequences, Stretch
from riverbus.core.state.snapshot import BusRestore
from riverbus.keyspace_commands import PublishRun, Transaction
from riverbus.limits import PUBLISH_KEYS_MS
from riverbus.messages import MessageId
from tests.core.keyspace.shard import FOREVER, Shard

OLDER = "UNKNOWN the sequence is older than the idempotency window: the message may be in the channel already"


def run(first: int, count: int, producer: bytes = b"p", channel: bytes = b"c") -> PublishRun:
    return PublishRun(channel, producer, first, tuple(b"%d" % at for at in range(first, first + count)))


def texts(*seqs: int, ms: int) -> list[bytes]:
    return [b"%d-%d" % (ms, seq) for seq in seqs]


def test_a_run_that_is_sent_again_is_answered_by_the_ids_of_then() -> None:
    shard = Shard()
    ms = shard.at_ms
    assert shard.do(run(0, 3)) == texts(0, 1, 2, ms=ms)
    assert shard.last is not None
    [result] = shard.last.runs
    assert (result.run.channel, result.run.payloads(), result.first) == (b"c", [b"0", b"1", b"2"], MessageId(ms, 0))
    shard.tick(9)
    assert shard.do(run(0, 3)) == texts(0, 1, 2, ms=ms)
    assert shard.last.runs == []
    assert shard.do(run(1, 4)) == texts(1, 2, ms=ms) + texts(0, 1, ms=shard.at_ms)
    assert [result.run.payloads() for result in shard.last.runs] == [[b"3", b"4"]]
    assert shard.do(run(0, 3, b"q")) == texts(2, 3, 4, ms=shard.at_ms)
    assert shard.ask(XLen(b"c")) == 8


def test_a_run_that_comes_late_fills_its_hole() -> None:
    shard = Shard()
    shard.do(run(5, 2))
    shard.tick(1)
    shard.do(run(9, 1))
    shard.tick(1)
    assert shard.do(run(3, 8)) == (
        texts(0, 1, ms=shard.at_ms)
        + texts(0, 1, ms=shard.at_ms - 2)
        + texts(2, 3, ms=shard.at_ms)
        + texts(0, ms=shard.at_ms - 1)
        + texts(4, ms=shard.at_ms)
    )
    assert shard.ask(XLen(b"c")) == 8


def test_what_is_older_than_the_window_is_refused_not_published_again() -> None:
    shard = Shard()
    shard.do(run(0, 2))
    shard.tick(PUBLISH_KEYS_MS)
    ids = shard.do(run(2, 1))
    assert shard.do(run(1, 2)) == [OLDER, *ids] if isinstance(ids, list) else False
    assert shard.ask(XLen(b"c")) == 3


def test_a_transaction_may_hold_a_run() -> None:
    shard = Shard()
    assert shard.do(Transaction((), (run(0, 2), run(0, 2)))) == [texts(0, 1, ms=shard.at_ms)] * 2


def test_runs_of_one_entry_that_go_on_are_remembered_as_one() -> None:
    shard = Shard()
    for first in range(0, 100, 10):
        shard.do(run(first, 10))
    assert shard.bus._store.keyspace.sequences.count == 1


def test_a_snapshot_has_the_window_and_goes_on_forgetting_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "PUBLISH_STRETCHES_MAX", 20)
    shard = Shard()
    for at in range(30):
        shard.tick(1)
        shard.do(run(3 * at, 2, b"%d" % (at % 3)))
    writer = shard.bus.begin_snapshot()
    shard.do(run(1000, 2, b"1"))  # the writer has copies of what changes
    restore = BusRestore(FOREVER)
    while (piece := writer.next_slice(512)) is not None:
        restore.feed(piece)
    other = Shard()
    other.bus = restore.finish()
    other.bus.invariants()
    other.bus.apply(other.bus.applied_index + 1, shard.entries[-1])
    for at in range(30):
        shard.tick(1)
        other.at_ms = shard.at_ms - 1
        other.tick(1)
        for each in (shard, other):
            each.do(run(2000 + 3 * at, 2, b"%d" % (at % 4)))
        assert shard.bus.running_hash == other.bus.running_hash
    assert shard.do(run(0, 1, b"0")) == other.do(run(0, 1, b"0"))


RUNS = st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.integers(0, 40), st.integers(1, 6)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(runs=RUNS, most=st.integers(2, 12))
def test_each_number_has_one_id_or_is_refused(runs: list[tuple[bytes, int, int]], most: int) -> None:
    """Against a dictionary that forgets nothing: known numbers agree, forgotten ones are never called new."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "PUBLISH_STRETCHES_MAX", most)
        known, model = Sequences(), dict[tuple[bytes, int], MessageId]()
        for time_ms, (name, first, count) in enumerate(runs, 1):
            spans = known.split(name, first, count)
            assert [span.offset for span in spans] == [
                sum(span.size for span in spans[:at]) for at in range(len(spans))
            ]
            assert sum(span.size for span in spans) == count
            for offset, some, id_ in spans:
                numbers = range(first + offset, first + offset + some)
                if isinstance(id_, MessageId):
                    assert [model[name, each] for each in numbers] == [id_.plus(at) for at in range(some)]
                elif id_ is None and name in known.producers:
                    assert not any((name, each) in model for each in numbers)
            for offset, some, id_ in spans:
                if id_ is None:
                    made = MessageId(time_ms, offset)
                    model |= {(name, first + offset + at): made.plus(at) for at in range(some)}
                    known.add(name, first + offset, some, made, time_ms, 1000, 0)
                    known.invariants()
            assert known.count <= most
            if not known.producers.keys() >= {b"a", b"b"}:
                model = {key: id_ for key, id_ in model.items() if key[0] in known.producers}


def test_a_snapshot_that_does_not_add_up_is_refused() -> None:
    known = Sequences()
    known.restore(b"p", 0, [Stretch(5, 5, 1, 0, 1, 0)])
    with pytest.raises(ValueError, match="not in order"):
        known.restore(b"p", 0, [Stretch(9, 5, 1, 0, 1, 1)])
    known.restore(b"q", 0, [Stretch(5, 5, 1, 0, 1, 0)])
    with pytest.raises(ValueError, match="two runs of one number"):
        known.finish()
    assert FORGOTTEN == "forgotten"
