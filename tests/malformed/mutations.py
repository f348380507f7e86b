"""Cheap changes to bytes, the same for all edges. Each draws from a Random and costs about a microsecond.

`random.random()` times a length is used where `randrange` would do: it costs a fifth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

INTERESTING = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 63, 64, 65, 127, 128, 255, 256, 1023, 1024, 4096, 65_535, 65_536, 2**20, 2**24,
    2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**60, 2**60 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1,
)  # fmt: skip

Mutation = Callable[[bytes, Random], bytes]


def pick(random: Random, items: Sequence[bytes]) -> bytes:
    return items[int(random.random() * len(items))]


def flip_bit(data: bytes, random: Random) -> bytes:
    if not data:
        return b"\x00"
    bit = int(random.random() * len(data) * 8)
    at = bit >> 3
    return data[:at] + bytes((data[at] ^ 1 << (bit & 7),)) + data[at + 1 :]


def change_byte(data: bytes, random: Random) -> bytes:
    at = int(random.random() * len(data))
    return data[:at] + bytes((random.getrandbits(8),)) + data[at + 1 :]


def cut_end(data: bytes, random: Random) -> bytes:
    return data[: int(random.random() * len(data))]


def cut_middle(data: bytes, random: Random) -> bytes:
    at = int(random.random() * len(data))
    return data[:at] + data[at + 1 + int(random.random() * 8) :]


def insert(data: bytes, random: Random) -> bytes:
    at = int(random.random() * (len(data) + 1))
    return data[:at] + random.randbytes(1 + int(random.random() * 8)) + data[at:]


def double_part(data: bytes, random: Random) -> bytes:
    at = int(random.random() * (len(data) + 1))
    return data[:at] + data[max(0, at - 1 - int(random.random() * 64)) :]


def number_in_place(data: bytes, random: Random) -> bytes:
    """A little-endian word of a telling value, over what is there."""
    width = (1, 2, 4, 8)[random.getrandbits(2)]
    value = INTERESTING[int(random.random() * len(INTERESTING))] & ((1 << 8 * width) - 1)
    at = int(random.random() * max(1, len(data) - width + 1))
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


BYTES: tuple[Mutation, ...] = (flip_bit, change_byte, cut_end, cut_middle, insert, double_part, number_in_place)


def mutate(data: bytes, random: Random, mutations: Sequence[Mutation] = BYTES) -> bytes:
    return mutations[int(random.random() * len(mutations))](data, random)


def splice(one: bytes, other: bytes, random: Random) -> bytes:
    """The beginning of one, the end of another."""
    return one[: int(random.random() * (len(one) + 1))] + other[int(random.random() * (len(other) + 1)) :]
