"""The body of an XADD message: its fields as one bytes object, the form in which the log and the windows keep them.

Little endian: u32 count, then count u32 lengths, then the bodies one after another. The items are flat and alternate,
[name, value, name, value]: what Redis takes and gives back. The format is in the log for ever; lengths stand in one
block so that encoding is one `pack` and one `join`, and decoding one `unpack` and slices.

Used by `wire/` (XADD's parser) and `core/state/entries.py` (the reader); imports nothing of Riverbus, so both may.
Invariant: decode_fields(encode_fields(x)) == x, and decode_fields accepts nothing that encode_fields can't have made.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, pack, unpack_from

_COUNT = Struct("<I")


class DamagedFields(ValueError):
    """The bytes aren't what `encode_fields` makes."""


def encode_fields(fields: Sequence[bytes]) -> bytes:
    """One body of the alternating names and values (an even count, at least one pair; raises ValueError else)."""
    count = len(fields)
    if count == 0 or count % 2:
        raise ValueError(f"{count} items aren't pairs of a name and a value")
    return pack(f"<{count + 1}I", count, *map(len, fields)) + b"".join(fields)


def encode_many(fields: Sequence[bytes], values: Sequence[bytes]) -> list[bytes]:
    """`encode_fields([*fields, value])` for each value: where lengths repeat, only the first is packed."""
    beginnings: dict[int, bytes] = {}
    bodies = []
    for value in values:
        beginning = beginnings.get(len(value))
        if beginning is None:
            beginning = beginnings[len(value)] = encode_fields([*fields, value])[: -len(value) or None]
        bodies.append(beginning + value)
    return bodies


def field_lengths(body: bytes) -> tuple[int, ...]:
    """Of the names and values, which are the body's end. Raises DamagedFields, after work bounded by len(body)."""
    if len(body) < _COUNT.size:
        raise DamagedFields(f"{len(body)} bytes hold no count")
    (count,) = _COUNT.unpack_from(body)
    at = _COUNT.size * (count + 1)
    if count == 0 or count % 2 or at > len(body):
        raise DamagedFields(f"{count} lengths in {len(body)} bytes")
    lengths = unpack_from(f"<{count}I", body, _COUNT.size)
    if at + sum(lengths) != len(body):
        raise DamagedFields(f"lengths sum to {sum(lengths)}, {len(body) - at} bytes follow them")
    return lengths


def decode_fields(body: bytes) -> list[bytes]:
    """The alternating names and values of a body. Raises DamagedFields, after work bounded by len(body)."""
    lengths = field_lengths(body)
    at = _COUNT.size * (len(lengths) + 1)
    fields = []
    for length in lengths:
        fields.append(body[at : at + length])
        at += length
    return fields
