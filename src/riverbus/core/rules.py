"""How much history each channel keeps: rules by pattern, the first that matches holds; and a limit for the shard.

Rules are replicated: they change by an entry (`entries.RulesOp`), so that all replicas trim alike. As bytes they are
canonical JSON, since the running hash covers them. A rule's limits act together: what any of them excludes is dropped.
Invariants: limits are not negative; `UNLIMITED` is a number, so that comparisons need no special case.
"""

from __future__ import annotations

import msgspec

from riverbus.limits import (
    HISTORY_AGE_MS_DEFAULT,
    HISTORY_BYTES_DEFAULT,
    HISTORY_COUNT_DEFAULT,
    NODE_RETAINED_BYTES_DEFAULT,
    SHARDS_DEFAULT,
)

UNLIMITED = 2**62


class ChannelRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Window of the channels whose name matches the glob: its newest `count` messages, up to `age_ms`, in `bytes`."""

    match: str = "*"
    count: int = HISTORY_COUNT_DEFAULT
    age_ms: int = HISTORY_AGE_MS_DEFAULT
    bytes: int = HISTORY_BYTES_DEFAULT

    def __post_init__(self) -> None:
        if not all(0 <= limit <= UNLIMITED for limit in (self.count, self.age_ms, self.bytes)):
            raise ValueError(f"limits of {self.match!r} must be from 0 to {UNLIMITED}")


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`channels` in order of precedence, then `default`; `shard_bytes_max` is memory, with what bookkeeping costs."""

    channels: tuple[ChannelRule, ...] = ()
    default: ChannelRule = ChannelRule()
    shard_bytes_max: int = NODE_RETAINED_BYTES_DEFAULT // SHARDS_DEFAULT

    def __post_init__(self) -> None:
        if not 0 < self.shard_bytes_max <= UNLIMITED:
            raise ValueError("shard_bytes_max must be above 0")


_decoder = msgspec.json.Decoder(Rules)
_encoder = msgspec.json.Encoder(order="deterministic")


def rules_to_bytes(rules: Rules) -> bytes:
    return _encoder.encode(rules)


def rules_from_bytes(data: bytes) -> Rules:
    """Raises ValueError."""
    return _decoder.decode(data)
