"""What nodes write to the log for subscribers with a durable name (docs/durable.md): their cursors, which outlive them.

Writing nouns as those of keyspace_commands.py, but no client can ask for them: the node that a subscriber is connected
to writes them into the shard of the channel, or for a pattern into all shards. A cursor belongs to (user, name,
target). A connection is known by its `token`; how long a cursor is kept, `keep_ms`, counts from the entry's time and
is in the noun, so that replicas agree whatever their configurations say. Fields are only ever added at a noun's end,
with a default.
"""

from __future__ import annotations

from typing import NamedTuple

from riverbus.messages import ID_MIN, SEQ_MAX, MessageId


class DurableTarget(NamedTuple):
    """What is subscribed to. `space`: channel | pattern | shard."""

    space: str
    name: bytes


class DurablePlace(NamedTuple):
    """How far a subscriber has come. Of a channel: `id` is the last message that it has.

    Of a pattern, in one shard: all up to `id`, whose sequence part is the greatest there is (so: all of that
    millisecond and before), and of the channels in `exact`, all up to the id given there. It may have more.
    """

    id: MessageId
    exact: tuple[tuple[bytes, MessageId], ...] = ()

    def of(self, channel: bytes) -> MessageId:
        """After which message of a channel that matches the pattern to go on."""
        for name, id_ in self.exact:
            if name == channel:
                return max(id_, self.id)
        return self.id


class DurableOpen(NamedTuple):
    """A connection takes a name's subscriptions over. Reply: for each target [its DurablePlace, is it an old cursor?].

    A target without a cursor gets one at the place that the shard is at. One with the cursors of several connections
    begins at the earliest; theirs are gone, until they are saved again.
    """

    user: bytes
    durable: bytes
    token: int
    keep_ms: int
    targets: tuple[DurableTarget, ...]


class DurableCursor(NamedTuple):
    """`place` None: the subscription was ended (UNSUBSCRIBE), all connections' cursors with it."""

    user: bytes
    durable: bytes
    token: int
    keep_ms: int
    target: DurableTarget
    place: DurablePlace | None


class DurableSave(NamedTuple):
    """How far connections have come, many in one. Reply: how many cursors there are."""

    cursors: tuple[DurableCursor, ...]


def whole_ms(ms: int) -> MessageId:
    """The end of a millisecond."""
    return MessageId(ms, SEQ_MAX) if ms >= 0 else ID_MIN


def earlier(one: DurablePlace, other: DurablePlace) -> DurablePlace:
    """What both have."""
    id_ = min(one.id, other.id)
    if not one.exact and not other.exact:
        return DurablePlace(id_)
    names = dict.fromkeys([name for name, _ in (*one.exact, *other.exact)])
    both = [(name, min(one.of(name), other.of(name))) for name in names]
    return DurablePlace(id_, tuple([(name, each) for name, each in both if each > id_]))
