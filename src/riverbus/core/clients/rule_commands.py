"""BUS.RULE: rules for channels, commanded at any node, that hold on all.

SET and DEL are carried out in shard 0 and then, before they are answered, taken over by every other shard. If one of
these has no leader, the answer is an error, and the rule holds there all the same once it has one (upkeep.py): to
repeat the command is safe. GET and LIST are read behind a barrier, so that every node says the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverbus.core.clients.inflight import Order
from riverbus.core.clients.key_commands import Gather, GatheredWrite
from riverbus.core.clients.outbox import NOTHING, PendingWrite
from riverbus.core.clients.reads import read_shards
from riverbus.core.state.rules import RULES_SHARD, ChannelRule, commanded_to_bytes
from riverbus.messages import BusError, ErrorReply, Reply
from riverbus.rule_commands import BusRuleGet, BusRuleList, RuleDel, RulesCopy, RuleSet

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session


class _Command:
    """A change on its way (`Written`, of its first step)."""

    def __init__(self, session: Session, whole: PendingWrite) -> None:
        self._session = session
        self._whole = whole

    def written(self, reply: Reply) -> None:
        backend = self._session.backend
        others = [shard for shard in range(len(backend.shard_buses)) if shard != RULES_SHARD]
        if type(reply) is ErrorReply or not others:
            self._whole.written(reply)
            return
        rules = backend.shard_buses[RULES_SHARD].rules
        noun = RulesCopy(rules.version, commanded_to_bytes(rules))
        gather = Gather(self._whole, len(others), lambda _: reply)
        for at, shard in enumerate(others):
            backend.write_shard(shard, noun, GatheredWrite(gather, at))

    def failed(self, error: BusError) -> None:
        self._whole.failed(error)

    def is_abandoned(self) -> bool:
        return self._whole.is_abandoned()


def change(session: Session, command: RuleSet | RuleDel) -> Reply:
    pending = PendingWrite(session.pipeline.owner, Order.WRITE, charge_bytes=len(command.pattern))
    session.pipeline.expect(pending)
    session.backend.write_shard(RULES_SHARD, command, _Command(session, pending))
    return NOTHING


def get(session: Session, command: BusRuleGet) -> Reply:
    def produce() -> Reply:
        rules = session.backend.shard_buses[RULES_SHARD].rules
        found = [rule for rule in rules.commanded if rule.match.encode() == command.pattern]
        return _shown(found[0], "command") if found else None

    return read_shards(session, (RULES_SHARD,), produce)


def list_(session: Session, _: BusRuleList) -> Reply:
    """In order of precedence: the first that matches a channel holds for it."""

    def produce() -> Reply:
        rules = session.backend.shard_buses[RULES_SHARD].rules
        shown = [_shown(rule, "command") for rule in rules.commanded]
        shown += [_shown(rule, "configuration") for rule in rules.channels]
        return [*shown, _shown(rules.default, "default")]

    return read_shards(session, (RULES_SHARD,), produce)


def _shown(rule: ChannelRule, source: str) -> Reply:
    return {
        b"pattern": rule.match.encode(),
        b"count": rule.count,
        b"age": rule.age_ms,
        b"bytes": rule.bytes,
        b"durability": rule.durability.encode(),
        b"window": rule.window_ms,
        b"payload": rule.payload,
        b"source": source.encode(),
    }
