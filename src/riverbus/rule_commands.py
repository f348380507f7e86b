"""What a client may ask of the rules for channels (BUS.RULE ...), and how shards tell each other what was commanded.

RuleSet, RuleDel and RulesCopy are replicated, as the writing nouns of `keyspace_commands.py` are: their fields are
plain, only ever added at the end, with a default, and their order never changes.
"""

from __future__ import annotations

from typing import NamedTuple


class BusRuleGet(NamedTuple):
    """BUS.RULE GET: the rule that was commanded for this very pattern."""

    pattern: bytes


class BusRuleList(NamedTuple): ...


# --- replicated -------------------------------------------------------------------------------------------------------


class RuleSet(NamedTuple):
    """BUS.RULE SET, on shard 0. None: as in the configuration's [history], or the default. Reply: Status OK."""

    pattern: bytes
    messages: int | None = None
    age_ms: int | None = None
    size: int | None = None  # bytes of the window
    durability: str = "quorum"
    window_ms: int | None = None
    payload: int | None = None


class RuleDel(NamedTuple):
    """BUS.RULE DEL, on shard 0. Reply: 1, or 0 if there was none of this pattern."""

    pattern: bytes


class RulesCopy(NamedTuple):
    """What shard 0 has (rules.py `commanded_to_bytes`), for another shard; ignored if that has a newer version."""

    version: int
    commanded: bytes
