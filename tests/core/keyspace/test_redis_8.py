"""XDELEX, XACKDEL, XADD IDMP and XCFGSET, which no server that the tests can install has: as Redis' documentation says.

https://redis.io/docs/latest/commands/xdelex/ (and xackdel, xadd, xcfgset), Redis 8.2 and 8.6;
https://redis.io/docs/latest/develop/data-types/streams/idempotency/. Where a page leaves something open, the replies
are those that Redis' own tests expect (tests/unit/type/stream-cgroups.tcl of 8.2).
"""

from __future__ import annotations

import pytest

from riverbus.commands import Answered, Publish
from riverbus.core.state.keyspace import execute
from riverbus.wire.command_table import noun_of
from tests.core.keyspace.shard import Shard, plain

NOTHING_PENDING = [0, None, None, None]


def says(shard: Shard, line: str) -> object:
    noun = noun_of(line.encode().split())
    if isinstance(noun, Answered):
        return plain(noun.reply)
    if isinstance(noun, Publish):
        [payload] = noun.payloads
        return str(shard.publish(noun.channel, payload, kind=noun.kind))
    return shard.ask(noun) if type(noun) in execute._READS else shard.do(noun)


@pytest.fixture
def shard() -> Shard:
    """Two entries, which two groups have been given."""
    shard = Shard()
    for line in ("XADD s 1-0 f v", "XADD s 2-0 f v", "XGROUP CREATE s one 0", "XGROUP CREATE s two 0"):
        says(shard, line)
    for group in ("one", "two"):
        says(shard, f"XREADGROUP GROUP {group} consumer-of-{group} STREAMS s >")
    return shard


def pending_of(group: str) -> list[object]:
    return [2, b"1-0", b"2-0", [[b"consumer-of-" + group.encode(), b"2"]]]


# --- XDELEX -----------------------------------------------------------------------------------------------------------


def test_xdelex_of_what_is_not_there_is_minus_one_for_each_id(shard: Shard) -> None:
    assert says(shard, "XDELEX s KEEPREF IDS 2 1526919030474-55 1526919030474-56") == [-1, -1]
    assert says(shard, "XDELEX nothing IDS 2 1-0 2-0") == [-1, -1]
    assert says(shard, "XLEN s") == 2


@pytest.mark.parametrize("option", ["", "KEEPREF "])
def test_xdelex_keepref_keeps_what_is_pending_and_is_the_default(shard: Shard, option: str) -> None:
    assert says(shard, f"XDELEX s {option}IDS 3 1-0 2-0 3-0") == [1, 1, -1]
    assert says(shard, "XRANGE s - +") == []
    assert says(shard, "XPENDING s one") == pending_of("one")


def test_xdelex_delref_takes_it_from_all_groups(shard: Shard) -> None:
    assert says(shard, "XDELEX s DELREF IDS 2 1-0 2-0") == [1, 1]
    assert says(shard, "XPENDING s one") == says(shard, "XPENDING s two") == NOTHING_PENDING


def test_xdelex_delref_of_a_deleted_entry_still_takes_its_references(shard: Shard) -> None:
    says(shard, "XDEL s 1-0 2-0")
    assert says(shard, "XPENDING s one") == pending_of("one")
    assert says(shard, "XDELEX s DELREF IDS 2 1-0 2-0") == [-1, -1]
    assert says(shard, "XPENDING s one") == says(shard, "XPENDING s two") == NOTHING_PENDING


def test_xdelex_acked_deletes_what_all_groups_have_read_and_acknowledged(shard: Shard) -> None:
    assert says(shard, "XDELEX s ACKED IDS 2 1-0 2-0") == [2, 2]
    says(shard, "XACK s one 1-0 2-0")
    assert says(shard, "XDELEX s ACKED IDS 2 1-0 2-0") == [2, 2]
    says(shard, "XACK s two 1-0")
    assert says(shard, "XDELEX s ACKED IDS 2 1-0 2-0") == [1, 2]
    says(shard, "XADD s 3-0 f v")
    assert says(shard, "XDELEX s ACKED IDS 1 3-0") == [2], "nobody has read it"


