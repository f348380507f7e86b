"""Redis' glob patterns (`*`, `?`, `[a-z]`, `[^x]`, `\\` to escape) over bytes, as in PSUBSCRIBE and CONFIG GET.

A pattern is cut at its stars into segments, each of which matches a fixed number of bytes. The first is anchored at the
start and the last at the end; those between are searched leftmost first, which is always right because no segment
can stretch. So matching is linear in the name for each segment, whatever the pattern: one regular expression for the
whole would backtrack, and a client could stop the node with `*a*a*a*a*b`.
"""

from __future__ import annotations

import re

_LITERAL_SPECIAL = re.compile(rb"[*?\[\\]")


class Glob:
    """One compiled pattern. `matches(name)` is the only question."""

    __slots__ = ("_first", "_last", "_last_bytes", "_least_bytes", "_literal", "_middle", "pattern")

    def __init__(self, pattern: bytes) -> None:
        self.pattern = pattern
        self._literal = _LITERAL_SPECIAL.search(pattern) is None
        segments = _segments(pattern)
        compiled = [re.compile(b"".join(segment), re.DOTALL) for segment in segments]
        self._first = compiled[0]
        self._middle = [each for each, segment in zip(compiled[1:-1], segments[1:-1], strict=True) if segment]
        self._last = compiled[-1] if len(compiled) > 1 else None
        self._last_bytes = len(segments[-1])
        self._least_bytes = sum(map(len, segments))

    def matches(self, name: bytes) -> bool:
        if self._literal:
            return name == self.pattern
        if len(name) < self._least_bytes:
            return False
        if self._last is None:
            return self._first.fullmatch(name) is not None
        found = self._first.match(name)
        if found is None:
            return False
        at = found.end()
        for segment in self._middle:
            found = segment.search(name, at)
            if found is None:
                return False
            at = found.end()
        tail = len(name) - self._last_bytes
        return tail >= at and self._last.match(name, tail) is not None


def _segments(pattern: bytes) -> list[list[bytes]]:
    """The parts between stars, each a list of regular expressions that match exactly one byte."""
    segments: list[list[bytes]] = [[]]
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        if char == b"*":
            segments.append([])
        elif char == b"?":
            segments[-1].append(b".")
        elif char == b"[":
            one, at = _byte_class(pattern, at + 1)
            segments[-1].append(one)
        else:
            if char == b"\\" and at + 1 < len(pattern):
                at += 1
                char = pattern[at : at + 1]
            segments[-1].append(re.escape(char))
        at += 1
    return segments


def _byte_class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The class that begins at `at`, just after `[`: its regular expression, and where its `]` is (or the end)."""
    is_negated = pattern[at : at + 1] == b"^"
    at += is_negated
    allowed: set[int] = set()
    while at < len(pattern) and pattern[at] != ord("]"):
        if pattern[at] == ord("\\") and at + 1 < len(pattern):
            at += 1
            allowed.add(pattern[at])
        elif at + 2 < len(pattern) and pattern[at + 1] == ord("-"):
            low, high = sorted((pattern[at], pattern[at + 2]))
            allowed.update(range(low, high + 1))
            at += 2
        else:
            allowed.add(pattern[at])
        at += 1
    if is_negated:
        allowed = set(range(256)) - allowed
    if not allowed:
        return rb"(?!.).", at  # `[]` matches nothing
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(allowed)) + b"]", at
