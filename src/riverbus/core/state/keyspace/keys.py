"""What a key holds: a string, or the explicit part of a stream (its groups, its windows of idempotency).

A stream's messages are not here but in the channel of its name (`channels.py`); an implicit log has no key. Records
refer to nothing that refers back, so they need no cyclic collector. What a key costs of memory is counted in its
`memory`, exactly, and `invariants` counts anew.
"""

from __future__ import annotations

from copy import copy

import msgspec

from riverbus.core.state.keyspace.pending import PENDING_COST, Pending
from riverbus.core.state.keyspace.producers import Producers
from riverbus.messages import ID_MIN, MessageId

KEY_COST = 200  # a key's own object, its name's, and its place in the registry
STREAM_COST = 200  # the rest of a stream's: groups, producers
GROUP_COST = 500
CONSUMER_COST = 250
NO_EXPIRY = -1
UNKNOWN = -1  # a group's entries_read that cannot be told


class StringKey(msgspec.Struct, gc=False):
    name: bytes
    epoch: int  # of the last snapshot that has it
    version: int  # index of the entry that changed it last
    value: bytes
    expire_ms: int = NO_EXPIRY
    queued_ms: int = NO_EXPIRY  # at or below `expire_ms`: its place among those that expire (expiries.py)
    queued_in: int = 0  # ... in which heap

    @property
    def memory(self) -> int:
        return KEY_COST + len(self.name) + len(self.value)

    def frozen(self) -> StringKey:
        return copy(self)

    def invariants(self) -> None:
        assert (self.expire_ms == NO_EXPIRY) or (NO_EXPIRY < self.queued_ms <= self.expire_ms)


class Consumer(msgspec.Struct, gc=False):
    name: bytes
    number: int
    seen_ms: int
    active_ms: int = -1  # -1: it never got anything
    pending: int = 0


class Group(msgspec.Struct, gc=False):
    name: bytes
    last_id: MessageId  # delivered
    entries_read: int
    consumers: dict[bytes, Consumer]
    numbers: dict[int, Consumer]
    next_number: int
    pending: Pending

    @property
    def memory(self) -> int:
        names = sum(map(len, self.consumers))
        held = GROUP_COST + len(self.name) + CONSUMER_COST * len(self.consumers) + names
        return held + PENDING_COST * self.pending.length

    def frozen(self) -> Group:
        copied = copy(self)
        copied.numbers = {number: copy(consumer) for number, consumer in self.numbers.items()}
        copied.consumers = {consumer.name: consumer for consumer in copied.numbers.values()}
        copied.pending = self.pending.frozen()
        return copied

    def invariants(self) -> None:
        self.pending.invariants()
        counts: dict[int, int] = {}
        for block in self.pending.blocks:
            for number in block.consumer:
                counts[number] = counts.get(number, 0) + 1
        assert counts == {number: each.pending for number, each in self.numbers.items() if each.pending}
        assert all(number < self.next_number for number in self.numbers)
        assert {each.name: each.number for each in self.consumers.values()} == {
            each.name: number for number, each in self.numbers.items()
        }


class StreamKey(msgspec.Struct, gc=False):
    name: bytes
    epoch: int
    version: int
    groups: dict[bytes, Group]
    producers: Producers
    memory: int
    expire_ms: int = NO_EXPIRY
    queued_ms: int = NO_EXPIRY
    queued_in: int = 0
    max_deleted: MessageId = ID_MIN  # by XDEL
    node_base: int = (
        0  # entries ever added before its first node: Redis' nodes, which XTRIM ~ cuts, are counted from it
    )
    floor: MessageId = ID_MIN  # ids that are made for it stay above: the name had them before, in another life

    def frozen(self) -> StreamKey:
        copied = copy(self)
        copied.groups = {name: group.frozen() for name, group in self.groups.items()}
        copied.producers = self.producers.frozen()
        return copied

    def counted(self) -> int:
        """What `memory` must be."""
        held = KEY_COST + STREAM_COST + len(self.name) + self.producers.memory
        return held + sum(group.memory for group in self.groups.values())

    def invariants(self) -> None:
        assert (self.expire_ms == NO_EXPIRY) or (NO_EXPIRY < self.queued_ms <= self.expire_ms)
        assert self.memory == self.counted()
        for name, group in self.groups.items():
            assert name == group.name
            group.invariants()
        self.producers.invariants()


Key = StringKey | StreamKey
