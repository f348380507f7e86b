"""Globs against the obvious recursive definition, and against time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.core.clients.glob import Glob


def matches(pattern: bytes, name: bytes) -> bool:
    """Redis' stringmatch, written down without a thought for speed."""
    if not pattern:
        return not name
    head, rest = pattern[:1], pattern[1:]
    if head == b"*":
        return any(matches(rest, name[at:]) for at in range(len(name) + 1))
    if not name:
        return False
    if head == b"?":
        return matches(rest, name[1:])
    if head == b"[":
        is_in, rest = _in_class(rest, name[0])
        return is_in and matches(rest, name[1:])
    if head == b"\\" and rest:
        head, rest = rest[:1], rest[1:]
    return head == name[:1] and matches(rest, name[1:])


def _in_class(rest: bytes, char: int) -> tuple[bool, bytes]:
    is_negated = rest[:1] == b"^"
    rest = rest[1:] if is_negated else rest
    found = False
    while rest and rest[:1] != b"]":
        if rest[:1] == b"\\" and len(rest) >= 2:
            found |= rest[1] == char
            rest = rest[2:]
        elif len(rest) >= 3 and rest[1:2] == b"-":
            found |= min(rest[0], rest[2]) <= char <= max(rest[0], rest[2])
            rest = rest[3:]
        else:
            found |= rest[0] == char
            rest = rest[1:]
    return found != is_negated, rest[1:]


@settings(max_examples=1000, deadline=None)
@given(st.text("ab*?[]^-\\\n.", max_size=8), st.text("ab-]^\\\n.", max_size=6))
def test_globs_match_what_redis_matches(pattern: str, name: str) -> None:
    assert Glob(pattern.encode()).matches(name.encode()) == matches(pattern.encode(), name.encode())


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (b"news.*", b"news.", b"new"),
        (b"h?llo", b"hello", b"hllo"),
        (b"h[ae]llo", b"hallo", b"hillo"),
        (b"h[^e]llo", b"hallo", b"hello"),
        (b"h[a-b]llo", b"hbllo", b"hcllo"),
        (b"h\\*llo", b"h*llo", b"hello"),
        (b"*a*b*", b"xxaxxbxx", b"xxbxxaxx"),
        (b"a*a", b"aa", b"a"),
        (b"\xff*\x00", b"\xff\x00", b"\x00\xff"),
    ],
)
def test_examples(pattern: bytes, yes: bytes, no: bytes) -> None:
    assert Glob(pattern).matches(yes)
    assert not Glob(pattern).matches(no)


@pytest.mark.timeout(5)
def test_hostile_patterns_take_no_time() -> None:
    assert not Glob(b"*a" * 400 + b"*b").matches(b"a" * 1000)
    assert not Glob(b"*[ab]?" * 300 + b"c").matches(b"ab" * 500)
