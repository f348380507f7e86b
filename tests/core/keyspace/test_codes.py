"""Keyspace commands in the log: what goes in comes out; what is damaged, unknown or hostile is refused."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.commands import Publish, XRange
from riverbus.core.state.entries import BatchBuilder, DamagedEntry, UnknownEntry, WriteOp, decode_batch, encode_entry
from riverbus.core.state.keyspace import codes, execute
from riverbus.core.state.keyspace.codes import CODES, TYPES, DamagedNoun, UnknownNoun, decode_noun, encode_noun
from riverbus.keyspace_commands import (
    READS,
    WRITES,
    Del,
    PublishOnce,
    PublishRun,
    SetString,
    Transaction,
    Trim,
    XAck,
    XAdd,
    XDel,
    XReadGroup,
)
from riverbus.messages import ID_MAX, ID_MIN, MessageId
from tests.core.keyspace.shard import Shard, body, ids

EXAMPLES = [
    XAdd(b"s", body(b"x"), MessageId(5, 2**64 - 1), True, True, Trim(maxlen=3), b"p", b"i"),
    XAck(b"s", b"g", ids("1-1 2-0")),
    XReadGroup(b"g", b"c", (b"s", b"t"), (None, ID_MAX), 5, 0, True, 7),
    SetString(b"k", b"v" * 1000, -5, True),
    Transaction(((b"k", 7),), (Del((b"k",)), Publish(b"c", 0, [b"1", b"2"]), XRange(b"s", ID_MIN, ID_MAX, None, True))),
]


@pytest.mark.parametrize("noun", EXAMPLES, ids=lambda noun: type(noun).__name__)
def test_a_command_comes_out_of_the_log_as_it_went_in(noun: NamedTuple) -> None:
    builder = BatchBuilder(1)
    builder.add_run(b"c", 0, [b"before"])
    assert builder.add_write(noun) == 1
    assert builder.add_run(b"c", 0, [b"after"]) == (2, 0)
    batch = decode_batch(builder.finish(3))
    [op] = [op for op in batch.ops if isinstance(op, WriteOp)]
    assert op.noun == noun
    assert type(op.noun) is type(noun)
    assert batch.ops[1] is op


def test_every_command_has_a_code_of_its_own() -> None:
    assert set(WRITES) | set(READS) <= set(CODES)
    assert len(CODES) == len(TYPES)


def test_every_command_of_the_log_is_carried_out_as_its_code_says() -> None:
    of_their_own = {Publish, PublishOnce, PublishRun, Transaction}
    assert execute._WRITES.keys() | execute._READS.keys() | of_their_own == CODES.keys()
    assert not execute._WRITES.keys() & execute._READS.keys()
    assert {CODES[noun] in codes.ONLY_IN_TRANSACTIONS for noun in execute._READS} == {True}
    assert {CODES[noun] in codes.ONLY_IN_TRANSACTIONS for noun in execute._WRITES} == {False}


@pytest.mark.parametrize("noun", EXAMPLES, ids=lambda noun: type(noun).__name__)
def test_no_cut_or_changed_byte_does_more_than_raise(noun: NamedTuple) -> None:
    code, fields = encode_noun(noun)
    for at in range(min(len(fields), 200)):
        with pytest.raises(DamagedNoun):
            decode_noun(code, fields[:at])
        changed = bytearray(fields)
        for bit in (1, 0x80):
            changed[at] ^= bit
            try:
                decode_noun(code, bytes(changed))
            except (DamagedNoun, UnknownNoun):
                pass


@pytest.mark.parametrize(
    "fields",
    [
        (b"s", [[-1, 0]]),
        (b"s", [[0, -1]]),
        (b"s", [[2**64 - 1, 0], [0, -5]]),
        (b"x" * 1025, [[1, 1]]),
        (b"s", [[1]]),
        (b"s",),
        (b"s", b"1-1"),
        ("s", [[1, 1]]),
    ],
)
def test_what_no_session_sends_is_refused(fields: object) -> None:
    with pytest.raises(DamagedNoun):
        decode_noun(CODES[XDel], msgspec.msgpack.encode(fields))


@pytest.mark.parametrize(
    "noun",
    [
        XAdd(b"s", b"not fields"),
        XAdd(b"s", body(b"x"), trim=Trim()),
        XAdd(b"s", body(b"x"), trim=Trim(maxlen=1, minid=ID_MIN)),
        XAdd(b"s", body(b"x"), trim=Trim(maxlen=-1)),
        XAdd(b"s", body(b"x"), trim=Trim(maxlen=1, references="some")),
        XReadGroup(b"g", b"c", (b"s",), (None,), -1),
        SetString(b"k", b"v", command="x" * 100),
    ],
)
def test_fields_that_make_no_sense_are_refused(noun: NamedTuple) -> None:
    with pytest.raises(DamagedNoun):
        decode_noun(*encode_noun(noun))


def test_what_a_newer_node_wrote_is_told_apart_from_damage() -> None:
    with pytest.raises(UnknownNoun):
        decode_noun(255, b"\x90")
    code, fields = encode_noun(XDel(b"s", ()))
    with pytest.raises(UnknownNoun):
        decode_noun(code, msgspec.msgpack.encode([*msgspec.msgpack.decode(fields), 1]))
    builder = BatchBuilder(1)
    builder.add_encoded(255, b"\x90")
    with pytest.raises(UnknownEntry):
        decode_batch(builder.finish(1))
    builder.add_encoded(CODES[XDel], b"\x90")
    with pytest.raises(DamagedEntry):
        decode_batch(builder.finish(1))


def test_reads_and_transactions_have_their_places() -> None:
    read = XRange(b"s", ID_MIN, ID_MAX, None, False)
    with pytest.raises(DamagedNoun):
        decode_noun(*encode_noun(read))
    nested = Transaction((), (Transaction((), ()),))
    with pytest.raises(DamagedNoun):
        decode_noun(*encode_noun(nested))


@settings(max_examples=300, deadline=None)
@given(code=st.sampled_from(sorted(TYPES)), fields=st.binary(max_size=40), depth=st.integers(0, 1))
def test_any_bytes_are_a_command_or_an_error(code: int, fields: bytes, depth: int) -> None:
    try:
        noun = decode_noun(code, fields, bool(depth))
    except (DamagedNoun, UnknownNoun):
        return
    assert isinstance(noun, codes.TYPES[code])


def test_a_damaged_command_changes_nothing() -> None:
    shard = Shard()
    shard.add(b"s", "1-0")
    before = shard.bus.running_hash
    builder = BatchBuilder(1)
    builder.add_write(XDel(b"s", ids("1-0")))
    builder.add_encoded(CODES[XDel], b"\x90")
    with pytest.raises(DamagedEntry):
        shard.bus.apply(shard.bus.applied_index + 1, encode_entry(1, [builder.finish(1)]))
    assert shard.bus.running_hash == before
    assert shard.bus.length(b"s") == 1
