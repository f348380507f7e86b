"""How a channel becomes a stream with a key, and how it ceases to be one.

A channel's object belongs to its name and stays: DEL drops the messages and makes it implicit again, to be forgotten
when it is idle for long enough, as any other; RENAME moves the messages. So ids that the bus makes for a name never go
back, and nothing is taken out of the middle of a heap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverbus.messages import MessageId

if TYPE_CHECKING:
    from riverbus.core.state.channels import Channel
    from riverbus.core.state.keyspace.keys import StreamKey
    from riverbus.core.state.store import Store


def make_explicit(store: Store, channel: Channel, time_ms: int) -> StreamKey:
    """From now on it is a stream. Nothing of it is dropped; it leaves its heap when it comes to the top there.

    With no message left it is a new stream, whose ids may begin anywhere; but those made for it stay above `floor`.
    """
    store.expire(channel, store.cut_ms(channel, time_ms))
    store.explicit_bytes += channel.memory()
    channel.is_explicit = True
    floor = channel.last_id
    if not channel.length:
        channel.last_ms = channel.last_seq = channel.dropped_ms = channel.dropped_seq = channel.added = 0
    channel.stream = store.keyspace.new_stream(channel.name, floor)
    return channel.stream


def last_id_without(channel: Channel, stream: StreamKey, time_ms: int) -> MessageId:
    """The last id of the log that is left once the stream's key is gone.

    An id that is later than now was a client's invention: it does not bind those that are made from now on.
    """
    last = max(channel.last_id, stream.floor, MessageId(channel.queued, 0))
    return MessageId(time_ms, 0) if last.ms > time_ms else last


def make_implicit(store: Store, channel: Channel, time_ms: int) -> None:
    """The stream's key is gone, and its messages with it."""
    stream = channel.stream
    assert stream is not None
    if channel.epoch != store.epoch:
        store.preserve(channel)
    store.explicit_bytes -= channel.memory()
    store.messages -= channel.length
    store.bytes -= channel.retained_bytes
    store.memory_bytes -= channel.drop_all(store.garbage)
    last = last_id_without(channel, stream, time_ms)
    channel.last_ms, channel.last_seq = channel.dropped_ms, channel.dropped_seq = last
    channel.added = 0
    channel.is_explicit = False
    channel.stream = None
    if channel.home is None:
        channel.rule = store.window_for(channel.name)
        store.push(channel, channel.rule)


def move(store: Store, source: Channel, target: Channel) -> None:
    """All messages of one explicit stream to another, which has none."""
    assert not target.length
    for channel in (source, target):
        if channel.epoch != store.epoch:
            store.preserve(channel)
    target.last_ms, target.last_seq = source.last_ms, source.last_seq
    target.dropped_ms, target.dropped_seq = source.dropped_ms, source.dropped_seq
    target.length, target.retained_bytes, target.added = source.length, source.retained_bytes, source.added
    target.tail, target.tail_count, target.tail_bytes = source.tail, source.tail_count, source.tail_bytes
    target.chunks, target.base, target.head = source.chunks, source.base, source.head
    source.length = source.retained_bytes = source.tail_count = source.tail_bytes = source.base = 0
    source.tail, source.chunks, source.head = b"", None, None
