"""What a group hands out, and takes back: XREADGROUP, XACK, XCLAIM and XAUTOCLAIM, as Redis 7.2 has them.

Also XREADGROUP's CLAIM (Redis 8.4) and XACKDEL (8.2). It is decided when the entry is applied, at the entry's time: so
every replica knows who has what. One command hands out so many bytes at most (limits.READ_GROUP_BYTES_MAX): the rest is
there for the next.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import partial
from itertools import islice

from riverbus.core.state import history
from riverbus.core.state.entries import message_fields
from riverbus.core.state.keyspace import replies
from riverbus.core.state.keyspace.groups import Place, advance, consumer_of, find_group, touched
from riverbus.core.state.keyspace.keys import Consumer
from riverbus.core.state.keyspace.keyspace import Keyspace
from riverbus.core.state.keyspace.pending import PENDING_COST, Entry
from riverbus.core.state.keyspace.replies import Deferred, Outcome, Part
from riverbus.core.state.keyspace.streams import Found
from riverbus.core.state.keyspace.trimming import acknowledge, delete_by_references
from riverbus.keyspace_commands import Pairs, XAck, XAckDel, XAutoClaim, XClaim, XReadGroup
from riverbus.limits import READ_GROUP_BYTES_MAX, READ_GROUP_ENTRIES_MAX, READ_GROUP_PENDING_MAX
from riverbus.messages import ID_MAX, ID_MIN, NULL_ARRAY, ErrorReply, MessageId, Reply

_new = tuple.__new__  # makes a Part in half the time
_ATTEMPTS_PER_CLAIM = 10  # pending entries that XAUTOCLAIM looks at, for each it may claim

# --- XREADGROUP -------------------------------------------------------------------------------------------------------


class _Budget:
    """What one command may still hand out. `entries` None: Redis' COUNT was not given."""

    __slots__ = ("bytes", "entries")

    def __init__(self, limit: int | None, entries_max: int = READ_GROUP_ENTRIES_MAX) -> None:
        self.entries = min(limit or entries_max, entries_max)
        self.bytes = READ_GROUP_BYTES_MAX

    def take(self, entries: int, size: int) -> None:
        self.entries -= entries
        self.bytes -= size

    @property
    def is_spent(self) -> bool:
        return self.entries <= 0 or self.bytes <= 0


def xreadgroup(space: Keyspace, noun: XReadGroup) -> Outcome:
    places = []
    for name in noun.keys:
        place = find_group(space, name, noun.group)
        if not isinstance(place, Place):
            return place or replies.no_group_to_read(name, noun.group)
        places.append(place)
    consumers = []
    for place in places:
        consumer = consumer_of(space, touched(space, place), noun.consumer)
        if isinstance(consumer, ErrorReply):
            return consumer
        consumer.seen_ms = space.time_ms
        consumers.append(consumer)
    if noun.claim_ms is not None:
        return _read_and_claim(space, noun, places, consumers, noun.claim_ms)
    answers: list[tuple[bytes, list[Part] | list[Reply]]] = []
    for place, consumer, after in zip(places, consumers, noun.after, strict=True):
        budget = _Budget(noun.limit)
        if after is not None:
            if after != ID_MAX:  # above which there is no id
                answers.append((place.key.name, _read_history(space, place, consumer, after, budget)))
            continue
        parts = _read_new(space, place, consumer, noun.no_ack, budget)
        if parts:
            answers.append((place.key.name, parts))
    return _answer(answers)


def _answer(answers: Sequence[tuple[bytes, list[Part] | list[Reply]]]) -> Outcome:
    if not answers:
        return NULL_ARRAY
    effect = [len(answers)]
    for _, found in answers:
        effect.append(len(found))
        for part in found:
            if isinstance(part, Part):
                effect += (part.piece.ms, part.piece.seq + part.piece.skip, part.keep)
    return Deferred(partial(_render, answers), tuple(effect))


def _render(answers: Sequence[tuple[bytes, list[Part] | list[Reply]]]) -> Reply:
    items: list[tuple[Reply, Reply]] = []
    for name, found in answers:
        if found and isinstance(found[0], Part):
            items.append((name, replies.joined([part.run() for part in found if isinstance(part, Part)])))
        else:
            items.append((name, found))
    return Pairs(tuple(items))


