"""The idempotency window of runs (BUS.PUBLISHRUN): which numbers each producer has used, and for which ids.

A producer numbers its messages; a run has consecutive numbers and, when it is new, consecutive ids, so that one
`Stretch` remembers all of it, whatever it holds. Stretches of all producers are forgotten in the order in which they
were made: those older than the window, and the oldest when there are too many. A number is never used for another
message, so what is known stays a duplicate for as long as it is remembered; and one that is below what was forgotten of
its producer may be one, so it is refused (`FORGOTTEN`) and not published again.

A producer's record is copied before its first change in an epoch, so that a snapshot copies references.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

from riverbus.limits import PUBLISH_PRODUCERS_MAX, PUBLISH_STRETCHES_MAX
from riverbus.messages import MessageId

STRETCH_COST = 250
PRODUCER_COST = 400
FORGET_STEPS = 1024  # stretches forgotten for one run, at most
HEAD_MAX = 64  # forgotten places at the front of a producer's lists before they are cut away

FORGOTTEN = "forgotten"


class Stretch(msgspec.Struct, gc=False, frozen=True):
    """Numbers first ... first + count - 1 have the ids (ms, seq) ... (ms, seq + count - 1)."""

    first: int
    count: int
    ms: int
    seq: int
    time_ms: int
    number: int  # stretches are made in this order


class Producer(msgspec.Struct, gc=False):
    """`stretches[head:]` by first number, which `firsts` repeats; what is below `below` and not there is forgotten."""

    epoch: int
    firsts: list[int]
    stretches: list[Stretch]
    head: int = 0
    below: int = 0

    def copied(self, epoch: int) -> Producer:
        return Producer(epoch, self.firsts[self.head :], self.stretches[self.head :], 0, self.below)


class Span(NamedTuple):
    """A part of a run: `id` of its first message, if it is known; None if it is new."""

    offset: int
    size: int
    id: MessageId | Literal["forgotten"] | None


class Sequences:
    """`memory` is what all of it costs."""

    def __init__(self) -> None:
        self.producers: dict[bytes, Producer] = {}
        self.count = 0  # of stretches
        self._name_bytes = 0
        self._next_number = 0
        self._made: deque[tuple[bytes, int, int]] = deque()  # name, first, time: in order of their numbers

    @property
    def memory(self) -> int:
        return STRETCH_COST * self.count + PRODUCER_COST * len(self.producers) + self._name_bytes

    # --- what is known ------------------------------------------------------------------------------------------------

    def split(self, name: bytes, first: int, count: int) -> list[Span]:
        """The run in parts, in order: each known, forgotten, or new."""
        producer = self.producers.get(name)
        if producer is None:
            return [Span(0, count, None)]
        spans: list[Span] = []
        firsts, stretches = producer.firsts, producer.stretches
        at = first
        end = first + count
        place = max(bisect_right(firsts, at, producer.head) - 1, producer.head)
        while place < len(firsts) and at < end:
            stretch = stretches[place]
            place += 1
            stop = stretch.first + stretch.count
            if stop <= at:
                continue
            if stretch.first > at:
                until = min(stretch.first, end)
                spans += _unknown(at - first, until - at, at, producer.below)
                at = until
            if at < end:
                known = min(stop, end) - at
                spans.append(Span(at - first, known, MessageId(stretch.ms, stretch.seq + at - stretch.first)))
                at += known
        if at < end:
            spans += _unknown(at - first, end - at, at, producer.below)
        return spans

    # --- what is new --------------------------------------------------------------------------------------------------

    def add(
        self, name: bytes, first: int, count: int, id_: MessageId, time_ms: int, window_ms: int, epoch: int
    ) -> None:
        """Numbers that `split` said are new were given these ids. What is older than `window_ms` is forgotten."""
        producer = self.producers.get(name)
        if producer is None:
            producer = self.producers[name] = Producer(epoch, [], [])
            self._name_bytes += len(name)
        elif producer.epoch != epoch:
            producer = self.producers[name] = producer.copied(epoch)
        self._add(name, producer, first, count, id_, time_ms)
        for _ in range(FORGET_STEPS):
            is_full = self.count > PUBLISH_STRETCHES_MAX or len(self.producers) > PUBLISH_PRODUCERS_MAX
            if not is_full and self._made[0][2] > time_ms - window_ms:
                break
            if self.count == 1:
                break
            self._forget(epoch)

    def _add(self, name: bytes, producer: Producer, first: int, count: int, id_: MessageId, time_ms: int) -> None:
        firsts, stretches = producer.firsts, producer.stretches
        if len(firsts) > producer.head:
            last = stretches[-1]
            goes_on = last.first + last.count == first and (last.ms, last.seq + last.count) == id_
            if goes_on and last.time_ms == time_ms:
                stretches[-1] = Stretch(last.first, last.count + count, last.ms, last.seq, time_ms, last.number)
                return
        stretch = Stretch(first, count, *id_, time_ms, self._next_number)
        self._next_number += 1
        place = bisect_right(firsts, first, producer.head)
        firsts.insert(place, first)
        stretches.insert(place, stretch)
        self._made.append((name, first, time_ms))
        self.count += 1

    def _forget(self, epoch: int) -> None:
        """The oldest stretch of all."""
        name, first, _ = self._made.popleft()
        producer = self.producers[name]
        self.count -= 1
        if len(producer.firsts) - producer.head == 1:
            del self.producers[name]
            self._name_bytes -= len(name)
            return
        if producer.epoch != epoch:
            producer = self.producers[name] = producer.copied(epoch)
        place = bisect_right(producer.firsts, first, producer.head) - 1
        stretch = producer.stretches[place]
        producer.below = max(producer.below, stretch.first + stretch.count)
        if place > producer.head:
            del producer.firsts[place]
            del producer.stretches[place]
            return
        producer.head += 1
        if producer.head > HEAD_MAX and 2 * producer.head > len(producer.firsts):
            del producer.firsts[: producer.head]
            del producer.stretches[: producer.head]
            producer.head = 0

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def frozen(self) -> list[tuple[bytes, Producer]]:
        return list(self.producers.items())

    def restore(self, name: bytes, below: int, stretches: list[Stretch]) -> None:
        """A producer comes in parts, one after the other. Raises ValueError; `finish` follows the last."""
        producer = self.producers.get(name)
        if producer is None:
            producer = self.producers[name] = Producer(0, [], [], 0, below)
            self._name_bytes += len(name)
        for stretch in stretches:
            if producer.firsts and stretch.first < producer.stretches[-1].first + producer.stretches[-1].count:
                raise ValueError(f"numbers of producer {name!r} are not in order")
            producer.firsts.append(stretch.first)
            producer.stretches.append(stretch)
        self.count += len(stretches)

    def finish(self) -> None:
        """Raises ValueError."""
        made = [(each.number, name, each) for name, producer in self.producers.items() for each in producer.stretches]
        made.sort(key=lambda item: item[0])
        if any(one[0] == other[0] for one, other in pairwise(made)):
            raise ValueError("two runs of one number")
        self._made = deque((name, each.first, each.time_ms) for _, name, each in made)
        self._next_number = made[-1][0] + 1 if made else 0

    def invariants(self) -> None:
        known = {}
        for name, producer in self.producers.items():
            live = producer.stretches[producer.head :]
            assert live
            assert [each.first for each in live] == producer.firsts[producer.head :]
            assert all(one.first + one.count <= other.first for one, other in pairwise(live))
            known.update({each.number: (name, each.first, each.time_ms) for each in live})
        assert [known[number] for number in sorted(known)] == list(self._made)
        assert self.count == len(self._made)
        assert self._name_bytes == sum(map(len, self.producers))


def _unknown(offset: int, count: int, first: int, below: int) -> list[Span]:
    forgotten = min(max(below - first, 0), count)
    spans = [Span(offset, forgotten, "forgotten")] if forgotten else []
    return spans + ([Span(offset + forgotten, count - forgotten, None)] if count > forgotten else [])
