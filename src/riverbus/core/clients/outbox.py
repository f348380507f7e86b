"""What a session owes its client, in order: replies in the order of their commands, deliveries in between.

A reply that waits for something has a place in line (`PendingReply`); what is known behind it waits in that line too.
A message is delivered into `stream`: the outbox itself, or, while some reply is known and not yet written because
an earlier one is missing, right behind the last such reply. So a publisher that also subscribes sees its own message
after its reply, and a confirmed subscription's messages after the confirmation.

Fan-out writes to `inbox`, which is `stream` for a subscriber that keeps up (one append a subscriber and turn, and no
test in that loop), and its `Lag` (core/clients/lag.py) for one that doesn't.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import msgspec

from riverbus.core.clients.inflight import Order
from riverbus.messages import BusError, ErrorReply, MessageId, Repeated, Reply, RunIds, Several

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session
    from riverbus.core.ports import ReplyEncoder


NOTHING = object()  # what a command returns that has put itself in line, or answers nothing


class Inbox(Protocol):
    def append(self, data: bytes, /) -> None: ...


class Owner(Protocol):
    """Who put a command in line: a session, or the transaction that it executes."""

    @property
    def is_closed(self) -> bool: ...

    def on_resolved(self, pending: PendingReply, reply: Reply) -> None: ...


class PendingReply(msgspec.Struct, eq=False):
    """A place in line. `parts` are the bytes written when its turn comes: the reply, then deliveries behind it.

    A struct, as a node makes one for each publish: in a sixth of the time of a class with __init__.
    """

    owner: Owner | None
    order: Order
    count: int = 1  # of pipelined commands that it answers
    charge_bytes: int = 0  # that they hold until they are answered
    ordinal: int = 0
    parts: list[bytes] | None = None
    reply_bytes: int = 0
    is_filled: bool = False
    is_muted: bool = False

    def resolve(self, reply: Reply) -> None:
        """The reply is known. Once."""
        owner, self.owner = self.owner, None
        assert owner is not None, "a command was answered twice"
        owner.on_resolved(self, reply)


class PendingPublish(PendingReply, eq=False):
    """The place of `count` pipelined publishes to one channel: one answer, said `count` times (`Published`)."""

    with_ids: bool = False

    def published(self, run: MessageId, offset: int, receivers: int) -> None:
        count = self.count
        if self.with_ids:
            self.resolve(RunIds(run.plus(offset), count))
        else:
            self.resolve(receivers if count == 1 else Repeated(receivers, count))

    def failed(self, error: BusError) -> None:
        reply = error_reply(error)
        self.resolve(reply if self.count == 1 else Several((reply,) * self.count))

    def is_abandoned(self) -> bool:
        return self.owner is None or self.owner.is_closed


class PendingWrite(PendingReply, eq=False):
    """The place of a command that changes keys (`Written`), or of one that publishes `messages` by them."""

    messages: int = 0

    def written(self, reply: Reply) -> None:
        self.resolve(reply)

    def failed(self, error: BusError) -> None:
        self.resolve(error_reply(error))

    def is_abandoned(self) -> bool:
        return self.owner is None or self.owner.is_closed


def error_reply(error: BusError) -> ErrorReply:
    """The one place where the bus' errors become replies."""
    return ErrorReply(str(error).replace("\r", " ").replace("\n", " "))


class Outbox:
    """See the module. `session` is whom it belongs to; `encoder` what its subscriptions are written with."""

    __slots__ = (
        "_ordinal",
        "_sink",
        "_waiting",
        "encoder",
        "held_bytes",
        "inbox",
        "is_dirty",
        "session",
        "stream",
        "unsent",
        "unsent_bytes",
    )

    def __init__(self, session: Session, encoder: ReplyEncoder) -> None:
        self.session = session
        self.encoder = encoder
        self.unsent: list[bytes] = []  # in its final order
        self.unsent_bytes = 0  # of it, replies
        self.held_bytes = 0  # replies known, behind one that isn't
        self.stream = self.unsent
        self.inbox: Inbox = self.unsent
        self.is_dirty = False
        self._waiting: deque[PendingReply] = deque()
        self._sink: PendingReply | None = None  # whose `parts` the stream is
        self._ordinal = 0

    @property
    def is_settled(self) -> bool:
        """True when no command waits for its reply."""
        return not self._waiting

    @property
    def is_holding(self) -> bool:
        """True while deliveries would be held behind a reply."""
        return self._sink is not None

    @property
    def reply_bytes(self) -> int:
        return self.unsent_bytes + self.held_bytes

    def add(self, data: bytes) -> None:
        """A reply that is known at once."""
        waiting = self._waiting
        if not waiting:
            self.unsent.append(data)
            self.unsent_bytes += len(data)
            return
        last = waiting[-1]
        if not last.is_filled:
            last = PendingReply(None, Order.FREE)
            last.is_filled = True
            self.reserve(last)
        self.hold_behind(last)
        self.stream.append(data)
        last.reply_bytes += len(data)
        self.held_bytes += len(data)

    def reserve(self, pending: PendingReply) -> None:
        """The next place in line."""
        self._ordinal += 1
        pending.ordinal = self._ordinal
        self._waiting.append(pending)

    def hold_behind(self, pending: PendingReply) -> None:
        """From here on nothing is delivered before the reply of `pending`."""
        if pending.parts is None:
            pending.parts = []
        if self._sink is None or pending.ordinal > self._sink.ordinal:
            self._sink = pending
            self._turn_stream(pending.parts)

    def fill(self, pending: PendingReply, data: bytes) -> None:
        """The reply of a place in line is known: write it, and all behind it that waited only for this."""
        waiting = self._waiting
        pending.is_filled = True
        if waiting[0] is not pending:
            self.hold_behind(pending)
            assert pending.parts is not None
            pending.parts.insert(0, data)
            pending.reply_bytes = len(data)
            self.held_bytes += len(data)
            return
        self.unsent.append(data)
        self.unsent_bytes += len(data)
        while waiting and waiting[0].is_filled:
            done = waiting.popleft()
            if done.parts is not None:
                self.unsent += done.parts
                self.unsent_bytes += done.reply_bytes
                self.held_bytes -= done.reply_bytes
            if done is self._sink:
                self._sink = None
                self._turn_stream(self.unsent)

    def _turn_stream(self, stream: list[bytes]) -> None:
        if self.inbox is self.stream:
            self.inbox = stream
        self.stream = stream

    def take(self) -> bytes:
        """All that can be written now, as one piece."""
        unsent = self.unsent
        self.unsent_bytes = 0
        if len(unsent) == 1:
            return unsent.pop()  # not joined: subscribers share these bytes
        data = b"".join(unsent)
        unsent.clear()
        return data

    def clear(self) -> None:
        """The connection is gone: nobody is owed anything."""
        self.unsent.clear()
        self._waiting.clear()
        self.stream = self.unsent
        self.inbox = self.unsent
        self.unsent_bytes = self.held_bytes = 0
        self._sink = None

    def invariants(self) -> None:
        waiting = list(self._waiting)
        assert not waiting or not waiting[0].is_filled, "a reply is known and was not written"
        assert [p.ordinal for p in waiting] == sorted(p.ordinal for p in waiting)
        assert self.held_bytes == sum(p.reply_bytes for p in waiting)
        sink = self._sink
        assert self.stream is (self.unsent if sink is None else sink.parts)
        assert sink is None or (sink in waiting and not any(p.is_filled and p.ordinal > sink.ordinal for p in waiting))
