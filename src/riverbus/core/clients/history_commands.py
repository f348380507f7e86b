"""XRANGE, XREVRANGE, XLEN and XREAD: a channel's retained messages, whichever way they came in.

All are linearizable: a read barrier first (reads.py), then the local replica. A published message is an entry with
the one field `message`. A reply is bounded: what would be larger is an error that asks for COUNT.

XREAD BLOCK takes its `$` behind the barrier, then waits in core/clients/blocked.py; while it waits nothing else of its
connection is carried out, as in Redis. In a transaction it doesn't wait. History that was trimmed is passed over, as in
Redis; who wants to be told uses BUS.SUBSCRIBE.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from riverbus.commands import NEWEST, XLen, XRange, XRead
from riverbus.core.clients.inflight import Order
from riverbus.core.clients.lag import before
from riverbus.core.clients.outbox import NOTHING, PendingReply, error_reply
from riverbus.core.clients.reads import NO_KEY, STREAM, STRING, Steps, in_steps, query, read_fresh, room_bytes, whole
from riverbus.core.clients.refusals import REPLY_TOO_LARGE, WRONG_TYPE
from riverbus.core.state.entries import message_fields
from riverbus.keyspace_commands import Pairs, Type
from riverbus.limits import MIB
from riverbus.messages import ID_MAX, ID_MIN, NULL_ARRAY, BusError, EncodedArray, MessageId, Reply, Several, Status

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session
    from riverbus.core.ports import Cancellable

_PAGE = 1000  # messages taken from the bus in a step: 2 ms
_PAGE_BYTES = MIB  # ... and about how many bytes of them
_ENTRY_BYTES = 48  # of framing around an entry's fields, about

EXPIRED = Status("expired")


class _TooLarge(Exception):
    """The reply would be above its limit."""


def _entries(
    session: Session, channel: bytes, first: MessageId, last: MessageId, limit: int | None, reverse: bool, room: int
) -> Generator[None, None, tuple[Reply, int]]:
    """An array of [id, [name, value, ...]], a page a step, and about how many bytes it is; all as of the first step.

    Raises _TooLarge.
    """
    view = session.backend.bus(channel).view(channel)
    length = size = 0
    parts: list[bytes] = []
    page_max = 0 if view is None else max(1, min(_PAGE, _PAGE_BYTES // (view.body_bytes + 1)))
    while view is not None and first <= last:
        wanted = page_max if limit is None else min(page_max, limit - length)
        page = view.range(first, last, wanted, reverse)
        entries: list[Reply] = []
        for id_, kind, body in page:
            entries.append((b"%d-%d" % id_, message_fields(kind, body)))
            size += len(body)
        size += _ENTRY_BYTES * len(page)
        length += len(page)
        if size > room:
            raise _TooLarge
        is_last = len(page) < wanted or length == limit or page[-1].id in (ID_MIN, ID_MAX)
        if is_last and not parts:
            return entries, size
        parts.append(session.outbox.encoder.encode(Several(tuple(entries))))
        if is_last:
            break
        if len(parts) == 1:
            view = view.frozen()
        first, last = (first, before(page[-1].id)) if reverse else (page[-1].id.next(), last)
        yield
    return EncodedArray(length, parts) if parts else [], size


def _kind_of(session: Session, channel: bytes) -> Status:
    """What TYPE says, but EXPIRED of a stream that is none any more by this node's clock and is not freed yet."""
    kind = query(session, channel, Type(channel))
    assert isinstance(kind, Status)
    if kind == NO_KEY:
        state = session.backend.bus(channel).channel(channel)
        if state is not None and state.is_explicit:
            return EXPIRED
    return kind


def xrange(session: Session, command: XRange) -> Reply:
    channel, first, last, limit, reverse = command

    def steps() -> Steps:
        bus = session.backend.bus(channel)
        kind = _kind_of(session, channel)
        if kind == STRING:
            return WRONG_TYPE
        if kind == EXPIRED:
            return []
        if limit == 0:
            return NULL_ARRAY if bus.length(channel) or kind == STREAM else []
        try:
            entries, _ = yield from _entries(session, channel, first, last, limit, reverse, room_bytes(session))
        except _TooLarge:
            return REPLY_TOO_LARGE
        return entries

    return read_fresh(session, (channel,), in_steps(steps))


