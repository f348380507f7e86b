"""Rules by channel on a node: durability none, limits for payloads, idempotency windows, and BUS.RULE itself."""

from __future__ import annotations

import pytest

from riverbus.commands import (
    BusSubscribe,
    Exec,
    Multi,
    Publish,
    Subscribe,
    XLen,
    XRange,
)
from riverbus.core.clients.special_rules import NO_HISTORY, NO_KEYS
from riverbus.core.counters import FLEETING_UNREAD
from riverbus.core.state.bus import Bus
from riverbus.core.state.entries import BatchBuilder, encode_entry
from riverbus.core.state.rules import ChannelRule, Rules, commanded_to_bytes, rules_to_bytes
from riverbus.fields import encode_fields
from riverbus.keyspace_commands import PublishOnce, PublishRun, SetString, XAdd
from riverbus.limits import RULES_MAX
from riverbus.messages import ID_MAX, ID_MIN, Kind, MessageId
from riverbus.rule_commands import BusRuleGet, BusRuleList, RuleDel, RulesCopy, RuleSet
from riverbus.wire.command_table import noun_of
from tests.core.fakes import FakeClient, FakeNode, error_text
from tests.core.keyspace.shard import Shard

NONE = Rules(channels=(ChannelRule("live.*", durability="none"), ChannelRule("small.*", payload=4)))


def publish(channel: bytes, *payloads: bytes, style: str = "receivers", kind: Kind = Kind.PUBLISH) -> Publish:
    return Publish(channel, kind, list(payloads), style)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode(NONE)


@pytest.fixture
def client(node: FakeNode) -> FakeClient:
    return node.connect()


# --- durability none --------------------------------------------------------------------------------------------------


def test_a_publish_to_a_channel_of_durability_none_is_answered_and_delivered_without_the_log(
    node: FakeNode, client: FakeClient
) -> None:
    listener, other = node.connect(name="listener"), node.connect(3, "other")
    listener.do(Subscribe("channel", (b"live.a",)))
    other.do(Subscribe("pattern", (b"live.*",)))
    client.send(publish(b"live.a", b"1", b"2"))
    assert not any(node.queues)
    assert client.read() == [2, 2]
    assert listener.read() == [[b"message", b"live.a", b"1"], [b"message", b"live.a", b"2"]]
    assert other.read() == [[b"pmessage", b"live.*", b"live.a", each] for each in (b"1", b"2")]
    client.send(publish(b"live.a", b"3", style="id"))
    assert client.read() == [b"0-0"]
    assert node.sessions.counters.published_messages == 3
    assert client.do(XLen(b"live.a")) == 0
    assert client.do(XRange(b"live.a", ID_MIN, ID_MAX, None, False)) == []


def test_replies_and_messages_keep_their_order_behind_what_waits_for_the_log(node: FakeNode) -> None:
    client = node.connect(3)
    client.do(Subscribe("channel", (b"live.a", b"kept")))
    client.send(publish(b"kept", b"1"), publish(b"live.a", b"2"), publish(b"live.a", b"3"))
    assert client.read() == []
    node.settle()
    assert client.read() == [
        1, 1, [b"message", b"live.a", b"2"], 1, [b"message", b"live.a", b"3"], [b"message", b"kept", b"1"],
    ]  # fmt: skip


def test_a_subscriber_whose_socket_is_full_misses_them_and_that_is_counted(node: FakeNode, client: FakeClient) -> None:
    listener = node.connect(name="listener")
    listener.do(Subscribe("channel", (b"live.a",)))
    listener.session.on_blocked()
    client.do(publish(b"live.a", b"1", b"2"))
    listener.session.on_writable()
    node.settle()
    client.do(publish(b"live.a", b"3"))
    assert listener.read() == [[b"message", b"live.a", b"3"]]
    assert node.sessions.counters.dropped[FLEETING_UNREAD] == 2


def test_bus_subscribe_is_live_only_and_has_no_ids(node: FakeNode, client: FakeClient) -> None:
    listener = node.connect(3, "listener")
    assert error_text(listener.do(BusSubscribe(b"live.a", MessageId(1, 0)))) == NO_HISTORY.text
    assert listener.do(BusSubscribe(b"live.a", None)) == [b"bus.subscribe", b"live.a", None]
    client.do(publish(b"live.a", b"1", b"2"))
    assert listener.read() == [[b"bus.message", b"live.a", b"0-0", each] for each in (b"1", b"2")]


