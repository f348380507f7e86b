"""ACL as clients meet it: every way around a rule that anybody has thought of, and what a change of rules does."""

from __future__ import annotations

import hashlib
from typing import Any

import hiredis
import pytest

from riverbus.core.access.acl import read_user
from riverbus.core.counters import USER_REVOKED
from riverbus.messages import NotAccepted
from riverbus.wire.command_table import noun_of
from riverbus.wire.redis import RedisProtocol
from tests.core.fakes import FakeClient, FakeNode, error_text

KEY = "NOPERM No permissions to access a key"
CHANNEL = "NOPERM No permissions to access a channel"


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


def ask(client: FakeClient, line: str) -> Any:
    """A command as a client writes it; words are split at spaces, `_` in a word stands for one."""
    return client.do(noun_of([word.replace("_", " ").encode() for word in line.split()]))


def user(node: FakeNode, rules: str, name: str = "u", version: int = 2) -> FakeClient:
    """A client that has logged in as a user with these rules, beside `on >pw`."""
    assert ask(node.connect(), f"ACL SETUSER {name} reset on >pw {rules}") == b"OK"
    client = node.connect(version)
    assert ask(client, f"AUTH {name} pw") == b"OK"
    return client


def refused(client: FakeClient, line: str) -> str:
    return error_text(ask(client, line))


def no_command(name: str) -> str:
    return f"NOPERM User u has no permissions to run the '{name}' command"