def _read_new(space: Keyspace, place: Place, consumer: Consumer, no_ack: bool, budget: _Budget) -> list[Part]:
    channel, group = place.channel, place.group
    if not channel.length or channel.last_id <= group.last_id or group.last_id == ID_MAX:
        return []
    parts: list[Part] = []
    entries_left, bytes_left = budget.entries, budget.bytes
    for piece in history.pieces_from(channel, *group.last_id.next()):  # a hot path: a turn a message, at worst
        keep = available = piece.count - piece.skip
        if keep > entries_left or piece.body_bytes > bytes_left:
            keep = history.fitting(piece, entries_left, bytes_left, is_first=not parts)
            if not keep:
                break
        parts.append(_new(Part, (piece, keep)))
        entries_left -= keep
        bytes_left -= piece.body_bytes if keep == piece.count else sum(piece.lengths()[:keep])
        if keep < available or entries_left <= 0 or bytes_left <= 0:
            break
    budget.entries, budget.bytes = entries_left, bytes_left
    if not parts:
        return []
    advance(place, parts)
    if not no_ack:
        _hand_out(space, place, consumer, parts)
    return parts


def _hand_out(space: Keyspace, place: Place, consumer: Consumer, parts: Sequence[Part]) -> None:
    """New entries become pending."""
    pending, epoch = place.group.pending, space.store.epoch
    ms, seq = array("Q"), array("Q")
    for piece, keep in parts:
        start = piece.seq + piece.skip
        if keep == 1:
            ms.append(piece.ms)
            seq.append(start)
        else:
            ms += array("Q", (piece.ms,)) * keep
            seq += array("Q", range(start, start + keep))
    if not pending.blocks or pending.blocks[-1].last < (ms[0], seq[0]):
        pending.append(ms, seq, space.time_ms, consumer.number, epoch)
        consumer.pending += len(ms)
        space.charge_stream(place.key, PENDING_COST * len(ms))
    else:  # after XGROUP SETID somebody may have them already
        for id_ in zip(ms, seq, strict=True):
            _give(space, place, consumer, Entry(MessageId(*id_), space.time_ms, 1, consumer.number))
    consumer.active_ms = space.time_ms


def _give(space: Keyspace, place: Place, consumer: Consumer, entry: Entry) -> None:
    """The entry is pending for this consumer now, whoever had it."""
    group = place.group
    before = group.pending.find(entry.id)
    if before is None:
        space.charge_stream(place.key, PENDING_COST)
    else:
        group.numbers[before.consumer].pending -= 1
    consumer.pending += 1
    group.pending.put(entry, space.store.epoch)


def _read_history(space: Keyspace, place: Place, consumer: Consumer, after: MessageId, budget: _Budget) -> list[Reply]:
    """A consumer's own pending entries above the id, which is not the last, delivered to it once more."""
    if not consumer.pending:
        return []
    found: list[Reply] = []
    held: list[Entry] = []
    entries_max = min(budget.entries, READ_GROUP_PENDING_MAX)
    for entry in place.group.pending.entries(after.next(), ID_MAX, consumer.number):
        held.append(entry)
        if len(held) >= entries_max:
            break
    messages = history.read_ids(place.channel, [entry.id for entry in held])
    for entry in held:
        if budget.bytes <= 0:
            break
        message = messages.get(entry.id)
        if message is None:
            found.append([entry.id.to_bytes(), NULL_ARRAY])
            continue
        found.append(replies.entry(message))
        budget.take(1, len(message.body))
        place.group.pending.put(
            entry._replace(time_ms=space.time_ms, deliveries=entry.deliveries + 1), space.store.epoch
        )
    return found


def _read_and_claim(
    space: Keyspace, noun: XReadGroup, places: Sequence[Place], consumers: Sequence[Consumer], claim_ms: int
) -> Outcome:
    """CLAIM: what is idle long enough, the longest idle first; then what is new. One COUNT for all streams."""
    budget = _Budget(noun.limit)
    claimed: list[list[Reply]] = []
    for place, consumer, after in zip(places, consumers, noun.after, strict=True):
        claimed.append(_claim_idle(space, place, consumer, claim_ms, budget) if after is None else [])
    answers: list[tuple[bytes, list[Reply]]] = []
    for place, consumer, after, found in zip(places, consumers, noun.after, claimed, strict=True):
        if after is not None:
            if after != ID_MAX:
                answers.append((place.key.name, _read_history(space, place, consumer, after, _Budget(noun.limit))))
            continue
        if not budget.is_spent:
            parts = _read_new(space, place, consumer, noun.no_ack, budget)
            found += [[*fields, 0, 0] for fields in _entries_of(parts)]
        if found:
            answers.append((place.key.name, found))
    return Pairs(tuple(answers)) if answers else NULL_ARRAY


def _entries_of(parts: Sequence[Part]) -> list[list[Reply]]:
    return [each for part in parts for each in part.entries()]


