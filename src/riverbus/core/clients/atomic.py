"""Which transactions are one operation of one shard's log, and that operation.

One that changes keys, or watches some, has to be: it is refused if its keys are of several shards. One of plain XADDs
is if it can be. All others are carried out command by command (transactions.py). A message that it publishes to a
channel of another shard is no part of the operation: it is published behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from riverbus import commands
from riverbus import keyspace_commands as keyspace
from riverbus.commands import Command, Publish
from riverbus.core.clients.history_commands import starts_of
from riverbus.core.clients.key_commands import with_node_entries
from riverbus.core.clients.names import name_of
from riverbus.core.clients.refusals import CROSS_SHARD
from riverbus.messages import ErrorReply, Kind

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session

_XADD = int(Kind.XADD)


class Atomic(NamedTuple):
    shard: int
    noun: keyspace.Transaction
    names: list[str]  # of its commands, for the counters
    members: list[bool]  # which of the queued commands are part of it


def _key(noun: Any) -> Iterable[bytes]:
    return (noun.key,)


def _keys(noun: Any) -> Iterable[bytes]:
    found: Iterable[bytes] = noun.keys
    return found


def _channel(noun: Any) -> Iterable[bytes]:
    return (noun.channel,)


def _channels(noun: Any) -> Iterable[bytes]:
    found: Iterable[bytes] = noun.channels
    return found


def _no_key(_: Any) -> Iterable[bytes]:
    return ()


def _both_keys(noun: Any) -> Iterable[bytes]:
    return (noun.key, noun.new_key)


_OF_ALL_SHARDS = (keyspace.Keys, keyspace.Scan, keyspace.RandomKey, keyspace.DbSize)
_KEYS: dict[type, Callable[[Any], Iterable[bytes]]] = {
    **{noun: _key for noun in (*keyspace.WRITES, *keyspace.READS) if "key" in noun._fields},
    **{noun: _keys for noun in (*keyspace.WRITES, *keyspace.READS) if "keys" in noun._fields},
    commands.Publish: _channel,
    commands.XRange: _channel,
    commands.XLen: _channel,
    commands.XInfoStream: _channel,
    commands.XRead: _channels,
    keyspace.PublishOnce: _channel,
    keyspace.PublishRun: _channel,
    keyspace.Rename: _both_keys,
    keyspace.FlushAll: _no_key,
}  # what may be part of an operation, and the keys that it is about
_WRITES = frozenset(keyspace.WRITES)


def atomic_plan(
    session: Session, queued: Sequence[Command], watched: Mapping[bytes, int]
) -> Atomic | ErrorReply | None:
    """None: there is no need, command by command will do. An error if there is and it can't be."""
    shard_of = session.backend.shard_of
    is_needed = bool(watched) or any(type(command) in _WRITES for command in queued)
    is_wanted = is_needed or any(isinstance(command, Publish) and command.kind == _XADD for command in queued)
    if not is_wanted:
        return None
    keyed = [command for command in queued if type(command) in _KEYS and not _is_message(command)]
    shards = {shard_of(key) for key in watched}
    for command in keyed:
        shards.update(map(shard_of, _KEYS[type(command)](command)))
    has_flush = any(type(command) is keyspace.FlushAll for command in keyed)
    if has_flush:
        shards.update(range(len(session.backend.shard_buses)))
    if len(shards) > 1:
        is_flush_alone = has_flush and len(keyed) == 1 and not watched
        return CROSS_SHARD if is_needed and not is_flush_alone else None
    shard = next(iter(shards))

    def is_member(command: Command) -> bool:
        if isinstance(command, Publish):
            return shard_of(command.channel) == shard
        return type(command) in _KEYS

    members = list(map(is_member, queued))
    parts = [command for command, member in zip(queued, members, strict=True) if member]
    noun = keyspace.Transaction(tuple(watched.items()), tuple(_prepared(session, command) for command in parts))
    return Atomic(shard, noun, [name_of(command) for command in parts], members)


def _is_message(command: Command) -> bool:
    return isinstance(command, Publish) and command.kind != _XADD


def _prepared(session: Session, command: Command) -> Command:
    """As the log takes it: nothing blocks, nothing depends on this node."""
    match command:
        case commands.XRead():
            starts = starts_of(session, command)
            after = tuple(None if one is None else start for one, start in zip(command.after, starts, strict=True))
            return command._replace(after=after, block_ms=None)
        case keyspace.XReadGroup():
            return command._replace(block_ms=None)
        case keyspace.XAdd() | keyspace.XTrim():
            return with_node_entries(session, command)  # type: ignore[no-any-return]
        case _:
            return command