# --- the matrix of bypasses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "line", "text"),
    [
        # commands, subcommands, aliases, letter case
        ("+@all -set", "SET a b", no_command("set")),
        ("~* +@all -set", "set a b", no_command("set")),
        ("~* +@all -set", "SeT a b", no_command("set")),
        ("~* +@all -unlink", "UNLINK a", no_command("unlink")),
        ("~* +@all -del", "DEL a", no_command("del")),
        ("~* +@all -flushdb", "FLUSHDB", no_command("flushdb")),
        ("~* +@all -flushall", "FLUSHALL", no_command("flushall")),
        ("~* +@all -xrevrange", "XREVRANGE a + -", no_command("xrevrange")),
        ("~* +@all -setex", "SETEX a 10 b", no_command("setex")),
        ("~* +@all -setnx", "SETNX a b", no_command("setnx")),
        ("~* +@all -renamenx", "RENAMENX a b", no_command("renamenx")),
        ("~* +@all -pexpire", "PEXPIRE a 100", no_command("pexpire")),
        ("~* +@all -expireat", "EXPIREAT a 100", no_command("expireat")),
        ("~* +@all -pttl", "PTTL a", no_command("pttl")),
        ("+@all -client", "CLIENT LIST", no_command("client|list")),
        ("+@all -client|list", "client list", no_command("client|list")),
        ("+client|id", "CLIENT KILL ID 1", no_command("client|kill")),
        ("+client|id", "CLIENT", "ERR wrong number of arguments for 'client' command"),
        ("+@all -config", "CONFIG GET *", no_command("config|get")),
        ("+@all -@dangerous", "CONFIG GET *", no_command("config|get")),
        ("+@all -@admin", "ACL LIST", no_command("acl|list")),
        ("+@all -@admin", "MONITOR", no_command("monitor")),
        ("+@all -@admin", "ACL SETUSER u +@all", no_command("acl|setuser")),
        ("+@all -echo", "ECHO hi", no_command("echo")),
        ("+@all -select", "SELECT 0", no_command("select")),
        ("+@all -command", "COMMAND DOCS", no_command("command|docs")),
        ("~* &* +@all -bus.publish", "BUS.PUBLISH c m", no_command("bus.publish")),
        ("~* &* +@all -bus.publish", "BUS.PUBLISH c m KEY k", no_command("bus.publish")),
        ("~* &* +@all -spublish", "SPUBLISH c m", no_command("spublish")),
        ("~* &* +@all -publish", "PUBLISH c m", no_command("publish")),
        ("~* &* +@all -bus.subscribe", "BUS.SUBSCRIBE c SINCE 0-0", no_command("bus.subscribe")),
        ("~* &* +@all -ssubscribe", "SSUBSCRIBE c", no_command("ssubscribe")),
        ("~* &* +@all -psubscribe", "PSUBSCRIBE c", no_command("psubscribe")),
        ("~* +@all -@pubsub", "PUBSUB CHANNELS", no_command("pubsub|channels")),
        ("~* +@all -multi", "MULTI", no_command("multi")),
        ("~* +@all -watch", "WATCH a", no_command("watch")),
        # a wrong form does not tell what a command would have done
        ("+@all -select", "SELECT x", no_command("select")),
        ("+@all -set", "SET a b nonsense", no_command("set")),
        # keys: each of several, each position, reading and writing
        ("~a +@all", "SET b 1", KEY),
        ("~a +@all", "XADD b * k v", KEY),
        ("~a +@all", "XADD b 1-1 k v", KEY),
        ("~a +@all", "DEL a b", KEY),
        ("~a +@all", "EXISTS a b", KEY),
        ("~a +@all", "RENAME a b", KEY),
        ("~a +@all", "RENAME b a", KEY),
        ("~a +@all", "XREAD STREAMS a b 0 0", KEY),
        ("~a +@all", "XREAD COUNT 1 BLOCK 1 STREAMS b a 0 0", KEY),
        ("~a +@all", "XREADGROUP GROUP g c STREAMS a b > >", KEY),
        ("~a +@all", "XINFO STREAM b", KEY),
        ("~a +@all", "XINFO GROUPS b", KEY),
        ("~a +@all", "XGROUP CREATE b g $ MKSTREAM", KEY),
        ("~a +@all", "OBJECT ENCODING b", KEY),
        ("~a +@all", "WATCH a b", KEY),
        ("~a +@all", "XLEN b", KEY),
        ("~a +@all", "TYPE b", KEY),
        ("~a +@all", "XLEN A", KEY),
        ("~{a} +@all", "XLEN {a}b", KEY),
        ("%R~a +@all", "SET a 1", KEY),
        ("%R~a +@all", "XADD a * k v", KEY),
        ("%R~a +@all", "XACK a g 1-1", KEY),
        ("%R~a +@all", "XGROUP DESTROY a g", KEY),
        ("%R~a +@all", "EXPIRE a 1", KEY),
        ("%R~a %W~a2 +@all", "RENAME a a2", KEY),
        ("%W~a +@all", "XRANGE a - +", KEY),
        ("%W~a +@all", "SET a 1 GET", KEY),
        ("%W~a +@all", "GETDEL a", KEY),
        ("%R~a +@all", "XAUTOCLAIM a g c 0 0", KEY),
        ("%R~a +@all", "GETEX a", KEY),
        # channels are not keys; patterns are granted letter for letter
        ("~* +@all", "PUBLISH c m", CHANNEL),
        ("~* +@all", "SPUBLISH c m", CHANNEL),
        ("~* +@all", "BUS.PUBLISH c m", CHANNEL),
        ("~* +@all", "BUS.PUBLISH c m KEY k", CHANNEL),
        ("~* +@all", "SUBSCRIBE c", CHANNEL),
        ("~* +@all", "BUS.SUBSCRIBE c", CHANNEL),
        ("&c &d* +@all", "SUBSCRIBE c x", CHANNEL),
        ("&c &d* +@all", "SSUBSCRIBE c x", CHANNEL),
        ("&c &d* +@all", "PSUBSCRIBE d* *", CHANNEL),
        ("&c &d* +@all", "PSUBSCRIBE d?", CHANNEL),
        ("&c &d* +@all", "PSUBSCRIBE dd*", CHANNEL),
        ("&c &d* +@all", "BUS.SUBSCRIBE x SINCE 0-0", CHANNEL),
        ("&c +@all", "XRANGE c - +", KEY),
        ("&c +@all", "XREAD STREAMS c 0", KEY),
        ("&c +@all", "SUBSCRIBE __keyspace@0__:c", CHANNEL),
        # selectors don't add up
        ("-@all (+set ~a) (+get ~b)", "SET b 1", KEY),
        ("-@all (+set ~a) (+get ~b)", "XLEN a", no_command("xlen")),
    ],
)
def test_what_is_not_granted_is_refused(node: FakeNode, rules: str, line: str, text: str) -> None:
    client = user(node, rules)
    assert refused(client, line) == text
    assert refused(client, line) == text  # no memory of the first makes the second any better
    assert all(bus.key_count == 0 for bus in node.buses)
    assert not client.session.is_subscriber


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ("~a* +set", "SET a1 x"),
        ("%W~a +set", "SET a x"),
        ("%R~a +xrange", "XRANGE a - +"),
        ("%R~a +exists", "EXISTS a"),
        ("%W~a +exists", "EXISTS a"),
        ("&c +publish", "PUBLISH c m"),
        ("&d* +psubscribe", "PSUBSCRIBE d*"),
        ("+@connection", "PING"),
        ("+client|id", "CLIENT ID"),
        ("-@all", "UNKNOWN"),
        ("-@all (+set ~a) (+get ~b)", "GET b"),
        ("-@all", "RESET"),
        ("-@all", "QUIT"),
        ("-@all", "HELLO"),
    ],
)
def test_what_is_granted_is_done(node: FakeNode, rules: str, line: str) -> None:
    reply = ask(user(node, rules), line)
    assert not isinstance(reply, hiredis.ReplyError) or "unknown command" in str(reply)


