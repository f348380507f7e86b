"""Streams: how one is found, made and appended to, as Redis 7.2 does it; XSETID, XCFGSET.

A stream is its key (`keys.StreamKey`: what Redis keeps beside the messages) and the channel of the same name (the
messages). `append_run` is the way in for runs (PUBLISH to a stream, plain XADD); XADD with options is `adding.py`. What
would exceed the shard's memory is refused: nothing of a stream is ever dropped but by command (`trimming.py`).
"""

from __future__ import annotations

from typing import NamedTuple

from riverbus.core.state.channels import CHANNEL_COST, Channel
from riverbus.core.state.entries import Run
from riverbus.core.state.history import read_range_down
from riverbus.core.state.keyspace import replies
from riverbus.core.state.keyspace.explicit import make_explicit
from riverbus.core.state.keyspace.keys import KEY_COST, STREAM_COST, StreamKey
from riverbus.core.state.keyspace.keyspace import Keyspace
from riverbus.core.state.pieces import CHUNK_COST, PIECE_BYTES, TRAILER
from riverbus.keyspace_commands import XCfgSet, XSetId
from riverbus.messages import ID_MIN, SEQ_MAX, BusError, ErrorReply, Kind, MessageId, OutOfMemory, Reply, WrongType

COST_MAX = CHANNEL_COST + CHUNK_COST + PIECE_BYTES + TRAILER.size + KEY_COST + STREAM_COST  # of a run, over its bytes
XADD = int(Kind.XADD)
_OUT_OF_MEMORY = "command not allowed when used memory > 'shard_bytes_max'."
_EXHAUSTED = "The stream has exhausted the last possible ID, unable to add more items"


_new = tuple.__new__  # makes a MessageId in half the time


class Found(NamedTuple):
    """A stream, to be changed: its channel may be, its key is `touch`ed first."""

    key: StreamKey
    channel: Channel


def find(space: Keyspace, name: bytes) -> Found | ErrorReply | None:
    """The stream of a name; WRONGTYPE for a string."""
    key = space.take(name)
    if key is None:
        return None
    if not isinstance(key, StreamKey):
        return replies.WRONG_TYPE
    channel = space.store.get(name)
    assert channel is not None
    return Found(key, channel)


def own(space: Keyspace, channel: Channel) -> None:
    """Before a change of the messages: a snapshot under way keeps a copy."""
    if channel.epoch != space.store.epoch:
        space.store.preserve(channel)


def admit(space: Keyspace, size: int) -> OutOfMemory | None:
    """May keys and streams hold `size` more?"""
    store = space.store
    if store.explicit_bytes + size <= store.rules.shard_bytes_max:
        return None
    return OutOfMemory(_OUT_OF_MEMORY)


def create(space: Keyspace, name: bytes) -> Found | ErrorReply:
    """A stream of a name that has no key; what was published to it is its first entries."""
    store = space.store
    channel = store.get(name)
    error = admit(space, COST_MAX + len(name) + (channel.memory() if channel is not None else 0))
    if error is not None:
        return ErrorReply(str(error))
    if channel is None:
        channel = store.create(name, space.time_ms)
    own(space, channel)
    if channel.rule.is_retired:
        store.renew(channel)
    return Found(make_explicit(store, channel, space.time_ms), channel)


# --- appending --------------------------------------------------------------------------------------------------------


def next_id(last: MessageId, floor: MessageId, time_ms: int, count: int) -> MessageId | None:
    """Of the first of `count` messages with consecutive ids, above both; None if there are no ids left."""
    ms, seq = max(last, floor)
    if time_ms > ms:
        return MessageId(time_ms, 0)
    if seq <= SEQ_MAX - count:
        return MessageId(ms, seq + 1)
    return MessageId(ms + 1, 0) if ms < SEQ_MAX else None


