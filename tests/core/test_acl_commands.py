"""ACL's own commands: their shapes and errors, the log, logging in too often; and that no command is left unjudged."""

from __future__ import annotations

import hashlib
import time

import pytest

from riverbus import limits
from riverbus.core.access.acl_subjects import knows
from riverbus.core.clients.command_table import TABLE
from riverbus.core.clients.names import name_of
from riverbus.wire.command_row import CommandRow
from riverbus.wire.command_table import ROWS, noun_of
from tests.core.fakes import CATEGORIES, FakeNode, error_text
from tests.core.test_acl_sessions import ask, refused, user


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


# --- ACL's own commands -----------------------------------------------------------------------------------------------


def test_getuser_and_list_have_redis_shapes(node: FakeNode) -> None:
    client = node.connect(3)
    digest = hashlib.sha256(b"x").hexdigest()
    ask(client, "ACL SETUSER b on >x ~a* %R~b &c* +@all -@dangerous +keys (+get_~x) (%W~y*_+set)")
    reply = ask(client, "ACL GETUSER b")
    assert reply == {
        b"flags": [b"on"],
        b"passwords": [digest.encode()],
        b"commands": b"+@all -@dangerous +keys",
        b"keys": b"~a* %R~b",
        b"channels": b"&c*",
        b"selectors": [
            {b"commands": b"-@all +get", b"keys": b"~x", b"channels": b""},
            {b"commands": b"-@all +set", b"keys": b"%W~y*", b"channels": b""},
        ],
    }
    client.send(noun_of([b"ACL", b"GETUSER", b"b"]))
    node.release_reads()
    node.end_turn()
    assert b"flags\r\n~1\r\n$2\r\non\r\n" in client.output.data
    client.output.data.clear()
    assert ask(client, "ACL GETUSER nobody") is None
    assert ask(client, "ACL LIST") == [
        f"user b on #{digest} ~a* %R~b resetchannels &c* +@all -@dangerous +keys (~x resetchannels -@all +get) "
        "(%W~y* resetchannels -@all +set)".encode(),
        b"user default on nopass ~* &* +@all",
    ]
    assert ask(client, "ACL WHOAMI") == b"default"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("ACL SETUSER b +foo", "ERR Error in ACL SETUSER modifier '+foo': Unknown command or category name in ACL"),
        ("ACL SETUSER b foo", "ERR Error in ACL SETUSER modifier 'foo': Syntax error"),
        ("ACL SETUSER b (~x", "ERR Unmatched parenthesis in acl selector starting at '(~x'."),
        ("ACL SETUSER b_c on", "ERR Usernames can't contain spaces or null characters"),
        ("ACL SETUSER b +@x", "ERR Error in ACL SETUSER modifier '+@x': Unknown command or category name in ACL"),
        ("ACL DRYRUN q get a", "ERR User 'q' not found"),
        ("ACL DRYRUN default foo", "ERR Command 'foo' not found"),
        ("ACL DRYRUN default get", "ERR wrong number of arguments for 'get' command"),
        ("ACL CAT foo", "ERR Unknown category 'foo'"),
        ("ACL GENPASS 5000", "ERR ACL GENPASS argument must be the number of bits for the output password, a positive "
         "number up to 4096"),
        ("ACL LOG x", "ERR value is not an integer or out of range"),
        ("ACL nonsense", "ERR unknown subcommand 'nonsense'. Try ACL HELP."),
    ],
)  # fmt: skip
def test_errors_are_redis_own(node: FakeNode, line: str, text: str) -> None:
    assert refused(node.connect(), line) == text


def test_there_is_no_acl_file(node: FakeNode) -> None:
    for line in ("ACL SAVE", "ACL LOAD"):
        assert "there is none" in refused(node.connect(), line)


def test_dryrun_says_what_would_be_refused(node: FakeNode) -> None:
    client = node.connect()
    ask(client, "ACL SETUSER u ~a &c +get +publish")
    assert ask(client, "ACL DRYRUN u GET a") == b"OK"
    assert ask(client, "ACL DRYRUN u GET b") == b"User u has no permissions to access the 'b' key"
    assert ask(client, "ACL DRYRUN u SET a b") == b"User u has no permissions to run the 'set' command"
    assert ask(client, "ACL DRYRUN u PUBLISH d m") == b"User u has no permissions to access the 'd' channel"
    assert node.bus(b"d").length(b"d") == 0
    assert ask(client, "ACL DRYRUN default SET a b") == b"OK"


