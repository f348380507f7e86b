"""ACL SETUSER beside a real redis-server: same answers, same GETUSER and LIST, same verdicts of DRYRUN.

Debian's is 7.0.15, which prints the command rules of a user in its own old way, and says less in its refusals: those
are compared by what they allow. With a server of 7.2's behaviour in RIVERBUS_TEST_VALKEY the texts are, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riverbus.core.access.redis_names import ABSENT
from riverbus.wire.command_table import noun_of
from tests.core.fakes import FakeClient, FakeNode
from tests.faults.cluster import die_with_parent, free_ports

VALKEY = os.environ.get("RIVERBUS_TEST_VALKEY")
SERVER = VALKEY or shutil.which("redis-server")
COMMANDS = ("get", "set", "del", "xadd", "xread", "publish", "subscribe", "client|id", "client|kill", "client", "ping")
CATEGORIES = ("@read", "@write", "@stream", "@pubsub", "@dangerous", "@connection", "@string", "@keyspace")
PROBES = (
    ("GET", "a"),
    ("SET", "a", "1"),
    ("SET", "b", "1"),
    ("SET", "a", "1", "GET"),
    ("DEL", "a", "b"),
    ("EXISTS", "b"),
    ("RENAME", "a", "b"),
    ("XADD", "a", "*", "k", "v"),
    ("XREAD", "STREAMS", "a", "b", "0", "0"),
    ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "a", ">"),
    ("XAUTOCLAIM", "a", "g", "c", "0", "0"),
    ("XINFO", "STREAM", "b"),
    ("PUBLISH", "a", "m"),
    ("PUBLISH", "c1", "m"),
    ("SPUBLISH", "b", "m"),
    ("SUBSCRIBE", "a", "b"),
    ("PSUBSCRIBE", "c*"),
    ("PSUBSCRIBE", "c1"),
    ("SSUBSCRIBE", "c1"),
    ("CLIENT", "ID"),
    ("CLIENT", "KILL", "ID", "1"),
    ("CLIENT", "LIST"),
    ("PING",),
    ("HELLO",),
    ("KEYS", "*"),
    ("MULTI",),
    ("WATCH", "a"),
    ("EXPIRE", "a", "1"),
    ("TTL", "b"),
)
# Asked with every way to hold the key `a`.
KEY_PROBES = (
    *PROBES,
    ("XCLAIM", "a", "g", "c", "0", "1-1"),
    ("XPENDING", "a", "g"),
    ("XACK", "a", "g", "1-1"),
    ("XDEL", "a", "1-1"),
    ("XTRIM", "a", "MAXLEN", "1"),
    ("XSETID", "a", "1-1"),
    ("XGROUP", "CREATE", "a", "g", "$"),
    ("XGROUP", "SETID", "a", "g", "$"),
    ("XGROUP", "DESTROY", "a", "g"),
    ("XGROUP", "CREATECONSUMER", "a", "g", "c"),
    ("XGROUP", "DELCONSUMER", "a", "g", "c"),
    ("XINFO", "GROUPS", "a"),
    ("XINFO", "CONSUMERS", "a", "g"),
    ("XLEN", "a"),
    ("XRANGE", "a", "-", "+"),
    ("XREVRANGE", "a", "+", "-"),
    ("TYPE", "a"),
    ("UNLINK", "a"),
    ("TOUCH", "a"),
    ("RENAMENX", "a", "b"),
    ("OBJECT", "ENCODING", "a"),
    ("PERSIST", "a"),
    ("PEXPIRE", "a", "1"),
    ("PTTL", "a"),
    ("EXPIRETIME", "a"),
    ("STRLEN", "a"),
    ("GETDEL", "a"),
    ("GETEX", "a"),
    ("GETEX", "a", "EX", "1"),
    ("SETNX", "a", "1"),
    ("SETEX", "a", "1", "1"),
)
KEY_RULES = ("~*", "~a", "~b", "~c*", "%R~a", "%W~a", "%RW~b", "%R~*", "%Q~a", "%~a", "allkeys", "resetkeys")
ABSENT_HERE = ("mget", "script", "script|load")
CHANNEL_RULES = ("&*", "&a", "&c*", "&c1", "allchannels", "resetchannels")
PASSWORDS = (">x", ">y", "<x", "<z", "nopass", "resetpass", "#" + "a" * 64, "!" + "a" * 64, "#abc")
GRANTS = st.one_of(
    st.sampled_from(KEY_RULES),
    st.sampled_from(CHANNEL_RULES),
    st.tuples(
        st.sampled_from("+-"),
        st.sampled_from([*COMMANDS, *CATEGORIES, *ABSENT_HERE, "@all", "nosuch", "@nosuch", "script|nosuch"]),
    ).map("".join),
    st.sampled_from(["allcommands", "nocommands", "nonsense", "+client|nosuch", "-client|nosuch", "+"]),
)
RULES = st.one_of(
    GRANTS,
    st.sampled_from(PASSWORDS),
    st.sampled_from(["on", "off", "ON", "reset", "clearselectors", "sanitize-payload"]),
    st.lists(GRANTS, max_size=3).map(lambda grants: f"({' '.join(grants)})"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    if SERVER is None:
        pytest.skip("there is no redis-server here")
    (port,) = free_ports(1)
    folder: Path = tmp_path_factory.mktemp("redis")
    command = [SERVER, "--port", str(port), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent) as process:
        yield redis.Redis(port=port, protocol=2, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.05), 200))
        process.kill()


def theirs(server: redis.Redis, *words: str) -> Any:
    """The reply as hiredis reads it, without redis-py's idea of it."""
    connection = server.connection_pool.get_connection()
    try:
        connection.send_command(*words)  # type: ignore[no-untyped-call]
        return connection.read_response()
    except redis.ResponseError as error:
        return error
    finally:
        server.connection_pool.release(connection)