def test_xdelex_acked_asks_the_groups_that_there_are(shard: Shard) -> None:
    """The page's "also, if there are no consumer groups" is not what Redis' tests expect of a stream without any."""
    says(shard, "XGROUP DESTROY s one")
    assert says(shard, "XDELEX s ACKED IDS 1 1-0") == [2]
    says(shard, "XGROUP DESTROY s two")
    assert says(shard, "XDELEX s ACKED IDS 2 1-0 2-0") == [1, 1]


def test_xdelex_acked_keeps_what_the_slowest_group_has_not_come_to() -> None:
    shard = Shard()
    for number in range(1, 6):
        says(shard, f"XADD s {number}-0 f v")
    says(shard, "XGROUP CREATE s slow 1-0")
    says(shard, "XGROUP CREATE s fast 3-0")
    assert says(shard, "XDELEX s ACKED IDS 2 1-0 2-0") == [1, 2]
    says(shard, "XGROUP DESTROY s slow")
    assert says(shard, "XDELEX s ACKED IDS 1 2-0") == [1]


# --- XACKDEL ----------------------------------------------------------------------------------------------------------


def test_xackdel_of_what_is_not_there_is_minus_one_for_each_id(shard: Shard) -> None:
    assert says(shard, "XACKDEL nothing one IDS 2 1-0 2-0") == [-1, -1]
    assert says(shard, "XACKDEL s one IDS 2 8-0 9-0") == [-1, -1]


def test_xackdel_keepref_leaves_the_other_groups_alone(shard: Shard) -> None:
    assert says(shard, "XACKDEL s one KEEPREF IDS 2 1-0 2-0") == [1, 1]
    assert says(shard, "XRANGE s - +") == []
    assert says(shard, "XPENDING s one") == NOTHING_PENDING
    assert says(shard, "XPENDING s two") == pending_of("two")
    assert says(shard, "XACKDEL s two KEEPREF IDS 2 1-0 2-0") == [1, 1]
    assert says(shard, "XPENDING s two") == NOTHING_PENDING


def test_xackdel_delref_takes_it_from_all_groups(shard: Shard) -> None:
    assert says(shard, "XACKDEL s one DELREF IDS 2 1-0 2-0") == [1, 1]
    assert says(shard, "XLEN s") == 0
    assert says(shard, "XPENDING s one") == says(shard, "XPENDING s two") == NOTHING_PENDING
    assert says(shard, "XACKDEL s two DELREF IDS 2 1-0 2-0") == [-1, -1]


def test_xackdel_acked_deletes_with_the_last_group(shard: Shard) -> None:
    assert says(shard, "XACKDEL s one ACKED IDS 2 1-0 2-0") == [2, 2]
    assert says(shard, "XLEN s") == 2
    assert says(shard, "XPENDING s one") == NOTHING_PENDING
    assert says(shard, "XPENDING s two") == pending_of("two")
    assert says(shard, "XACKDEL s two ACKED IDS 2 1-0 2-0") == [1, 1]
    assert says(shard, "XLEN s") == 0


@pytest.mark.parametrize("command", ["XDELEX s", "XACKDEL s one"])
@pytest.mark.parametrize(
    ("rest", "error"),
    [
        ("IDS abc 1-1", "ERR Number of IDs must be a positive integer"),
        ("IDS 0 1-1", "ERR Number of IDs must be a positive integer"),
        ("IDS -5 1-1", "ERR Number of IDs must be a positive integer"),
        ("IDS 3 1-1 2-2", "ERR The `numids` parameter must match the number of arguments"),
        ("IDS 1 1-1 2-2", "ERR syntax error"),
        ("IDS 1 1-1 IDS 1 2-2", "ERR syntax error"),
        ("KEEPREF DELREF IDS 1 1-1", "ERR syntax error"),
        ("KEEPREF ACKED IDS 1 1-1", "ERR syntax error"),
        ("DELREF ACKED IDS 1 1-1", "ERR syntax error"),
    ],
)
def test_what_is_no_list_of_ids_is_refused(shard: Shard, command: str, rest: str, error: str) -> None:
    assert says(shard, f"{command} {rest}") == error


@pytest.mark.parametrize("command", ["XDELEX s", "XACKDEL s one"])
def test_the_ids_may_come_before_the_option(shard: Shard, command: str) -> None:
    assert says(shard, f"{command} IDS 2 1-0 9-0 ACKED") == [2, -1]


