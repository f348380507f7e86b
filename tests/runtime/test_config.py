"""The configuration: precedence, units, what is refused and with which words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverbus import __version__, limits
from riverbus.runtime.channel_rules import rules_of
from riverbus.runtime.config import Config, ConfigError, load
from riverbus.runtime.config_text import default_text
from riverbus.runtime.security import Accounts, read_secret, server_context
from riverbus.runtime.units import (
    Address,
    format_bytes,
    format_duration,
    parse_address,
    parse_bytes,
    parse_cluster,
    parse_duration,
)


def problems(text: str, path: Path, **environ: str) -> list[str]:
    file = path / "riverbus.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ=environ)
    return [problem.replace(f"{file}: ", "FILE ") for problem in caught.value.problems]


def test_with_nothing_given_a_node_is_alone_and_on_loopback() -> None:
    config = load(environ={})
    assert config.resp.listen == ("127.0.0.1", 6380)
    assert config.admin.listen == ("127.0.0.1", 9601)
    assert config.members == {1: ("127.0.0.1", 7380)}
    assert config.node.shards == limits.SHARDS_DEFAULT
    assert config.history.age == limits.HISTORY_AGE_MS_DEFAULT


def test_flags_hold_over_the_environment_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "riverbus.toml"
    file.write_text('[node]\nid = 1\nshards = 2\ndata = "a"\n[resp]\nlisten = "127.0.0.1:1"')
    environ = {"RIVERBUS_NODE_ID": "2", "RIVERBUS_NODE_SHARDS": "3", "RIVERBUS_CONFIG": "x", "HOME": "/"}
    config = load(file, {"node": {"id": 3}}, environ)
    assert (config.node.id, config.node.shards, config.node.data) == (3, 3, Path("a"))
    assert config.resp.listen == ("127.0.0.1", 1)


def test_the_environment_reaches_keys_with_underscores_and_inner_sections() -> None:
    environ = {
        "RIVERBUS_NODE_CLUSTER": "1=127.0.0.1:1,2=127.0.0.1:2",
        "RIVERBUS_NODE_SECRET_FILE": "s",
        "RIVERBUS_PEER_TLS_CERT": "c",
        "RIVERBUS_PEER_TLS_KEY": "k",
        "RIVERBUS_PEER_TLS_CA": "a",
        "RIVERBUS_LIMITS_DISK_RESERVE": "1GiB",
    }
    config = load(environ=environ)
    assert config.members == {1: ("127.0.0.1", 1), 2: ("127.0.0.1", 2)}
    assert config.peer_listen == ("127.0.0.1", 1)
    assert config.node.secret_file == Path("s")
    assert config.peer.tls.ca == Path("a")
    assert config.limits.disk_reserve == limits.GIB


def test_a_channel_rule_says_durability_window_and_payload(tmp_path: Path) -> None:
    file = tmp_path / "riverbus.toml"
    file.write_text('[[channel]]\nmatch = "a"\ndurability = "none"\nwindow = "10m"\npayload = "64KiB"\n')
    [rule] = rules_of(load(file, environ={})).channels
    assert (rule.durability, rule.window_ms, rule.payload) == ("none", 600_000, 65_536)
    file.write_text('[[channel]]\nmatch = "a"\ndurability = "memory"\n')
    assert load(file, environ={}).channel[0].durability == "memory"
    for value, why in (("often", "choose quorum, memory or none"),):
        file.write_text(f'[[channel]]\nmatch = "a"\ndurability = "{value}"\n')
        with pytest.raises(ConfigError, match=f"channel.0.durability: {why}"):
            load(file, environ={})


def test_channel_rules_keep_their_order_and_units(tmp_path: Path) -> None:
    file = tmp_path / "riverbus.toml"
    file.write_text(
        '[[channel]]\nmatch = "orders.*"\nhistory = { count = 1000000, age = "1h", bytes = "1GiB" }\n'
        '[[channel]]\nmatch = "*"\nhistory = { age = "1m30s" }\n'
    )
    first, second = load(file, environ={}).channel
    assert (first.match, first.history.count, first.history.age) == ("orders.*", 1_000_000, 3_600_000)
    assert first.history.bytes == limits.GIB
    assert (second.history.count, second.history.age, second.history.bytes) == (None, 90_000, None)


def test_the_printed_defaults_are_accepted_and_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "riverbus.toml"
    file.write_text(default_text())
    assert load(file, environ={}) == load(environ={})


def test_every_key_is_printed_with_what_it_is_for() -> None:
    text = default_text()
    for name, field in Config.model_fields.items():
        assert f"[{name}]" in text or f"[[{name}]]" in text
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"{key} =" in text or f"[{name}.{key}]" in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[node]\nsherds = 3", ["FILE node.sherds: unknown key; did you mean 'node.shards'?"]),
        ("[nod]\nid = 3", ["FILE nod: unknown key; did you mean 'node'?"]),
        ("[zzz]\nid = 3", ["FILE zzz: unknown key"]),
        (
            '[[channel]]\nmatch = "a"\nhistori = {}',
            ["FILE channel.0.histori: unknown key; did you mean 'channel.0.history'?"],
        ),
        ("[[user]]\nname = 'x'", ["FILE user.0: give a password, or the rule nopass if nobody is to be asked for one"]),
        ("[[user]]\npassword = 'sha256:12'", ["FILE user.0: after sha256: come 64 hex digits"]),
        (
            "[history]\nage = 300",
            ["FILE history.age: 300 is not a duration: write a number and ms, s, m, h or d, such as 10m"],
        ),
        ('[resp]\nlisten = "6380"', ["FILE resp.listen: '6380' is not HOST:PORT"]),
        ("[node", ["FILE is not TOML: Expected ']' at the end of a table declaration (at end of document)"]),
        (
            '[node]\nid = 3\ncluster = "1=127.0.0.1:1,2=127.0.0.1:2"',
            ["node.cluster: has no node 3, which node.id says this is"],
        ),
        (
            '[node]\ncluster = "1=127.0.0.1:7,2=127.0.0.1:8,3=127.0.0.1:7"',
            ["node.cluster: nodes 1 and 3 have the same address, 127.0.0.1:7"],
        ),
        ('[tls]\ncert = "x"', ["tls: cert and key go together"]),
        ("[node]\nshards = 65", ["FILE node.shards: input should be less than or equal to 64"]),
    ],
)
def test_what_is_wrong_is_said_by_its_place(text: str, expected: list[str], tmp_path: Path) -> None:
    assert problems(text, tmp_path) == expected


def test_all_problems_are_said_at_once_each_with_its_source(tmp_path: Path) -> None:
    found = problems("[node]\nidd = 1\n", tmp_path, RIVERBUS_NODE_SHADS="3", RIVERBUS_LOG_LEVEL="loud")
    assert sorted(found) == [
        "FILE node.idd: unknown key; did you mean 'node.id'?",
        "RIVERBUS_LOG_LEVEL: input should be 'debug', 'info', 'warning' or 'error'",
        "RIVERBUS_NODE_SHADS: unknown key; did you mean 'node.shards'?",
    ]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"resp": {"listen": "0.0.0.0:6380"}}, "resp.listen: 0.0.0.0:6380 can be reached from a network"),
        ({"resp": {"listen": "myhost:6380"}}, "resp.listen"),
        ({"resp": {"listen": "[::]:6380"}}, "resp.listen: [::]:6380"),
        ({"peer": {"listen": "10.0.0.1:7380"}}, "peer.listen: 10.0.0.1:7380 can be reached from a network"),
        ({"admin": {"listen": "0.0.0.0:9601"}}, "admin.listen: 0.0.0.0:9601 can be reached"),
    ],
)
def test_listening_beyond_this_machine_without_authentication_is_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("[", r"\[").replace("]", r"\]")):
        load(flags=flags, environ={})


def test_listening_beyond_this_machine_with_authentication_is_allowed() -> None:
    flags = {
        "resp": {"listen": "0.0.0.0:6380"},
        "peer": {"listen": "0.0.0.0:7380"},
        "admin": {"listen": "0.0.0.0:9601", "token": "t"},
        "node": {"secret_file": "s"},
        "user": [{"password": "p"}],
    }
    assert load(flags=flags, environ={}).resp.listen.host == "0.0.0.0"


def test_secrets_never_show_in_what_is_printed() -> None:
    flags = {"user": [{"name": "a", "password": "hunter2hunter2"}], "admin": {"token": "hunter2hunter2"}}
    config = load(flags=flags, environ={})
    assert "hunter2" not in f"{config} {config!r} {config.model_dump_json()}"
    with pytest.raises(ConfigError) as caught:
        load(flags={"user": [{"name": "", "password": "hunter2hunter2"}, {"passwd": "hunter2hunter2"}]}, environ={})
    assert "hunter2" not in str(caught.value)


def test_users_are_known_by_their_password_or_its_hash() -> None:
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    users = [{"name": "a", "password": "open"}, {"name": "b", "password": f"sha256:{digest}"}]
    accounts = Accounts(load(flags={"user": users}, environ={}), lambda: None)
    assert list(accounts.users()) == ["a", "b"]

    def is_right(user: str, password: bytes) -> bool:
        answers: list[bool] = []
        known = accounts.users().get(user)
        accounts.check_password(user, password, tuple(known.hashes) if known else (), answers.append)
        return answers == [True]

    assert is_right("a", b"open")
    assert is_right("b", b"secret")
    assert not is_right("a", b"secret")
    assert not is_right("b", digest.encode())
    assert not is_right("c", b"open")
    assert "secret" not in str(accounts.config())
    assert (accounts.config()["riverbus-version"], accounts.config()["process-id"]) == (__version__, str(os.getpid()))
    assert not Accounts(load(environ={}), lambda: None).users()


def test_a_secret_that_others_can_change_or_that_is_short_or_gone_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("0123456789abcdef\n")
    file.chmod(0o600)
    assert read_secret(file) == b"0123456789abcdef"
    assert read_secret(None) == b""
    file.chmod(0o604)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(file)
    file.chmod(0o600)
    file.write_text("short")
    with pytest.raises(ConfigError, match="at least 16 bytes"):
        read_secret(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(tmp_path / "none")


def test_tls_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    config = load(flags={"tls": {"cert": str(tmp_path / "c"), "key": str(tmp_path / "k")}}, environ={})
    with pytest.raises(ConfigError, match=r"tls: .*No such file"):
        server_context(config.tls)


@given(st.integers(0, 2**60))
def test_durations_and_sizes_come_back_as_they_were_written(value: int) -> None:
    assert parse_duration(format_duration(value)) == value
    assert parse_bytes(format_bytes(value)) == value


def test_units() -> None:
    assert parse_duration("1h30m") == 5_400_000
    assert parse_duration("250ms") == 250
    assert parse_bytes("64 MiB") == 64 * limits.MIB
    assert parse_bytes("1kB") == 1000
    assert parse_bytes(12) == 12
    assert parse_address("[::1]:6380") == Address("::1", 6380)
    assert str(Address("::1", 6380)) == "[::1]:6380"
    assert parse_cluster("1=a:1, 2=b:2,") == {1: "a:1", 2: "b:2"}
    for wrong in ("", "10", "m", "1.5h", "-1s", 5, None):
        with pytest.raises(ValueError, match="is not a duration"):
            parse_duration(wrong)
    for wrong in ("", "MiB", "1Mib", "-1", "1.5MiB", True, None):
        with pytest.raises(ValueError, match="is not a size"):
            parse_bytes(wrong)
    for text in ("", "host", ":1", "host:", "host:70000", "::1:1", "host:x", "host:-1"):
        with pytest.raises(ValueError, match="is not HOST:PORT"):
            parse_address(text)
    for text in ("1", "a=b:1", "1=a:1,1=b:1"):
        with pytest.raises(ValueError, match=r"is not ID=HOST:PORT|is there twice"):
            parse_cluster(text)
