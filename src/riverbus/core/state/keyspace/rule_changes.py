"""BUS.RULE within an entry: a shard's commanded rules are changed (shard 0), or taken over from it (the others).

What a rule means is in core/state/rules.py; how all shards come to have it, in core/clients/rule_commands.py.
"""

from __future__ import annotations

import msgspec

from riverbus.core.state.keyspace.keyspace import Keyspace
from riverbus.core.state.keyspace.replies import OK
from riverbus.core.state.rules import ChannelRule, commanded_from_bytes
from riverbus.limits import RULES_MAX
from riverbus.messages import ErrorReply, Reply
from riverbus.rule_commands import RuleDel, RulesCopy, RuleSet

_FULL = ErrorReply(f"ERR there are {RULES_MAX} rules already: delete some with BUS.RULE DEL")


def rule_set(space: Keyspace, noun: RuleSet) -> Reply:
    """A rule of the same pattern keeps its place and loses all else; a new one comes last of the commanded ones."""
    rules = space.store.latest_rules
    given = {
        "count": noun.messages,
        "age_ms": noun.age_ms,
        "bytes": noun.size,
        "window_ms": noun.window_ms,
        "payload": noun.payload,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        match = noun.pattern.decode()
        kept = {"count": rules.default.count, "age_ms": rules.default.age_ms, "bytes": rules.default.bytes}
        rule = ChannelRule(match=match, durability=noun.durability, **{**kept, **changes})
    except ValueError as error:
        return ErrorReply(f"ERR {error}".replace("\r", " ").replace("\n", " "))
    known = [each.match for each in rules.commanded]
    if match in known:
        at = known.index(match)
        _change(space, (*rules.commanded[:at], rule, *rules.commanded[at + 1 :]))
    elif len(known) < RULES_MAX:
        _change(space, (*rules.commanded, rule))
    else:
        return _FULL
    return OK


def rule_del(space: Keyspace, noun: RuleDel) -> Reply:
    commanded = space.store.latest_rules.commanded
    kept = tuple(each for each in commanded if each.match.encode() != noun.pattern)
    if len(kept) == len(commanded):
        return 0
    _change(space, kept)
    return 1


def rules_copy(space: Keyspace, noun: RulesCopy) -> Reply:
    if noun.version > space.store.latest_rules.version:
        _change(space, commanded_from_bytes(noun.commanded), noun.version)
    return OK


def _change(space: Keyspace, commanded: tuple[ChannelRule, ...], version: int | None = None) -> None:
    rules = space.store.latest_rules
    version = rules.version + 1 if version is None else version
    space.store.change_rules(msgspec.structs.replace(rules, commanded=commanded, version=version), space.time_ms)