def xlen(session: Session, command: XLen) -> Reply:
    channel = command.channel
    return read_fresh(session, (channel,), lambda: query(session, channel, command))


def xread(session: Session, command: XRead) -> Reply:
    if command.block_ms is None or session.pipeline.execution is not None:
        steps = in_steps(lambda: _read(session, command, starts_of(session, command)))
        return read_fresh(session, command.channels, steps)
    WaitingRead(session, command).begin()
    return NOTHING


def starts_of(session: Session, command: XRead) -> list[MessageId]:
    """After which id each channel is read; `$` is what it has now, `+` begins with its newest entry."""
    return [_start_of(session, channel, after) for channel, after in zip(command.channels, command.after, strict=True)]


def _start_of(session: Session, channel: bytes, after: MessageId | None) -> MessageId:
    bus = session.backend.bus(channel)
    if after is None:
        # Who makes a stream anew may give it any ids, lower ones than it had in another life, too.
        is_there = bus.length(channel) or query(session, channel, Type(channel)) == STREAM
        return bus.last_id(channel) if is_there else ID_MIN
    if after == NEWEST:
        newest = bus.range(channel, ID_MIN, ID_MAX, 1, True)
        return before(newest[0].id) if newest else bus.last_id(channel)
    return after


def _read(session: Session, command: XRead, starts: list[MessageId], is_retry: bool = False) -> Steps:
    found: list[tuple[Reply, Reply]] = []
    room = room_bytes(session)
    has_string = False
    for channel, after in zip(command.channels, starts, strict=True):
        kind = _kind_of(session, channel)
        if kind == STRING and not is_retry:
            return WRONG_TYPE
        has_string |= kind == STRING
        if kind in (STRING, EXPIRED) or after == ID_MAX:  # above which there is no id
            continue
        try:
            entries, size = yield from _entries(
                session, channel, after.next(), ID_MAX, command.limit or None, False, room
            )
        except _TooLarge:
            return REPLY_TOO_LARGE
        room -= size
        if entries:
            found.append((channel, entries))
    if has_string and found:
        return WRONG_TYPE  # as in Redis: who waits is told of another type once there is something for it
    return Pairs(tuple(found)) if found else NULL_ARRAY


class WaitingRead:
    """An XREAD BLOCK, from its barrier to its answer (a `BlockedRead`, a `Waiting`)."""

    __slots__ = ("_command", "_pending", "_session", "_starts", "_timer", "ordinal")

    group = None
    is_asking = False

    def __init__(self, session: Session, command: XRead) -> None:
        self._session = session
        self._command = command
        self._pending = PendingReply(session.pipeline, Order.READ)
        self._starts: list[MessageId] = []
        self._timer: Cancellable | None = None
        self.ordinal = 0

    @property
    def channels(self) -> tuple[bytes, ...]:
        return self._command.channels

    def begin(self) -> None:
        session = self._session
        session.pipeline.expect_alone(self._pending)
        session.backend.fresh(self._command.channels, self._on_fresh)

    def _on_fresh(self, error: BusError | None) -> None:
        session = self._session
        if session.is_closed:
            return
        if error is not None:
            self._pending.resolve(error_reply(error))
            return
        self._starts = starts_of(session, self._command)
        produce = in_steps(lambda: _read(session, self._command, self._starts))
        reply = produce()
        if reply is NOTHING:
            session.pipeline.park(self._pending, produce)
            return
        if reply is not NULL_ARRAY:
            self._pending.resolve(reply)
            return
        session.registry.blocked.add(self)
        session.blocked_read = self
        assert self._command.block_ms is not None
        if self._command.block_ms:
            at = session.backend.time() + self._command.block_ms / 1000
            self._timer = session.backend.schedule(at, lambda: self.unblock(NULL_ARRAY))

    def retry(self) -> None:
        reply = whole(in_steps(lambda: _read(self._session, self._command, self._starts, is_retry=True)))
        if reply is not NULL_ARRAY:
            self.unblock(reply)

    def unblock(self, reply: Reply) -> None:
        self.give_up()
        self._pending.resolve(reply)

    def give_up(self) -> None:
        self._session.blocked_read = None
        self._session.registry.blocked.remove(self)
        if self._timer is not None:
            self._timer.cancel()
