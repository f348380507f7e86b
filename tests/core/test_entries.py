"""Entries: what is built is read back, and what is damaged or newer is refused as a whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.core.state.entries import (
    ENTRY,
    BatchBuilder,
    DamagedEntry,
    RulesOp,
    Run,
    UnknownEntry,
    WriteOp,
    decode_batch,
    decode_entry,
    encode_entry,
    encode_fields,
    message_fields,
)
from riverbus.core.state.rules import ChannelRule, Rules, rules_from_bytes, rules_to_bytes
from riverbus.messages import Kind

runs = st.tuples(
    st.binary(min_size=1, max_size=8), st.sampled_from(list(Kind)), st.lists(st.binary(max_size=9), min_size=1)
)


def batch_of(*given_runs: tuple[bytes, int, list[bytes]], seq: int = 1) -> bytes:
    builder = BatchBuilder(7)
    for run in given_runs:
        builder.add_run(*run)
    return builder.finish(seq)


def contents(ops: list[Run | RulesOp | WriteOp]) -> list[tuple[bytes, int, bytes]]:
    return [(op.channel, op.kind, payload) for op in ops if isinstance(op, Run) for payload in op.payloads()]


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(runs, max_size=5), max_size=4), time_ms=st.integers(0, 2**63))
def test_what_was_built_is_read_back(batches: list[list[tuple[bytes, int, list[bytes]]]], time_ms: int) -> None:
    entry = decode_entry(encode_entry(time_ms, [batch_of(*batch, seq=seq) for seq, batch in enumerate(batches)]))
    assert entry.time_ms == time_ms
    assert [(batch.origin, batch.seq) for batch in entry.batches] == [(7, seq) for seq in range(len(batches))]
    for batch, given_runs in zip(entry.batches, batches, strict=True):
        expected = [(channel, kind, payload) for channel, kind, payloads in given_runs for payload in payloads]
        assert contents(batch.ops) == expected
        for op in batch.ops:
            assert isinstance(op, Run)
            assert op.body == b"".join(op.payloads())
            assert len(op.lengths) == 4 * op.count


def test_neighbours_of_one_channel_and_kind_become_one_run() -> None:
    builder = BatchBuilder(1)
    assert builder.is_empty
    assert builder.add_run(b"a", 0, [b"1", b"2"]) == (0, 0)
    assert builder.add_run(b"a", 0, [b"3"]) == (0, 2)
    assert builder.add_run(b"a", 1, [b"4"]) == (1, 0)
    assert builder.add_run(b"b", 1, [b"5"]) == (2, 0)
    assert builder.add_run(b"a", 1, [b"6"]) == (3, 0)
    size = builder.size
    data = builder.finish(9)
    assert len(data) == size
    assert [op.count for op in decode_batch(data).ops if isinstance(op, Run)] == [3, 1, 1, 1]
    assert builder.is_empty
    assert builder.size == len(builder.finish(10))


def test_rules_part_the_runs_around_them() -> None:
    rules = Rules(channels=(ChannelRule("orders.*", count=5),))
    builder = BatchBuilder(1)
    builder.add_run(b"a", 0, [b"1"])
    builder.add_rules(rules_to_bytes(rules))
    builder.add_run(b"a", 0, [b"2"])
    first, second, third = decode_batch(builder.finish(1)).ops
    assert isinstance(second, RulesOp)
    assert second.rules == rules
    assert contents([first, third]) == [(b"a", 0, b"1"), (b"a", 0, b"2")]


def test_an_entry_cut_or_extended_anywhere_is_damaged() -> None:
    good = encode_entry(5, [batch_of((b"a", 0, [b"1", b"22"]), (b"b", 2, [b"333"])), batch_of((b"c", 1, [b""]))])
    assert len(decode_entry(good).batches) == 2
    for size in range(len(good)):
        with pytest.raises(DamagedEntry):
            decode_entry(good[:size])
    with pytest.raises(DamagedEntry):
        decode_entry(good + b"\0")


@settings(max_examples=200, deadline=None)
@given(at=st.integers(ENTRY.size, 200), byte=st.integers(0, 255))
def test_a_changed_byte_is_an_error_of_ours_or_a_valid_entry(at: int, byte: int) -> None:
    data = bytearray(encode_entry(5, [batch_of((b"a", 0, [b"1", b"22"] * 9), (b"b", 2, [b"333"]), (b"c", 0, [b"x"]))]))
    data[at % len(data)] = byte
    try:
        entry = decode_entry(bytes(data))
    except (DamagedEntry, UnknownEntry):
        return
    for batch in entry.batches:
        for op in batch.ops:
            assert isinstance(op, Run)
            assert sum(map(len, op.payloads())) == op.body_bytes == len(op.body)


@pytest.mark.parametrize(
    ("at", "value"), [(0, 2), (ENTRY.size + 24, 99), (ENTRY.size + 25, 99)], ids=["version", "opcode", "kind"]
)
def test_what_a_newer_node_wrote_is_unknown(at: int, value: int) -> None:
    data = bytearray(encode_entry(5, [batch_of((b"a", 0, [b"1"]))]))
    data[at] = value
    with pytest.raises(UnknownEntry):
        decode_entry(bytes(data))


def test_rules_that_cannot_be_read_are_damage() -> None:
    builder = BatchBuilder(1)
    builder.add_rules(b'{"default": {"count": -1}}')
    with pytest.raises(DamagedEntry):
        decode_batch(builder.finish(1))


def test_fields_of_a_message_depend_on_its_kind() -> None:
    assert message_fields(Kind.PUBLISH, b"x") == [b"message", b"x"]
    assert message_fields(Kind.SPUBLISH, b"x") == [b"message", b"x"]
    assert message_fields(Kind.XADD, encode_fields([b"k", b"v", b"", b""])) == [b"k", b"v", b"", b""]


def test_rules_as_bytes_are_canonical() -> None:
    rules = Rules(channels=(ChannelRule("a.*", count=1), ChannelRule("b", age_ms=5, bytes=6)))
    assert rules_from_bytes(rules_to_bytes(rules)) == rules
    assert rules_to_bytes(rules_from_bytes(rules_to_bytes(rules))) == rules_to_bytes(rules)
    for bad in (b"", b"[]", b'{"unknown": 1}', b'{"shard_bytes_max": 0}', b'{"default": {"age_ms": -1}}'):
        with pytest.raises(ValueError):
            rules_from_bytes(bad)
