"""MULTI and EXEC: commands gathered, then carried out in order, and answered by one array when all are resolved.

In EXEC the same orders hold as on a connection (`Order`): consecutive publishes are in flight together and keep their
order; a read waits for the publishes before it. Nothing else of the connection is carried out meanwhile, and what is
delivered to it comes behind the array. WATCH is optimistic, by the channels' last ids: EXEC looks at them behind a read
barrier, and is aborted if one has changed. Between that look and the publishes other clients' may come in (there is
no lock over shards): docs/divergence.md says so.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from riverbus import limits
from riverbus.commands import Answered, Command, Discard, Exec, Multi, Publish, Unwatch, Watch
from riverbus.core.inflight import InFlight, Order
from riverbus.core.outbox import NOTHING, PendingReply, error_reply
from riverbus.core.refusals import (
    DISCARD_WITHOUT_MULTI,
    EXEC_ABORTED,
    EXEC_WITHOUT_MULTI,
    MULTI_NESTED,
    REPLY_TOO_LARGE,
    TRANSACTION_TOO_LARGE,
    WATCH_IN_MULTI,
)
from riverbus.messages import NULL_ARRAY, BusError, Repeated, Reply, Several, Status, Verbatim

if TYPE_CHECKING:
    from riverbus.core.session import Session

_OK = Status("OK")
_QUEUED = Status("QUEUED")


class Transaction:
    """What MULTI gathers."""

    __slots__ = ("_bytes", "command_count", "commands", "is_failed")

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.command_count = 0  # as the client counts: a Publish noun is as many as it has payloads
        self.is_failed = False  # something was refused: EXEC will be, too
        self._bytes = 0

    def queue(self, command: Command, size: int) -> Reply:
        if type(command) is Answered and not command.command:
            self.is_failed = True  # there is no such command, or not with so many arguments
            return command.reply
        count = len(command.payloads) if isinstance(command, Publish) else 1
        self._bytes += size
        self.command_count += count
        if self.command_count > limits.TRANSACTION_COMMANDS_MAX or self._bytes > limits.SESSION_INFLIGHT_BYTES_MAX:
            self.is_failed = True
            self.commands.clear()
            return TRANSACTION_TOO_LARGE if count == 1 else Several((TRANSACTION_TOO_LARGE,) * count)
        self.commands.append(command)
        return _QUEUED if count == 1 else Several((_QUEUED,) * count)


class Execution:
    """One EXEC under way: owner of its commands' places (`Owner`), which it makes into one array."""

    __slots__ = (
        "_inflight",
        "_items",
        "_places",
        "_queue",
        "_reply_bytes",
        "_session",
        "_whole",
        "is_ready",
    )

    def __init__(self, session: Session, commands: list[Command], whole: PendingReply) -> None:
        self._session = session
        self._queue = deque(commands)
        self._whole = whole
        self._items: list[Reply] = []  # None stands in for a reply that is not known yet
        self._places: dict[PendingReply, int] = {}  # ... and this is where it goes
        self._inflight = InFlight()
        self._reply_bytes = 0
        self.is_ready = False  # the watched channels were looked at

    @property
    def is_closed(self) -> bool:
        return self._session.is_closed

    @property
    def room_bytes(self) -> int:
        """What the rest of the array may take."""
        return limits.OUTBOX_REPLIES_BYTES_MAX - self._reply_bytes

    def advance(self) -> None:
        """Carry out what can be. Never called in the middle of applying an entry."""
        session = self._session
        while self._queue and self.is_ready and not session.is_closed:
            command = self._queue[0]
            if not self._inflight.may_start(session.pipeline.order_of(command)):
                return
            self._queue.popleft()
            session.pipeline.run_for(self, command)
        self._maybe_finish()

    def expect(self, pending: PendingReply) -> None:
        self._inflight.add(pending)
        self._places[pending] = len(self._items)
        self._items.append(None)

    def answer(self, reply: Reply) -> None:
        self._items.append(self._bounded(reply))

    def on_resolved(self, pending: PendingReply, reply: Reply) -> None:
        session = self._session
        if session.is_closed:
            return
        self._inflight.remove(pending)
        session.count_reply(pending, reply)
        self._items[self._places.pop(pending)] = self._bounded(reply)
        if self._queue:
            session.want_resume()
        else:
            self._maybe_finish()

    def _bounded(self, reply: Reply) -> Reply:
        self._reply_bytes += _reply_bytes(reply)
        return reply if self._reply_bytes <= limits.OUTBOX_REPLIES_BYTES_MAX else REPLY_TOO_LARGE

    def _maybe_finish(self) -> None:
        if self._queue or not self.is_ready or self._places or self.is_closed:
            return
        self.is_ready = False  # finished: nothing more to advance
        flat: list[Reply] = []
        for item in self._items:
            if isinstance(item, Several):
                flat += item.replies
            elif isinstance(item, Repeated):
                flat += [item.value] * item.times
            else:
                flat.append(item)
        self._session.pipeline.end_execution()
        self._whole.resolve(flat)


def _reply_bytes(reply: Reply) -> int:
    """About what a reply takes on the wire."""
    if isinstance(reply, bytes | str):
        return len(reply) + 16
    if isinstance(reply, Verbatim):
        return len(reply.text) + 16
    if isinstance(reply, dict):
        return sum(_reply_bytes(key) + _reply_bytes(value) for key, value in reply.items())
    if isinstance(reply, tuple | list):
        return 16 + sum(map(_reply_bytes, reply))
    return 16


# --- the commands -----------------------------------------------------------------------------------------------------


def multi(session: Session, _: Multi) -> Reply:
    if session.transaction is not None:
        return MULTI_NESTED
    session.transaction = Transaction()
    session.pipeline.update_plain()
    return _OK


def discard(session: Session, _: Discard) -> Reply:
    if session.transaction is None:
        return DISCARD_WITHOUT_MULTI
    session.transaction = None
    session.watched = {}
    session.pipeline.update_plain()
    return _OK


def watch(session: Session, command: Watch) -> Reply:
    """The ids that this replica knows now: if it is behind, EXEC aborts once too often, never too seldom."""
    if session.transaction is not None:
        return WATCH_IN_MULTI
    for key in command.keys:
        session.watched.setdefault(key, session.backend.bus(key).last_id(key))
    return _OK


def unwatch(session: Session, _: Unwatch) -> Reply:
    session.watched = {}
    return _OK


def exec_(session: Session, _: Exec) -> Reply:
    transaction, watched = session.transaction, session.watched
    if transaction is None:
        return EXEC_WITHOUT_MULTI
    session.transaction, session.watched = None, {}
    session.pipeline.update_plain()
    if transaction.is_failed:
        return EXEC_ABORTED
    whole = PendingReply(session.pipeline, Order.FREE)
    execution = Execution(session, transaction.commands, whole)
    session.pipeline.begin_execution(execution, whole)

    def looked(error: BusError | None) -> None:
        if session.is_closed:
            return
        if error is None and all(session.backend.bus(key).last_id(key) == id_ for key, id_ in watched.items()):
            execution.is_ready = True
            session.want_turn()
        else:
            session.pipeline.end_execution()
            whole.resolve(NULL_ARRAY if error is None else error_reply(error))

    if watched:
        session.backend.fresh(list(watched), looked)
    else:
        execution.is_ready = True
        execution.advance()
    return NOTHING
