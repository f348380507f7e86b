"""Commands about keys, streams and groups: each becomes its noun, each mistake gets Redis' words."""

from __future__ import annotations

import pytest

from riverbus import commands
from riverbus import keyspace_commands as keyspace
from riverbus.commands import Answered, Command, Publish
from riverbus.core.state.keyspace.codes import CODES, decode_noun, encode_noun
from riverbus.fields import encode_fields
from riverbus.keyspace_commands import Trim
from riverbus.limits import CHANNEL_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, MESSAGE_BYTES_MAX
from riverbus.messages import ID_MAX, ID_MIN, SEQ_MAX, ErrorReply, Kind, MessageId
from riverbus.wire.command_table import noun_of
from riverbus.wire.keyspace_rows import GROUPS, KEYS, STREAMS, STRINGS
from riverbus.wire.redis import RedisProtocol
from tests.wire.resp_reference import encode

BODY = encode_fields([b"f", b"v"])
STRATEGIES = "ERR syntax error, MAXLEN and MINID options at the same time are not compatible"
BELOW_DELETED = "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id"
WRONG_CREATE = "ERR unknown subcommand or wrong number of arguments for 'CREATE'. Try XGROUP HELP."
UNBALANCED = "ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID or '>' must be specified."
LONG = b"x" * (CHANNEL_BYTES_MAX + 1)


def noun(line: str) -> Command:
    return noun_of(line.encode().split())


def error(line: str) -> str:
    answered = noun(line)
    assert isinstance(answered, Answered), answered
    assert isinstance(answered.reply, ErrorReply)
    return answered.reply.text


