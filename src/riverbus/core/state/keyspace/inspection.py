"""What is asked of streams and groups without changing them: XRANGE, XREAD, XPENDING, XINFO, as Redis 7.2 answers.

`now_ms` is the asker's time: what is idle since when, and what has expired, is measured by it. An implicit log is read
like a stream; for XINFO it is one as long as it has messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from riverbus.commands import XInfoStream, XLen, XRange, XRead
from riverbus.core.clients.refusals import REPLY_TOO_LARGE
from riverbus.core.state import history
from riverbus.core.state.channels import Channel
from riverbus.core.state.keyspace import replies
from riverbus.core.state.keyspace.groups import estimate_read, has_tombstones
from riverbus.core.state.keyspace.keys import UNKNOWN, Consumer, Group, StreamKey
from riverbus.core.state.keyspace.keyspace import Keyspace
from riverbus.core.state.keyspace.pending import Entry
from riverbus.core.state.keyspace.replies import ENTRY_BYTES
from riverbus.keyspace_commands import Pairs, XInfoConsumers, XInfoGroups, XPending
from riverbus.limits import OUTBOX_REPLIES_BYTES_MAX
from riverbus.messages import ID_MAX, ID_MIN, NULL_ARRAY, ErrorReply, Message, MessageId, Reply

_PAGE = 1000  # messages read at a time

Map = dict[Reply, Reply]


class _TooLarge(Exception):
    """The reply would be above its limit."""


class _Room:
    """What a reply may still take."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = OUTBOX_REPLIES_BYTES_MAX

    def take(self, size: int) -> None:
        self.bytes -= size
        if self.bytes < 0:
            raise _TooLarge


def _log(space: Keyspace, name: bytes, now_ms: int) -> Channel | ErrorReply | None:
    """The channel that holds a name's messages, stream or implicit log; WRONGTYPE for a string."""
    key = space.see(name, now_ms)
    if key is not None and not isinstance(key, StreamKey):
        return replies.WRONG_TYPE
    channel = space.store.get(name)
    if channel is None or (channel.is_explicit and key is None):
        return None
    return channel


def _cut_ms(space: Keyspace, channel: Channel) -> int:
    return space.store.cut_ms(channel, space.time_ms)


def _messages(
    space: Keyspace, channel: Channel, first: MessageId, last: MessageId, limit: int | None, is_reverse: bool
) -> Iterator[Message]:
    """A page at a time."""
    cut_ms = _cut_ms(space, channel)
    read = history.read_range_down if is_reverse else history.read_range
    left = limit
    while first <= last and (left is None or left > 0):
        wanted = _PAGE if left is None else min(_PAGE, left)
        page = read(channel, cut_ms, first, last, wanted)
        yield from page
        if len(page) < wanted:
            return
        left = None if left is None else left - len(page)
        end = page[-1].id
        if end in (ID_MIN, ID_MAX):
            return
        if is_reverse:
            last = MessageId(end.ms, end.seq - 1) if end.seq else MessageId(end.ms - 1, ID_MAX.seq)
        else:
            first = end.next()


def _entries(messages: Iterator[Message], room: _Room) -> list[Reply]:
    """Raises _TooLarge."""
    found: list[Reply] = []
    for message in messages:
        room.take(len(message.body) + ENTRY_BYTES)
        found.append(replies.entry(message))
    return found


def xrange(space: Keyspace, noun: XRange, now_ms: int) -> Reply:
    channel = _log(space, noun.channel, now_ms)
    if not isinstance(channel, Channel):
        return channel or []
    if noun.limit == 0:
        is_there = channel.is_explicit or history.visible_length(channel, _cut_ms(space, channel))
        return NULL_ARRAY if is_there else []
    messages = _messages(space, channel, noun.first, noun.last, noun.limit, noun.reverse)
    try:
        return _entries(messages, _Room())
    except _TooLarge:
        return REPLY_TOO_LARGE


def xlen(space: Keyspace, noun: XLen, now_ms: int) -> Reply:
    channel = _log(space, noun.channel, now_ms)
    if not isinstance(channel, Channel):
        return channel or 0
    return history.visible_length(channel, _cut_ms(space, channel))


