"""What makes the two servers' replies comparable, and the list of differences that are meant (docs/divergence.md).

`normal` takes ids of the clock, idle times and the order of sets out of a reply. `reason` names the listed difference
that two unequal replies are, or None: then it is a bug.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.clients.resp_tree import Tree, Words

_AUTO_ID = re.compile(rb"^(1[6-9]\d{11})-(\d+)$")
_NEWER_FIELDS = {b"inactive", b"active-time"}  # Redis 7.2's, which the server beside it (7.0) doesn't have
_TIMES = {b"idle", b"seen-time"}
_UNORDERED = {b"KEYS", b"PUBSUB"}


class Names:
    """Ids of one server's clock, by order of appearance: both servers gave them in the same order."""

    def __init__(self) -> None:
        self._names: dict[bytes, bytes] = {}

    def of(self, id_: bytes) -> bytes:
        return self._names.setdefault(id_, b"auto%d" % len(self._names))

    def forget(self) -> None:
        self._names.clear()


def normal(words: Words, tree: Tree, names: Names) -> Tree:
    tree = _without_newer(tree)
    name = words[0].upper()
    if name in (b"OBJECT", b"WAIT") and tree[0] == ":":
        return ":", b"some"
    if name in (b"TTL", b"PTTL") and tree[0] == ":" and int(tree[1]) > 0:
        return ":", b"some"
    if name in (b"EXPIRETIME", b"PEXPIRETIME") and tree[0] == ":" and 0 < int(tree[1]) < 3_900_000_000_000:
        return ":", b"some"
    if name == b"RANDOMKEY":
        return tree[0], tree[1] is None
    if name == b"XPENDING" and tree[0] == "*" and tree[1] and len(words) > 3:
        tree = "*", [_without_idle(row) for row in tree[1]]
    if name == b"XINFO":
        tree = _without_times(tree)
    if name in _UNORDERED and tree[0] == "*":
        tree = "*", sorted(tree[1], key=repr)
    return _named(tree, names)


def _without_idle(row: Tree) -> Tree:
    if row[0] == "*" and len(row[1]) == 4 and row[1][2][0] == ":":
        return "*", [*row[1][:2], (":", b"idle"), row[1][3]]
    return row


def _pairs(tree: Tree) -> bool:
    """A map, or RESP2's flat array of one."""
    kind, items = tree
    return kind in "*%" and bool(items) and len(items) % 2 == 0 and all(key[0] in "$+" for key in items[::2])


def _without_newer(tree: Tree) -> Tree:
    kind, items = tree
    if not isinstance(items, list):
        return tree
    if _pairs(tree) and any(key[1] in _NEWER_FIELDS for key in items[::2]):
        pairs = [pair for pair in zip(items[::2], items[1::2], strict=True) if pair[0][1] not in _NEWER_FIELDS]
        items = [each for pair in pairs for each in pair]
    return kind, [_without_newer(item) for item in items]


def _without_times(tree: Tree) -> Tree:
    kind, items = tree
    if not isinstance(items, list):
        return tree
    if kind == "*" and 3 <= len(items) <= 4 and items[0][0] == "$" and _is_time(items[-2]):
        return kind, [*items[:-2], (":", b"time"), items[-1]]  # of a pending entry
    if _pairs(tree):
        found: list[Tree] = []
        for key, value in zip(items[::2], items[1::2], strict=True):
            if key[1] in (b"radix-tree-keys", b"radix-tree-nodes"):
                value = (":", b"inner")
            found += (key, (":", b"time") if key[1] in _TIMES else _without_times(value))
        return kind, found
    return kind, [_without_times(item) for item in items]


def _is_time(tree: Tree) -> bool:
    return tree[0] == ":" and (int(tree[1]) > 10**11 or int(tree[1]) == 1_000_000)


def _named(tree: Tree, names: Names) -> Tree:
    kind, value = tree
    if isinstance(value, list):
        return kind, [_named(item, names) for item in value]
    if isinstance(value, bytes) and _AUTO_ID.match(value):
        return kind, names.of(value)
    return tree


# --- what is meant to differ ------------------------------------------------------------------------------------------

Rule = Callable[[Words, Tree, Tree], bool]

_FORM_ERRORS = (
    b"ERR Invalid stream ID",
    b"ERR The $ ID",
    b"ERR value is not an integer",
    b"ERR syntax error",
    b"ERR Invalid",
    b"ERR invalid",
    b"ERR COUNT must",
    b"ERR Unrecognized XCLAIM option",
    b"ERR wrong number of arguments",
    b"ERR unknown subcommand",
)


def _form_first(words: Words, ours: Tree, theirs: Tree) -> bool:
    """An argument's error comes before one that needs a look at the data (and XACK of a missing key's 0)."""
    if ours[0] != "-" or not ours[1].startswith(_FORM_ERRORS):
        return False
    is_about_data = theirs[0] == "-" and theirs[1].startswith(
        (b"WRONGTYPE", b"NOGROUP", b"ERR The XGROUP", b"ERR no such")
    )
    is_of_nothing = theirs in ((":", b"0"), ("$", None), ("_", b""), ("*", None))
    return is_about_data or is_of_nothing


def _newer(words: Words, ours: Tree, theirs: Tree) -> bool:
    """A command or an option that Redis 7.0 doesn't have."""
    newer = {b"KEEPREF", b"DELREF", b"ACKED", b"IDMP", b"IDMPAUTO", b"CLAIM"}
    if any(word.upper() in newer for word in words):
        return True
    return words[0].upper() == b"XREAD" and b"+" in words  # 7.4


def _words_of_7_2(words: Words, ours: Tree, theirs: Tree) -> bool:
    """Error texts that 7.2 changed."""
    return (
        ours[0] == theirs[0] == "-" and ours[1].startswith(b"ERR Unbalanced 'x") and theirs[1].startswith(b"ERR Unbal")
    )


def _counters(words: Words, ours: Tree, theirs: Tree) -> bool:
    """A group's entries-read and lag over deleted entries, which 7.2.6 and 7.4 corrected."""
    return words[0].upper() == b"XINFO" and _without_counters(ours) == _without_counters(theirs)


def _without_counters(tree: Tree) -> Tree:
    kind, items = tree
    if not isinstance(items, list):
        return tree
    if _pairs(tree):
        pairs = zip(items[::2], items[1::2], strict=True)
        kept = [(key, _without_counters(value)) for key, value in pairs if key[1] not in (b"entries-read", b"lag")]
        return kind, [each for pair in kept for each in pair]
    return kind, [_without_counters(item) for item in items]


def _cross_shard(words: Words, ours: Tree, theirs: Tree) -> bool:
    return ours[0] == "-" and ours[1].startswith(b"CROSSSLOT")


RULES: dict[str, Rule] = {
    "form first": _form_first,
    "newer than 7.0": _newer,
    "words of 7.2": _words_of_7_2,
    "counters of groups": _counters,
    "keys of several shards": _cross_shard,
}


def reason(words: Words, ours: Tree, theirs: Tree) -> str | None:
    for name, rule in RULES.items():
        if rule(words, ours, theirs):
            return name
    return None


def show(tree: Any) -> str:
    return repr(tree)[:1500]
