"""A node's own publishes and writes to one shard, from the session that asks to the outcome: the origin's side.

They wait in one queue, in the order they came, until the shard has a leader to go to; those of a turn then travel as
one batch, known by (origin, seq), to the local replica or to the leading node. The outcome is learned from the log
itself, as this node's replica applies it; the leader only says where the batch stands in it, or that it does not:

- applied here: published, or written;
- the leader refused it, for it leads no more: back to the queue, for the next leader;
- another entry applied at the index that the leader named: not accepted;
- abandoned (its connection is gone) or out of time while in the queue: not accepted;
- out of time after it left the queue: the outcome is unknown.

Nothing is ever sent a second time that may be in the log. A refused batch goes back only if nothing behind it went to a
later leader: else one client's pipelined publishes would change order, and it is not accepted.

Leaves to others: the leader's side (replica.py), and who leads (engine.py tells).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast, final

import msgspec

from riverbus import limits
from riverbus.commands import Command
from riverbus.core.ports import Published, PublishedEarly, Written
from riverbus.core.state.bus import RunResult, WriteResult
from riverbus.core.state.entries import BatchBuilder, UnknownEntry, decode_batch
from riverbus.core.state.keyspace.codes import decode_noun, encode_noun
from riverbus.keyspace_commands import Receivers
from riverbus.messages import BusError, DiskFull, NotAccepted, OutcomeUnknown, Overloaded, Reply

_FRAMING_BYTES = 16  # of a message in an entry, at most
_ERRORS: dict[str, type[BusError]] = {error.code: error for error in (NotAccepted, DiskFull, Overloaded)}


class _Waiting(msgspec.Struct, eq=False):
    """A publish in the queue."""

    channel: bytes
    kind: int
    payloads: list[bytes]
    charge_bytes: int
    waiter: Published
    deadline: float


class _WaitingForMajority(_Waiting, eq=False):
    """A publish that is answered once a majority has it in memory: its waiter is a `PublishedEarly`."""


@final
class _WaitingWrite:
    """A command of the keyspace in the queue, as the log will hold it."""

    __slots__ = ("charge_bytes", "code", "deadline", "fields", "waiter")

    def __init__(self, code: int, fields: bytes, charge_bytes: int, waiter: Written, deadline: float) -> None:
        self.code = code
        self.fields = fields
        self.charge_bytes = charge_bytes
        self.waiter = waiter
        self.deadline = deadline


Target = tuple[int, int]  # a leader: node and term


class _Batch:
    """A batch that left the queue. `waiters[i]` waits for its i-th result: a write's one waiter, or those of a run.

    Those of a run have their offset in it.
    """

    __slots__ = ("charge_bytes", "deadline", "is_held", "items", "seq", "target", "waiters")

    def __init__(self, seq: int, target: Target) -> None:
        self.seq = seq
        self.target = target
        self.deadline = 0.0  # of its first item
        self.is_held = False  # in the memory of a majority, as was told
        self.charge_bytes = 0
        self.items: list[_Waiting | _WaitingWrite] = []
        self.waiters: list[Any] = []  # list[tuple[Published, int]] | Written

    def fail(self, error: BusError) -> None:
        for item in self.items:
            item.waiter.failed(error)


class Route:
    """One node's publishes to one shard. `next_seq` gives batch numbers, rising over all routes of the node."""

    def __init__(self, origin: int, next_seq: Callable[[], int], pending_bytes_max: int) -> None:
        self._origin = origin
        self._next_seq = next_seq
        self._pending_bytes_max = pending_bytes_max
        self._queue: deque[_Waiting | _WaitingWrite] = deque()
        self._returned: deque[_Waiting | _WaitingWrite] = (
            deque()
        )  # refused by a leader that led no more; before the queue
        self._target: Target = (0, 0)
        self._last_sent = 0  # to that target
        self._refused: Target = (0, 0)  # a target that is known to lead no more
        self._flying: dict[int, _Batch] = {}  # in order of seq
        self._at_index: dict[int, list[int]] = {}  # log index that the leader named -> seqs
        self._blind_until = 0  # a snapshot hid what the log held up to here
        self.pending_bytes = 0
        self.unknown_outcomes = 0

    # --- towards the leader ---------------------------------------------------------------------------------------

    def submit(
        self,
        channel: bytes,
        kind: int,
        payloads: list[bytes],
        waiter: Published,
        deadline: float,
        waiting: type[_Waiting] = _Waiting,
    ) -> bool:
        """False: there is no room for it, as its waiter was told."""
        if self._is_full(waiter):
            return False
        # An empty payload still takes room in the entry, so its framing is charged too.
        charge_bytes = sum(map(len, payloads)) + _FRAMING_BYTES * len(payloads) + len(channel)
        self.pending_bytes += charge_bytes
        self._queue.append(waiting(channel, kind, payloads, charge_bytes, waiter, deadline))
        return True

    def submit_early(
        self, channel: bytes, kind: int, payloads: list[bytes], waiter: PublishedEarly, deadline: float
    ) -> bool:
        """As `submit`, of durability memory: told once a majority has it in memory, and again how it ended."""
        return self.submit(channel, kind, payloads, waiter, deadline, _WaitingForMajority)

    def submit_write(self, noun: Command, waiter: Written, deadline: float) -> bool:
        """A command of the keyspace. What no replica could read must never be in the log, so it is read here."""
        if self._is_full(waiter):
            return False
        code, fields = encode_noun(noun)
        try:
            decode_noun(code, fields)
        except ValueError as error:
            waiter.failed(BusError(f"the command cannot be replicated: {error}"))
            return False
        charge_bytes = len(fields) + _FRAMING_BYTES
        self.pending_bytes += charge_bytes
        self._queue.append(_WaitingWrite(code, fields, charge_bytes, waiter, deadline))
        return True

    def _is_full(self, waiter: Published | Written) -> bool:
        if self.pending_bytes < self._pending_bytes_max:
            return False
        waiter.failed(Overloaded("too many writes of this node wait to be committed"))
        return True

    @property
    def is_waiting(self) -> bool:
        return bool(self._queue or self._returned)

    def next_batch(self, target: Target) -> tuple[int, bytes] | None:
        """Take from the queue what fits one entry: (seq, batch). None when nothing worth proposing is left.

        `target` is the leader that it will go to now.
        """
        if target == self._refused:
            return None
        if target != self._target:
            self._target, self._last_sent = target, 0
        while self._queue or self._returned:
            batch = _Batch(self._next_seq(), target)
            builder = BatchBuilder(self._origin)
            self._fill(batch, builder)
            if batch.waiters:
                batch.deadline = batch.items[0].deadline
                self._last_sent = batch.seq
                self._flying[batch.seq] = batch
                return batch.seq, builder.finish(batch.seq)
        return None

    def _fill(self, batch: _Batch, builder: BatchBuilder) -> None:
        while queue := self._returned or self._queue:
            waiting = queue[0]
            if batch.charge_bytes and batch.charge_bytes + waiting.charge_bytes > limits.ENTRY_BYTES_TARGET:
                break
            queue.popleft()
            if waiting.waiter.is_abandoned():
                self.pending_bytes -= waiting.charge_bytes
                waiting.waiter.failed(NotAccepted("the connection was closed before the command was proposed"))
                continue
            batch.items.append(waiting)
            batch.charge_bytes += waiting.charge_bytes
            if type(waiting) is _WaitingWrite:
                builder.add_encoded(waiting.code, waiting.fields)
                batch.waiters.append(waiting.waiter)
                continue
            at, offset = builder.add_run(waiting.channel, waiting.kind, waiting.payloads)
            if at == len(batch.waiters):
                run: list[tuple[Published, int]] = []
                batch.waiters.append(run)
            run.append((waiting.waiter, offset))

    # --- outcomes -------------------------------------------------------------------------------------------------

    def on_proposed(self, seq: int, index: int, applied_index: int) -> None:
        """The leader put the batch at `index`. If that was applied here before, another entry stands there."""
        if seq not in self._flying:
            return
        if index > applied_index:
            self._at_index.setdefault(index, []).append(seq)
        elif index > self._blind_until:
            self._fail(seq, NotAccepted("the leader changed before the command was replicated"))
        else:
            self._fail(seq, OutcomeUnknown("the node was too far behind to see the outcome"))

    def on_held(self, term: int, index: int, receivers: Callable[[bytes, int], int]) -> None:
        """A majority has the log of the leader of `term` in memory, up to `index`: tell those who wait for that."""
        for seq in [seq for named, seqs in self._at_index.items() if named <= index for seq in seqs]:
            batch = self._flying.get(seq)
            if batch is None or batch.is_held or batch.target[1] != term:
                continue
            batch.is_held = True
            for item in batch.items:
                if type(item) is _WaitingForMajority:
                    cast(PublishedEarly, item.waiter).held(receivers(item.channel, item.kind))

    def on_rejected(self, seq: int, code: str, reason: str) -> None:
        """The leader did not propose the batch, so it is in no log."""
        batch = self._flying.get(seq)
        if batch is None:
            return
        is_order_kept = batch.target == self._target or self._last_sent < seq
        if code != NotAccepted.code or not is_order_kept:
            self._fail(seq, _ERRORS.get(code, NotAccepted)(reason))
            return
        del self._flying[seq]
        self._refused = batch.target
        self._returned.extend(batch.items)

    def on_applied(
        self, seq: int, results: Sequence[RunResult | WriteResult], receivers: Callable[[RunResult], int]
    ) -> None:
        """The batch is in the state machine: tell each waiter. `receivers` counts a run's local subscribers."""
        batch = self._flying.pop(seq, None)
        if batch is None:
            return
        self.pending_bytes -= batch.charge_bytes
        for result, waiters in zip(results, batch.waiters, strict=True):
            # The hot path of single messages: `type` is half of `isinstance`.
            if type(result) is not RunResult:
                assert isinstance(result, WriteResult)
                waiters.written(said(result, receivers))
                continue
            if result.first is None:
                error = result.error or NotAccepted("refused")
                for waiter, _ in waiters:
                    waiter.failed(error)
                continue
            count = receivers(result)
            first = result.first
            for waiter, offset in waiters:
                waiter.published(first, offset, count)

    def on_entry(self, index: int) -> None:
        """Entry `index` was applied, its batches told. One that the leader had put there and is not in it is lost."""
        named = self._at_index.pop(index, None)
        if named is not None:
            for seq in named:
                self._fail(seq, NotAccepted("the leader changed before the command was replicated"))

    def on_snapshot(self, index: int) -> None:
        """A snapshot replaced the log up to `index`: whether batches named below it are in it cannot be told."""
        self._blind_until = index
        for known in [i for i in self._at_index if i <= index]:
            for seq in self._at_index.pop(known):
                self._fail(seq, OutcomeUnknown("the node was too far behind to see the outcome"))

    def expire(self, now: float) -> None:
        while (queue := self._returned or self._queue) and queue[0].deadline <= now:
            waiting = queue.popleft()
            self.pending_bytes -= waiting.charge_bytes
            waiting.waiter.failed(NotAccepted("no leader in reach: the cluster has no majority; retry is safe"))
        # A batch that was returned and sent again has a later number than its deadline says, so look at all of them.
        for batch in [batch for batch in self._flying.values() if batch.deadline <= now]:
            self.unknown_outcomes += 1
            self._fail(batch.seq, OutcomeUnknown("not confirmed in time: the message may or may not be accepted"))

    def _fail(self, seq: int, error: BusError) -> None:
        batch = self._flying.pop(seq, None)
        if batch is not None:
            self.pending_bytes -= batch.charge_bytes
            batch.fail(error)

    def invariants(self) -> None:
        queued = sum(waiting.charge_bytes for waiting in (*self._returned, *self._queue))
        assert self.pending_bytes == queued + sum(batch.charge_bytes for batch in self._flying.values())
        seqs = list(self._flying)
        assert seqs == sorted(seqs)


def fault_of(batch: bytes) -> BusError | None:
    """Why a peer's batch can't be proposed: no replica could go on behind it. Raises DamagedEntry."""
    try:
        decode_batch(batch)
    except UnknownEntry as unknown:
        return BusError(f"the shard's leader is of an older version: {unknown}")
    return None


def said(result: WriteResult, receivers: Callable[[RunResult], int]) -> Reply:
    """The reply, with what only this node knows of it: how many of its subscribers a transaction's publishes reach."""
    reply = result.reply
    if not result.runs or type(reply) is not list:
        return reply
    counts = [receivers(run) if run.first is not None else 0 for run in result.runs]
    return [counts[item.run] if type(item) is Receivers else item for item in reply]