CASES: list[tuple[str, Command]] = [
    ("XADD c * f v", Publish(b"c", Kind.XADD, [BODY], "id")),
    ("XADD c NOMKSTREAM * f v", keyspace.XAdd(b"c", BODY, no_mkstream=True)),
    ("XADD c 5-1 f v", keyspace.XAdd(b"c", BODY, MessageId(5, 1))),
    ("XADD c 5 f v", keyspace.XAdd(b"c", BODY, MessageId(5, 0))),
    ("XADD c 5-* f v", keyspace.XAdd(b"c", BODY, MessageId(5, 0), True)),
    ("XADD c maxlen 5 * f v", keyspace.XAdd(b"c", BODY, trim=Trim(5))),
    ("XADD c MINID ~ 7 LIMIT 0 * f v", keyspace.XAdd(b"c", BODY, trim=Trim(None, MessageId(7, 0), True, 0))),
    ("XADD c IDMP p i * f v", keyspace.XAdd(b"c", BODY, producer=b"p", idempotent_id=b"i")),
    ("XADD c IDMPAUTO p KEEPREF MAXLEN = 5 * f v", keyspace.XAdd(b"c", BODY, trim=Trim(5), producer=b"p")),
    ("BUS.PUBLISH c m KEY k", keyspace.PublishOnce(b"c", Kind.PUBLISH, b"m", b"k")),
    ("XLEN c", commands.XLen(b"c")),
    ("XRANGE c - +", commands.XRange(b"c", ID_MIN, ID_MAX, None, False)),
    ("XREVRANGE c + -", commands.XRange(b"c", ID_MIN, ID_MAX, None, True)),
    ("XREAD STREAMS c +", commands.XRead((b"c",), (commands.NEWEST,), None, None)),
    ("XDEL c 1 2-3", keyspace.XDel(b"c", (MessageId(1, 0), MessageId(2, 3)))),
    ("XDELEX c ACKED IDS 1 1", keyspace.XDelEx(b"c", "acked", (MessageId(1, 0),))),
    ("XACKDEL c g DELREF IDS 1 1", keyspace.XAckDel(b"c", b"g", "delref", (MessageId(1, 0),))),
    ("XTRIM c MAXLEN ~ 5 LIMIT 7 ACKED", keyspace.XTrim(b"c", Trim(5, None, True, 7, "acked"))),
    ("XSETID c 5 ENTRIESADDED 3 MAXDELETEDID 2", keyspace.XSetId(b"c", MessageId(5, 0), 3, MessageId(2, 0))),
    ("XCFGSET c IDMP-DURATION 60 IDMP-MAXSIZE 5", keyspace.XCfgSet(b"c", 60, 5)),
    ("XINFO STREAM c", commands.XInfoStream(b"c", False, 10)),
    ("XINFO GROUPS c", keyspace.XInfoGroups(b"c")),
    ("XINFO CONSUMERS c g", keyspace.XInfoConsumers(b"c", b"g")),
    ("XGROUP CREATE c g $ MKSTREAM ENTRIESREAD -1", keyspace.XGroupCreate(b"c", b"g", None, True, None)),
    ("XGROUP SETID c g - ENTRIESREAD 3", keyspace.XGroupSetId(b"c", b"g", ID_MIN, 3)),
    ("XGROUP DESTROY c g", keyspace.XGroupDestroy(b"c", b"g")),
    ("XGROUP CREATECONSUMER c g n", keyspace.XGroupCreateConsumer(b"c", b"g", b"n")),
    ("XGROUP DELCONSUMER c g n", keyspace.XGroupDelConsumer(b"c", b"g", b"n")),
    (
        "XREADGROUP GROUP g n COUNT 2 BLOCK 0 NOACK CLAIM 5 STREAMS a b > 5",
        keyspace.XReadGroup(b"g", b"n", (b"a", b"b"), (None, MessageId(5, 0)), 2, 0, True, 5),
    ),
    ("XACK c g 1", keyspace.XAck(b"c", b"g", (MessageId(1, 0),))),
    ("XPENDING c g", keyspace.XPending(b"c", b"g")),
    (
        "XPENDING c g IDLE 9 (1 5 7 n",
        keyspace.XPending(b"c", b"g", MessageId(1, 1), MessageId(5, SEQ_MAX), 7, b"n", 9),
    ),
    (
        "XCLAIM c g n -5 1 2 IDLE 3 RETRYCOUNT 4 FORCE JUSTID LASTID 9",
        keyspace.XClaim(
            b"c", b"g", b"n", 0, (MessageId(1, 0), MessageId(2, 0)), 3, None, 4, True, True, MessageId(9, 0)
        ),
    ),
    ("XAUTOCLAIM c g n 5 - COUNT 7 JUSTID", keyspace.XAutoClaim(b"c", b"g", b"n", 5, ID_MIN, 7, True)),
    ("DEL a b", keyspace.Del((b"a", b"b"))),
    ("UNLINK a", keyspace.Del((b"a",), "unlink")),
    ("EXISTS a a", keyspace.Exists((b"a", b"a"))),
    ("TOUCH a", keyspace.Exists((b"a",), "touch")),
    ("TYPE a", keyspace.Type(b"a")),
    ("KEYS *", keyspace.Keys(b"*")),
    ("SCAN 7 MATCH a* COUNT 5 TYPE STREAM", keyspace.Scan(7, b"a*", 5, b"stream")),
    ("RANDOMKEY", keyspace.RandomKey(0)),
    ("DBSIZE", keyspace.DbSize()),
    ("RENAME a b", keyspace.Rename(b"a", b"b")),
    ("RENAMENX a b", keyspace.Rename(b"a", b"b", True)),
    ("OBJECT ENCODING a", keyspace.Object("encoding", b"a")),
    ("OBJECT FREQ a", keyspace.Object("freq", b"a")),
    ("OBJECT IDLETIME a", keyspace.Object("idletime", b"a")),
    ("OBJECT REFCOUNT a", keyspace.Object("refcount", b"a")),
    ("FLUSHALL ASYNC", keyspace.FlushAll()),
    ("FLUSHDB", keyspace.FlushAll("flushdb")),
    ("EXPIRE a -5 GT XX", keyspace.Expire(b"a", -5000, False, "xxgt")),
    ("PEXPIRE a 5", keyspace.Expire(b"a", 5, False, "", "pexpire")),
    ("EXPIREAT a 5 NX", keyspace.Expire(b"a", 5000, True, "nx", "expireat")),
    ("PEXPIREAT a 5", keyspace.Expire(b"a", 5, True, "", "pexpireat")),
    ("TTL a", keyspace.Ttl(b"a", True)),
    ("PTTL a", keyspace.Ttl(b"a", False)),
    ("EXPIRETIME a", keyspace.Ttl(b"a", True, True)),
    ("PEXPIRETIME a", keyspace.Ttl(b"a", False, True)),
    ("PERSIST a", keyspace.Persist(b"a")),
    ("SET a v", keyspace.SetString(b"a", b"v")),
    ("SET a v NX GET EX 5", keyspace.SetString(b"a", b"v", 5000, nx=True, get=True)),
    ("SET a v xx PXAT 5", keyspace.SetString(b"a", b"v", 5, True, xx=True)),
    ("SET a v KEEPTTL", keyspace.SetString(b"a", b"v", keep_ttl=True)),
    ("SETEX a 5 v", keyspace.SetString(b"a", b"v", 5000, command="setex")),
    ("PSETEX a 5 v", keyspace.SetString(b"a", b"v", 5, command="psetex")),
    ("SETNX a v", keyspace.SetString(b"a", b"v", nx=True, command="setnx")),
    ("GET a", keyspace.GetString(b"a")),
    ("GETDEL a", keyspace.GetDel(b"a")),
    ("GETEX a", keyspace.GetString(b"a", "getex")),
    ("GETEX a EXAT 5", keyspace.GetEx(b"a", 5000, True)),
    ("GETEX a PERSIST", keyspace.GetEx(b"a", persist=True)),
    ("STRLEN a", keyspace.StrLen(b"a")),
]