def _claim_idle(space: Keyspace, place: Place, consumer: Consumer, claim_ms: int, budget: _Budget) -> list[Reply]:
    found: list[Reply] = []
    now_ms = space.time_ms
    if budget.is_spent or claim_ms > now_ms:
        return found
    held = place.group.pending.delivered_until(now_ms - claim_ms, min(budget.entries, READ_GROUP_PENDING_MAX))
    messages = history.read_ids(place.channel, sorted(entry.id for entry in held))
    for entry in held:
        if budget.is_spent:
            break
        message = messages.get(entry.id)
        if message is None:
            acknowledge(space, place.key, place.group.name, [entry.id])
            continue
        fields = [message.id.to_bytes(), message_fields(message.kind, message.body)]
        found.append([*fields, now_ms - entry.time_ms, entry.deliveries])
        budget.take(1, len(message.body))
        _give(space, place, consumer, Entry(entry.id, now_ms, entry.deliveries + 1, consumer.number))
        consumer.active_ms = now_ms
    return found


# --- acknowledging and claiming ---------------------------------------------------------------------------------------


def xack(space: Keyspace, noun: XAck) -> Reply:
    place = find_group(space, noun.key, noun.group)
    if not isinstance(place, Place):
        return place or 0
    return acknowledge(space, touched(space, place).key, noun.group, noun.ids)


def xackdel(space: Keyspace, noun: XAckDel) -> Reply:
    place = find_group(space, noun.key, noun.group)
    if not isinstance(place, Place):
        return place or [-1] * len(noun.ids)
    answers = []
    for id_ in noun.ids:
        if not acknowledge(space, touched(space, place).key, noun.group, [id_]):
            answers.append(-1)
            continue
        [answer] = delete_by_references(space, Found(place.key, place.channel), [id_], noun.references)
        answers.append(1 if answer == -1 else answer)
    return answers


def xclaim(space: Keyspace, noun: XClaim) -> Reply:
    place = find_group(space, noun.key, noun.group)
    if not isinstance(place, Place):
        return place or replies.no_group(noun.key, noun.group)
    group = touched(space, place).group
    now_ms = space.time_ms
    if noun.last_id is not None and noun.last_id > group.last_id:
        group.last_id = noun.last_id
    time_ms = noun.time_ms
    if noun.idle_ms is not None:
        time_ms = now_ms - noun.idle_ms
    if time_ms is None or not 0 <= time_ms <= now_ms:
        time_ms = now_ms
    consumer = consumer_of(space, place, noun.consumer)
    if isinstance(consumer, ErrorReply):
        return consumer
    consumer.seen_ms = now_ms
    found: list[Reply] = []
    messages = history.read_ids(place.channel, sorted(set(noun.ids)))
    for id_ in noun.ids:
        message = messages.get(id_)
        if message is None:
            acknowledge(space, place.key, noun.group, [id_])
            continue
        entry = group.pending.find(id_)
        if entry is None and not noun.force:
            continue
        if entry is not None and noun.min_idle_ms and now_ms - entry.time_ms < noun.min_idle_ms:
            continue
        count = 1 if entry is None else entry.deliveries
        if noun.retry_count is not None and noun.retry_count >= 0:
            count = noun.retry_count
        elif not noun.just_id:
            count += 1
        _give(space, place, consumer, Entry(id_, time_ms, count, consumer.number))
        consumer.active_ms = now_ms
        found.append(id_.to_bytes() if noun.just_id else replies.entry(message))
    return found


def xautoclaim(space: Keyspace, noun: XAutoClaim) -> Reply:
    place = find_group(space, noun.key, noun.group)
    if not isinstance(place, Place):
        return place or replies.no_group(noun.key, noun.group)
    group = touched(space, place).group
    consumer = consumer_of(space, place, noun.consumer)
    if isinstance(consumer, ErrorReply):
        return consumer
    now_ms = space.time_ms
    consumer.seen_ms = now_ms
    budget = _Budget(max(noun.limit, 1), READ_GROUP_PENDING_MAX)
    attempts_max = min(budget.entries * _ATTEMPTS_PER_CLAIM, READ_GROUP_PENDING_MAX)
    attempts = list(islice(group.pending.entries(noun.start, ID_MAX), attempts_max))
    messages = history.read_ids(place.channel, [entry.id for entry in attempts])
    found: list[Reply] = []
    deleted: list[Reply] = []
    at = 0
    for entry in attempts:
        if budget.is_spent:
            break
        at += 1
        message = messages.get(entry.id)
        if message is None:
            acknowledge(space, place.key, noun.group, [entry.id])
            deleted.append(entry.id.to_bytes())
            budget.take(1, 0)
            continue
        if now_ms - entry.time_ms < noun.min_idle_ms:
            continue
        count = entry.deliveries + (not noun.just_id)
        _give(space, place, consumer, Entry(entry.id, now_ms, count, consumer.number))
        consumer.active_ms = now_ms
        found.append(entry.id.to_bytes() if noun.just_id else replies.entry(message))
        budget.take(1, 0 if noun.just_id else len(message.body))
    next_id = ID_MIN
    if at and attempts[at - 1].id < ID_MAX:
        for entry in islice(group.pending.entries(attempts[at - 1].id.next(), ID_MAX), 1):
            next_id = entry.id
    return [next_id.to_bytes(), found, deleted]
