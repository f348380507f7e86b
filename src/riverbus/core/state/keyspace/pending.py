"""The pending entries of one consumer group, in order of id: what was handed out and is not acknowledged yet.

They lie in blocks of five parallel arrays, 36 bytes an entry: id (two columns), time and count of its deliveries, the
consumer's number. No entry is an object, so a million of them cost the cyclic collector nothing. A batch that is
handed out, or acknowledged in order, is a slice of each column: C does the work.

A block belongs to an epoch of the store: before its first change in a later one it is copied, so that a snapshot takes
a group by copying references. Invariants: no block is empty; ids rise strictly; `oldest` is never above a block's
earliest delivery (it may be below: then it is looked up again when it matters).

Rejected: a dict by id (180 bytes an entry, and no order), an entry in two trees as in Redis (a consumer's own entries
are found by a search of the consumers' column, which runs at memory speed).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from typing import NamedTuple

import msgspec

from riverbus.messages import MessageId

BLOCK_ENTRIES = 512  # a block is searched by bisection, and copied whole once a snapshot
PENDING_COST = 40  # of memory, per entry: 36 bytes and its share of a block's objects


class Entry(NamedTuple):
    """One pending entry, as it is now. `at` and `block` say where, until the next change."""

    id: MessageId
    time_ms: int
    deliveries: int
    consumer: int


class Block(msgspec.Struct, gc=False):
    epoch: int
    oldest: int  # delivery time: no entry's is lower
    ms: array[int]
    seq: array[int]
    time: array[int]
    count: array[int]
    consumer: array[int]

    def __len__(self) -> int:
        return len(self.ms)

    @property
    def first(self) -> tuple[int, int]:
        return self.ms[0], self.seq[0]

    @property
    def last(self) -> tuple[int, int]:
        return self.ms[-1], self.seq[-1]

    def position(self, ms: int, seq: int) -> int:
        """Of the first entry at or above the id."""
        low = bisect_left(self.ms, ms)
        if low == len(self.ms) or self.ms[low] != ms:
            return low
        return bisect_left(self.seq, seq, low, bisect_right(self.ms, ms, low))

    def cut(self, start: int, stop: int) -> Block:
        """A copy of a part."""
        return Block(
            self.epoch,
            self.oldest,
            self.ms[start:stop],
            self.seq[start:stop],
            self.time[start:stop],
            self.count[start:stop],
            self.consumer[start:stop],
        )

    def delete(self, start: int, stop: int) -> None:
        del self.ms[start:stop], self.seq[start:stop], self.time[start:stop]
        del self.count[start:stop], self.consumer[start:stop]

    def entry(self, at: int) -> Entry:
        return Entry(MessageId(self.ms[at], self.seq[at]), self.time[at], self.count[at], self.consumer[at])


def new_block(epoch: int, oldest: int) -> Block:
    return Block(epoch, oldest, array("Q"), array("Q"), array("Q"), array("Q"), array("I"))


class Pending(msgspec.Struct, gc=False):
    """`epoch` in the methods that change something: the store's now."""

    blocks: list[Block] = []
    length: int = 0

    def frozen(self) -> Pending:
        return Pending(list(self.blocks), self.length)

    # --- looking ------------------------------------------------------------------------------------------------------

    def _index(self, ms: int, seq: int) -> int:
        """Of the block that has the id, if any has: the last that begins at or below it, or the first of all."""
        blocks = self.blocks
        if len(blocks) < 2 or blocks[1].first > (ms, seq):
            return 0
        return bisect_right(blocks, (ms, seq), key=_first) - 1

    def find(self, id_: tuple[int, int]) -> Entry | None:
        if not self.blocks:
            return None
        block = self.blocks[self._index(*id_)]
        at = block.position(*id_)
        if at == len(block) or (block.ms[at], block.seq[at]) != id_:
            return None
        return block.entry(at)

    def entries(self, first: tuple[int, int], last: tuple[int, int], consumer: int | None = None) -> Iterator[Entry]:
        """In order of id, both ends inclusive. Whoever changes something must not go on with this iterator."""
        if not self.blocks:
            return
        for index in range(self._index(*first), len(self.blocks)):
            block = self.blocks[index]
            if block.first > last:
                return
            at = block.position(*first)
            while at < len(block):
                if consumer is not None:
                    try:
                        at = block.consumer.index(consumer, at)
                    except ValueError:
                        break
                if (block.ms[at], block.seq[at]) > last:
                    return
                yield block.entry(at)
                at += 1

    @property
    def first_id(self) -> MessageId:
        return MessageId(*self.blocks[0].first)

    @property
    def last_id(self) -> MessageId:
        return MessageId(*self.blocks[-1].last)

    def delivered_until(self, time_ms: int, limit: int | None) -> list[Entry]:
        """Entries delivered at or before, the longest idle first (then by id); `limit` at most."""
        bounds = [(block.oldest, *block.first, index) for index, block in enumerate(self.blocks)]
        found: list[tuple[int, MessageId, Entry]] = []
        for oldest, ms, seq, index in sorted(bound for bound in bounds if bound[0] <= time_ms):
            if limit is not None and len(found) >= limit and found[limit - 1][:2] < (oldest, (ms, seq)):
                break
            block = self.blocks[index]
            block.oldest = min(block.time)
            if block.oldest > time_ms:
                continue
            some = [block.entry(at) for at, time in enumerate(block.time) if time <= time_ms]
            found += [(entry.time_ms, entry.id, entry) for entry in some]
            found = sorted(found) if limit is None else nsmallest(limit, found)
        return [entry for _, _, entry in found]

    # --- changing -----------------------------------------------------------------------------------------------------

    def _own(self, index: int, epoch: int) -> Block:
        """The block, ours to change."""
        block = self.blocks[index]
        if block.epoch != epoch:
            block = block.cut(0, len(block))
            block.epoch = epoch
            self.blocks[index] = block
        return block

    def append(self, ms: array[int], seq: array[int], time_ms: int, consumer: int, epoch: int) -> None:
        """Entries above all others, delivered for the first time."""
        at = 0
        count = len(ms)
        blocks = self.blocks
        while at < count:
            if blocks and len(blocks[-1]) < BLOCK_ENTRIES:
                block = self._own(len(blocks) - 1, epoch)
            else:
                block = new_block(epoch, time_ms)
                blocks.append(block)
            some = min(BLOCK_ENTRIES - len(block), count - at)
            block.ms += ms[at : at + some]
            block.seq += seq[at : at + some]
            block.time += array("Q", (time_ms,)) * some
            block.count += array("Q", (1,)) * some
            block.consumer += array("I", (consumer,)) * some
            block.oldest = min(block.oldest, time_ms)
            at += some
        self.length += count

    def put(self, entry: Entry, epoch: int) -> None:
        """Insert, or replace what there is of the id."""
        (ms, seq), time_ms, deliveries, consumer = entry
        if not self.blocks:
            self.blocks.append(new_block(epoch, time_ms))
        index = self._index(ms, seq)
        block = self._own(index, epoch)
        at = block.position(ms, seq)
        if at == len(block) or (block.ms[at], block.seq[at]) != (ms, seq):
            if len(block) >= BLOCK_ENTRIES:
                half = len(block) // 2
                self.blocks.insert(index + 1, block.cut(half, len(block)))
                block.delete(half, len(block))
                if at > half:
                    block = self.blocks[index + 1]
                    at -= half
            block.ms.insert(at, ms)
            block.seq.insert(at, seq)
            block.time.insert(at, time_ms)
            block.count.insert(at, deliveries)
            block.consumer.insert(at, consumer)
            self.length += 1
        else:
            block.time[at], block.count[at], block.consumer[at] = time_ms, deliveries, consumer
        block.oldest = min(block.oldest, time_ms)

    def remove(self, ids: Sequence[tuple[int, int]], epoch: int) -> array[int]:
        """Takes out those there are; returns their consumers' numbers."""
        taken = array("I")
        at = 0
        while at < len(ids) and self.blocks:
            index = self._index(*ids[at])
            start = self.blocks[index].position(*ids[at])
            count = self._matching(self.blocks[index], start, ids, at)
            if count:
                block = self._own(index, epoch)
                taken += block.consumer[start : start + count]
                block.delete(start, start + count)
                if not block.ms:
                    del self.blocks[index]
            at += count or 1
        self.length -= len(taken)
        return taken

    @staticmethod
    def _matching(block: Block, start: int, ids: Sequence[tuple[int, int]], at: int) -> int:
        """How many of ids[at:] are the block's entries from `start` on, one after the other."""
        wanted = ids[at : at + len(block) - start] if at else ids
        count = 0
        for ms, seq, id_ in zip(
            block.ms[start : start + len(wanted)], block.seq[start : start + len(wanted)], wanted, strict=False
        ):
            if (ms, seq) != id_:
                break
            count += 1
        return count

    def remove_consumer(self, consumer: int, epoch: int) -> None:
        for index in range(len(self.blocks) - 1, -1, -1):
            if consumer not in self.blocks[index].consumer:
                continue
            block = self._own(index, epoch)
            before = len(block)
            for at in range(len(block) - 1, -1, -1):
                if block.consumer[at] == consumer:
                    block.delete(at, at + 1)
            self.length -= before - len(block)
            if not block.ms:
                del self.blocks[index]

    def invariants(self) -> None:
        previous = (-1, -1)
        for block in self.blocks:
            assert 0 < len(block) <= BLOCK_ENTRIES
            assert len(block.ms) == len(block.seq) == len(block.time) == len(block.count) == len(block.consumer)
            assert block.oldest <= min(block.time)
            for id_ in zip(block.ms, block.seq, strict=True):
                assert previous < id_
                previous = id_
        assert self.length == sum(map(len, self.blocks))


def _first(block: Block) -> tuple[int, int]:
    return block.ms[0], block.seq[0]