def test_pipelined_publishes_of_a_run_are_refused_one_by_one(node: FakeNode) -> None:
    client = user(node, "&a +@all")
    chunk = b"".join(b"*3\r\n$7\r\nPUBLISH\r\n$1\r\n%b\r\n$1\r\nx\r\n" % name for name in [b"b"] * 5 + [b"a"] * 2)
    nouns = RedisProtocol(authenticated=True).receive_data(chunk)
    assert len(nouns) == 2
    replies = client.do(*nouns)
    assert [str(each) for each in replies] == [CHANNEL] * 5 + ["0"] * 2
    assert node.bus(b"b").length(b"b") == 0


def test_nothing_but_logging_in_is_done_before_auth(node: FakeNode) -> None:
    node.users = {"default": b"pw"}
    client = node.connect()
    lines = ("SET a 1", "PUBLISH c m", "SUBSCRIBE c", "MULTI", "DISCARD", "ACL WHOAMI", "ACL SETUSER x nopass", "PING")
    assert {refused(client, line) for line in lines} == {"NOAUTH Authentication required."}
    aborted = "EXECABORT Transaction discarded because of: NOAUTH Authentication required."
    assert refused(client, "EXEC") == aborted
    nouns = [noun_of(line.encode().split()) for line in ("HELLO 3 AUTH default no", "SET a 1", "PUBLISH c m", "PING")]
    assert [str(each).partition(" ")[0] for each in client.do(*nouns)] == ["WRONGPASS", "NOAUTH", "NOAUTH", "NOAUTH"]
    assert all(bus.applied_index == 0 or bus.key_count == 0 for bus in node.buses)
    assert node.bus(b"c").length(b"c") == 0


def test_a_pipelined_login_covers_only_what_follows_it(node: FakeNode) -> None:
    ask(node.connect(), "ACL SETUSER u on >pw ~a +set +auth")
    node.users = {"default": b"other"}
    client = node.connect()
    nouns = [noun_of(line.encode().split()) for line in ("SET a 1", "AUTH u pw", "SET a 2", "SET b 3")]
    assert [str(each) for each in client.do(*nouns)] == ["NOAUTH Authentication required.", "b'OK'", "b'OK'", KEY]


def test_a_slow_login_holds_up_what_follows_it_and_nobody_else(node: FakeNode) -> None:
    node.users = {"default": b"pw"}
    node.is_slow_to_check = True
    client, other = node.connect(), node.connect()
    client.send(*(noun_of(line.encode().split()) for line in ("AUTH pw", "SET a 1")))
    node.settle()
    assert client.read() == []
    assert refused(other, "PING").startswith("NOAUTH")
    node.release_passwords()
    node.settle()
    assert client.read() == [b"OK", b"OK"]
    client.send(noun_of([b"AUTH", b"wrong"]))
    client.disconnect()
    node.release_passwords()  # nobody is there any more
    node.settle()


# --- transactions -----------------------------------------------------------------------------------------------------