@pytest.mark.parametrize(("line", "expected"), CASES, ids=[line for line, _ in CASES])
def test_each_command_becomes_its_noun(line: str, expected: Command) -> None:
    assert noun(line) == expected
    assert type(noun(line)) is type(expected)


@pytest.mark.parametrize(
    "expected", [each for line, each in CASES if type(each) in CODES and line != "XREAD STREAMS c +"]
)
def test_each_noun_can_be_in_the_log(expected: Command) -> None:
    """But XREAD's `+`, for which EXEC puts in the id that it means."""
    code, fields = encode_noun(expected)
    assert decode_noun(code, fields, is_in_transaction=code >= 50) == expected


def test_the_cases_above_cover_the_table() -> None:
    tested = {"|".join(line.lower().split()[:2]) for line, _ in CASES}
    for row in (*STREAMS, *GROUPS, *KEYS, *STRINGS):
        names = [sub.name for sub in row.subcommands.values() if not sub.name.endswith("|help")] or [row.name]
        for name in names:
            assert any(line == name or line.startswith(name + "|") for line in tested), name


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("XADD c MAXLEN -1 * f v", "ERR The MAXLEN argument must be >= 0."),
        ("XADD c MAXLEN 1 MINID 1 * f v", STRATEGIES),
        (
            "XADD c LIMIT 5 * f v",
            "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
        ),
        ("XADD c MAXLEN 5 LIMIT 5 * f v", "ERR syntax error, LIMIT cannot be used without the special ~ option"),
        ("XADD c MAXLEN ~ 5 LIMIT -5 * f v", "ERR The LIMIT argument must be >= 0."),
        ("XADD c 0-0 f v", "ERR The ID specified in XADD must be greater than 0-0"),
        ("XADD c - f v", "ERR Invalid stream ID specified as stream command argument"),
        ("XADD c 1-1 f v f", "ERR wrong number of arguments for 'xadd' command"),
        ("XADD c MAXLEN 5 MAXLEN 5 5", STRATEGIES),
        ("XADD c IDMP p i 1-1 f v", "ERR IDMP/IDMPAUTO can be used only with auto-generated IDs"),
        ("XADD c IDMPAUTO p IDMPAUTO p * f v", "ERR IDMP/IDMPAUTO specified multiple times"),
        ("XADD __riverbus__:x 1-1 f v", "ERR channels that begin with __riverbus__: are the bus's own"),
        ("SET __riverbus__:x v", "ERR channels that begin with __riverbus__: are the bus's own"),
        ("RENAME a __riverbus__:x", "ERR channels that begin with __riverbus__: are the bus's own"),
        ("BUS.PUBLISH c m NO k", "ERR syntax error"),
        ("XTRIM c LIMIT 0", "ERR syntax error, XTRIM must be called with a trimming strategy"),
        ("XTRIM c LIMIT 0 ACKED", "ERR syntax error, XTRIM must be called with a trimming strategy"),
        ("XTRIM c NOMKSTREAM 5", "ERR syntax error"),
        ("XDELEX c IDS 2 1", "ERR The `numids` parameter must match the number of arguments"),
        ("XDELEX c IDS 0 1", "ERR Number of IDs must be a positive integer"),
        ("XSETID c 5 MAXDELETEDID 6", BELOW_DELETED),
        ("XSETID c 5 ENTRIESADDED -1", "ERR entries_added must be positive"),
        ("XCFGSET c IDMP-DURATION 0", "ERR IDMP-DURATION must be between 1 and 86400 seconds"),
        ("XGROUP CREATE c g 5 ENTRIESREAD -2", "ERR value for ENTRIESREAD must be positive or -1"),
        ("XGROUP CREATE c g 5 NO", WRONG_CREATE),
        ("XGROUP NO", "ERR unknown subcommand 'NO'. Try XGROUP HELP."),
        ("XREADGROUP GROUP g n STREAMS a b c", UNBALANCED),
        ("XREADGROUP COUNT 1 COUNT 1 STREAMS a >", "ERR Missing GROUP option for XREADGROUP"),
        ("XREADGROUP GROUP g n COUNT 1 a b", "ERR syntax error"),
        ("XREADGROUP GROUP g n BLOCK -1 STREAMS a >", "ERR timeout is negative"),
        ("XREADGROUP GROUP g n BLOCK 9223372036854775807 STREAMS a >", "ERR timeout is out of range"),
        ("XPENDING c g - +", "ERR syntax error"),
        ("XPENDING c g IDLE 5 - +", "ERR syntax error"),
        ("XCLAIM c g n x 1", "ERR Invalid min-idle-time argument for XCLAIM"),
        ("XCLAIM c g n 1 1 NO", "ERR Unrecognized XCLAIM option 'NO'"),
        ("XCLAIM c g n 1 1 IDLE x", "ERR Invalid IDLE option argument for XCLAIM"),
        ("XAUTOCLAIM c g n 1 - COUNT 0", "ERR COUNT must be > 0"),
        ("SCAN x", "ERR invalid cursor"),
        ("SCAN 0 COUNT 0", "ERR syntax error"),
        ("SCAN 0 COUNT", "ERR syntax error"),
        ("FLUSHALL NOW", "ERR syntax error"),
        ("EXPIRE a 5 NX GT", "ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE a 5 GT LT", "ERR GT and LT options at the same time are not compatible"),
        ("EXPIRE a 5 NO", "ERR Unsupported option NO"),
        ("EXPIRE a 9223372036854775807", "ERR invalid expire time in 'expire' command"),
        ("SET a v NX XX", "ERR syntax error"),
        ("SET a v EX 5 PX 5", "ERR syntax error"),
        ("SET a v EX 0", "ERR invalid expire time in 'set' command"),
        ("SETEX a 0 v", "ERR invalid expire time in 'setex' command"),
        ("GETEX a KEEPTTL", "ERR syntax error"),
        ("GETEX a EX -1", "ERR invalid expire time in 'getex' command"),
        ("OBJECT NO a", "ERR unknown subcommand 'NO'. Try OBJECT HELP."),
    ],
)  # fmt: skip
def test_mistakes_get_the_words_of_redis(line: str, text: str) -> None:
    assert error(line) == text


