"""What is refused, and in Redis' own words: clients and their tests compare them."""

from __future__ import annotations

import pytest

from riverbus.commands import XInfoStream, XLen, XRange, XRead
from riverbus.core.state.keyspace.codes import Noun
from riverbus.keyspace_commands import (
    Del,
    Exists,
    GetDel,
    GetString,
    SetString,
    StrLen,
    Trim,
    XAck,
    XAckDel,
    XAdd,
    XAutoClaim,
    XCfgSet,
    XClaim,
    XDel,
    XDelEx,
    XGroupCreate,
    XGroupCreateConsumer,
    XGroupDelConsumer,
    XGroupDestroy,
    XGroupSetId,
    XInfoConsumers,
    XInfoGroups,
    XPending,
    XReadGroup,
    XSetId,
    XTrim,
)
from riverbus.messages import ID_MAX, ID_MIN, Kind, MessageId
from tests.core.keyspace.shard import Shard, body, id_, ids

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NO_KEY_FOR_GROUP = (
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option "
    "to create an empty stream automatically."
)
TOO_SMALL = "ERR The ID specified in XADD is equal or smaller than the target stream top item"


@pytest.fixture
def shard() -> Shard:
    return Shard()


def everything(shard: Shard, key: bytes = b"s") -> object:
    return shard.ask(XRange(key, ID_MIN, ID_MAX, None, False))


@pytest.mark.parametrize(
    "noun",
    [
        XAdd(b"k", body(b"x")),
        XTrim(b"k", Trim(maxlen=1)),
        XDel(b"k", ids("1-1")),
        XDelEx(b"k", "acked", ids("1-1")),
        XSetId(b"k", id_("1-1")),
        XCfgSet(b"k", 1, 1),
        XGroupCreate(b"k", b"g", None, mkstream=True),
        XGroupSetId(b"k", b"g", None),
        XGroupDestroy(b"k", b"g"),
        XGroupCreateConsumer(b"k", b"g", b"c"),
        XGroupDelConsumer(b"k", b"g", b"c"),
        XReadGroup(b"g", b"c", (b"k",), (None,)),
        XAck(b"k", b"g", ids("1-1")),
        XAckDel(b"k", b"g", "acked", ids("1-1")),
        XClaim(b"k", b"g", b"c", 0, ids("1-1")),
        XAutoClaim(b"k", b"g", b"c", 0, ID_MIN),
    ],
    ids=lambda noun: type(noun).__name__,
)
def test_a_string_is_no_stream(shard: Shard, noun: Noun) -> None:
    shard.do(SetString(b"k", b"v"))
    assert shard.do(noun) == WRONG_TYPE
    assert shard.ask(GetString(b"k")) == b"v"


@pytest.mark.parametrize(
    "noun",
    [
        XRange(b"k", ID_MIN, ID_MAX, None, False),
        XLen(b"k"),
        XRead((b"k",), (ID_MIN,), None, None),
        XInfoStream(b"k", False, 0),
        XInfoGroups(b"k"),
        XInfoConsumers(b"k", b"g"),
        XPending(b"k", b"g"),
    ],
    ids=lambda noun: type(noun).__name__,
)
def test_a_string_is_not_read_as_a_stream(shard: Shard, noun: Noun) -> None:
    shard.do(SetString(b"k", b"v"))
    assert shard.ask(noun) == WRONG_TYPE
    assert shard.publish(b"k", b"hello") == MessageId(shard.at_ms, 0)  # pub/sub knows no types
    assert shard.ask(noun) == WRONG_TYPE
    shard.publish(b"k", body(b"x"), kind=Kind.XADD)
    assert shard.applied is not None
    assert str(shard.applied.results[0].runs[0].error) == WRONG_TYPE


def test_a_stream_is_no_string(shard: Shard) -> None:
    shard.add(b"s", "1-0")
    assert [shard.ask(GetString(b"s")), shard.ask(StrLen(b"s"))] == [WRONG_TYPE] * 2
    assert [shard.do(GetDel(b"s")), shard.do(SetString(b"s", b"v", get=True))] == [WRONG_TYPE] * 2
    assert shard.do(SetString(b"s", b"v")) == "OK"
    assert (shard.ask(GetString(b"s")), shard.ask(XLen(b"other"))) == (b"v", 0)