def test_a_forbidden_command_is_refused_when_it_is_queued_and_exec_is_aborted(node: FakeNode) -> None:
    client = user(node, "~a +@all -get")
    assert ask(client, "MULTI") == b"OK"
    assert ask(client, "SET a 1") == b"QUEUED"
    assert refused(client, "SET b 1") == KEY
    assert refused(client, "GET a") == no_command("get")
    assert refused(client, "EXEC").startswith("EXECABORT")
    assert all(bus.key_count == 0 for bus in node.buses)


def test_what_is_revoked_between_queue_and_exec_is_not_carried_out(node: FakeNode) -> None:
    client = user(node, "~* &* +@all")
    for line in ("MULTI", "SET a 1", "SET c 1", "PUBLISH ch x", "PUBLISH ch y", "ECHO hi"):
        ask(client, line)
    assert ask(node.connect(), "ACL SETUSER u resetkeys ~a resetchannels -echo") == b"OK"
    replies = ask(client, "EXEC")
    assert replies[0] == b"OK"
    texts = [error_text(each) for each in replies[1:]]
    head = "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. "
    assert all(text.startswith(head) for text in texts)
    reasons = [text.rpartition("reason: ")[2] for text in texts]
    assert reasons == [
        "no permission to touch the specified keys",
        "no permission to access one of the channels used as arguments to the command",
        "no permission to access one of the channels used as arguments to the command",
        "no permission to execute the command or subcommand",
    ]
    assert sum(bus.key_count for bus in node.buses) == 1
    assert node.bus(b"ch").length(b"ch") == 0


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_change_holds_at_once_for_open_connections(node: FakeNode) -> None:
    client = user(node, "~* &* +@all")
    admin = node.connect()
    assert ask(client, "SET a 1") == b"OK"
    ask(admin, "ACL SETUSER u -set")
    assert refused(client, "SET a 2") == no_command("set")
    ask(admin, "ACL SETUSER u +set")
    assert ask(client, "SET a 2") == b"OK"
    ask(admin, "ACL SETUSER u off")  # as in Redis: who is in stays in
    assert ask(client, "SET a 3") == b"OK"
    assert refused(node.connect(), "AUTH u pw").startswith("WRONGPASS")


def test_a_deleted_user_is_disconnected_and_its_subscription_ends(node: FakeNode) -> None:
    subscriber = user(node, "~* &* +@all", version=3)
    idle = user(node, "~* &* +@all", name="v")
    ask(subscriber, "SUBSCRIBE c")
    blocked = user(node, "~* &* +@all", name="w")
    blocked.send(noun_of(b"XREAD BLOCK 0 STREAMS s $".split()))
    node.settle()
    admin = node.connect()
    assert ask(admin, "ACL DELUSER u nobody v w") == 3
    for client in (subscriber, idle, blocked):
        assert client.output.is_closed or client.output.is_aborted
    assert node.sessions.fanout.sizes()["channel"] == 0
    assert node.sessions.counters.dropped[USER_REVOKED] == 3
    assert ask(admin, "ACL DELUSER u") == 0
    assert refused(node.connect(), "AUTH u pw").startswith("WRONGPASS")


def test_a_user_that_deletes_itself_gets_the_answer_and_is_closed(node: FakeNode) -> None:
    client = user(node, "+@all ~* &*")
    assert ask(client, "ACL DELUSER u") == 1
    assert client.output.is_closed


@pytest.mark.parametrize(
    ("subscription", "rules"),
    [
        ("SUBSCRIBE c", "resetchannels &d"),
        ("SSUBSCRIBE c", "resetchannels &d"),
        ("PSUBSCRIBE c*", "resetchannels &c &cd*"),
        ("BUS.SUBSCRIBE c", "resetchannels"),
    ],
)
def test_a_subscription_that_lost_its_grant_ends_the_connection(node: FakeNode, subscription: str, rules: str) -> None:
    client = user(node, "~* &* +@all", version=3)
    ask(client, subscription)
    admin = node.connect()
    ask(admin, f"ACL SETUSER u {rules} &other")
    assert client.output.is_closed or client.output.is_aborted
    before = len(client.output.data)
    ask(admin, "PUBLISH c secret")
    assert len(client.output.data) == before


