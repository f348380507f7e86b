"""Redis' commands: each becomes its noun, each mistake gets Redis' words, COMMAND follows from the table."""

from __future__ import annotations

import pytest

from riverbus import commands
from riverbus import keyspace_commands as keyspace
from riverbus.commands import Answered, Command, Publish
from riverbus.fields import DamagedFields, decode_fields, encode_fields
from riverbus.limits import CHANNEL_BYTES_MAX, MESSAGE_BYTES_MAX, PUBLISH_RUN_BYTES_MAX, PUBLISH_RUN_MESSAGES_MAX
from riverbus.messages import ID_MAX, ID_MIN, SEQ_MAX, ErrorReply, Kind, MessageId, Status
from riverbus.wire.command_table import ROWS, noun_of
from riverbus.wire.keyspace_rows import GROUPS, KEYS, STREAMS, STRINGS
from riverbus.wire.redis import RedisProtocol
from tests.wire.resp_reference import encode


def nouns_of(*asked: list[bytes]) -> list[Command]:
    return RedisProtocol(authenticated=True).receive_data(b"".join(map(encode, asked)))


def noun(line: str) -> Command:
    """Of a line of words, through the inline way in."""
    (one,) = RedisProtocol(authenticated=True).receive_data(line.encode() + b"\r\n")
    return one


def error(line: str) -> str:
    answered = noun(line)
    assert isinstance(answered, Answered), answered
    assert isinstance(answered.reply, ErrorReply)
    return answered.reply.text