def test_names_and_values_have_limits() -> None:
    for line in (b"GET", b"DEL a", b"XPENDING a", b"XGROUP DESTROY a", b"XREADGROUP GROUP", b"WATCH", b"XRANGE"):
        args = [*line.split(), LONG, b"b", b"c"]
        answered = noun_of(args)
        assert isinstance(answered, Answered), line
    value = b"x" * (MESSAGE_BYTES_MAX + 1)
    answered = noun_of([b"SET", b"a", value])
    assert isinstance(answered, Answered)
    assert "the limit is" in str(answered.reply)
    answered = noun_of([b"BUS.PUBLISH", b"c", b"m", b"KEY", b"k" * (IDEMPOTENCY_KEY_BYTES_MAX + 1)])
    assert isinstance(answered, Answered)


def test_while_somebody_monitors_commands_come_with_their_arguments() -> None:
    protocol = RedisProtocol(authenticated=True)
    protocol.is_traced = True
    asked = [
        [b"PUBLISH", b"c", b"1"],
        [b"PUBLISH", b"c", b"2"],
        [b"AUTH", b"secret"],
        [b"CONFIG", b"GET", b"x"],
        [b"NO"],
    ]
    nouns = protocol.receive_data(b"".join(map(encode, asked)))
    assert nouns[:2] == [commands.Traced(args, Publish(b"c", Kind.PUBLISH, [args[2]])) for args in asked[:2]]
    assert [type(each) for each in nouns[2:]] == [commands.Auth, commands.ConfigGet, Answered]