def test_cat_genpass_and_help(node: FakeNode) -> None:
    client = node.connect()
    assert ask(client, "ACL CAT")[:3] == [b"keyspace", b"read", b"write"]
    assert b"acl|setuser" in ask(client, "ACL CAT admin")
    assert len(ask(client, "ACL GENPASS")) == 64
    assert len(ask(client, "ACL GENPASS 5")) == 2
    assert any(b"SETUSER" in line for line in ask(client, "ACL HELP"))


def test_the_log_tells_who_was_refused_what(node: FakeNode) -> None:
    client = user(node, "~a +@all -get")
    node.users = {}
    admin = node.connect(3)
    for line in ("GET a", "GET a", "SET b 1", "PUBLISH c m", "AUTH u hunter2"):
        refused(client, line)
    ask(client, "MULTI")
    refused(client, "SET b 1")
    entries = ask(admin, "ACL LOG")
    assert [(e[b"reason"], e[b"context"], e[b"object"], e[b"count"]) for e in entries] == [
        (b"key", b"multi", b"b", 1),
        (b"auth", b"toplevel", b"AUTH", 1),
        (b"channel", b"toplevel", b"c", 1),
        (b"key", b"toplevel", b"b", 1),
        (b"command", b"toplevel", b"get", 2),
    ]
    assert entries[0][b"username"] == b"u"
    assert isinstance(entries[0][b"age-seconds"], float)
    assert b"user=u" in entries[0][b"client-info"]
    assert b"hunter2" not in repr(entries).encode()
    assert len(ask(admin, "ACL LOG 2")) == 2
    assert ask(admin, "ACL LOG RESET") == b"OK"
    assert ask(admin, "ACL LOG") == []


