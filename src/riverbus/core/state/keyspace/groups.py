"""Consumer groups and their consumers, as Redis 7.2 has them: XGROUP, and how much of its stream a group has read.

A group knows the last id that it delivered, how many entries it read (`entries_read`, as far as that can be told, for
its lag), its consumers, and what is pending. What it hands out is `deliveries.py`; who only looks, `inspection.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from riverbus.core.state.channels import Channel
from riverbus.core.state.deletion import first_id
from riverbus.core.state.keyspace import replies
from riverbus.core.state.keyspace.keys import CONSUMER_COST, GROUP_COST, UNKNOWN, Consumer, Group, StreamKey
from riverbus.core.state.keyspace.keyspace import Keyspace
from riverbus.core.state.keyspace.pending import PENDING_COST, Pending
from riverbus.core.state.keyspace.replies import Part
from riverbus.core.state.keyspace.streams import Found, admit, create, find
from riverbus.keyspace_commands import (
    XGroupCreate,
    XGroupCreateConsumer,
    XGroupDelConsumer,
    XGroupDestroy,
    XGroupSetId,
)
from riverbus.limits import CONSUMERS_PER_GROUP_MAX, GROUPS_PER_STREAM_MAX
from riverbus.messages import ID_MIN, ErrorReply, MessageId, Reply


class Place(NamedTuple):
    """A group of a stream, to be changed once its key is `touch`ed."""

    key: StreamKey
    channel: Channel
    group: Group


def find_group(space: Keyspace, name: bytes, group_name: bytes) -> Place | ErrorReply | None:
    found = find(space, name)
    if not isinstance(found, Found):
        return found
    group = found.key.groups.get(group_name)
    return None if group is None else Place(*found, group)


def touched(space: Keyspace, place: Place) -> Place:
    space.touch(place.key)
    return place


# --- XGROUP -----------------------------------------------------------------------------------------------------------


def xgroup_create(space: Keyspace, noun: XGroupCreate) -> Reply:
    found = find(space, noun.key)
    if isinstance(found, ErrorReply):
        return found
    if found is None and not noun.mkstream:
        return replies.NO_KEY_FOR_GROUP
    if found is not None and noun.group in found.key.groups:
        return replies.BUSY_GROUP
    if found is not None and len(found.key.groups) >= GROUPS_PER_STREAM_MAX:
        return replies.TOO_MANY_GROUPS
    error = admit(space, GROUP_COST + len(noun.group))
    if error is not None:
        return ErrorReply(str(error))
    if found is None:
        created = create(space, noun.key)
        if isinstance(created, ErrorReply):
            return created
        found = created
        space.changed(found.key)
    space.touch(found.key)
    last_id = found.channel.last_id if noun.after is None else noun.after
    read = UNKNOWN if noun.entries_read is None else noun.entries_read
    group = Group(noun.group, last_id, read, {}, {}, 0, Pending())
    found.key.groups[noun.group] = group
    space.charge_stream(found.key, group.memory)
    space.event("t", "xgroup-create", noun.key)
    return replies.OK


def _place_for_xgroup(space: Keyspace, name: bytes, group_name: bytes) -> Place | ErrorReply:
    found = find(space, name)
    if found is None:
        return replies.NO_KEY_FOR_GROUP
    if isinstance(found, ErrorReply):
        return found
    group = found.key.groups.get(group_name)
    return replies.no_group_in_key(name, group_name) if group is None else Place(*found, group)


def xgroup_setid(space: Keyspace, noun: XGroupSetId) -> Reply:
    place = _place_for_xgroup(space, noun.key, noun.group)
    if isinstance(place, ErrorReply):
        return place
    group = touched(space, place).key.groups[noun.group]
    group.last_id = place.channel.last_id if noun.after is None else noun.after
    group.entries_read = UNKNOWN if noun.entries_read is None else noun.entries_read
    space.event("t", "xgroup-setid", noun.key)
    return replies.OK


def xgroup_destroy(space: Keyspace, noun: XGroupDestroy) -> Reply:
    found = find(space, noun.key)
    if not isinstance(found, Found):
        return found or replies.NO_KEY_FOR_GROUP
    if noun.group not in found.key.groups:
        return 0
    space.touch(found.key)
    space.charge_stream(found.key, -found.key.groups.pop(noun.group).memory)
    space.event("t", "xgroup-destroy", noun.key)
    return 1


def xgroup_createconsumer(space: Keyspace, noun: XGroupCreateConsumer) -> Reply:
    place = _place_for_xgroup(space, noun.key, noun.group)
    if isinstance(place, ErrorReply):
        return place
    if noun.consumer in place.group.consumers:
        return 0
    error = admit(space, CONSUMER_COST + len(noun.consumer))
    if error is not None:
        return ErrorReply(str(error))
    consumer = consumer_of(space, touched(space, place), noun.consumer)
    return consumer if isinstance(consumer, ErrorReply) else 1


def xgroup_delconsumer(space: Keyspace, noun: XGroupDelConsumer) -> Reply:
    place = _place_for_xgroup(space, noun.key, noun.group)
    if isinstance(place, ErrorReply):
        return place
    group = touched(space, place).group
    consumer = group.consumers.pop(noun.consumer, None)
    if consumer is None:
        return 0
    del group.numbers[consumer.number]
    if consumer.pending:
        group.pending.remove_consumer(consumer.number, space.store.epoch)
    held = CONSUMER_COST + len(consumer.name) + PENDING_COST * consumer.pending
    space.charge_stream(place.key, -held)
    space.event("t", "xgroup-delconsumer", noun.key)
    return consumer.pending


def consumer_of(space: Keyspace, place: Place, name: bytes) -> Consumer | ErrorReply:
    """The consumer, made if it is new. The key was touched."""
    group = place.group
    consumer = group.consumers.get(name)
    if consumer is None:
        if len(group.consumers) >= CONSUMERS_PER_GROUP_MAX:
            return replies.TOO_MANY_CONSUMERS
        consumer = Consumer(name, group.next_number, space.time_ms)
        group.next_number += 1
        group.consumers[name] = group.numbers[consumer.number] = consumer
        space.charge_stream(place.key, CONSUMER_COST + len(name))
        space.event("t", "xgroup-createconsumer", place.key.name)
    return consumer


# --- how many entries a group has read --------------------------------------------------------------------------------


def has_tombstones(key: StreamKey, channel: Channel, start: MessageId) -> bool:
    """Was something at or above `start` deleted?"""
    return bool(channel.length) and key.max_deleted != ID_MIN and start <= key.max_deleted


def estimate_read(key: StreamKey, channel: Channel, id_: MessageId) -> int:
    """How many entries there ever were up to the id; UNKNOWN if the stream cannot tell (Redis' rules)."""
    if not channel.added:
        return 0
    if not channel.length and id_ <= channel.last_id:
        return channel.added
    if id_ != ID_MIN and id_ < key.max_deleted:
        return UNKNOWN
    if id_ >= channel.last_id:
        return channel.added if id_ == channel.last_id else UNKNOWN
    first = first_id(channel)
    if key.max_deleted == ID_MIN or key.max_deleted < first:
        if id_ < first:
            return channel.added - channel.length
        if id_ == first:
            return channel.added - channel.length + 1
    return UNKNOWN


def _advance_one_by_one(place: Place, ids: Iterable[MessageId]) -> None:
    """The group delivers these, all above its last."""
    key, channel, group = place
    first = first_id(channel)
    for id_ in ids:
        is_counted = group.entries_read != UNKNOWN and group.last_id >= first
        if is_counted and not has_tombstones(key, channel, group.last_id):
            group.entries_read += 1
        elif channel.added:
            group.entries_read = estimate_read(key, channel, id_)
        group.last_id = id_


def advance(place: Place, parts: Sequence[Part]) -> None:
    """The group delivers these, all above its last: one by one, until it is sure that they can just be counted."""
    key, channel, group = place
    first = first_id(channel)
    for number, part in enumerate(parts):
        is_counted = group.entries_read != UNKNOWN and group.last_id >= first
        if is_counted and not has_tombstones(key, channel, group.last_id):
            group.entries_read += sum(keep for _, keep in parts[number:])
            piece, keep = parts[-1]
            group.last_id = MessageId(piece.ms, piece.seq + piece.skip + keep - 1)
            return
        _advance_one_by_one(place, part.ids())