def ours(client: FakeClient, *words: str) -> Any:
    return client.do(noun_of([word.encode() for word in words]))


def text(reply: Any) -> str:
    """redis-py cuts `ERR ` off; our digests stand where Redis repeats a password."""
    shown = str(reply).removeprefix("ERR ") if isinstance(reply, Exception) else repr(reply)
    return "a password" if "modifier '<" in shown or "modifier '!" in shown else shown


def described(reply: Any) -> dict[bytes, Any]:
    """GETUSER's map. What 7.0.15 says of command rules is left out; Valkey's databases always are."""
    fields = {reply[at]: reply[at + 1] for at in range(0, len(reply), 2)}
    fields.pop(b"databases", None)
    if b"flags" in fields:  # about RESTORE, which there is not here
        fields[b"flags"] = [flag for flag in fields[b"flags"] if flag != b"sanitize-payload"]
    if not VALKEY:
        fields.pop(b"commands")
    if b"selectors" in fields:
        fields[b"selectors"] = [described(each) for each in fields[b"selectors"]]
    return fields


def check_verdict(client: FakeClient, server: redis.Redis, probe: tuple[str, ...]) -> None:
    one, other = ours(client, "ACL", "DRYRUN", "u", *probe), theirs(server, "ACL", "DRYRUN", "u", *probe)
    assert (one == b"OK") == (other == b"OK"), (probe, one, other)
    if VALKEY:
        assert one == other


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(RULES, min_size=1, max_size=4), max_size=6))
def test_users_are_what_redis_makes_of_the_same_rules(server: redis.Redis, changes: list[list[str]]) -> None:
    client = FakeNode().connect()
    theirs(server, "ACL", "DELUSER", "u")
    for rules in [["reset"], *changes]:
        words = ("ACL", "SETUSER", "u", *rules)
        assert text(ours(client, *words)) == text(theirs(server, *words)), words
    mine, its = ours(client, "ACL", "GETUSER", "u"), theirs(server, "ACL", "GETUSER", "u")
    assert described(mine) == described(its)
    if VALKEY:
        assert ours(client, "ACL", "LIST")[-1] == theirs(server, "ACL", "LIST")[-1]
    for probe in PROBES:
        check_verdict(client, server, probe)


@pytest.mark.parametrize(
    "rules", [[], ["~a"], ["%R~a"], ["%W~a"], ["%RW~a"], ["%R~a", "%W~b"], ["%W~a", "%R~b"], ["~b"]]
)
def test_a_command_reads_and_writes_the_keys_that_redis_says(server: redis.Redis, rules: list[str]) -> None:
    client = FakeNode().connect()
    words = ("ACL", "SETUSER", "u", "reset", "allcommands", *rules)
    assert text(ours(client, *words)) == text(theirs(server, *words))
    for probe in KEY_PROBES:
        check_verdict(client, server, probe)


def test_the_default_user_and_the_categories_are_redis_own(server: redis.Redis) -> None:
    client = FakeNode().connect()
    for words in (("ACL", "CAT"), ("ACL", "USERS"), ("ACL", "LIST"), ("ACL", "WHOAMI"), ("ACL", "GETUSER", "nobody")):
        theirs(server, "ACL", "DELUSER", "u")
        assert ours(client, *words) == theirs(server, *words)
    for category in ours(client, "ACL", "CAT"):
        mine = set(ours(client, "ACL", "CAT", category.decode()))
        known = {each for each in mine if not each.startswith(b"bus.")} - NEWER
        its = set(theirs(server, "ACL", "CAT", category.decode()))
        everything = {row[0] for row in theirs(server, "COMMAND")}
        assert {each for each in known if each.partition(b"|")[0] in everything} <= its, category


def test_the_commands_that_rules_may_name_are_redis_own(server: redis.Redis) -> None:
    """Every command of Redis is one of ours, or known as one that is not here; and no command is both."""
    ours = FakeNode().sessions.users
    its = {name.decode() for name in theirs(server, "COMMAND", "LIST")}
    assert {name for name in its if not ours.has_command(name)} <= ABSENT
    assert not {name for name in ABSENT if ours.has_command(name)}


NEWER = {b"client|no-touch", b"client|setinfo", b"wait"}  # of 7.2, or changed in it