def put(
    space: Keyspace, found: Found, first: tuple[int, int], kind: int, count: int, body_bytes: int, packed: bytes
) -> None:
    """Messages first ... of which the ids are right, and which were admitted. `packed`: lengths, then bodies.

    With `append_run` a hot path: what others share is written out.
    """
    key, channel = found
    store = space.store
    epoch = store.epoch
    if channel.epoch != epoch:
        store.preserve(channel)
    if key.epoch != epoch:
        space.touch(key)
    key.version = space.index
    if not channel.length:
        key.node_base = channel.added
        if key.floor > channel.dropped_id and first > key.floor:
            channel.dropped_ms, channel.dropped_seq = key.floor  # a reader of before is told that it missed something
    taken = channel.append(*first, kind, count, body_bytes, packed)
    store.memory_bytes += taken
    store.explicit_bytes += taken
    store.messages += count
    store.bytes += body_bytes


def append_run(space: Keyspace, run: Run, channel: Channel | None) -> MessageId | BusError:
    """A run for a stream, or of XADDs for what is none yet."""
    store = space.store
    size = COST_MAX + len(run.channel) + 4 * run.count + run.body_bytes
    if channel is not None and not channel.is_explicit:
        size += channel.memory()
    if store.explicit_bytes + size > store.rules.shard_bytes_max:
        return OutOfMemory(_OUT_OF_MEMORY)
    if channel is not None and channel.stream is not None:
        found = Found(channel.stream, channel)
    else:
        if space.take(run.channel) is not None:
            return WrongType("Operation against a key holding the wrong kind of value")
        created = create(space, run.channel)
        assert not isinstance(created, ErrorReply), "it was admitted"
        found = created
        channel = found.channel
    time_ms = space.time_ms
    first: MessageId | None
    if time_ms > channel.last_ms and time_ms > found.key.floor[0]:
        first = _new(MessageId, (time_ms, 0))
    else:
        first = next_id(channel.last_id, found.key.floor, time_ms, run.count)
        if first is None:
            return BusError(_EXHAUSTED)
    start = run.lengths_at
    packed = run.data[start : start + 4 * run.count + run.body_bytes]
    put(space, found, first, run.kind, run.count, run.body_bytes, packed)
    if run.kind == XADD:
        if run.count == 1:
            space.events.append(("t", "xadd", run.channel))
        else:
            space.events += [("t", "xadd", run.channel)] * run.count
    return first


# --- the rest ---------------------------------------------------------------------------------------------------------


def xsetid(space: Keyspace, noun: XSetId) -> Reply:
    if noun.max_deleted is not None and noun.last_id < noun.max_deleted:
        return replies.SETID_BELOW_GIVEN_DELETED
    found = find(space, noun.key)
    if not isinstance(found, Found):
        return found or replies.NO_SUCH_KEY
    key, channel = found
    if noun.last_id < key.max_deleted:
        return replies.SETID_BELOW_DELETED
    if channel.length:
        [top] = read_range_down(channel, -1, ID_MIN, channel.last_id, 1)
        if noun.last_id < top.id:
            return replies.SETID_BELOW_TOP
        if noun.entries_added is not None and channel.length > noun.entries_added:
            return replies.SETID_ADDED_BELOW_LENGTH
    own(space, channel)
    space.touch(key)
    channel.last_ms, channel.last_seq = noun.last_id
    if channel.dropped_id > channel.last_id:
        channel.dropped_ms, channel.dropped_seq = noun.last_id
    if noun.entries_added is not None:
        channel.added = noun.entries_added
    if noun.max_deleted is not None and noun.max_deleted != ID_MIN:
        key.max_deleted = noun.max_deleted
    space.event("t", "xsetid", noun.key)
    return replies.OK


def xcfgset(space: Keyspace, noun: XCfgSet) -> Reply:
    found = find(space, noun.key)
    if not isinstance(found, Found):
        return found or replies.NO_SUCH_KEY
    producers = found.key.producers
    space.touch(found.key)
    before = producers.memory
    duration_s = producers.duration_s if noun.idmp_duration_s is None else noun.idmp_duration_s
    producers.configure(duration_s, producers.size if noun.idmp_max_size is None else noun.idmp_max_size)
    space.charge_stream(found.key, producers.memory - before)
    return replies.OK