def test_the_words_about_groups(shard: Shard) -> None:
    nobody = "NOGROUP No such key 's' or consumer group 'g'"
    assert shard.do(XGroupCreate(b"s", b"g", None)) == NO_KEY_FOR_GROUP
    assert shard.do(XGroupDestroy(b"s", b"g")) == NO_KEY_FOR_GROUP
    assert shard.do(XReadGroup(b"g", b"c", (b"s",), (None,))) == f"{nobody} in XREADGROUP with GROUP option"
    assert shard.do(XClaim(b"s", b"g", b"c", 0, ids("1-1"))) == nobody
    assert shard.do(XAutoClaim(b"s", b"g", b"c", 0, ID_MIN)) == nobody
    assert shard.ask(XPending(b"s", b"g")) == nobody
    assert shard.do(XAck(b"s", b"g", ids("1-1"))) == 0
    assert shard.do(XGroupCreate(b"s", b"g", None, mkstream=True)) == "OK"
    assert shard.do(XGroupCreate(b"s", b"g", None)) == "BUSYGROUP Consumer Group name already exists"
    unknown = "NOGROUP No such consumer group 'h' for key name 's'"
    assert shard.do(XGroupSetId(b"s", b"h", None)) == unknown
    assert shard.do(XGroupCreateConsumer(b"s", b"h", b"c")) == unknown
    assert shard.do(XGroupDelConsumer(b"s", b"h", b"c")) == unknown
    assert shard.ask(XInfoConsumers(b"s", b"h")) == unknown
    assert shard.do(XGroupDestroy(b"s", b"h")) == 0
    assert shard.do(XGroupCreateConsumer(b"s", b"g", b"c")) == 1
    assert shard.do(XGroupCreateConsumer(b"s", b"g", b"c")) == 0


def test_ids_that_xadd_refuses(shard: Shard) -> None:
    assert shard.do(XAdd(b"s", body(b"x"), ID_MIN)) == "ERR The ID specified in XADD must be greater than 0-0"
    assert shard.ask(Exists((b"s",))) == 0
    assert shard.do(XAdd(b"s", body(b"x"), id_("0-0"), is_seq_auto=True)) == b"0-1"
    assert shard.do(XAdd(b"s", body(b"x"), id_("0-1"))) == TOO_SMALL
    assert shard.do(XAdd(b"s", body(b"x"), id_("0-0"), is_seq_auto=True)) == b"0-2"
    shard.add(b"s", "7-3")
    assert shard.do(XAdd(b"s", body(b"x"), id_("6-0"), is_seq_auto=True)) == TOO_SMALL
    assert shard.do(XAdd(b"s", body(b"x"), MessageId(7, 2**64 - 1))) == b"7-18446744073709551615"
    assert shard.do(XAdd(b"s", body(b"x"), id_("7-0"), is_seq_auto=True)) == TOO_SMALL
    assert shard.do(XAdd(b"s", body(b"x"), ID_MAX)) == str(ID_MAX).encode()
    exhausted = "ERR The stream has exhausted the last possible ID, unable to add more items"
    assert shard.do(XAdd(b"s", body(b"x"))) == exhausted
    assert shard.publish(b"s", b"hello") == exhausted
    assert shard.do(Del((b"s",))) == 1
    assert shard.publish(b"s", b"hello") == MessageId(shard.at_ms, 1)


def test_what_xsetid_refuses(shard: Shard) -> None:
    assert shard.do(XSetId(b"s", id_("5-0"))) == "ERR no such key"
    shard.add(b"s", "1-0 3-0 4-0")
    top = "ERR The ID specified in XSETID is smaller than the target stream top item"
    assert shard.do(XSetId(b"s", id_("3-0"))) == top
    below = "ERR The entries_added specified in XSETID is smaller than the target stream length"
    assert shard.do(XSetId(b"s", id_("9-0"), 2, id_("1-0"))) == below
    given = "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id"
    assert shard.do(XSetId(b"s", id_("9-0"), 9, id_("10-0"))) == given
    assert shard.do(XSetId(b"s", id_("9-0"), 9, id_("8-0"))) == "OK"
    current = "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id"
    assert shard.do(XSetId(b"s", id_("7-0"))) == current
    info = shard.ask(XInfoStream(b"s", False, 0))
    assert isinstance(info, dict)
    assert [info[name] for name in (b"last-generated-id", b"max-deleted-entry-id", b"entries-added")] == [
        b"9-0",
        b"8-0",
        9,
    ]
    assert shard.do(XAdd(b"s", body(b"x"), id_("9-0"))) == TOO_SMALL
