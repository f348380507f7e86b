"""XADD with its options, as Redis 7.2 does it; IDMP and IDMPAUTO, as Redis 8.6."""

from __future__ import annotations

from xxhash import xxh3_128_digest

from riverbus.core.state.entries import LENGTH
from riverbus.core.state.history import visible_length
from riverbus.core.state.keyspace import replies
from riverbus.core.state.keyspace.keyspace import Keyspace
from riverbus.core.state.keyspace.streams import COST_MAX, XADD, Found, admit, create, find, next_id, put
from riverbus.core.state.keyspace.trimming import trim
from riverbus.keyspace_commands import XAdd
from riverbus.messages import ID_MIN, SEQ_MAX, ErrorReply, MessageId, Reply


def xadd(space: Keyspace, noun: XAdd) -> Reply:
    if noun.id == ID_MIN and not noun.is_seq_auto:
        return replies.ID_ZERO
    found = find(space, noun.key)
    if isinstance(found, ErrorReply):
        return found
    if found is None and noun.no_mkstream:
        return None
    iid = noun.idempotent_id
    if noun.producer is not None and iid is None:
        iid = xxh3_128_digest(noun.body)
    if found is not None and noun.producer is not None and iid is not None:
        first = found.key.producers.find(noun.producer, iid, space.time_ms)
        if first is not None:
            space.touch(found.key)
            found.key.producers.duplicates += 1
            return first.to_bytes()
    error = admit(space, COST_MAX + len(noun.key) + 4 + len(noun.body))
    if error is not None:
        return ErrorReply(str(error))
    id_ = _id_of(noun, *_bounds(space, noun.key, found), space.time_ms)
    if isinstance(id_, ErrorReply):
        return id_
    if found is None:
        created = create(space, noun.key)
        if isinstance(created, ErrorReply):
            return created
        found = created
    put(space, found, id_, XADD, 1, len(noun.body), LENGTH.pack(len(noun.body)) + noun.body)
    if noun.producer is not None and iid is not None:
        producers = found.key.producers
        before = producers.memory
        producers.add(noun.producer, iid, id_, space.time_ms, space.store.epoch)
        space.charge_stream(found.key, producers.memory - before)
    space.event("t", "xadd", noun.key)
    if noun.trim is not None and trim(space, found, noun.trim):
        space.event("t", "xtrim", noun.key)
    return id_.to_bytes()


def _bounds(space: Keyspace, name: bytes, found: Found | None) -> tuple[MessageId, MessageId]:
    """(last id of the stream, or of the one that `create` would make; its floor)."""
    if found is not None:
        return found.channel.last_id, found.key.floor
    store = space.store
    channel = store.get(name)
    last = store.last_id(name)
    is_new = channel is None or not visible_length(channel, store.cut_ms(channel, space.time_ms))
    return ID_MIN if is_new else last, last


def _id_of(noun: XAdd, last: MessageId, floor: MessageId, time_ms: int) -> MessageId | ErrorReply:
    if last == (SEQ_MAX, SEQ_MAX):
        return replies.EXHAUSTED
    if noun.id is None:
        return next_id(last, floor, time_ms, 1) or replies.EXHAUSTED
    if not noun.is_seq_auto:
        return noun.id if noun.id > last else replies.ID_TOO_SMALL
    ms = noun.id.ms
    if ms > last.ms:
        return MessageId(ms, 0)
    if ms == last.ms and last.seq < SEQ_MAX:
        return MessageId(ms, last.seq + 1)
    return replies.ID_TOO_SMALL
