"""Passwords: digests, slow hashes, and that a wrong name costs what a wrong password costs."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from riverbus.runtime import passwords
from riverbus.runtime.config import ConfigError, load
from riverbus.runtime.passwords import Passwords, hash_slowly, read_slow
from riverbus.runtime.security import Accounts, user_of

DIGEST = hashlib.sha256(b"quick").hexdigest()


def test_a_slow_hash_is_read_back_and_matches_one_password_only() -> None:
    text = hash_slowly(b"correct horse")
    slow = read_slow(text)
    assert slow.matches(b"correct horse")
    assert not slow.matches(b"correct horsf")
    assert hash_slowly(b"correct horse") != text, "salted"


@pytest.mark.parametrize(
    "text",
    ["scrypt:", "scrypt:x:y:z", "scrypt:16384:AAAA:AAAA", "scrypt:3:{s}:{d}", "scrypt:99999999:{s}:{d}", "x:2:{s}:{d}"],
)
def test_what_is_no_hash_is_refused(text: str) -> None:
    _, _, salt, digest = hash_slowly(b"x").split(":")
    with pytest.raises(ValueError, match="scrypt"):
        read_slow(text.format(s=salt, d=digest))


def test_checks_go_on_in_a_thread_and_what_was_right_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    matches = passwords.Slow.matches

    def counted(self: passwords.Slow, password: bytes) -> bool:
        calls.append(password)
        return matches(self, password)

    monkeypatch.setattr(passwords.Slow, "matches", counted)

    async def story() -> None:
        turns: list[None] = []
        known = Passwords({"ann": read_slow(hash_slowly(b"pw"))}, lambda: turns.append(None))

        async def check(user: str, password: bytes, *hashes: str) -> bool:
            answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            known.check(user, password, hashes, answer.set_result)
            return await answer

        assert await check("ann", b"pw")
        assert turns == [None]
        assert await check("ann", b"pw")
        assert calls == [b"pw"], "remembered"
        assert not await check("ann", b"no")
        assert not await check("nobody", b"no"), "as much work as for ann"
        assert not await check("bob", b"pw", DIGEST)
        assert not await check("bob", b"pw"), "another's password"
        assert await check("bob", b"quick", DIGEST)
        assert calls == [b"pw", b"no", b"no", b"pw", b"pw"]
        monkeypatch.setattr(passwords, "PASSWORD_CHECKS_MAX", 0)
        assert not await check("ann", b"another")
        assert await check("ann", b"pw"), "who was right once does not wait"
        known.close()

    asyncio.run(story())


def config(user: str) -> str:
    return f"[[user]]\n{user}\n"


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ('password = "p"\nrules = ">x ~*"', "a password belongs into password or passwords, not into rules"),
        ('password = "p"\nrules = "on ~*"', "on, off, reset and resetpass have no place in rules"),
        ('password = "p"\nrules = "nopass ~*"', "exclude each other"),
        ('password = "scrypt:1"', "COST:SALT:DIGEST"),
        ('name = "x"', "give a password"),
    ],
)
def test_a_user_that_contradicts_itself_is_refused(tmp_path, user: str, problem: str) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "riverbus.toml"
    file.write_text(config(user))
    with pytest.raises(ConfigError, match=problem):
        load(file, environ={})


def test_rules_of_the_configuration_are_checked_against_the_commands() -> None:
    for rules, problem in (("+nosuch", "Unknown command"), ("~* ~a", "Adding a pattern"), ("(~a", "Unmatched")):
        wrong = {"user": [{"name": "u", "password": "p", "rules": rules}]}
        with pytest.raises(ConfigError, match=problem):
            Accounts(load(flags=wrong, environ={}), lambda: None)
    flags: dict[str, Any] = {
        "user": [{"name": "u", "passwords": ["p", f"sha256:{DIGEST}"], "rules": "~a (+get ~b) +@read"}]
    }
    (user,) = load(flags=flags, environ={}).user
    assert user_of(user).describe() == (
        f"user u on #{hashlib.sha256(b'p').hexdigest()} #{DIGEST} ~a resetchannels -@all +@read "
        "(~b resetchannels -@all +get)"
    )
    flags = {"user": [{"name": "u", "rules": "nopass +ping", "enabled": False}]}
    assert user_of(load(flags=flags, environ={}).user[0]).flags() == ["off", "nopass"]


def test_a_network_needs_a_user_with_a_password_or_certificates() -> None:
    def problems(**sections: object) -> str:
        try:
            load(flags={"resp": {"listen": "0.0.0.0:6380"}, **sections}, environ={})
        except ConfigError as error:
            return str(error)
        return ""

    assert "add a [[user]] with a password" in problems()
    assert "user 'open' needs no password" in problems(user=[{"name": "open", "rules": "nopass ~*"}])
    tls = {"cert": "c", "key": "k", "ca": "a"}
    assert problems(tls=tls) == ""
    assert "add a [[user]]" in problems(tls={**tls, "client_certificates": "optional"})
    assert problems(user=[{"password": "p"}]) == ""
