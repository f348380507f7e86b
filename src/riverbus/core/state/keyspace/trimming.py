"""What takes entries out of a stream: XTRIM, XDEL, XDELEX, and XADD's trimming, as Redis does it.

`~` trims whole nodes of `node_entries` entries, counted by the order in which entries were added: after deletions from
the middle Redis' nodes are less full than ours, so that it may trim a little more. Groups are not asked (KEEPREF), or
forget what goes (DELREF), or keep what they still need (ACKED): Redis 8.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from riverbus.core.state import history
from riverbus.core.state.channels import Channel
from riverbus.core.state.deletion import delete_messages
from riverbus.core.state.keyspace.keys import StreamKey
from riverbus.core.state.keyspace.keyspace import Keyspace
from riverbus.core.state.keyspace.pending import PENDING_COST
from riverbus.core.state.keyspace.streams import Found, find, own
from riverbus.keyspace_commands import Trim, XDel, XDelEx, XTrim
from riverbus.messages import ID_MIN, MessageId, Reply

_TRIM_NODES = 100  # of work in one XTRIM ~ without LIMIT, as in Redis
_TRIM_LIMIT_MAX = 1_000_000


def trim(space: Keyspace, found: Found, how: Trim) -> int:
    """Returns how many entries are gone."""
    channel = found.channel
    count = _count_to_trim(channel, how, found.key.node_base)
    if not count:
        return 0
    if how.references == "keepref" or not found.key.groups:
        _drop(space, channel, count)
        return count
    ids = [message.id for message in history.read_range(channel, -1, ID_MIN, channel.last_id, count)]
    if how.references == "acked":
        return len(delete(space, found, [id_ for id_ in ids if not is_referenced(found.key, id_)]))
    _drop(space, channel, count)
    forget_references(space, found.key, ids)
    return count


def _drop(space: Keyspace, channel: Channel, count: int) -> None:
    store = space.store
    own(space, channel)
    length, size = channel.length, channel.retained_bytes
    freed = channel.drop_messages(count, store.garbage)
    _given_back(space, length - channel.length, size - channel.retained_bytes, freed)


def _given_back(space: Keyspace, messages: int, size: int, memory: int) -> None:
    store = space.store
    store.messages -= messages
    store.bytes -= size
    store.memory_bytes -= memory
    store.explicit_bytes -= memory


def _count_to_trim(channel: Channel, how: Trim, node_base: int) -> int:
    if how.maxlen is not None:
        excess = channel.length - how.maxlen
    else:
        assert how.minid is not None
        excess = _count_below(channel, how.minid)
    if excess <= 0:
        return 0
    if not how.is_approximate:
        return excess
    limit = how.limit
    if limit is None:
        limit = min(_TRIM_NODES * how.node_entries, _TRIM_LIMIT_MAX) or _TRIM_LIMIT_MAX
    count = 0
    at = max(0, channel.added - channel.length - node_base)  # the oldest entry's place in the order of adding
    node = max(1, how.node_entries)
    while True:
        in_node = min(node - at % node, channel.length - count)
        if not in_node or count + in_node > excess or (limit and count + in_node > limit):
            return count
        count += in_node
        at += in_node


def _count_below(channel: Channel, id_: MessageId) -> int:
    count = 0
    for piece in history.pieces_from(channel, 0, 0):
        if (piece.ms, piece.seq + piece.skip) >= id_:
            break
        upto = piece.count if piece.ms < id_.ms else min(piece.count, id_.seq - piece.seq)
        count += upto - piece.skip
    return count


def delete(space: Keyspace, found: Found, ids: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns those that there were."""
    key, channel = found
    own(space, channel)
    size = channel.retained_bytes
    gone, freed = delete_messages(channel, sorted(set(ids)), space.store.garbage)
    _given_back(space, len(gone), size - channel.retained_bytes, freed)
    if gone:
        space.changed(key)
        key.max_deleted = max(key.max_deleted, MessageId(*gone[-1]))
        space.event("t", "xdel", key.name)
    return gone


def is_referenced(key: StreamKey, id_: tuple[int, int]) -> bool:
    """Is there a group that has not read it, or somebody who has not acknowledged it?"""
    return any(id_ > group.last_id or group.pending.find(id_) is not None for group in key.groups.values())


def forget_references(space: Keyspace, key: StreamKey, ids: Sequence[tuple[int, int]]) -> int:
    """Takes entries out of every group's pending ones; `ids` rise. Returns how many there were."""
    space.touch(key)
    return sum(acknowledge(space, key, name, ids) for name in key.groups)


def acknowledge(space: Keyspace, key: StreamKey, group_name: bytes, ids: Sequence[tuple[int, int]]) -> int:
    """Takes entries out of a group's pending ones. The key was touched."""
    group = key.groups[group_name]
    taken = group.pending.remove(ids, space.store.epoch)
    count = len(taken)
    if not count:
        return 0
    number = taken[0]
    alike = taken.count(number)
    group.numbers[number].pending -= alike
    if alike < count:
        for other in taken:
            if other != number:
                group.numbers[other].pending -= 1
    space.charge_stream(key, -PENDING_COST * count)
    return count


def xtrim(space: Keyspace, noun: XTrim) -> Reply:
    found = find(space, noun.key)
    if not isinstance(found, Found):
        return found or 0
    count = trim(space, found, noun.trim)
    if count:
        space.changed(found.key)
        space.event("t", "xtrim", noun.key)
    return count


def xdel(space: Keyspace, noun: XDel) -> Reply:
    found = find(space, noun.key)
    if not isinstance(found, Found):
        return found or 0
    return len(delete(space, found, noun.ids))


def xdelex(space: Keyspace, noun: XDelEx) -> Reply:
    found = find(space, noun.key)
    if not isinstance(found, Found):
        return found or [-1] * len(noun.ids)
    return delete_by_references(space, found, noun.ids, noun.references)


def delete_by_references(space: Keyspace, found: Found, ids: Sequence[MessageId], references: str) -> list[int]:
    """XDELEX's reply: for each id 1 deleted, -1 not there, 2 somebody needs it still."""
    kept = {id_ for id_ in ids if references == "acked" and is_referenced(found.key, id_)}
    there = {id_ for id_ in kept if history.read_range(found.channel, -1, id_, id_, 1)}
    gone = set(delete(space, found, [id_ for id_ in ids if id_ not in kept]))
    if references == "delref":
        forget_references(space, found.key, sorted(set(ids)))
    answers = []
    for id_ in ids:
        answers.append(2 if id_ in there else 1 if id_ in gone else -1)
        gone.discard(id_)  # named twice, it is not there the second time
    return answers