def xread(space: Keyspace, noun: XRead, now_ms: int) -> Reply:
    """Without waiting; `$` is what is there now, so it gives nothing."""
    channels = [_log(space, name, now_ms) for name in noun.channels]
    for channel in channels:
        if isinstance(channel, ErrorReply):
            return channel
    room = _Room()
    items: list[tuple[Reply, Reply]] = []
    for name, channel, after in zip(noun.channels, channels, noun.after, strict=True):
        if not isinstance(channel, Channel) or after is None or after == ID_MAX:
            continue
        messages = _messages(space, channel, after.next(), ID_MAX, noun.limit or None, False)
        try:
            found = _entries(messages, room)
        except _TooLarge:
            return REPLY_TOO_LARGE
        if found:
            items.append((name, found))
    return Pairs(tuple(items)) if items else NULL_ARRAY


# --- XPENDING ---------------------------------------------------------------------------------------------------------


def _group_of(space: Keyspace, name: bytes, group_name: bytes, now_ms: int) -> Group | ErrorReply | None:
    key = space.see(name, now_ms)
    if key is None:
        return None
    return key.groups.get(group_name) if isinstance(key, StreamKey) else replies.WRONG_TYPE


def xpending(space: Keyspace, noun: XPending, now_ms: int) -> Reply:
    group = _group_of(space, noun.key, noun.group, now_ms)
    if not isinstance(group, Group):
        return group or replies.no_group(noun.key, noun.group)
    pending = group.pending
    if noun.limit is None:
        if not pending.length:
            return [0, None, None, NULL_ARRAY]
        owners = [[each.name, b"%d" % each.pending] for each in _consumers(group) if each.pending]
        return [pending.length, pending.first_id.to_bytes(), pending.last_id.to_bytes(), owners]
    number = None
    if noun.consumer is not None:
        consumer = group.consumers.get(noun.consumer)
        if consumer is None or not consumer.pending:
            return []
        number = consumer.number
    room = _Room()
    found: list[Reply] = []
    for entry in pending.entries(noun.first or ID_MIN, noun.last or ID_MAX, number):
        if len(found) >= noun.limit:
            break
        if noun.min_idle_ms and now_ms - entry.time_ms < noun.min_idle_ms:
            continue
        owner = group.numbers[entry.consumer].name
        try:
            room.take(ENTRY_BYTES + len(owner))
        except _TooLarge:
            return REPLY_TOO_LARGE
        found.append([entry.id.to_bytes(), owner, max(0, now_ms - entry.time_ms), entry.deliveries])
    return found


def _consumers(group: Group) -> list[Consumer]:
    return sorted(group.consumers.values(), key=lambda consumer: consumer.name)


def _groups(key: StreamKey) -> list[Group]:
    return sorted(key.groups.values(), key=lambda group: group.name)


# --- XINFO ------------------------------------------------------------------------------------------------------------


def _lag(key: StreamKey, channel: Channel, group: Group) -> int | None:
    if not channel.added:
        return 0
    if group.entries_read != UNKNOWN and not has_tombstones(key, channel, group.last_id):
        return channel.added - group.entries_read
    read = estimate_read(key, channel, group.last_id)
    return None if read == UNKNOWN else channel.added - read


def _group_head(key: StreamKey, channel: Channel, group: Group) -> Map:
    return {
        b"last-delivered-id": group.last_id.to_bytes(),
        b"entries-read": None if group.entries_read == UNKNOWN else group.entries_read,
        b"lag": _lag(key, channel, group),
    }


def _described(space: Keyspace, name: bytes, now_ms: int) -> Channel | ErrorReply:
    """What XINFO is about: a stream, or an implicit log that has messages."""
    channel = _log(space, name, now_ms)
    if not isinstance(channel, Channel):
        return channel or replies.NO_SUCH_KEY
    is_there = channel.is_explicit or history.visible_length(channel, _cut_ms(space, channel))
    return channel if is_there else replies.NO_SUCH_KEY


def xinfo_groups(space: Keyspace, noun: XInfoGroups, now_ms: int) -> Reply:
    channel = _described(space, noun.key, now_ms)
    if not isinstance(channel, Channel):
        return channel
    key = channel.stream
    if key is None:
        return []
    return [
        {b"name": group.name, b"consumers": len(group.consumers), b"pending": group.pending.length}
        | _group_head(key, channel, group)
        for group in _groups(key)
    ]


