"""Raft messages as trees of protobuf fields, to be changed field by field: eraftpb.proto's numbers, none of its code.

A tree is a list of [field number, wire type, value]; the value of an embedded message is a tree again. What is not in
`EMBEDDED` stays bytes. `fields_of` understands well-formed messages only: samples, not what was made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, TypeAlias

from tests.malformed.mutations import INTERESTING

Tree: TypeAlias = list[list[Any]]

VARINT, BYTES = 0, 2
TYPE, TO, FROM, TERM, LOG_TERM, INDEX, ENTRIES, COMMIT, SNAPSHOT, REJECT, REJECT_HINT, CONTEXT = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
)  # fmt: skip
REQUEST_SNAPSHOT, DEPRECATED_PRIORITY, COMMIT_TERM, PRIORITY = 13, 14, 15, 16
ENTRY_TYPE, ENTRY_TERM, ENTRY_INDEX, ENTRY_DATA = 1, 2, 3, 4
# Which fields of a message, by the path to it, are messages themselves.
EMBEDDED: dict[tuple[int, ...], frozenset[int]] = {
    (): frozenset({ENTRIES, SNAPSHOT}),
    (SNAPSHOT,): frozenset({2}),
    (SNAPSHOT, 2): frozenset({1}),
}
FIELDS = (TYPE, TERM, LOG_TERM, INDEX, COMMIT, REJECT, REJECT_HINT, COMMIT_TERM, REQUEST_SNAPSHOT, PRIORITY, 15, 17, 64)


def varint(value: int) -> bytes:
    out = bytearray()
    value &= 2**64 - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields_of(data: bytes, path: tuple[int, ...] = ()) -> Tree:
    tree: Tree = []
    embedded = EMBEDDED.get(path, frozenset())
    at = 0
    while at < len(data):
        key, at = _varint_at(data, at)
        number, wire = key >> 3, key & 7
        value, at = _varint_at(data, at)
        if wire == BYTES:
            body = data[at : at + value]
            at += value
            tree.append([number, wire, fields_of(body, (*path, number)) if number in embedded else body])
        else:
            assert wire == VARINT, "samples have no other kinds of fields"
            tree.append([number, wire, value])
    return tree


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def encoded(tree: Tree) -> bytes:
    parts: list[bytes] = []
    for number, wire, value in tree:
        if type(value) is int:
            parts += (varint(number << 3 | wire), varint(value))
        else:
            body = encoded(value) if type(value) is list else value
            parts += (varint(number << 3 | wire), varint(len(body)), body)
    return b"".join(parts)


def copied(tree: Tree) -> Tree:
    return [[number, wire, copied(value) if type(value) is list else value] for number, wire, value in tree]


def get(tree: Tree, number: int) -> int:
    for field in tree:
        if field[0] == number:
            assert type(field[2]) is int
            return int(field[2])
    return 0


def put(tree: Tree, number: int, value: int) -> None:
    for field in tree:
        if field[0] == number:
            field[1], field[2] = VARINT, value
            return
    tree.append([number, VARINT, value])


def change(tree: Tree, random: Random, telling: Sequence[int]) -> None:
    """One change in the tree or one of those inside; `telling` are values that mean something where it is sent."""
    draw = random.random
    inner = [field[2] for field in tree if type(field[2]) is list]
    if inner and draw() < 0.5:
        change(inner[int(draw() * len(inner))], random, telling)
        return
    how = int(draw() * 10)
    at = int(draw() * len(tree))
    if how < 4:
        _change_value(tree, at, random, telling)
    elif how < 6:
        put(tree, FIELDS[int(draw() * len(FIELDS))], _value(random, telling))
    elif how == 6 and tree:
        del tree[at]
    elif how == 7 and tree:
        tree.insert(int(draw() * (len(tree) + 1)), copied([tree[at]])[0])
    elif how == 8 and tree:
        other = int(draw() * len(tree))
        tree[at][2], tree[other][2] = tree[other][2], tree[at][2]
        tree[at][1], tree[other][1] = tree[other][1], tree[at][1]
    elif tree:
        tree[at][int(draw() * 2)] = int(draw() * 18) if draw() < 0.5 else int(draw() * 6)


def _change_value(tree: Tree, at: int, random: Random, telling: Sequence[int]) -> None:
    if not tree:
        return
    field = tree[at]
    value = field[2]
    if type(value) is int:
        nearby = value + int(random.random() * 5) - 2
        field[2] = max(0, nearby) if random.random() < 0.5 else _value(random, telling)
    elif type(value) is bytes:
        cut = int(random.random() * (len(value) + 1))
        field[2] = (value[:cut], value + b"x" * cut, random.randbytes(cut), b"")[random.getrandbits(2)]
    else:
        value.reverse()


def _value(random: Random, telling: Sequence[int]) -> int:
    if random.random() < 0.7:
        return telling[int(random.random() * len(telling))]
    return INTERESTING[int(random.random() * len(INTERESTING))]
