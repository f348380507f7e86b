"""The way into the keyspace: which noun is carried out by which function, alone or in a transaction.

What a function carries out, its own annotation says; that every noun of the table in `codes.py` has one, a test.

`execute` is for entries, `query` for reads of the local replica. What a noun did is a `Done`: its reply, the runs that
it appended which subscribers must get, and its keyspace events, all the same on every replica. A transaction is one
noun: nothing comes between its commands, and none of them is carried out if a watched key has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from inspect import signature
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from riverbus.commands import Publish
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
from riverbus.keyspace_commands import PublishOnce, PublishRun, Receivers, Transaction
from riverbus.messages import NULL_ARRAY, BusError, ErrorReply, Kind, MessageId, Reply

_PUBLISH = int(Kind.PUBLISH)

Append = Callable[[Run], MessageId | BusError]  # the bus' own way to append a run

Write = Callable[[Keyspace, Any], Outcome]
Read = Callable[[Keyspace, Any, int], Reply]
_Carries = TypeVar("_Carries", Write, Read)


def _by_noun(functions: Iterable[_Carries]) -> dict[type[Noun], _Carries]:
    """Each carries out what its second parameter is annotated with: a noun, or one of several."""
    table: dict[type[Noun], _Carries] = {}
    for function in functions:
        _, parameter, *_ = signature(function).parameters
        noun = get_type_hints(function)[parameter]
        for each in get_args(noun) or (noun,):
            assert each not in table, f"{each.__name__} is carried out twice"
            table[each] = function
    return table


_WRITES: dict[type[Noun], Write] = _by_noun(
    (
        adding.xadd,
        trimming.xtrim,
        trimming.xdel,
        trimming.xdelex,
        streams.xsetid,
        streams.xcfgset,
        deliveries.xackdel,
        groups.xgroup_create,
        groups.xgroup_setid,
        groups.xgroup_destroy,
        groups.xgroup_createconsumer,
        groups.xgroup_delconsumer,
        deliveries.xreadgroup,
        deliveries.xack,
        deliveries.xclaim,
        deliveries.xautoclaim,
        key_commands.del_,
        key_commands.flushall,
        key_commands.rename,
        key_commands.expire,
        key_commands.persist,
        key_commands.set_,
        key_commands.getdel,
        key_commands.getex,
        Keyspace.change_users,
        Keyspace.open_cursors,
        Keyspace.save_cursors,
        rule_changes.rule_set,
        rule_changes.rule_del,
        rule_changes.rules_copy,
    )
)
_READS: dict[type[Noun], Read] = _by_noun(
    (
        inspection.xrange,
        inspection.xlen,
        inspection.xread,
        inspection.xinfo_stream,
        inspection.xpending,
        inspection.xinfo_groups,
        inspection.xinfo_consumers,
        key_commands.exists,
        key_commands.type_,
        key_commands.keys,
        key_commands.scan,
        key_commands.randomkey,
        key_commands.dbsize,
        key_commands.object_,
        key_commands.ttl,
        key_commands.get,
        key_commands.strlen,
    )
)


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