def xinfo_consumers(space: Keyspace, noun: XInfoConsumers, now_ms: int) -> Reply:
    channel = _described(space, noun.key, now_ms)
    if not isinstance(channel, Channel):
        return channel
    group = channel.stream.groups.get(noun.group) if channel.stream is not None else None
    if group is None:
        return replies.no_group_in_key(noun.key, noun.group)
    return [
        {
            b"name": consumer.name,
            b"pending": consumer.pending,
            b"idle": max(0, now_ms - consumer.seen_ms),
            b"inactive": max(0, now_ms - consumer.active_ms) if consumer.active_ms >= 0 else -1,
        }
        for consumer in _consumers(group)
    ]


def xinfo_stream(space: Keyspace, noun: XInfoStream, now_ms: int) -> Reply:
    channel = _described(space, noun.channel, now_ms)
    if not isinstance(channel, Channel):
        return channel
    try:
        return _stream_full(space, noun, channel, now_ms) if noun.full else _stream_plain(space, channel)
    except _TooLarge:
        return REPLY_TOO_LARGE


def _stream_head(space: Keyspace, channel: Channel) -> Map:
    key = channel.stream
    first = next(_messages(space, channel, ID_MIN, ID_MAX, 1, False), None)
    reply: Map = {
        b"length": history.visible_length(channel, _cut_ms(space, channel)),
        b"radix-tree-keys": 1,  # of Redis' own implementation: constants
        b"radix-tree-nodes": 2,
        b"last-generated-id": channel.last_id.to_bytes(),
        b"max-deleted-entry-id": (key.max_deleted if key is not None else channel.dropped_id).to_bytes(),
        b"entries-added": channel.added,
        b"recorded-first-entry-id": (first.id if first is not None else ID_MIN).to_bytes(),
    }
    if key is not None and key.producers.is_asked_for:
        producers = key.producers
        reply |= {
            b"idmp-duration": producers.duration_s,
            b"idmp-maxsize": producers.size,
            b"pids-tracked": len(producers.by_name),
            b"iids-tracked": producers.tracked,
            b"iids-added": producers.added,
            b"iids-duplicates": producers.duplicates,
        }
    return reply


def _stream_plain(space: Keyspace, channel: Channel) -> Reply:
    reply = _stream_head(space, channel)
    reply[b"groups"] = len(channel.stream.groups) if channel.stream is not None else 0
    for name, is_reverse in ((b"first-entry", False), (b"last-entry", True)):
        found = _entries(_messages(space, channel, ID_MIN, ID_MAX, 1, is_reverse), _Room())
        reply[name] = found[0] if found else None
    return reply


def _stream_full(space: Keyspace, noun: XInfoStream, channel: Channel, now_ms: int) -> Reply:
    reply = _stream_head(space, channel)
    room = _Room()
    limit = noun.limit or None
    reply[b"entries"] = _entries(_messages(space, channel, ID_MIN, ID_MAX, limit, False), room)
    key = channel.stream
    reply[b"groups"] = [] if key is None else [_group_full(key, channel, each, limit, room) for each in _groups(key)]
    return reply


def _bounded(group: Group, consumer: int | None, room: _Room) -> Iterator[Entry]:
    for entry in group.pending.entries(ID_MIN, ID_MAX, consumer):
        room.take(ENTRY_BYTES)
        yield entry


def _group_full(key: StreamKey, channel: Channel, group: Group, limit: int | None, room: _Room) -> Map:
    head = _group_head(key, channel, group)
    pending = [
        [entry.id.to_bytes(), group.numbers[entry.consumer].name, entry.time_ms, entry.deliveries]
        for entry in islice(_bounded(group, None, room), limit)
    ]
    consumers: list[Reply] = []
    for consumer in _consumers(group):
        held = islice(_bounded(group, consumer.number, room), limit) if consumer.pending else ()
        consumers.append(
            {
                b"name": consumer.name,
                b"seen-time": consumer.seen_ms,
                b"active-time": consumer.active_ms,
                b"pel-count": consumer.pending,
                b"pending": [[entry.id.to_bytes(), entry.time_ms, entry.deliveries] for entry in held],
            }
        )
    return (
        {b"name": group.name}
        | head
        | {b"pel-count": group.pending.length, b"pending": pending, b"consumers": consumers}
    )