def test_keys_are_refused_by_name(client: FakeClient) -> None:
    assert error_text(client.do(PublishOnce(b"live.a", 0, b"x", b"k"))) == NO_KEYS.text
    assert error_text(client.do(PublishRun(b"live.a", b"p", 0, (b"x",)))) == NO_KEYS.text


def test_in_a_transaction_it_is_delivered_and_not_kept(node: FakeNode, client: FakeClient) -> None:
    listener = node.connect(name="listener")
    listener.do(Subscribe("channel", (b"live.a", b"live.b")))
    client.do(Multi(), publish(b"live.a", b"1", b"2"))
    assert client.do(Exec()) == [1, 1]
    key = b"live.a"  # of the same shard: one operation of the log
    client.do(Multi(), SetString(key, b"v"), publish(key, b"3"), PublishOnce(key, 0, b"x", b"k"))
    assert [str(each) for each in client.do(Exec())] == ["b'OK'", "1", NO_KEYS.text]
    assert [message[2] for message in listener.read()] == [b"1", b"2", b"3"]
    assert client.do(XLen(b"live.b")) == 0


def test_a_stream_is_kept_whatever_the_rule(client: FakeClient) -> None:
    client.do(Publish(b"live.s", Kind.XADD, [encode_fields([b"f", b"v"])], "id"))
    assert client.do(XLen(b"live.s")) == 1


# --- payloads ---------------------------------------------------------------------------------------------------------


def test_what_is_larger_than_the_rule_allows_is_refused_alone(client: FakeClient) -> None:
    replies = client.do(publish(b"small.a", b"1234", b"12345", b"1", b"666666"))
    texts = [each if isinstance(each, int) else str(each) for each in replies]
    limit = "the limit of this channel's rule is 4"
    assert texts == [0, f"ERR message of 5 bytes, {limit}", 0, f"ERR message of 6 bytes, {limit}"]
    assert client.do(XLen(b"small.a")) == 2
    assert limit in error_text(client.do(PublishRun(b"small.a", b"p", 0, (b"1", b"55555"))))
    assert limit in error_text(client.do(XAdd(b"small.s", encode_fields([b"f", b"v" * 9]))))
    client.do(Multi(), SetString(b"small.a2", b"v"), publish(b"small.a", b"12345", b"2"))
    assert limit in str(client.do(Exec())[1])
    assert client.do(XLen(b"small.a")) == 3


# --- BUS.RULE ---------------------------------------------------------------------------------------------------------


def rule(client: FakeClient, text: str) -> object:
    return client.do(noun_of([word.encode() for word in text.split(" ")]))


def test_a_rule_that_is_set_holds_in_every_shard_before_it_is_answered(node: FakeNode, client: FakeClient) -> None:
    assert rule(client, "BUS.RULE SET fast.* DURABILITY none WINDOW 10m PAYLOAD 1KiB") == b"OK"
    assert [bus.rule_of(b"fast.x").durability for bus in node.buses] == ["none", "none"]
    assert rule(client, "BUS.RULE SET live.b* COUNT 5 AGE 2s BYTES 1MiB") == b"OK"  # before the configuration's
    assert [bus.rule_of(b"live.b1").durability for bus in node.buses] == ["quorum", "quorum"]
    shown = node.connect(3, "other").do(BusRuleGet(b"live.b*"))
    assert shown == {
        b"pattern": b"live.b*", b"count": 5, b"age": 2000, b"bytes": 2**20, b"durability": b"quorum",
        b"window": 300_000, b"payload": 8 * 2**20, b"source": b"command",
    } if isinstance(shown, dict) else [*shown]  # fmt: skip
    patterns = [each[1] for each in client.do(BusRuleList())]
    assert patterns == [b"fast.*", b"live.b*", b"live.*", b"small.*", b"*"]
    assert client.do(BusRuleGet(b"live.*")) is None
    assert client.do(RuleDel(b"fast.*")) == 1
    assert client.do(RuleDel(b"fast.*")) == 0
    assert [bus.rule_of(b"fast.x").durability for bus in node.buses] == ["quorum", "quorum"]


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("SET a DURABILITY often", "ERR durability is quorum, memory or none, not 'often'"),
        ("SET a COUNT -1", "ERR COUNT is a number of 0 or more, not '-1'"),
        ("SET a AGE 5y", "ERR AGE is a number of 0 or more, with or without a unit (ms s m h d), not '5y'"),
        ("SET a WINDOW 1ms", "ERR WINDOW is from 1000 to 86400000, not 1"),
        ("SET a PAYLOAD 9MiB", "ERR PAYLOAD is from 0 to 8388608, not 9437184"),
        ("SET a COUNT", "ERR syntax error"),
        ("SET a COUNT 1 COUNT 2", "ERR syntax error"),
        ("SET a SPEED 2", "ERR syntax error"),
        ("DEL", "ERR wrong number of arguments for 'bus.rule|del' command"),
        ("MAKE a", "ERR unknown subcommand 'MAKE'. Try BUS.RULE HELP."),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_in_words(client: FakeClient, text: str, refusal: str) -> None:
    assert error_text(rule(client, f"BUS.RULE {text}")).startswith(refusal)


