"""One effect per idempotency key: XADD IDMP and IDMPAUTO as Redis 8.6, keyed publishes, transactions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.commands import Publish, XInfoStream, XLen
from riverbus.core.state.keyspace import publish_keys
from riverbus.keyspace_commands import (
    Del,
    GetString,
    PublishOnce,
    Receivers,
    SetString,
    Transaction,
    Trim,
    XAdd,
    XCfgSet,
    XDel,
    XGroupCreate,
    XReadGroup,
)
from riverbus.limits import IDMP_PRODUCERS_MAX, PUBLISH_KEYS_MS
from riverbus.messages import ID_MIN, MessageId
from tests.core.keyspace.shard import Shard, body


def idmp(producer: bytes, key: bytes | None, value: bytes = b"x") -> XAdd:
    return XAdd(b"s", body(value), producer=producer, idempotent_id=key)


def test_a_key_that_was_used_gives_the_id_of_then() -> None:
    shard = Shard()
    first = shard.do(idmp(b"p", b"1"))
    shard.tick(5)
    assert shard.do(idmp(b"p", b"1", b"other")) == first
    assert shard.events == []
    assert shard.do(idmp(b"q", b"1")) != first
    assert shard.do(idmp(b"p", b"2")) != first
    shard.do(XDel(b"s", (MessageId(shard.at_ms - 5, 0),)))
    assert shard.do(idmp(b"p", b"1")) == first
    info = shard.ask(XInfoStream(b"s", False, 0))
    assert isinstance(info, dict)
    assert {name: value for name, value in info.items() if b"idmp" in name or b"ids-" in name} == {
        b"idmp-duration": 100,
        b"idmp-maxsize": 100,
        b"pids-tracked": 2,
        b"iids-tracked": 3,
        b"iids-added": 3,
        b"iids-duplicates": 2,
    }


def test_a_window_that_was_set_is_shown_before_any_key() -> None:
    shard = Shard()
    shard.do(XAdd(b"s", body(b"x")))
    plain = shard.ask(XInfoStream(b"s", False, 0))
    assert isinstance(plain, dict)
    assert not any(b"idmp" in name for name in plain)
    assert shard.do(XCfgSet(b"s", 200, None)) == "OK"
    info = shard.ask(XInfoStream(b"s", False, 0))
    assert isinstance(info, dict)
    assert (info[b"idmp-duration"], info[b"idmp-maxsize"], info[b"iids-added"]) == (200, 100, 0)


def test_without_a_key_the_fields_are_the_key() -> None:
    shard = Shard()
    assert shard.do(idmp(b"p", None)) == shard.do(idmp(b"p", None))
    assert shard.do(idmp(b"p", None)) != shard.do(idmp(b"p", None, b"y"))


def test_keys_are_forgotten_by_age_by_number_and_by_configuration() -> None:
    shard = Shard()
    first = shard.do(idmp(b"p", b"1"))
    shard.tick(99_999)
    assert shard.do(idmp(b"p", b"1")) == first
    shard.tick(1)
    assert shard.do(idmp(b"p", b"1")) != first
    assert shard.do(XCfgSet(b"s", None, 3)) == "OK"
    made = [shard.do(idmp(b"p", b"%d" % number)) for number in range(4)]
    assert [shard.do(idmp(b"p", b"%d" % number)) == made[number] for number in (3, 2, 1, 0)] == [True] * 3 + [False]
    assert shard.do(XCfgSet(b"s", None, 3)) == "OK"
    assert shard.do(idmp(b"p", b"3")) == made[3]
    shard.do(XCfgSet(b"s", 5, 3))
    assert shard.do(idmp(b"p", b"3")) != made[3]
    assert shard.do(XCfgSet(b"none", 5, 3)) == "ERR no such key"


def test_producers_are_bounded_and_the_silent_ones_go_first() -> None:
    shard = Shard()
    made = [shard.do(idmp(b"%d" % number, b"k")) for number in range(IDMP_PRODUCERS_MAX)]
    shard.do(idmp(b"0", b"another"))
    shard.do(idmp(b"new", b"k"))
    assert shard.do(idmp(b"0", b"k")) == made[0]
    assert shard.do(idmp(b"1", b"k")) != made[1]


def test_a_trimmed_or_refused_first_try_counts_only_if_it_was_added() -> None:
    shard = Shard()
    assert shard.do(idmp(b"p", b"1")._replace(no_mkstream=True)) is None
    first = shard.do(idmp(b"p", b"1")._replace(trim=Trim(maxlen=0)))
    assert first is not None
    assert shard.do(idmp(b"p", b"1")) == first
    assert shard.ask(XLen(b"s")) == 0


# --- channels ---------------------------------------------------------------------------------------------------------


def test_a_keyed_publish_is_delivered_once() -> None:
    shard = Shard()
    noun = PublishOnce(b"c", 0, b"hello", b"key")
    first = shard.do(noun)
    assert shard.last is not None
    [run] = shard.last.runs
    assert (run.run.channel, run.run.payloads(), run.first) == (b"c", [b"hello"], MessageId(shard.at_ms, 0))
    shard.tick(7)
    assert shard.do(noun._replace(payload=b"other")) == first
    assert shard.last.runs == []
    assert shard.do(noun._replace(channel=b"d")) != first
    assert shard.ask(XLen(b"c")) == 1
    shard.tick(PUBLISH_KEYS_MS)
    assert shard.do(noun) != first


@settings(max_examples=50, deadline=None)
@given(numbers=st.lists(st.integers(0, 400), max_size=120), bucket=st.sampled_from([2, 5]))
def test_the_newest_keys_of_a_bucket_are_remembered(numbers: list[int], bucket: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish_keys, "BUCKETS", 4)
        patch.setattr(publish_keys, "BUCKET_KEYS_MAX", bucket)
        keys, known = publish_keys.PublishKeys(), dict[int, dict[bytes, MessageId]]()
        for at, number in enumerate(numbers):
            digest = keys.digest(b"c", b"%d" % number)
            model = known.setdefault(digest[0] % 4, {})
            assert keys.find(digest, at) == model.get(digest)
            if digest not in model:
                keys.add(digest, MessageId(at, 0), at, 0)
                model[digest] = MessageId(at, 0)
                if len(model) > bucket:
                    del model[next(iter(model))]
            keys.invariants()


# --- transactions -----------------------------------------------------------------------------------------------------


def test_a_transaction_is_one_operation_with_one_array_of_replies() -> None:
    shard = Shard()
    version = shard.bus.version(b"k", 0)
    commands = (
        SetString(b"k", b"v"),
        GetString(b"k"),
        Publish(b"c", 0, [b"1", b"2"]),
        XGroupCreate(b"s", b"g", ID_MIN, mkstream=True),
        XAdd(b"s", body(b"x"), MessageId(1, 0)),
        XReadGroup(b"g", b"ann", (b"s",), (None,)),
        XAdd(b"k", body(b"x")),
        PublishOnce(b"c", 0, b"3", b"key"),
        Publish(b"c", 2, [body(b"4")], "id"),
    )
    reply = shard.do(Transaction(((b"k", version),), commands))
    assert reply == [
        "OK",
        b"v",
        [0],
        [0],
        "OK",
        b"1-0",
        [[b"s", [[b"1-0", [b"f", b"x"]]]]],
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        b"%d-2" % shard.at_ms,
        b"%d-3" % shard.at_ms,
    ]
    assert shard.last is not None
    assert isinstance(shard.last.reply, list)
    assert shard.last.reply[2:4] == [Receivers(0), Receivers(0)]
    assert [(run.run.channel, run.first) for run in shard.last.runs] == [
        (b"c", MessageId(shard.at_ms, 0)),
        (b"c", MessageId(shard.at_ms, 2)),
        (b"c", MessageId(shard.at_ms, 3)),
    ]
    assert [name for _, name, _ in shard.events][:2] == ["new", "set"]


@pytest.mark.parametrize(
    "between",
    [SetString(b"k", b"w"), Del((b"k",)), SetString(b"k", b"v"), Transaction((), (SetString(b"k", b"w"),))],
    ids=lambda noun: type(noun).__name__,
)
def test_a_watched_key_that_changed_aborts_it(between: SetString | Del | Transaction) -> None:
    shard = Shard()
    shard.do(SetString(b"k", b"v"))
    watched = ((b"k", shard.bus.version(b"k", shard.at_ms)), (b"none", shard.bus.version(b"none", shard.at_ms)))
    assert shard.do(Transaction(watched, (SetString(b"x", b"1"),))) == ["OK"]
    shard.do(between)
    assert shard.do(Transaction(watched, (SetString(b"x", b"2"),))) is None
    assert shard.ask(GetString(b"x")) == b"1"


def test_a_key_that_came_and_went_or_expired_aborts_it_too() -> None:
    shard = Shard()
    shard.do(SetString(b"e", b"v", 50))
    none, due = shard.bus.version(b"none", 0), shard.bus.version(b"e", 0)
    shard.do(SetString(b"none", b"v"))
    shard.do(Del((b"none",)))
    assert shard.do(Transaction(((b"none", none),), ())) is None
    assert shard.do(Transaction(((b"e", due),), ())) == []
    shard.at_ms += 50
    assert shard.do(Transaction(((b"e", due),), ())) is None