def test_rules_beyond_the_bound_are_refused_before_they_are_anyones_work(node: FakeNode) -> None:
    client = node.connect()
    rules = [b"~%d" % number for number in range(limits.ACL_USER_BYTES_MAX // 4)]
    client.send(noun_of([b"ACL", b"SETUSER", b"u", *rules, *rules]))
    assert not any(node.queues), "it would be in the log, and carried out on every node"
    assert "would take more than" in error_text(client.read()[0])


def test_a_user_of_many_patterns_is_made_in_time_for_the_next_heartbeat(node: FakeNode) -> None:
    """A look at all patterns before, for each, took 2.6 s of every node, and again at each change of the user."""
    client = node.connect()
    patterns = [b"%x" % number for number in range(10_000)]
    begun = time.process_time()
    assert client.do(noun_of([b"ACL", b"SETUSER", b"u", *(b"~" + each for each in patterns)])) == b"OK"
    assert time.process_time() - begun < 1.5
    assert ask(client, "ACL GETUSER u")[7] == b" ".join(b"~" + each for each in patterns)


def test_the_log_is_bounded(node: FakeNode) -> None:
    client = user(node, "~a +@all")
    for number in range(limits.ACL_LOG_ENTRIES_MAX + 50):
        refused(client, f"SET key{number} 1")
    refused(client, "SET " + "x" * 900 + " 1")
    entries = ask(node.connect(3), "ACL LOG 1000")
    assert len(entries) == limits.ACL_LOG_ENTRIES_MAX
    assert max(len(entry[b"object"]) for entry in entries) <= limits.ACL_LOG_TEXT_BYTES_MAX


def test_guessing_is_slowed_down_by_address(node: FakeNode) -> None:
    node.users = {"default": b"pw"}
    client = node.connect()
    for _ in range(limits.FAILED_LOGINS_MAX):
        assert refused(client, "AUTH wrong").startswith("WRONGPASS")
    assert "too many failed logins" in refused(client, "AUTH wrong")
    assert "too many failed logins" in refused(node.connect(), "AUTH pw")
    assert "too many failed logins" in refused(node.connect(), "HELLO 3 AUTH nobody pw")
    node.advance(limits.FAILED_LOGINS_S + 1)
    assert ask(client, "AUTH pw") == b"OK"


def test_the_password_is_nowhere_to_be_seen(node: FakeNode) -> None:
    watcher = node.connect(3)
    ask(watcher, "MONITOR")
    client = user(node, "~* &* +@all")
    for line in ("ACL SETUSER v on >hunter2 <hunter2", "ACL SETUSER v on >hunter2", "AUTH v hunter2", "AUTH u hunter2",
                 "HELLO 3 AUTH v hunter2", "HELLO 3 AUTH u hunter2", "AUTH a b hunter2", "ACL SETUSER v <hunter22",
                 "ACL SETUSER v (>hunter2)", "ACL DRYRUN u AUTH hunter2",
                 "ACL DRYRUN u ACL SETUSER x >hunter2"):  # fmt: skip
        ask(client, line)
    seen = [ask(node.connect(), line) for line in ("CLIENT LIST", "ACL LIST", "ACL LOG", "ACL GETUSER v", "INFO all")]
    assert "hunter2" not in repr(seen)
    assert "hunter2" not in repr(watcher.read())
    assert "hunter2" not in repr(node.buses[0].users.users)


# --- the tables -------------------------------------------------------------------------------------------------------


def test_every_noun_says_what_it_touches() -> None:
    assert [noun.__name__ for noun in TABLE if not knows(noun)] == []


def rows() -> list[CommandRow]:
    return [one for row in ROWS.values() for one in (row, *row.subcommands.values())]


SAMPLES = {
    "hello": "HELLO 3",
    "auth": "AUTH p",
    "select": "SELECT 0",
    "xadd": "XADD a * k v",
    "client|kill": "CLIENT KILL ID 1",
    "client|reply": "CLIENT REPLY ON",
    "client|no-evict": "CLIENT NO-EVICT ON",
    "client|no-touch": "CLIENT NO-TOUCH ON",
    "client|setinfo": "CLIENT SETINFO LIB-NAME x",
    "client|list": "CLIENT LIST",
    "client|unblock": "CLIENT UNBLOCK 1",
    "client|pause": "CLIENT PAUSE 1",
    "xread": "XREAD STREAMS a 0",
    "xreadgroup": "XREADGROUP GROUP g c STREAMS a >",
    "xrange": "XRANGE a - +",
    "xrevrange": "XREVRANGE a + -",
    "xtrim": "XTRIM a MAXLEN 1",
    "xsetid": "XSETID a 1-1",
    "xdel": "XDEL a 1-1",
    "xack": "XACK a g 1-1",
    "xclaim": "XCLAIM a g c 0 1-1",
    "xautoclaim": "XAUTOCLAIM a g c 0 0",
    "xpending": "XPENDING a g",
    "xgroup|create": "XGROUP CREATE a g 0",
    "xgroup|setid": "XGROUP SETID a g 0",
    "expire": "EXPIRE a 1",
    "pexpire": "PEXPIRE a 1",
    "expireat": "EXPIREAT a 1",
    "pexpireat": "PEXPIREAT a 1",
    "setex": "SETEX a 1 b",
    "psetex": "PSETEX a 1 b",
    "scan": "SCAN 0",
    "wait": "WAIT 0 0",
    "xdelex": "XDELEX a IDS 1 1-1",
    "xackdel": "XACKDEL a g IDS 1 1-1",
    "xcfgset": "XCFGSET a IDMP-DURATION 10",
    "acl|log": "ACL LOG",
    "acl|genpass": "ACL GENPASS",
    "acl|dryrun": "ACL DRYRUN u PING",
    "acl|cat": "ACL CAT",
    "config|set": "CONFIG SET a b",
    "command|getkeys": "COMMAND GETKEYS GET a",
    "command|getkeysandflags": "COMMAND GETKEYSANDFLAGS GET a",
    "command|list": "COMMAND LIST",
    "function|flush": "FUNCTION FLUSH",
    "script|flush": "SCRIPT FLUSH",
    "object|freq": "OBJECT FREQ a",
    "copy": "COPY a b",
}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_every_command_is_judged_by_its_own_name(row: CommandRow) -> None:
    """Where two commands share a noun, a rule about one must not hold for the other."""
    words = SAMPLES.get(row.name, "").split()
    if not words:
        words = row.name.upper().split("|")
        words += [f"a{number}" for number in range(abs(row.arity) - len(words))]
    if row.subcommands and row.arity < -1:
        return  # its arity asks for a subcommand, or it has a name of its own that the next line judges
    assert name_of(noun_of([word.encode() for word in words])) == row.name
    assert row.name in CATEGORIES