def reply(line: str) -> object:
    answered = noun(line)
    assert isinstance(answered, Answered), answered
    return answered.reply


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("HELLO", commands.Hello(None, None, None, None)),
        ("HELLO 3 AUTH bob pw SETNAME me", commands.Hello(3, b"bob", b"pw", b"me")),
        ("AUTH pw", commands.Auth(None, b"pw")),
        ("AUTH bob pw", commands.Auth(b"bob", b"pw")),
        ("ping", commands.Ping(None)),
        ("ECHO hi", Answered(b"hi", "echo")),
        ("SELECT 0", Answered(Status("OK"), "select")),
        ("QUIT now", commands.Quit()),
        ("RESET", commands.Reset()),
        ("TIME", commands.Time()),
        ("INFO Server CLIENTS", commands.Info((b"server", b"clients"))),
        ("CONFIG GET maxmemory save", commands.ConfigGet((b"maxmemory", b"save"))),
        ("FUNCTION FLUSH", Answered(Status("OK"), "function|flush")),
        ("SCRIPT FLUSH async", Answered(Status("OK"), "script|flush")),
        ("CLIENT SETNAME me", commands.ClientSetName(b"me")),
        ("CLIENT GETNAME", commands.ClientGetName()),
        ("CLIENT SETINFO LIB-NAME redis-py", commands.ClientSetInfo("lib-name", b"redis-py")),
        ("CLIENT ID", commands.ClientId()),
        ("CLIENT INFO", commands.ClientInfo()),
        ("CLIENT LIST", commands.ClientList(None, None)),
        ("CLIENT LIST TYPE slave", commands.ClientList(None, "replica")),
        ("CLIENT LIST ID 1 2", commands.ClientList((1, 2), None)),
        ("CLIENT KILL 1.2.3.4:5", commands.ClientKill(address=b"1.2.3.4:5", skip_me=False, old_form=True)),
        ("CLIENT KILL ID 7 SKIPME no TYPE pubsub", commands.ClientKill(id=7, skip_me=False, type="pubsub")),
        ("CLIENT KILL ADDR a LADDR b USER c", commands.ClientKill(address=b"a", local_address=b"b", user=b"c")),
        ("CLIENT NO-EVICT on", commands.ClientNoEvict(True)),
        ("CLIENT NO-TOUCH OFF", commands.ClientNoTouch(False)),
        ("CLIENT CACHING no", Answered(ErrorReply(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode "
            "enabled"), "client|caching")),
        ("CLIENT GETREDIR", Answered(-1, "client|getredir")),
        ("CLIENT TRACKINGINFO", Answered(
            {"flags": frozenset({b"off"}), "redirect": -1, "prefixes": []}, "client|trackinginfo")),
        ("CLIENT PAUSE 100 write", commands.ClientPause(100, True)),
        ("CLIENT PAUSE 100", commands.ClientPause(100, False)),
        ("CLIENT UNPAUSE", commands.ClientUnpause()),
        ("CLIENT UNBLOCK 7 error", commands.ClientUnblock(7, True)),
        ("CONFIG SET a b C d", commands.ConfigSet(((b"a", b"b"), (b"C", b"d")))),
        ("CONFIG RESETSTAT", commands.ConfigResetStat()),
        ("MONITOR", commands.Monitor()),
        ("WAIT 1 100", commands.Wait(1, 100)),
        ("CLIENT REPLY Skip", commands.ClientReply("skip")),
        ("PUBLISH c m", Publish(b"c", Kind.PUBLISH, [b"m"])),
        ("SPUBLISH c m", Publish(b"c", Kind.SPUBLISH, [b"m"])),
        ("BUS.PUBLISH c m", Publish(b"c", Kind.PUBLISH, [b"m"], "id")),
        ("XADD c * f v", Publish(b"c", Kind.XADD, [encode_fields([b"f", b"v"])], "id")),
        ("SUBSCRIBE a b", commands.Subscribe("channel", (b"a", b"b"))),
        ("PSUBSCRIBE a*", commands.Subscribe("pattern", (b"a*",))),
        ("SSUBSCRIBE a", commands.Subscribe("shard", (b"a",))),
        ("UNSUBSCRIBE", commands.Unsubscribe("channel", ())),
        ("PUNSUBSCRIBE a*", commands.Unsubscribe("pattern", (b"a*",))),
        ("SUNSUBSCRIBE a", commands.Unsubscribe("shard", (b"a",))),
        ("BUS.PUBLISHRUN c p 5 m n", keyspace.PublishRun(b"c", b"p", 5, (b"m", b"n"))),
        ("BUS.SUBSCRIBE c", commands.BusSubscribe(b"c", None)),
        ("BUS.SUBSCRIBE c since 5-1", commands.BusSubscribe(b"c", MessageId(5, 1))),
        ("BUS.UNSUBSCRIBE c", commands.BusUnsubscribe(b"c")),
        ("PUBSUB CHANNELS", commands.PubsubChannels(None, False)),
        ("PUBSUB SHARDCHANNELS a*", commands.PubsubChannels(b"a*", True)),
        ("PUBSUB NUMSUB", commands.PubsubNumsub((), False)),
        ("PUBSUB SHARDNUMSUB a b", commands.PubsubNumsub((b"a", b"b"), True)),
        ("PUBSUB NUMPAT", commands.PubsubNumpat()),
        ("XRANGE c - +", commands.XRange(b"c", ID_MIN, ID_MAX, None, False)),
        ("XRANGE c 5 5", commands.XRange(b"c", MessageId(5, 0), MessageId(5, SEQ_MAX), None, False)),
        ("XRANGE c (5 (5-1", commands.XRange(b"c", MessageId(5, 1), MessageId(5, 0), None, False)),
        ("XRANGE c (5-18446744073709551615 (6-0", commands.XRange(
            b"c", MessageId(6, 0), MessageId(5, SEQ_MAX), None, False)),
        ("XREVRANGE c + - COUNT 5", commands.XRange(b"c", ID_MIN, ID_MAX, 5, True)),
        ("XRANGE c - + COUNT -1", commands.XRange(b"c", ID_MIN, ID_MAX, 0, False)),
        ("XRANGE c 007-1 +", commands.XRange(b"c", MessageId(7, 1), ID_MAX, None, False)),
        ("XLEN c", commands.XLen(b"c")),
        ("XREAD STREAMS a b 1-1 $", commands.XRead((b"a", b"b"), (MessageId(1, 1), None), None, None)),
        ("XREAD count 5 block 0 streams a 0", commands.XRead((b"a",), (ID_MIN,), 5, 0)),
        ("XREAD COUNT 0 STREAMS a 0", commands.XRead((b"a",), (ID_MIN,), None, None)),
        ("XINFO STREAM c", commands.XInfoStream(b"c", False, 10)),
        ("XINFO STREAM c full COUNT 0", commands.XInfoStream(b"c", True, 0)),
        ("MULTI", commands.Multi()),
        ("EXEC", commands.Exec()),
        ("DISCARD", commands.Discard()),
        ("WATCH a b", commands.Watch((b"a", b"b"))),
        ("UNWATCH", commands.Unwatch()),
    ],
)  # fmt: skip
def test_each_command_becomes_its_noun(line: str, expected: Command) -> None:
    assert noun(line) == expected
    assert type(noun(line)) is type(expected)


