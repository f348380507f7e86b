"""The idempotency window of a stream (XADD IDMP, as Redis 8.6 has it): which keys each producer used, and for which id.

A producer's newest `size` keys are remembered, each for `duration_s` of the entries' time; what is forgotten may be
used again. Producers are in order of their last new key, so that those long silent are forgotten without a search; one
is copied before its first change in an epoch, so that a snapshot copies references.
"""

from __future__ import annotations

import msgspec

from riverbus.limits import IDMP_DURATION_S_DEFAULT, IDMP_PRODUCERS_MAX, IDMP_SIZE_DEFAULT
from riverbus.messages import MessageId

PRODUCER_COST = 300
USED_COST = 250  # a key's object, its value's, and its place


class Used(msgspec.Struct, gc=False, frozen=True):
    time_ms: int
    ms: int
    seq: int


class Producer(msgspec.Struct, gc=False):
    epoch: int
    used: dict[bytes, Used]  # the oldest first
    bytes: int = 0  # of the keys


class Producers(msgspec.Struct, gc=False):
    duration_s: int = IDMP_DURATION_S_DEFAULT
    size: int = IDMP_SIZE_DEFAULT
    added: int = 0  # ever
    duplicates: int = 0  # ever
    by_name: dict[bytes, Producer] = {}
    memory: int = 0

    @property
    def is_asked_for(self) -> bool:
        """A key was ever given, or the window set: what XINFO of before 8.6 doesn't have is shown then only."""
        return bool(self.added) or (self.duration_s, self.size) != (IDMP_DURATION_S_DEFAULT, IDMP_SIZE_DEFAULT)

    def frozen(self) -> Producers:
        return Producers(self.duration_s, self.size, self.added, self.duplicates, dict(self.by_name), self.memory)

    def find(self, producer: bytes, key: bytes, time_ms: int) -> MessageId | None:
        """The id that the key stands for."""
        known = self.by_name.get(producer)
        used = None if known is None else known.used.get(key)
        if used is None or used.time_ms + self.duration_s * 1000 <= time_ms:
            return None
        return MessageId(used.ms, used.seq)

    def add(self, name: bytes, key: bytes, id_: MessageId, time_ms: int, epoch: int) -> None:
        """A new key. What is over the window's bounds is forgotten."""
        producer = self.by_name.pop(name, None)
        if producer is None:
            producer = Producer(epoch, {})
            self.memory += PRODUCER_COST + len(name)
        elif producer.epoch != epoch:
            producer = Producer(epoch, dict(producer.used), producer.bytes)
        self.by_name[name] = producer
        self._forget_key(producer, key)
        producer.used[key] = Used(time_ms, *id_)
        producer.bytes += len(key)
        self.memory += USED_COST + len(key)
        self.added += 1
        cut_ms = time_ms - self.duration_s * 1000
        while len(producer.used) > self.size or producer.used[next(iter(producer.used))].time_ms <= cut_ms:
            self._forget_key(producer, next(iter(producer.used)))
        while len(self.by_name) > IDMP_PRODUCERS_MAX or self._is_silent(next(iter(self.by_name)), cut_ms):
            self._forget_producer(next(iter(self.by_name)))

    def _is_silent(self, name: bytes, cut_ms: int) -> bool:
        used = self.by_name[name].used
        return used[next(reversed(used))].time_ms <= cut_ms

    def _forget_key(self, producer: Producer, key: bytes) -> None:
        if producer.used.pop(key, None) is not None:
            producer.bytes -= len(key)
            self.memory -= USED_COST + len(key)

    def _forget_producer(self, name: bytes) -> None:
        producer = self.by_name.pop(name)
        self.memory -= PRODUCER_COST + len(name) + USED_COST * len(producer.used) + producer.bytes

    def restore(self, name: bytes, key: bytes, used: Used) -> None:
        """From a snapshot: producers and their keys come in order."""
        producer = self.by_name.get(name)
        if producer is None:
            producer = self.by_name[name] = Producer(0, {})
            self.memory += PRODUCER_COST + len(name)
        self._forget_key(producer, key)
        producer.used[key] = used
        producer.bytes += len(key)
        self.memory += USED_COST + len(key)

    def configure(self, duration_s: int, size: int) -> None:
        """Other bounds forget everything, as in Redis."""
        if (duration_s, size) != (self.duration_s, self.size):
            self.duration_s, self.size = duration_s, size
            self.by_name = {}
            self.memory = 0

    @property
    def tracked(self) -> int:
        return sum(len(producer.used) for producer in self.by_name.values())

    def invariants(self) -> None:
        memory = 0
        for name, producer in self.by_name.items():
            assert 0 < len(producer.used) <= self.size
            assert producer.bytes == sum(map(len, producer.used))
            memory += PRODUCER_COST + len(name) + USED_COST * len(producer.used) + producer.bytes
        assert memory == self.memory
        assert len(self.by_name) <= IDMP_PRODUCERS_MAX
