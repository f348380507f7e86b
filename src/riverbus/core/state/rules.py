"""What holds for each channel: rules by pattern, the first that matches holds; and a limit for the shard.

Rules are replicated: they change by an entry, so that all replicas trim alike. Those of the configuration come by an
`entries.RulesOp`, which leaves the commanded ones (BUS.RULE) as they are; these come before them, and are changed in
shard 0, whose `version` of them the other shards follow (rule_commands.py). As bytes rules are canonical JSON,
since the running hash covers them. A rule's limits act together: what any of them excludes is dropped. Durability
`none`: the channel keeps nothing, and what is published to it is in no log (fleeting.py); `memory` changes when a
publish is answered, and nothing here (receipts.py). Invariants: limits are not negative; `UNLIMITED` is a number, so
that comparisons need no special case.
"""

from __future__ import annotations

import msgspec

from riverbus.limits import (
    HISTORY_AGE_MS_DEFAULT,
    HISTORY_BYTES_DEFAULT,
    HISTORY_COUNT_DEFAULT,
    MESSAGE_BYTES_MAX,
    NODE_RETAINED_BYTES_DEFAULT,
    PUBLISH_KEYS_MS,
    PUBLISH_WINDOW_MS_MAX,
    PUBLISH_WINDOW_MS_MIN,
    RULES_MAX,
    SHARDS_DEFAULT,
)

UNLIMITED = 2**62
RULES_SHARD = 0  # where BUS.RULE changes the commanded rules
QUORUM, MEMORY, NONE = "quorum", "memory", "none"
DURABILITIES = (QUORUM, MEMORY, NONE)


class ChannelRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Window of the channels whose name matches the glob: its newest `count` messages, up to `age_ms`, in `bytes`.

    `window_ms`: how long the key of a publish is known; `payload`: bytes of a message at most.
    """

    match: str = "*"
    count: int = HISTORY_COUNT_DEFAULT
    age_ms: int = HISTORY_AGE_MS_DEFAULT
    bytes: int = HISTORY_BYTES_DEFAULT
    durability: str = QUORUM
    window_ms: int = PUBLISH_KEYS_MS
    payload: int = MESSAGE_BYTES_MAX

    def __post_init__(self) -> None:
        if self.durability not in DURABILITIES:
            raise ValueError(f"durability of {self.match!r} must be one of {', '.join(DURABILITIES)}")
        if not PUBLISH_WINDOW_MS_MIN <= self.window_ms <= PUBLISH_WINDOW_MS_MAX:
            raise ValueError(f"window of {self.match!r} must be {PUBLISH_WINDOW_MS_MIN} to {PUBLISH_WINDOW_MS_MAX} ms")
        if not 0 <= self.payload <= MESSAGE_BYTES_MAX:
            raise ValueError(f"payload of {self.match!r} must be 0 to {MESSAGE_BYTES_MAX} bytes")
        if not all(0 <= limit <= UNLIMITED for limit in (self.count, self.age_ms, self.bytes)):
            raise ValueError(f"limits of {self.match!r} must be from 0 to {UNLIMITED}")


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`commanded`, then `channels`, each in order of precedence, then `default`.

    `shard_bytes_max` is memory, with what bookkeeping costs. `version` rises with each change of `commanded`.
    """

    channels: tuple[ChannelRule, ...] = ()
    default: ChannelRule = ChannelRule()
    shard_bytes_max: int = NODE_RETAINED_BYTES_DEFAULT // SHARDS_DEFAULT
    commanded: tuple[ChannelRule, ...] = ()
    version: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.shard_bytes_max <= UNLIMITED:
            raise ValueError("shard_bytes_max must be above 0")
        if len(self.commanded) > RULES_MAX or not 0 <= self.version <= UNLIMITED:
            raise ValueError(f"there may be {RULES_MAX} commanded rules")

    @property
    def in_order(self) -> tuple[ChannelRule, ...]:
        """The first that matches holds; the last matches all."""
        return (*self.commanded, *self.channels, self.default)

    def is_configured_as(self, other: Rules) -> bool:
        """Equal, whatever was commanded."""
        return self.with_commands_of(other) == other

    def with_commands_of(self, other: Rules) -> Rules:
        return msgspec.structs.replace(self, commanded=other.commanded, version=other.version)


_decoder = msgspec.json.Decoder(Rules)
_commanded_decoder = msgspec.json.Decoder(tuple[ChannelRule, ...])
_encoder = msgspec.json.Encoder(order="deterministic")


def rules_to_bytes(rules: Rules) -> bytes:
    return _encoder.encode(rules)


def commanded_to_bytes(rules: Rules) -> bytes:
    return _encoder.encode(rules.commanded)


def commanded_from_bytes(data: bytes) -> tuple[ChannelRule, ...]:
    """Raises ValueError."""
    return _commanded_decoder.decode(data)


def rules_from_bytes(data: bytes) -> Rules:
    """Raises ValueError."""
    return _decoder.decode(data)