def test_the_cases_above_cover_the_table() -> None:
    (mark,) = test_each_command_becomes_its_noun.pytestmark  # type: ignore[attr-defined]
    tested = {line.lower().replace(" ", "|", 1) for line, _ in mark.args[1]}
    for row in ROWS.values():
        names = [sub.name for sub in row.subcommands.values() if not sub.name.endswith("|help")] or [row.name]
        if row.name in ("acl", "bus.rule") or row in (*STREAMS, *GROUPS, *KEYS, *STRINGS):
            continue  # tests/core/test_acl_commands.py, tests/core/test_special_rules.py, test_keyspace_commands.py
        for name in names:
            assert row.name == "command" or any(line.startswith(name) for line in tested), name


@pytest.mark.parametrize(
    ("line", "text"),
    [
        # What redis-server 7.0.15 doesn't know, or says otherwise than 7.2 (the rest: test_redis_server.py).
        ("CLIENT SETINFO x y", "ERR Unrecognized option 'x'"),
        ("CLIENT SETINFO lib-ver 'a b'", "ERR lib-ver cannot contain spaces, newlines or special characters."),
        ("XREAD STREAMS a b 0",
         "ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must be specified."),
        ("APPEND a b", "ERR unknown command 'APPEND', with args beginning with: 'a' 'b' "),
        ("PUBLISH __riverbus__:gap x", "ERR channels that begin with __riverbus__: are the bus's own"),
        ("BUS.SUBSCRIBE c FROM 5", "ERR syntax error"),
        ("BUS.SUBSCRIBE c SINCE", "ERR syntax error"),
        ("BUS.SUBSCRIBE c SINCE x", "ERR Invalid stream ID specified as stream command argument"),
        ("CONFIG REWRITE", "ERR unknown subcommand 'REWRITE'. Try CONFIG HELP."),
    ],
)  # fmt: skip
def test_errors_that_are_ours_or_newer(line: str, text: str) -> None:
    assert error(line) == text


def test_what_is_too_large_is_refused_alone() -> None:
    good = [b"PUBLISH", b"c", b"m"]
    large = [b"PUBLISH", b"c", bytes(MESSAGE_BYTES_MAX + 1)]
    largest = [b"PUBLISH", b"c", bytes(MESSAGE_BYTES_MAX)]
    wide = [b"PUBLISH", b"c" * (CHANNEL_BYTES_MAX + 1), b"m"]
    first, refused, second, name_refused, third = nouns_of(good, large, largest, wide, good)
    assert (first, second, third) == (noun("PUBLISH c m"), Publish(b"c", 0, [largest[2]]), noun("PUBLISH c m"))
    assert refused == Answered(ErrorReply("ERR message of 8388609 bytes, the limit is 8388608"), "publish")
    assert name_refused == Answered(ErrorReply("ERR channel name of 1025 bytes, the limit is 1024"), "publish")


def test_an_error_says_whether_the_command_exists() -> None:
    """So that a session can refuse it before AUTH, and queue or abort it in MULTI, as Redis does."""
    for line, name in [("NOPE", ""), ("GET", ""), ("ECHO", ""), ("CLIENT NOPE", ""), ("SELECT x", "select"),
                       ("CLIENT KILL ID x", "client|kill"), ("COMMAND COUNT", "command|count")]:  # fmt: skip
        answered = noun(line)
        assert isinstance(answered, Answered)
        assert answered.command == name


# --- runs -------------------------------------------------------------------------------------------------------------


def payloads_of(nouns: list[Command]) -> list[list[bytes]]:
    return [one.payloads for one in nouns if isinstance(one, Publish)]


def test_publishes_to_one_channel_become_one_noun() -> None:
    publishes = [[b"PUBLISH", b"c", b"%d" % number] for number in range(300)]
    (run,) = nouns_of(*publishes)
    assert run == Publish(b"c", Kind.PUBLISH, [b"%d" % number for number in range(300)])


def test_a_run_ends_where_channel_kind_or_style_changes() -> None:
    asked = [
        [b"PUBLISH", b"a", b"1"], [b"publish", b"a", b"2"], [b"PUBLISH", b"b", b"3"], [b"SPUBLISH", b"b", b"4"],
        [b"BUS.PUBLISH", b"b", b"5"], [b"PUBLISH", b"b", b"6"], [b"PING"], [b"PUBLISH", b"b", b"7"],
        [b"PUBLISH", b"b"], [b"PUBLISH", b"b", b"8"],
    ]  # fmt: skip
    assert payloads_of(nouns_of(*asked)) == [[b"1", b"2"], [b"3"], [b"4"], [b"5"], [b"6"], [b"7"], [b"8"]]


