"""The way into the keyspace: which noun is carried out by which function, alone or in a transaction.

`execute` is for entries, `query` for reads of the local replica. What a noun did is a `Done`: its reply, the runs that
it appended which subscribers must get, and its keyspace events, all the same on every replica. A transaction is one
noun: nothing comes between its commands, and none of them is carried out if a watched key has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from riverbus.commands import Publish, XInfoStream, XLen, XRange, XRead
from riverbus.core.state.entries import Run
from riverbus.core.state.keyspace import (
    adding,
    deliveries,
    groups,
    inspection,
    key_commands,
    replies,
    rule_changes,
    streams,
    trimming,
)
from riverbus.core.state.keyspace.codes import Noun
from riverbus.core.state.keyspace.keyspace import Event, Keyspace
from riverbus.core.state.keyspace.publish_keys import PublishKeys
from riverbus.core.state.keyspace.replies import Deferred, Outcome
from riverbus.core.state.keyspace.sequences import FORGOTTEN
from riverbus.durable_commands import DurableOpen, DurableSave
from riverbus.keyspace_commands import (
    AclDelUser,
    AclSetUser,
    DbSize,
    Del,
    Exists,
    Expire,
    FlushAll,
    GetDel,
    GetEx,
    GetString,
    Keys,
    Object,
    Persist,
    PublishOnce,
    PublishRun,
    RandomKey,
    Receivers,
    Rename,
    RuleDel,
    RulesCopy,
    RuleSet,
    Scan,
    SetString,
    StrLen,
    Transaction,
    Ttl,
    Type,
    XAck,
    XAckDel,
    XAdd,
    XAutoClaim,
    XCfgSet,
    XClaim,
    XDel,
    XDelEx,
    XGroupCreate,
    XGroupCreateConsumer,
    XGroupDelConsumer,
    XGroupDestroy,
    XGroupSetId,
    XInfoConsumers,
    XInfoGroups,
    XPending,
    XReadGroup,
    XSetId,
    XTrim,
)
from riverbus.messages import NULL_ARRAY, BusError, ErrorReply, Kind, MessageId, Reply

_PUBLISH = int(Kind.PUBLISH)

Append = Callable[[Run], MessageId | BusError]  # the bus' own way to append a run

_WRITES: dict[type[Noun], Callable[[Keyspace, Any], Outcome]] = {
    XAdd: adding.xadd,
    XTrim: trimming.xtrim,
    XDel: trimming.xdel,
    XDelEx: trimming.xdelex,
    XSetId: streams.xsetid,
    XCfgSet: streams.xcfgset,
    XAckDel: deliveries.xackdel,
    XGroupCreate: groups.xgroup_create,
    XGroupSetId: groups.xgroup_setid,
    XGroupDestroy: groups.xgroup_destroy,
    XGroupCreateConsumer: groups.xgroup_createconsumer,
    XGroupDelConsumer: groups.xgroup_delconsumer,
    XReadGroup: deliveries.xreadgroup,
    XAck: deliveries.xack,
    XClaim: deliveries.xclaim,
    XAutoClaim: deliveries.xautoclaim,
    Del: key_commands.del_,
    FlushAll: key_commands.flushall,
    Rename: key_commands.rename,
    Expire: key_commands.expire,
    Persist: key_commands.persist,
    SetString: key_commands.set_,
    GetDel: key_commands.getdel,
    GetEx: key_commands.getex,
    AclSetUser: lambda space, noun: space.change_users(noun),
    DurableOpen: lambda space, noun: space.open_cursors(noun),
    DurableSave: lambda space, noun: space.save_cursors(noun),
    AclDelUser: lambda space, noun: space.change_users(noun),
    RuleSet: rule_changes.rule_set,
    RuleDel: rule_changes.rule_del,
    RulesCopy: rule_changes.rules_copy,
}
_READS: dict[type[Noun], Callable[[Keyspace, Any, int], Reply]] = {
    XRange: inspection.xrange,
    XLen: inspection.xlen,
    XRead: inspection.xread,
    XInfoStream: inspection.xinfo_stream,
    XPending: inspection.xpending,
    XInfoGroups: inspection.xinfo_groups,
    XInfoConsumers: inspection.xinfo_consumers,
    Exists: key_commands.exists,
    Type: key_commands.type_,
    Keys: key_commands.keys,
    Scan: key_commands.scan,
    RandomKey: key_commands.randomkey,
    DbSize: key_commands.dbsize,
    Object: key_commands.object_,
    Ttl: key_commands.ttl,
    GetString: key_commands.get,
    StrLen: key_commands.strlen,
}


class Appended(NamedTuple):
    """A run that a noun appended, and the id of its first message."""

    run: Run
    first: MessageId


class Done(NamedTuple):
    outcome: Outcome
    runs: list[Appended]
    events: list[Event]


def execute(space: Keyspace, noun: Noun, append: Append) -> Done:
    """Within an entry: `space.time_ms` and `space.index` are its."""
    outer, space.events = space.events, []
    runs: list[Appended] = []
    outcome = _carry_out(space, noun, append, runs)
    events, space.events = space.events, outer
    return Done(outcome, runs, events)


def query(space: Keyspace, noun: Noun, now_ms: int) -> Reply:
    return _READS[type(noun)](space, noun, now_ms)


def _carry_out(space: Keyspace, noun: Noun, append: Append, runs: list[Appended]) -> Outcome:
    write = _WRITES.get(type(noun))
    if write is not None:
        return write(space, noun)
    if isinstance(noun, PublishOnce):
        return _publish_once(space, noun, append, runs)
    if isinstance(noun, PublishRun):
        return _publish_run(space, noun, append, runs)
    if isinstance(noun, Transaction):
        return _transaction(space, noun, append, runs)
    return _READS[type(noun)](space, noun, space.time_ms)


def _publish_once(space: Keyspace, noun: PublishOnce, append: Append, runs: list[Appended]) -> Reply:
    digest = PublishKeys.digest(noun.channel, noun.idempotency_key)
    window_ms = space.store.window_for(noun.channel).rule.window_ms
    first = space.publish_keys.find(digest, space.time_ms, window_ms)
    if first is None:
        run = Run.of(noun.channel, noun.kind, (noun.payload,))
        outcome = append(run)
        if isinstance(outcome, BusError):
            return ErrorReply(str(outcome))
        first = outcome
        runs.append(Appended(run, first))
        space.remember_publish(digest, first)
    return first.to_bytes()


def _publish_run(space: Keyspace, noun: PublishRun, append: Append, runs: list[Appended]) -> Outcome:
    payloads = noun.payloads
    items: list[tuple[int, MessageId | ErrorReply]] = []  # how many, and the first one's id
    for offset, count, known in space.sequences.split(noun.producer, noun.sequence, len(payloads)):
        if known == FORGOTTEN:
            items.append((count, replies.FORGOTTEN))
        elif isinstance(known, MessageId):
            items.append((count, known))
        else:
            run = Run.of(noun.channel, _PUBLISH, payloads[offset : offset + count])
            first = append(run)
            if isinstance(first, BusError):
                items.append((count, ErrorReply(str(first))))
                continue
            items.append((count, first))
            runs.append(Appended(run, first))
            space.remember_run(noun.producer, noun.sequence + offset, count, first)
    effect = [each for count, first in items for each in (count, *(first if isinstance(first, MessageId) else (0,)))]
    return Deferred(partial(_render_run, items), tuple(effect))


def _render_run(items: list[tuple[int, MessageId | ErrorReply]]) -> Reply:
    ids: list[Reply] = []
    for count, first in items:
        if isinstance(first, MessageId):
            ms, seq = first
            ids += [b"%d-%d" % (ms, at) for at in range(seq, seq + count)]
        else:
            ids += [first] * count
    return ids


def _publish(noun: Publish, append: Append, runs: list[Appended]) -> list[Reply]:
    run = Run.of(noun.channel, noun.kind, noun.payloads)
    first = append(run)
    if isinstance(first, BusError):
        return [ErrorReply(str(first))] * run.count
    runs.append(Appended(run, first))
    if noun.style == "id":
        return [first.plus(at).to_bytes() for at in range(run.count)]
    return [Receivers(len(runs) - 1)] * run.count


def _transaction(space: Keyspace, noun: Transaction, append: Append, runs: list[Appended]) -> Outcome:
    for name, version in noun.watched:
        if space.version(name, space.time_ms) != version:
            return NULL_ARRAY
    outcomes: list[Outcome] = []
    for command in noun.commands:
        if isinstance(command, Publish):
            outcomes += _publish(command, append, runs)
        else:
            outcomes.append(_carry_out(space, command, append, runs))
    effect = [len(outcomes)]
    for outcome in outcomes:
        if isinstance(outcome, Deferred):
            effect += outcome.effect
    return Deferred(partial(_render, outcomes), tuple(effect))


def _render(outcomes: Sequence[Outcome]) -> Reply:
    return [outcome.render() if isinstance(outcome, Deferred) else outcome for outcome in outcomes]