def test_a_rule_changed_halfway_follows_from_the_first_shard() -> None:
    first, other = Shard(), Shard()
    assert first.do(RuleSet(b"a*", durability="none")) == "OK"
    assert first.do(RuleSet(b"b*", messages=3)) == "OK"
    rules = first.bus.rules
    assert (rules.version, [each.match for each in rules.commanded]) == (2, ["a*", "b*"])
    assert other.do(RulesCopy(rules.version, commanded_to_bytes(rules))) == "OK"
    older = Rules(commanded=(), version=1)
    assert other.do(RulesCopy(1, commanded_to_bytes(older))) == "OK"
    assert other.bus.rules.commanded == rules.commanded


def test_a_leaders_configuration_leaves_commanded_rules_alone() -> None:
    shard = Shard()
    shard.do(RuleSet(b"a*", messages=3))
    builder = BatchBuilder(1)
    builder.add_rules(rules_to_bytes(Rules(channels=(ChannelRule("*", count=9),))))
    shard.apply(builder)
    assert (shard.bus.rule_of(b"a1").count, shard.bus.rule_of(b"b1").count) == (3, 9)
    assert shard.bus.rules.is_configured_as(Rules(channels=(ChannelRule("*", count=9),)))
    assert not shard.bus.rules.is_configured_as(Rules())


def test_rules_written_before_there_were_modes_are_read() -> None:
    builder = BatchBuilder(1)
    builder.add_rules(b'{"channels":[{"match":"a*","count":1,"age_ms":2,"bytes":3}],"default":{},"shard_bytes_max":9}')
    bus = Bus(Rules())
    bus.apply(1, encode_entry(1, [builder.finish(1)]))
    assert bus.rule_of(b"a1") == ChannelRule("a*", 1, 2, 3)


def test_there_is_a_limit_of_rules() -> None:
    shard = Shard()
    for at in range(RULES_MAX):
        shard.do(RuleSet(b"%d" % at))
    assert str(shard.do(RuleSet(b"more"))).startswith(f"ERR there are {RULES_MAX} rules already")
    assert shard.do(RuleSet(b"7", messages=1)) == "OK"
    assert str(shard.do(RuleDel(b"none"))) == "0"


# --- idempotency windows ----------------------------------------------------------------------------------------------


def test_a_rule_says_how_long_keys_are_known() -> None:
    shard = Shard(Rules(channels=(ChannelRule("short", window_ms=1000), ChannelRule("long", window_ms=600_000))))
    ids = {}
    for name in (b"short", b"long"):
        ids[name] = shard.do(PublishOnce(name, 0, b"x", b"k"))
    shard.tick(1000)
    assert shard.do(PublishOnce(b"short", 0, b"x", b"k")) != ids[b"short"]
    shard.tick(500_000)
    assert shard.do(PublishOnce(b"long", 0, b"x", b"k")) == ids[b"long"]