def test_a_subscription_that_keeps_its_grant_goes_on(node: FakeNode) -> None:
    client = user(node, "~* &* +@all", version=3)
    ask(client, "SUBSCRIBE c")
    ask(client, "PSUBSCRIBE d*")
    ask(node.connect(), "ACL SETUSER u resetchannels &c* &d*")
    assert not client.output.is_closed
    ask(node.connect(), "PUBLISH c m")
    assert client.read() == [[b"message", b"c", b"m"]]


def test_a_monitor_that_lost_its_right_sees_no_more(node: FakeNode) -> None:
    client = user(node, "~* &* +@all")
    ask(client, "MONITOR")
    ask(node.connect(), "ACL SETUSER u -@admin")
    assert client.output.is_closed or client.output.is_aborted
    assert not node.sessions.monitors.are_on


def test_a_blocked_reader_that_loses_its_key_is_told(node: FakeNode) -> None:
    client = user(node, "~* &* +@all")
    client.send(noun_of(b"XREAD BLOCK 0 STREAMS s $".split()))
    node.settle()
    ask(node.connect(), "ACL SETUSER u resetkeys ~t")
    node.settle()
    assert [str(each) for each in client.read()] == [KEY]
    assert node.sessions.blocked.count == 0
    ask(node.connect(), "XADD s * k v")
    assert client.read() == []
    assert ask(client, "XLEN t") == 0


def test_default_can_be_shut_and_opened(node: FakeNode) -> None:
    early = node.connect()
    assert ask(early, "ACL SETUSER default off") == b"OK"
    late = node.connect()
    assert refused(late, "PING").startswith("NOAUTH")
    assert ask(early, "PING") == b"PONG"  # it was let in
    assert ask(early, "ACL SETUSER default on nopass") == b"OK"
    assert ask(late, "PING") == b"PONG"
    assert refused(early, "ACL DELUSER default") == "ERR The 'default' user cannot be removed"


# --- users of the configuration ---------------------------------------------------------------------------------------


def test_users_of_the_configuration_go_first_and_default_is_off_beside_them(node: FakeNode) -> None:
    node.users = {"boss": b"pw"}
    client = node.connect()
    assert refused(client, "PING").startswith("NOAUTH")
    assert refused(client, "AUTH default x").startswith("WRONGPASS")
    assert ask(client, "AUTH boss pw") == b"OK"
    for name in ("boss", "default"):
        text = refused(client, f"ACL SETUSER {name} +@all nopass on")
        assert text.startswith(f"ERR user '{name}' is the configuration file's")
    assert refused(client, "ACL DELUSER boss").startswith("ERR user 'boss'")
    assert ask(client, "ACL SETUSER extra on >x +ping") == b"OK"
    assert ask(client, "ACL USERS") == [b"boss", b"default", b"extra"]
    assert b"user default off resetchannels -@all" in ask(client, "ACL LIST")


def test_a_configured_user_has_its_rules(node: FakeNode) -> None:
    rules = ["on", "#" + hashlib.sha256(b"pw").hexdigest(), "~jobs:*", "+@stream", "+@connection"]
    node.accounts.configured["worker"] = read_user("worker", rules)
    client = node.connect()
    assert ask(client, "AUTH worker pw") == b"OK"
    assert isinstance(ask(client, "XADD jobs:1 * k v"), bytes)
    assert refused(client, "XADD other * k v") == KEY


def test_a_node_that_has_not_caught_up_lets_no_replicated_user_in(node: FakeNode) -> None:
    ask(node.connect(), "ACL SETUSER u on >pw +ping")
    client = node.connect()
    client.send(noun_of([b"AUTH", b"u", b"pw"]), noun_of([b"PING"]))
    assert client.read() == []
    node.refusal = NotAccepted("no leader")
    other = node.connect()
    assert refused(other, "AUTH u pw") == "CLUSTERDOWN no leader"
    node.refusal = None
    node.settle()
    assert client.read() == [b"OK", b"PONG"]
    other.send(noun_of([b"AUTH", b"u", b"pw"]))
    assert other.read() == [b"OK"], "once is enough"
