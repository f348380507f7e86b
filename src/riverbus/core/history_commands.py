"""XRANGE, XREVRANGE, XLEN, XREAD and XINFO STREAM: a channel's retained messages, whichever way they came in.

All are linearizable: a read barrier first (`_read_fresh`), then the local replica. A published message is an entry with
the one field `message`. A reply is bounded: what would be larger is an error that asks for COUNT.

XREAD BLOCK takes its `$` behind the barrier, then waits in core/blocked.py; while it waits nothing else of its
connection is carried out, as in Redis. In a transaction it doesn't wait. History that was trimmed is passed over, as in
Redis; who wants to be told uses BUS.SUBSCRIBE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from riverbus.commands import XInfoStream, XLen, XRange, XRead
from riverbus.core.entries import message_fields
from riverbus.core.inflight import Order
from riverbus.core.lag import before
from riverbus.core.outbox import NOTHING, PendingReply, error_reply
from riverbus.core.refusals import NO_SUCH_KEY, REPLY_TOO_LARGE
from riverbus.limits import OUTBOX_REPLIES_BYTES_MAX
from riverbus.messages import ID_MAX, ID_MIN, NULL_ARRAY, BusError, Message, MessageId, Reply

if TYPE_CHECKING:
    from riverbus.core.bus import Bus
    from riverbus.core.ports import Cancellable
    from riverbus.core.session import Session

_PAGE = 1000  # messages taken from the bus at a time
_ENTRY_BYTES = 48  # of framing around an entry's fields, about

Entries = list[Reply]  # of [id, [name, value, ...]]


class _TooLarge(Exception):
    """The reply would be above its limit."""


def _entries(
    bus: Bus, channel: bytes, first: MessageId, last: MessageId, limit: int | None, reverse: bool, room_bytes: int
) -> tuple[Entries, int]:
    """The entries and about how many bytes they are. Raises _TooLarge."""
    entries: Entries = []
    size = 0
    while first <= last and (limit is None or len(entries) < limit):
        wanted = _PAGE if limit is None else min(_PAGE, limit - len(entries))
        page = bus.range(channel, first, last, wanted, reverse)
        for message in page:
            entries.append(_entry(message))
            size += len(message.body) + _ENTRY_BYTES
        if size > room_bytes:
            raise _TooLarge
        if len(page) < wanted:
            break
        end = page[-1].id
        if reverse:
            last = before(end)
        elif end == ID_MAX:
            break
        else:
            first = end.next()
    return entries, size


def _entry(message: Message) -> Reply:
    return (message.id.to_bytes(), message_fields(message.kind, message.body))


def _read_fresh(session: Session, channels: Sequence[bytes], produce: Callable[[], Reply]) -> Reply:
    """Answer with `produce()` once the local replicas are fresh, and there is room for a large reply."""
    pending = PendingReply(session.pipeline.owner, Order.READ)
    session.pipeline.expect(pending)

    def done(error: BusError | None) -> None:
        if session.is_closed:
            return
        if error is not None:
            pending.resolve(error_reply(error))
        elif pending.owner is session.pipeline and session.pipeline.is_congested:
            session.pipeline.park(pending, produce)
        else:
            pending.resolve(produce())

    session.backend.fresh(channels, done)
    return NOTHING


def _room(session: Session) -> int:
    return OUTBOX_REPLIES_BYTES_MAX if session.pipeline.execution is None else session.pipeline.execution.room_bytes


def xrange(session: Session, command: XRange) -> Reply:
    channel, first, last, limit, reverse = command

    def produce() -> Reply:
        bus = session.backend.bus(channel)
        if limit == 0:
            return NULL_ARRAY if bus.length(channel) else []
        try:
            return _entries(bus, channel, first, last, limit, reverse, _room(session))[0]
        except _TooLarge:
            return REPLY_TOO_LARGE

    return _read_fresh(session, (channel,), produce)


def xlen(session: Session, command: XLen) -> Reply:
    channel = command.channel
    return _read_fresh(session, (channel,), lambda: session.backend.bus(channel).length(channel))


def xinfo_stream(session: Session, command: XInfoStream) -> Reply:
    channel, full, limit = command

    def produce() -> Reply:
        bus = session.backend.bus(channel)
        if bus.last_id(channel) == ID_MIN:
            return NO_SUCH_KEY
        info = bus.stream_info(channel)
        first, last = info["first"], info["last"]
        assert first is None or isinstance(first, Message)
        assert last is None or isinstance(last, Message)
        reply: dict[Reply, Reply] = {
            b"length": info["length"],
            b"radix-tree-keys": 1,  # of Redis' own implementation: constants
            b"radix-tree-nodes": 2,
            b"last-generated-id": str(info["last_id"]),
            b"max-deleted-entry-id": str(info["max_deleted_id"]),
            b"entries-added": info["entries_added"],
            b"recorded-first-entry-id": str(first.id if first else ID_MIN),
        }
        if not full:
            reply[b"groups"] = 0
            reply[b"first-entry"] = _entry(first) if first else None
            reply[b"last-entry"] = _entry(last) if last else None
            return reply
        try:
            reply[b"entries"] = _entries(bus, channel, ID_MIN, ID_MAX, limit or None, False, _room(session))[0]
        except _TooLarge:
            return REPLY_TOO_LARGE
        reply[b"groups"] = []
        return reply

    return _read_fresh(session, (channel,), produce)


def xread(session: Session, command: XRead) -> Reply:
    if command.block_ms is None or session.pipeline.execution is not None:
        return _read_fresh(session, command.channels, lambda: _read(session, command, _starts(session, command)))
    WaitingRead(session, command).begin()
    return NOTHING


def _starts(session: Session, command: XRead) -> list[MessageId]:
    """After which id each channel is read; `$` is what it has now."""
    return [
        session.backend.bus(channel).last_id(channel) if after is None else after
        for channel, after in zip(command.channels, command.after, strict=True)
    ]


def _read(session: Session, command: XRead, starts: list[MessageId]) -> Reply:
    found: list[tuple[bytes, Entries]] = []
    room_bytes = _room(session)
    for channel, after in zip(command.channels, starts, strict=True):
        if after == ID_MAX:
            continue
        bus = session.backend.bus(channel)
        try:
            entries, size = _entries(bus, channel, after.next(), ID_MAX, command.limit or None, False, room_bytes)
        except _TooLarge:
            return REPLY_TOO_LARGE
        room_bytes -= size
        if entries:
            found.append((channel, entries))
    if not found:
        return NULL_ARRAY
    return dict(found) if session.protocol == 3 else found


class WaitingRead:
    """An XREAD BLOCK, from its barrier to its answer (a `BlockedRead`)."""

    __slots__ = ("_command", "_pending", "_session", "_starts", "_timer", "ordinal")

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
        self._starts = _starts(session, self._command)
        reply = _read(session, self._command, self._starts)
        if reply is not NULL_ARRAY:
            self._pending.resolve(reply)
            return
        session.registry.blocked.add(self)
        session.blocked_read = self._end
        assert self._command.block_ms is not None
        if self._command.block_ms:
            at = session.backend.time() + self._command.block_ms / 1000
            self._timer = session.backend.schedule(at, self._on_timeout)

    def retry(self) -> None:
        reply = _read(self._session, self._command, self._starts)
        if reply is not NULL_ARRAY:
            self._end()
            self._pending.resolve(reply)

    def _on_timeout(self) -> None:
        self._end()
        self._pending.resolve(NULL_ARRAY)

    def _end(self) -> None:
        self._session.blocked_read = None
        self._session.registry.blocked.remove(self)
        if self._timer is not None:
            self._timer.cancel()