# --- idempotent production --------------------------------------------------------------------------------------------


def of_window(shard: Shard) -> dict[str, object]:
    info = says(shard, "XINFO STREAM s")
    assert isinstance(info, dict)
    return {name.decode(): value for name, value in info.items() if b"idmp" in name or b"ids-" in name}


@pytest.mark.parametrize("mode", ["IDMP producer message", "IDMPAUTO producer"])
def test_a_message_that_is_sent_again_is_not_added_again(mode: str) -> None:
    shard = Shard()
    first = says(shard, f"XADD s {mode} * field value")
    assert says(shard, f"XADD s {mode} * field value") == first
    assert says(shard, "XLEN s") == 1


def test_the_content_is_the_id_in_the_automatic_mode_alone() -> None:
    shard = Shard()
    says(shard, "XADD s IDMP p 1 * f one")
    says(shard, "XADD s IDMP p 1 * f two")
    assert says(shard, "XLEN s") == 1
    says(shard, "XADD s IDMPAUTO q * f one")
    says(shard, "XADD s IDMPAUTO q * f two")
    assert says(shard, "XLEN s") == 3


def test_producers_are_apart_and_xinfo_counts() -> None:
    shard = Shard()
    for line in ("IDMP p 1", "IDMP q 1", "IDMP q 2", "IDMP q 2"):
        says(shard, f"XADD s {line} * f v")
    assert of_window(shard) == {
        "idmp-duration": 100,
        "idmp-maxsize": 100,
        "pids-tracked": 2,
        "iids-tracked": 3,
        "iids-added": 3,
        "iids-duplicates": 1,
    }


def test_an_id_is_forgotten_after_the_duration() -> None:
    shard = Shard()
    first = says(shard, "XADD s IDMP p 1 * f v")
    assert says(shard, "XCFGSET s IDMP-DURATION 300") == "OK"
    first = says(shard, "XADD s IDMP p 1 * f v")
    shard.tick(299_000)
    assert says(shard, "XADD s IDMP p 1 * f v") == first
    shard.tick(2_000)
    assert says(shard, "XADD s IDMP p 1 * f v") != first


def test_the_size_is_stronger_than_the_duration() -> None:
    shard = Shard()
    says(shard, "XADD s * f v")
    assert says(shard, "XCFGSET s IDMP-DURATION 300 IDMP-MAXSIZE 2") == "OK"
    made = [says(shard, f"XADD s IDMP p {number} * f v") for number in range(3)]
    assert says(shard, "XADD s IDMP p 2 * f v") == made[2]
    assert says(shard, "XADD s IDMP p 1 * f v") == made[1]
    assert says(shard, "XADD s IDMP p 0 * f v") != made[0]


def test_other_settings_forget_all_and_the_same_ones_nothing() -> None:
    """As the page on idempotency has it; that of XCFGSET does not tell the two apart."""
    shard = Shard()
    first = says(shard, "XADD s IDMP p 1 * f v")
    says(shard, "XCFGSET s IDMP-DURATION 100")
    assert says(shard, "XADD s IDMP p 1 * f v") == first
    says(shard, "XCFGSET s IDMP-DURATION 101")
    assert says(shard, "XADD s IDMP p 1 * f v") != first


def test_xcfgset_refuses_what_its_page_says() -> None:
    shard = Shard()
    says(shard, "SET string v")
    assert says(shard, "XCFGSET none IDMP-DURATION 300") == "ERR no such key"
    assert str(says(shard, "XCFGSET string IDMP-DURATION 300")).startswith("WRONGTYPE ")
    says(shard, "XADD s 1-0 f v")
    for wrong in ("", " IDMP-DURATION", " IDMP-DURATION 0", " IDMP-DURATION 86401", " IDMP-MAXSIZE 0"):
        assert str(says(shard, f"XCFGSET s{wrong}")).startswith("ERR "), wrong
    assert str(says(shard, "XCFGSET s IDMP-MAXSIZE 10001")).startswith("ERR ")
    assert says(shard, "XCFGSET s IDMP-DURATION 86400 IDMP-MAXSIZE 10000") == "OK"