@pytest.mark.parametrize("size", [0, 100, 1000, 4096, 4097, PUBLISH_RUN_BYTES_MAX, PUBLISH_RUN_BYTES_MAX + 1])
def test_runs_are_bounded(size: int) -> None:
    count = 2500 if size < 4096 else 60
    runs = payloads_of(nouns_of(*[[b"PUBLISH", b"c", b"x" * size]] * count))
    assert sum(map(len, runs)) == count
    assert all(len(run) <= PUBLISH_RUN_MESSAGES_MAX for run in runs)
    assert all(len(run) == 1 or sum(map(len, run)) <= PUBLISH_RUN_BYTES_MAX for run in runs)


def test_xadd_runs_keep_every_field() -> None:
    asked = [[b"XADD", b"c", b"*", b"f", b"v", b"n", b"%d" % number] for number in range(50)]
    (run,) = payloads_of(nouns_of(*asked))
    assert [decode_fields(body) for body in run] == [args[3:] for args in asked]


def test_a_payload_that_looks_like_the_protocol_is_a_payload() -> None:
    inner = encode([b"PUBLISH", b"c", b"x"])
    asked = [[b"PUBLISH", b"c", payload] for payload in [b"a", b"b", inner, b"\r\n" + inner, inner * 3, b"c", b"d"] * 9]
    assert payloads_of(nouns_of(*asked)) == [[args[2] for args in asked]]


# --- COMMAND ----------------------------------------------------------------------------------------------------------


def test_command_count_list_and_info_agree() -> None:
    everything = reply("COMMAND")
    assert isinstance(everything, list)
    assert reply("COMMAND COUNT") == len(everything) == len(ROWS)
    assert reply("COMMAND INFO") == everything
    names = reply("COMMAND LIST")
    assert isinstance(names, list)
    assert {"publish", "client|setinfo", "bus.subscribe"} < set(names)


def test_command_info_and_docs_of_some() -> None:
    info = reply("COMMAND INFO Publish nope client|id")
    assert isinstance(info, list)
    assert info[0][:6] == ["publish", 3, frozenset(map(Status, ["pubsub", "loading", "stale", "fast"])), 0, 0, 0]
    assert info[1] is None
    assert info[2][0] == "client|id"
    docs = reply("COMMAND DOCS xlen nope")
    assert isinstance(docs, dict)
    assert list(docs) == ["xlen"]
    assert set(docs["xlen"]) == {"summary", "since", "group", "complexity"}


def test_every_row_is_complete() -> None:
    for row in ROWS.values():
        for one in (row, *row.subcommands.values()):
            assert one.summary.endswith((".", "?")), one.name
            assert one.since, one.name
            assert one.group, one.name
            assert bool(row.subcommands) or one.complexity, one.name
            assert one.name == one.name.lower()


def test_help_lists_the_subcommands() -> None:
    lines = reply("PUBSUB HELP")
    assert isinstance(lines, list)
    texts = [line.text for line in lines]
    assert texts[0] == "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    assert "NUMSUB [<channel> ...]" in texts
    assert texts[-2:] == ["HELP", "    Print this help."]


def test_noun_of_never_raises_on_any_arity() -> None:
    for row in ROWS.values():
        for one in (row, *row.subcommands.values()):
            name = [part.encode() for part in one.name.split("|")]
            for count in range(8):
                for word in (b"", b"0", b"*", b"\xff", b"x" * 300, b"COUNT", b"STREAMS"):
                    noun_of(name + [word] * count)


# --- fields -----------------------------------------------------------------------------------------------------------


def test_fields_come_back_and_damage_is_found() -> None:
    fields = [b"", b"x" * 300, b"\r\n", b"\x00"]
    body = encode_fields(fields)
    assert decode_fields(body) == fields
    for damaged in (b"", body[:-1], body + b"x", b"\xff" * 4, b"\x01" + body[1:], bytes(4), body[:4]):
        with pytest.raises(DamagedFields):
            decode_fields(damaged)
    for wrong in ([], [b"odd"]):
        with pytest.raises(ValueError):
            encode_fields(wrong)
