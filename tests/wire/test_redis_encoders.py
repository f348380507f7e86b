"""Replies and deliveries: what clients' own parsers (hiredis, redis-py) read from our bytes is what was meant."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from riverbus.core.ports import ReplyEncoder
from riverbus.fields import encode_fields, encode_many
from riverbus.messages import (
    NULL_ARRAY,
    Entries,
    EntryRun,
    ErrorReply,
    Kind,
    Members,
    MessageId,
    Push,
    Repeated,
    Reply,
    RunIds,
    Several,
    Status,
    Verbatim,
)
from riverbus.wire.encoders import Resp2Encoder, Resp3Encoder

RESP2: ReplyEncoder = Resp2Encoder()
RESP3: ReplyEncoder = Resp3Encoder()
FIRST = MessageId(1_700_000_000_000, 7)


def read(data: bytes) -> list[Any]:
    """All replies in `data`, which must be whole."""
    reader = hiredis.Reader()
    reader.feed(data)
    replies = []
    while (reply := reader.gets()) is not False:
        replies.append(reply)
    assert not reader.has_data()
    return replies


@pytest.mark.parametrize(
    ("reply", "resp2", "resp3"),
    [
        (5, b":5\r\n", b":5\r\n"),
        (-5, b":-5\r\n", b":-5\r\n"),
        (2**40, b":1099511627776\r\n", b":1099511627776\r\n"),
        (2**63 + 1, b":-9223372036854775807\r\n", b":-9223372036854775807\r\n"),
        (Kind.XADD, b":2\r\n", b":2\r\n"),
        (b"a\r\n", b"$3\r\na\r\n\r\n", b"$3\r\na\r\n\r\n"),
        ("é", b"$2\r\n\xc3\xa9\r\n", b"$2\r\n\xc3\xa9\r\n"),
        (None, b"$-1\r\n", b"_\r\n"),
        (NULL_ARRAY, b"*-1\r\n", b"_\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (False, b":0\r\n", b"#f\r\n"),
        (Members(({b"a": 1},)), b"*1\r\n*2\r\n$1\r\na\r\n:1\r\n", b"~1\r\n%1\r\n$1\r\na\r\n:1\r\n"),
        (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
        (3.0, b"$1\r\n3\r\n", b",3\r\n"),
        (float("-inf"), b"$4\r\n-inf\r\n", b",-inf\r\n"),
        (Status("OK"), b"+OK\r\n", b"+OK\r\n"),
        (ErrorReply("ERR no\udcff"), b"-ERR no\xff\r\n", b"-ERR no\xff\r\n"),
        (FIRST, b"$15\r\n1700000000000-7\r\n", b"$15\r\n1700000000000-7\r\n"),
        (Verbatim("hé"), b"$3\r\nh\xc3\xa9\r\n", b"=7\r\ntxt:h\xc3\xa9\r\n"),
        ([], b"*0\r\n", b"*0\r\n"),
        ((1, [b"a", None]), b"*2\r\n:1\r\n*2\r\n$1\r\na\r\n$-1\r\n", b"*2\r\n:1\r\n*2\r\n$1\r\na\r\n_\r\n"),
        ([(b"1-0", [b"f", b"x"]), (b"1-1", [b"f", None])],
         b"*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nf\r\n$1\r\nx\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$-1\r\n",
         b"*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nf\r\n$1\r\nx\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n_\r\n"),
        ({"a": 1, b"b": []}, b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*0\r\n", b"%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*0\r\n"),
        (frozenset([Status("b"), Status("a")]), b"*2\r\n+a\r\n+b\r\n", b"~2\r\n+a\r\n+b\r\n"),
        (Push((b"subscribe", b"c", 1)), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
         b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"),
        (Repeated(2, 3), b":2\r\n:2\r\n:2\r\n", b":2\r\n:2\r\n:2\r\n"),
        (Several((1, b"a", Status("QUEUED"))), b":1\r\n$1\r\na\r\n+QUEUED\r\n", b":1\r\n$1\r\na\r\n+QUEUED\r\n"),
    ],
)  # fmt: skip
def test_replies(reply: Reply, resp2: bytes, resp3: bytes) -> None:
    assert RESP2.encode(reply) == resp2
    assert RESP3.encode(reply) == resp3


def test_what_is_no_reply_is_our_error() -> None:
    for wrong in (object(), {1, 2}, bytearray(b"x")):
        with pytest.raises(TypeError):
            RESP2.encode([wrong])


trees = st.recursive(
    st.one_of(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=8), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.binary(max_size=4), inner, max_size=3)),
    max_leaves=10,
)


@given(trees)
def test_clients_read_the_same_tree(tree: object) -> None:
    assert read(RESP3.encode(tree)) == [tree]
    assert read(RESP2.encode(tree)) == [flat(tree)]


def flat(tree: object) -> object:
    if isinstance(tree, dict):
        return [flat(item) for pair in tree.items() for item in pair]
    return [flat(item) for item in tree] if isinstance(tree, list) else tree


# --- deliveries -------------------------------------------------------------------------------------------------------

payload_lists = st.one_of(
    st.lists(st.binary(max_size=12), min_size=1, max_size=20),
    st.lists(st.binary(min_size=3, max_size=3), min_size=1, max_size=20),
    st.lists(st.sampled_from([b"x" * 4095, b"y" * 4096, b"z" * 5000, b"%d\r\n"]), min_size=1, max_size=4),
)


@pytest.mark.parametrize("encoder", [RESP2, RESP3], ids=["resp2", "resp3"])
@given(payloads=payload_lists, channel=st.sampled_from([b"", b"c", b"100%d\r\n"]))
def test_deliveries_are_one_push_a_message(encoder: ReplyEncoder, payloads: list[bytes], channel: bytes) -> None:
    def delivered(space: str, pattern: bytes | None) -> list[Any]:
        data = encoder.deliver(space, channel, pattern, FIRST, payloads)
        assert data[:1] == (b"*" if encoder.key == "resp2" else b">")
        return read(data)

    assert delivered("channel", None) == [[b"message", channel, one] for one in payloads]
    assert delivered("shard", None) == [[b"smessage", channel, one] for one in payloads]
    assert delivered("pattern", b"c*") == [[b"pmessage", b"c*", channel, one] for one in payloads]
    ids = [FIRST.plus(number).to_bytes() for number in range(len(payloads))]  # their sequences get a second digit
    assert delivered("bus", None) == [
        [b"bus.message", channel, name, one] for name, one in zip(ids, payloads, strict=True)
    ]


@pytest.mark.parametrize("encoder", [RESP2, RESP3], ids=["resp2", "resp3"])
def test_a_gap_reaches_every_kind_of_subscriber(encoder: ReplyEncoder) -> None:
    until = FIRST.plus(3)
    text = b"my channel 1700000000000-7 1700000000000-10"

    def gap(space: str, pattern: bytes | None = None) -> list[Any]:
        return read(encoder.gap(space, b"my channel", pattern, FIRST, until))

    assert gap("bus") == [[b"bus.gap", b"my channel", FIRST.to_bytes(), until.to_bytes()]]
    assert gap("channel") == [[b"message", b"__riverbus__:gap", text]]
    assert gap("shard") == [[b"smessage", b"__riverbus__:gap", text]]
    assert gap("pattern", b"my*") == [[b"pmessage", b"my*", b"__riverbus__:gap", text]]


def test_redis_py_shows_a_gap_as_an_ordinary_message() -> None:
    pubsub = redis.Redis().pubsub()  # type: ignore[no-untyped-call]  # connects to nothing
    (response,) = read(RESP2.gap("pattern", b"c", b"c*", FIRST, FIRST.plus(3)))
    message = pubsub.handle_message(response)
    assert message == {
        "type": "pmessage",
        "pattern": b"c*",
        "channel": b"__riverbus__:gap",
        "data": b"c 1700000000000-7 1700000000000-10",
    }


# --- runs: what is written at once, against what is written one by one ------------------------------------------------

FIRSTS = st.builds(MessageId, st.sampled_from([0, 1, 1_700_000_000_000, 2**64 - 1]), st.integers(0, 1100))


@given(FIRSTS, st.integers(1, 1200))
def test_the_ids_of_a_run_are_written_as_each_alone(first: MessageId, count: int) -> None:
    alone = Several(tuple([first.plus(at).to_bytes() for at in range(count)]))
    assert Resp2Encoder().encode(RunIds(first, count)) == Resp2Encoder().encode(alone)


NAMES = st.sampled_from([b"", b"field", b"%s%d", b"\r\n"])
VALUES = st.binary(max_size=4) | st.just(b"x" * 100)
PAIRS = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=3).map(
    lambda pairs: [x for pair in pairs for x in pair]
)


@given(
    st.lists(
        st.tuples(FIRSTS, st.lists(PAIRS, min_size=1, max_size=4), st.integers(1, 30))
        | st.tuples(FIRSTS, st.lists(VALUES, min_size=1, max_size=4), st.integers(1, 30)),
        max_size=3,
    )
)
def test_entries_are_written_as_each_alone(drawn: list[tuple[MessageId, list[Any], int]]) -> None:
    runs, alone = [], []
    for first, some, times in drawn:
        entries = some * times
        kind = Kind.XADD if isinstance(some[0], list) else Kind.PUBLISH
        runs.append(EntryRun(first, kind, [encode_fields(x) if kind == Kind.XADD else x for x in entries]))
        for at, each in enumerate(entries):
            fields = each if kind == Kind.XADD else [b"message", each]
            alone.append([first.plus(at).to_bytes(), fields])
    for encoder in (Resp2Encoder(), Resp3Encoder()):
        assert encoder.encode(Entries(tuple(runs))) == encoder.encode(alone)


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=3), st.lists(st.binary(max_size=3)))
def test_fields_of_a_run_are_packed_as_each_alone(fields: list[bytes], values: list[bytes]) -> None:
    fields = fields if len(fields) % 2 else fields[1:]
    if not fields:
        fields = [b"f"]
    assert encode_many(fields, values) == [encode_fields([*fields, value]) for value in values]
