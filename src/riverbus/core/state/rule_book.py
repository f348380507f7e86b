"""The rules as a node's publishes meet them: whether any needs a look, and which holds for a channel.

A publish in a cluster without special rules (other durabilities, limits for payloads) costs one look at `has_special`.
The rule of a channel is what this node's replica of its shard has applied, remembered until rules change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverbus.limits import RULE_MEMO_MAX

if TYPE_CHECKING:
    from riverbus.core.state.bus import Bus
    from riverbus.core.state.rules import ChannelRule


class RuleBook:
    def __init__(self) -> None:
        self.has_special = False
        self._seen: dict[int, tuple[Bus, int]] = {}  # by shard: its state, and the generation of its rules
        self._known: dict[bytes, ChannelRule] = {}

    def look(self, shard: int, bus: Bus) -> bool:
        """After each entry, and when a state was replaced. True if other rules hold than at the last look."""
        seen = self._seen.get(shard)
        if seen is not None and seen[1] == bus.rules_generation and seen[0] is bus:
            return False
        self._seen[shard] = (bus, bus.rules_generation)
        self.has_special = any(one.has_special_rules for one, _ in self._seen.values())
        self._known.clear()
        return True

    def rule_of(self, bus: Bus, channel: bytes) -> ChannelRule:
        rule = self._known.get(channel)
        if rule is None:
            if len(self._known) >= RULE_MEMO_MAX:
                self._known.clear()
            rule = self._known[channel] = bus.rule_of(channel)
        return rule
