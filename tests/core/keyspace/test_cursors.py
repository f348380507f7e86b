"""Cursors of durable names in a shard's state: taken over, saved, given up, expired, bounded, and in snapshots."""

from __future__ import annotations

import pytest

from riverbus.core.state.keyspace import cursors
from riverbus.core.state.keyspace.codes import DamagedNoun, decode_noun, encode_noun
from riverbus.core.state.snapshot import BusRestore
from riverbus.durable_commands import (
    DurableCursor,
    DurableOpen,
    DurablePlace,
    DurableSave,
    DurableTarget,
    earlier,
    whole_ms,
)
from riverbus.messages import MessageId
from tests.core.keyspace.shard import FOREVER, START_MS, Shard, plain

KEEP_MS = 1000
C, P = DurableTarget("channel", b"c"), DurableTarget("pattern", b"*")


def opening(token: int, *targets: DurableTarget, name: bytes = b"n") -> DurableOpen:
    return DurableOpen(b"default", name, token, KEEP_MS, targets)


def save(token: int, target: DurableTarget, place: DurablePlace | None, name: bytes = b"n") -> DurableSave:
    return DurableSave((DurableCursor(b"default", name, token, KEEP_MS, target, place),))


def at(ms: int, seq: int = 0) -> DurablePlace:
    return DurablePlace(MessageId(ms, seq))


def test_a_new_cursor_is_where_its_shard_is() -> None:
    shard = Shard()
    first = shard.publish(b"c", b"1")
    shard.tick(5)
    assert shard.do(opening(1, C, P)) == plain([[[first, []], False], [[whole_ms(START_MS + 4), []], False]])
    assert shard.do(opening(2, C)) == plain([[[first, []], True]])


def test_who_opens_begins_at_the_earliest_place_and_the_others_are_forgotten() -> None:
    shard = Shard()
    shard.do(opening(1, C))
    shard.do(save(1, C, at(50)))
    shard.do(save(2, C, at(70)))
    assert shard.do(opening(3, C)) == [[[[50, 0], []], True]]
    shard.do(save(3, C, at(60)))
    assert shard.do(opening(4, C)) == [[[[60, 0], []], True]]


def test_a_cursor_lasts_from_its_last_save_and_ends_with_the_subscription() -> None:
    shard = Shard()
    shard.do(opening(1, C, P))
    shard.tick(KEEP_MS - 1)
    shard.do(save(1, C, at(50)))
    shard.tick(KEEP_MS - 1)
    now = [[*whole_ms(shard.at_ms - 1)], []]
    assert shard.do(opening(2, C, P)) == [[[[50, 0], []], True], [now, False]]
    shard.do(save(2, C, None))
    assert shard.do(opening(3, C)) == [[[[0, 0], []], False]]


def test_what_both_places_have_is_the_earlier_of_a_pattern() -> None:
    one = DurablePlace(whole_ms(10), ((b"a", MessageId(12, 0)), (b"b", MessageId(15, 0))))
    other = DurablePlace(whole_ms(11), ((b"b", MessageId(14, 0)),))
    assert earlier(one, other) == DurablePlace(whole_ms(10), ((b"a", whole_ms(11)), (b"b", MessageId(14, 0))))
    assert earlier(one, one).of(b"a") == MessageId(12, 0)
    assert earlier(one, other).of(b"unheard of") == whole_ms(10)


def test_beyond_the_limits_the_longest_untouched_goes_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "DURABLE_NAMES_MAX", 3)
    monkeypatch.setattr(cursors, "DURABLE_CURSORS_PER_NAME_MAX", 2)
    monkeypatch.setattr(cursors, "DURABLE_CONNECTIONS_MAX", 2)
    shard = Shard()
    state = shard.bus._store.keyspace.cursors
    for name in (b"1", b"2", b"3"):
        shard.do(opening(1, C, name=name))
    shard.do(save(1, C, at(9), name=b"1"))
    shard.do(opening(1, C, name=b"4"))
    assert [name for _, name in state.names] == [b"3", b"1", b"4"]
    shard.do(opening(1, *(DurableTarget("shard", b"%d" % number) for number in range(4)), name=b"1"))
    assert [target.name for target in state.names[b"default", b"1"]] == [b"2", b"3"]
    for token in range(5):
        shard.do(save(token, C, at(token), name=b"4"))
    assert list(state.names[b"default", b"4"][C].places) == [3, 4]
    assert state.dropped == 1 + 3 + 3


def test_a_snapshot_has_the_cursors_in_their_order() -> None:
    shard = Shard()
    for number in range(40):
        shard.do(opening(number, C, P, name=b"%d" % (number % 7)))
        exact = DurablePlace(whole_ms(number), ((b"x", MessageId(number + 1, 3)),))
        shard.do(save(number + 100, P, exact, name=b"%d" % (number % 5)))
    writer = shard.bus.begin_snapshot()
    late = len(shard.entries)
    shard.do(save(1, C, at(7), name=b"2"))  # the writer has what was there before
    restore = BusRestore(FOREVER)
    while (piece := writer.next_slice(300)) is not None:
        restore.feed(piece)
    other = restore.finish()
    other.invariants()
    for entry in shard.entries[late:]:
        other.apply(other.applied_index + 1, entry)
    assert other.running_hash == shard.bus.running_hash
    ours, theirs = shard.bus._store.keyspace.cursors, other._store.keyspace.cursors
    assert list(theirs.names.items()) == list(ours.names.items())
    assert [list(held.items()) for held in theirs.names.values()] == [
        list(held.items()) for held in ours.names.values()
    ]
    assert theirs.memory == ours.memory


@pytest.mark.parametrize(
    "noun",
    [
        opening(1, DurableTarget("bus", b"c")),
        opening(1, DurableTarget("channel", b"c" * 2000)),
        opening(-1, C),
        save(1, C, DurablePlace(MessageId(-1, 0))),
        save(1, P, DurablePlace(MessageId(1, 0), ((b"c", MessageId(1, -1)),))),
    ],
)
def test_what_is_malformed_never_reaches_the_state(noun: DurableOpen | DurableSave) -> None:
    with pytest.raises(DamagedNoun):
        decode_noun(*encode_noun(noun))
