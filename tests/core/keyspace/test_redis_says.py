"""Redis' own words and corner cases, one at a time: what a model of ours could get wrong in the same way."""

from __future__ import annotations

import pytest

from riverbus.commands import XInfoStream, XLen, XRange, XRead
from riverbus.core.state.keyspace.codes import Noun
from riverbus.core.state.rules import ChannelRule, Rules
from riverbus.keyspace_commands import (
    DbSize,
    Del,
    Exists,
    Expire,
    Keys,
    Object,
    Rename,
    SetString,
    Trim,
    Ttl,
    Type,
    XAck,
    XAdd,
    XAutoClaim,
    XClaim,
    XDel,
    XDelEx,
    XGroupCreate,
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
from riverbus.messages import ID_MAX, ID_MIN, MessageId
from tests.core.keyspace.shard import Shard, body, entries, entry, id_, ids

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


# --- streams ----------------------------------------------------------------------------------------------------------


def test_xadd_without_mkstream_makes_nothing(shard: Shard) -> None:
    assert shard.do(XAdd(b"s", body(b"x"), no_mkstream=True)) is None
    assert shard.ask(DbSize()) == 0


@pytest.mark.parametrize(
    ("trim", "gone"),
    [
        (Trim(maxlen=7), 4),
        (Trim(maxlen=7, is_approximate=True, node_entries=4), 4),
        (Trim(maxlen=8, is_approximate=True, node_entries=4), 0),
        (Trim(maxlen=0, is_approximate=True, node_entries=4, limit=9), 8),
        (Trim(maxlen=0, is_approximate=True, node_entries=4, limit=3), 0),
        (Trim(maxlen=0, is_approximate=True, node_entries=4, limit=0), 11),
        (Trim(minid=MessageId(6, 0)), 5),
        (Trim(minid=MessageId(6, 0), is_approximate=True, node_entries=4), 4),
        (Trim(minid=MessageId(99, 0), is_approximate=True, node_entries=4), 11),
    ],
)
def test_trimming_is_exact_or_by_whole_nodes(shard: Shard, trim: Trim, gone: int) -> None:
    shard.add(b"s", " ".join(map(str, range(1, 12))))
    assert shard.do(XTrim(b"s", trim)) == gone
    assert everything(shard) == entries([str(n) for n in range(gone + 1, 12)])
    assert shard.do(XAdd(b"s", body(b"x"), id_("50"), trim=Trim(maxlen=1))) == b"50-0"
    assert shard.events[-1] == ("t", "xtrim" if gone < 11 else "xadd", b"s")


def test_trimming_keeps_what_a_group_needs_or_makes_it_forget(shard: Shard) -> None:
    shard.add(b"s", "1 2 3 4")
    shard.do(XGroupCreate(b"s", b"g", ID_MIN))
    shard.do(XReadGroup(b"g", b"c", (b"s",), (None,), 2))
    shard.do(XAck(b"s", b"g", ids("1")))
    assert shard.do(XTrim(b"s", Trim(maxlen=0, references="acked"))) == 1
    assert everything(shard) == entries(["2", "3", "4"])
    assert shard.do(XTrim(b"s", Trim(maxlen=1, references="delref"))) == 2
    assert shard.ask(XPending(b"s", b"g")) == [0, None, None, None]
    assert everything(shard) == entries(["4"])


def test_acked_deletion_asks_every_group(shard: Shard) -> None:
    shard.add(b"s", "1 2 3")
    assert shard.do(XDelEx(b"s", "acked", ids("1"))) == [1]
    shard.do(XGroupCreate(b"s", b"g", id_("2")))
    assert shard.do(XDelEx(b"s", "acked", ids("2 3 9"))) == [1, 2, -1]
    assert shard.do(XDelEx(b"nothing", "acked", ids("2 3"))) == [-1, -1]


# --- groups -----------------------------------------------------------------------------------------------------------


def test_a_deleted_entry_is_null_in_the_history_and_leaves_with_a_claim(shard: Shard) -> None:
    shard.add(b"s", "1 2 3")
    shard.do(XGroupCreate(b"s", b"g", ID_MIN))
    shard.do(XReadGroup(b"g", b"ann", (b"s",), (None,)))
    for claim_ms in (None, 0):
        assert shard.do(XReadGroup(b"g", b"ann", (b"s",), (ID_MAX,), claim_ms=claim_ms)) is None
    shard.do(XDel(b"s", ids("2")))
    assert shard.do(XReadGroup(b"g", b"ann", (b"s",), (ID_MIN,))) == [[b"s", [entry("1"), [b"2-0", None], entry("3")]]]
    assert shard.do(XAutoClaim(b"s", b"g", b"bob", 0, ID_MIN, 2)) == [b"3-0", [entry("1")], [b"2-0"]]
    assert shard.do(XClaim(b"s", b"g", b"bob", 0, ids("2 3"), just_id=True)) == [b"3-0"]
    assert shard.ask(XPending(b"s", b"g", limit=9)) == [[b"1-0", b"bob", 0, 3], [b"3-0", b"bob", 0, 2]]


def test_the_options_of_xclaim(shard: Shard) -> None:
    shard.add(b"s", "1 2")
    shard.do(XGroupCreate(b"s", b"g", ID_MIN))
    assert shard.do(XClaim(b"s", b"g", b"c", 0, ids("1"))) == []
    assert shard.do(XClaim(b"s", b"g", b"c", 9999, ids("1 7"), force=True, last_id=id_("1"))) == [entry("1")]
    assert shard.ask(XPending(b"s", b"g", limit=9)) == [[b"1-0", b"c", 0, 2]]
    assert shard.do(XReadGroup(b"g", b"c", (b"s",), (None,))) == [[b"s", [entry("2")]]]
    shard.do(XClaim(b"s", b"g", b"d", 0, ids("1"), idle_ms=500, retry_count=9))
    shard.do(XClaim(b"s", b"g", b"d", 0, ids("2"), time_ms=shard.at_ms + 5, just_id=True))
    assert shard.ask(XPending(b"s", b"g", limit=9)) == [[b"1-0", b"d", 500, 9], [b"2-0", b"d", 0, 1]]
    assert shard.ask(XPending(b"s", b"g", limit=9, min_idle_ms=501), 1) == [[b"1-0", b"d", 501, 9]]
    assert shard.ask(XPending(b"s", b"g")) == [2, b"1-0", b"2-0", [[b"d", b"2"]]]


def test_claim_of_xreadgroup_shares_one_count_and_old_before_new(shard: Shard) -> None:
    shard.add(b"s", "1 2 3 4 5")
    shard.do(XGroupCreate(b"s", b"g", ID_MIN))
    shard.do(XReadGroup(b"g", b"ann", (b"s",), (None,), 1))
    shard.tick(10)
    shard.do(XReadGroup(b"g", b"ann", (b"s",), (None,), 1))
    shard.do(XClaim(b"s", b"g", b"ann", 0, ids("1"), idle_ms=5))
    shard.tick(100)
    assert shard.do(XReadGroup(b"g", b"bob", (b"s",), (None,), 3, no_ack=True, claim_ms=50)) == [
        [b"s", [[*entry("1"), 105, 2], [*entry("2"), 100, 1], [*entry("3"), 0, 0]]]
    ]
    assert shard.ask(XPending(b"s", b"g", limit=9)) == [[b"1-0", b"bob", 0, 3], [b"2-0", b"bob", 0, 2]]
    assert shard.do(XReadGroup(b"g", b"bob", (b"s",), (ID_MIN,), 1, claim_ms=50)) == [[b"s", [entry("1")]]]


def test_how_far_behind_a_group_is(shard: Shard) -> None:
    def lag(name: bytes = b"g") -> list[object]:
        groups = shard.ask(XInfoGroups(b"s"))
        assert isinstance(groups, list)
        return next([each[b"entries-read"], each[b"lag"]] for each in groups if each[b"name"] == name)

    shard.do(XGroupCreate(b"s", b"g", ID_MIN, mkstream=True))
    assert lag() == [None, 0]
    shard.add(b"s", "1 2 3 4 5")
    assert lag() == [None, 5]
    shard.do(XReadGroup(b"g", b"c", (b"s",), (None,), 1))
    assert lag() == [1, 4]
    shard.do(XReadGroup(b"g", b"c", (b"s",), (None,), 2))
    assert lag() == [3, 2]
    shard.do(XDel(b"s", ids("4")))
    assert lag() == [3, None]
    shard.do(XReadGroup(b"g", b"c", (b"s",), (None,)))
    assert lag() == [5, 0]
    shard.do(XGroupCreate(b"s", b"h", None, entries_read=5))
    assert lag(b"h") == [5, 0]


def test_consumers_are_seen_and_active(shard: Shard) -> None:
    shard.do(XGroupCreate(b"s", b"g", ID_MIN, mkstream=True))
    shard.do(XReadGroup(b"g", b"b", (b"s",), (None,)))
    shard.add(b"s", "1")
    shard.do(XReadGroup(b"g", b"a", (b"s",), (None,)))
    shard.tick(40)
    assert shard.ask(XInfoConsumers(b"s", b"g"), 2) == [
        {b"name": b"a", b"pending": 1, b"idle": 42, b"inactive": 42},
        {b"name": b"b", b"pending": 0, b"idle": 42, b"inactive": -1},
    ]
    full = shard.ask(XInfoStream(b"s", True, 0))
    assert isinstance(full, dict)
    [group] = full[b"groups"]
    assert group[b"pending"] == [[b"1-0", b"a", shard.at_ms - 40, 1]]
    assert [each[b"active-time"] for each in group[b"consumers"]] == [shard.at_ms - 40, -1]


# --- implicit logs and keys -------------------------------------------------------------------------------------------


def test_a_log_that_only_publish_made_is_no_key_but_is_read(shard: Shard) -> None:
    first = shard.publish(b"c", b"1", b"2")
    assert isinstance(first, MessageId)
    assert shard.ask(Exists((b"c",))) == shard.ask(DbSize()) == shard.do(Del((b"c",))) == 0
    assert (shard.ask(Type(b"c")), shard.ask(Keys(b"*")), shard.ask(Ttl(b"c", True))) == ("none", [], -2)
    assert shard.ask(XLen(b"c")) == 2
    assert shard.ask(XRead((b"c",), (ID_MIN,), 1, None)) == [[b"c", [[first.to_bytes(), [b"message", b"1"]]]]]
    assert shard.do(XDel(b"c", (first,))) == shard.do(XTrim(b"c", Trim(maxlen=0))) == 0
    assert shard.do(XGroupCreate(b"c", b"g", ID_MIN)) == NO_KEY_FOR_GROUP
    assert shard.do(XReadGroup(b"g", b"c", (b"c",), (None,))) != []
    assert shard.do(Rename(b"c", b"d")) == "ERR no such key"
    assert shard.do(XGroupCreate(b"c", b"g", ID_MIN, mkstream=True)) == "OK"
    assert shard.ask(Type(b"c")) == "stream"
    shard.publish(b"c", b"3")
    reply = shard.do(XReadGroup(b"g", b"c", (b"c",), (None,)))
    assert isinstance(reply, list)
    assert [fields for _, fields in reply[0][1]] == [[b"message", each] for each in (b"1", b"2", b"3")]


def test_an_id_below_what_was_published_makes_no_stream_of_it(shard: Shard) -> None:
    shard.publish(b"c", b"1")
    assert shard.do(XAdd(b"c", body(b"x"), id_("1-1"))) == TOO_SMALL
    assert shard.ask(Exists((b"c",))) == 0


def test_a_deleted_stream_begins_anew_and_ids_that_we_make_still_rise(shard: Shard) -> None:
    first = shard.do(XAdd(b"s", body(b"x")))
    shard.do(Del((b"s",)))
    assert shard.ask(XInfoStream(b"s", False, 0)) == "ERR no such key"
    shard.do(XGroupCreate(b"s", b"g", None, mkstream=True))
    assert shard.ask(XInfoGroups(b"s")) == [
        {b"name": b"g", b"consumers": 0, b"pending": 0, b"last-delivered-id": b"0-0", b"entries-read": None, b"lag": 0}
    ]
    shard.add(b"s", "1-1")
    second = shard.do(XAdd(b"s", body(b"x")))
    assert (first, second) == (b"%d-0" % shard.at_ms, b"%d-1" % shard.at_ms)


def test_rename_brings_groups_and_the_published_name_goes_on_with_rising_ids(shard: Shard) -> None:
    shard.add(b"s", "1 2")
    shard.do(XGroupCreate(b"s", b"g", ID_MIN))
    shard.do(XReadGroup(b"g", b"c", (b"s",), (None,), 1))
    published = shard.publish(b"t", b"hello")
    assert shard.do(Rename(b"s", b"t")) == "OK"
    assert shard.events == [("g", "rename_from", b"s"), ("g", "rename_to", b"t")]
    assert everything(shard, b"t") == entries(["1", "2"])
    assert shard.ask(XPending(b"t", b"g")) == [1, b"1-0", b"1-0", [[b"c", b"1"]]]
    later = shard.publish(b"t", b"again")
    assert isinstance(published, MessageId)
    assert later == published.plus(1)
    assert shard.ask(XLen(b"s")) == 0


def test_an_expired_stream_takes_publishes_as_a_plain_channel(shard: Shard) -> None:
    shard.add(b"s", "1")
    shard.do(Expire(b"s", 50, False))
    assert shard.bus.next_key_expiry_ms == shard.at_ms + 50
    assert shard.ask(XLen(b"s"), 49) == 1
    assert (shard.ask(XLen(b"s"), 50), shard.ask(Exists((b"s",)), 50)) == (0, 0)
    shard.at_ms += 50
    shard.publish(b"s", b"hello")
    assert shard.applied is not None
    assert shard.applied.events == [("x", "expired", b"s")]
    assert (shard.ask(XLen(b"s")), shard.ask(Exists((b"s",)))) == (1, 0)


def test_events_are_those_of_redis(shard: Shard) -> None:
    def events(noun: Noun) -> list[str]:
        shard.do(noun)
        return [kind + ":" + name for kind, name, _ in shard.events]

    assert events(SetString(b"k", b"v")) == ["n:new", "$:set"]
    assert events(SetString(b"k", b"v", 1000)) == ["$:set", "g:expire"]
    assert events(Expire(b"k", -1, False)) == ["g:del"]
    assert events(XAdd(b"s", body(b"x"), id_("1"))) == ["n:new", "t:xadd"]
    assert events(XGroupCreate(b"s", b"g", ID_MIN)) == ["t:xgroup-create"]
    assert events(XReadGroup(b"g", b"c", (b"s",), (None,))) == ["t:xgroup-createconsumer"]
    assert events(XAck(b"s", b"g", ids("1"))) == []
    assert events(XGroupSetId(b"s", b"g", None)) == ["t:xgroup-setid"]
    assert events(XGroupDelConsumer(b"s", b"g", b"c")) == ["t:xgroup-delconsumer"]
    assert events(XSetId(b"s", id_("9"))) == ["t:xsetid"]
    assert events(XDel(b"s", ids("1"))) == ["t:xdel"]
    assert events(XGroupDestroy(b"s", b"g")) == ["t:xgroup-destroy"]
    assert events(Del((b"s",))) == ["g:del"]


def test_object_and_setnx(shard: Shard) -> None:
    shard.do(SetString(b"i", b"-12"))
    shard.do(SetString(b"e", b"x" * 44))
    shard.do(SetString(b"r", b"x" * 45))
    shard.do(SetString(b"z", b"007"))
    shard.add(b"s", "1")
    found = [shard.ask(Object("encoding", name)) for name in (b"i", b"e", b"r", b"z", b"s", b"none")]
    assert found == [b"int", b"embstr", b"raw", b"embstr", b"stream", None]
    assert shard.do(SetString(b"i", b"v", nx=True, command="setnx")) == 0
    assert shard.do(SetString(b"n", b"v", nx=True, command="setnx")) == 1
    assert shard.do(SetString(b"n", b"v", 2**63 - 1)) == "ERR invalid expire time in 'set' command"


# --- limits -----------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    shard = Shard(Rules(default=ChannelRule(), shard_bytes_max=5000))
    full = "OOM command not allowed when used memory > 'shard_bytes_max'."
    assert shard.do(SetString(b"k", b"x" * 6000)) == full
    assert shard.do(XAdd(b"s", body(b"x" * 6000))) == full
    assert shard.ask(DbSize()) == 0
    replies = [shard.do(XAdd(b"s", body(b"x" * 500))) for _ in range(20)]
    assert replies.count(full) > 10
    assert shard.bus.memory_bytes <= 5000
    assert shard.do(XGroupCreate(b"s", b"g" * 900, None)) == full
    shard.publish(b"c", b"x" * 500)  # what was only published makes room
    assert shard.bus.memory_bytes <= 5000
    shard.do(XTrim(b"s", Trim(maxlen=1)))
    assert shard.do(SetString(b"k", b"x" * 100)) == "OK"


def test_one_read_hands_out_a_bounded_part_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shard = Shard()
    monkeypatch.setattr("riverbus.core.state.keyspace.deliveries.READ_GROUP_BYTES_MAX", 500)
    shard.do(XGroupCreate(b"s", b"g", ID_MIN, mkstream=True))
    for number in range(1, 6):
        shard.add(b"s", str(number), b"x" * 200)
    for expected in (["1", "2"], ["3", "4"], ["5"]):
        reply = shard.do(XReadGroup(b"g", b"c", (b"s",), (None,)))
        assert reply == [[b"s", [entry(each, b"x" * 200) for each in expected]]]


def test_pending_entries_are_moved_a_bounded_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shard = Shard()
    monkeypatch.setattr("riverbus.core.state.keyspace.deliveries.READ_GROUP_PENDING_MAX", 2)
    shard.do(XGroupCreate(b"s", b"g", ID_MIN, mkstream=True))
    for number in range(1, 6):
        shard.add(b"s", str(number), b"x")
    reply = shard.do(XReadGroup(b"g", b"c", (b"s",), (None,)))
    assert reply == [[b"s", [entry(str(number), b"x") for number in range(1, 6)]]]
    for after, expected in (("0", ["1", "2"]), ("2", ["3", "4"]), ("4", ["5"]), ("5", [])):
        own = shard.do(XReadGroup(b"g", b"c", (b"s",), (id_(after),)))
        assert own == [[b"s", [entry(each, b"x") for each in expected]]]
    for start, claimed, then in (
        ("0", [b"1-0", b"2-0"], b"3-0"),
        ("3", [b"3-0", b"4-0"], b"5-0"),
        ("5", [b"5-0"], b"0-0"),
    ):
        reply = shard.do(XAutoClaim(b"s", b"g", b"d", 0, id_(start), 100, just_id=True))
        assert reply == [then, claimed, []]
