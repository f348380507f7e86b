"""MULTI and EXEC: commands gathered, then carried out, and answered by one array when all are resolved.

With a command that changes keys, or with WATCH, EXEC is one operation of one shard's log (`atomic_plan`): all of it or
nothing, with no other client's command in between, and WATCH by the keys' versions. It needs keys of one shard, and is
refused before anything is done otherwise. What is no operation of the log (PING, SUBSCRIBE, DBSIZE, ...) is carried
out behind it, in its place in the array.

A transaction of publishes, subscriptions and reads alone goes over any shards: in EXEC the same orders hold as on a
connection (`Order`): consecutive publishes are in flight together and keep their order; a read waits for the publishes
before it. Nothing else of the connection is carried out meanwhile, and what is delivered to it comes behind the array.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from riverbus import limits
from riverbus.commands import Answered, Command, Discard, Exec, Multi, Publish, Unwatch, Watch
from riverbus.core.clients.atomic import Atomic, atomic_plan
from riverbus.core.clients.inflight import InFlight, Order
from riverbus.core.clients.outbox import NOTHING, PendingReply, error_reply
from riverbus.core.clients.refusals import (
    DISCARD_WITHOUT_MULTI,
    EXEC_ABORTED,
    EXEC_WITHOUT_MULTI,
    MULTI_NESTED,
    REPLY_TOO_LARGE,
    TRANSACTION_TOO_LARGE,
    WATCH_IN_MULTI,
)
from riverbus.core.clients.special_rules import admitted
from riverbus.limits import OUTBOX_REPLIES_BYTES_MAX
from riverbus.messages import BusError, ErrorReply, Repeated, Reply, RunIds, Several, Status, Verbatim

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session

_OK = Status("OK")
_QUEUED = Status("QUEUED")


class Transaction:
    """What MULTI gathers."""

    __slots__ = ("bytes", "command_count", "commands", "is_failed")

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.command_count = 0  # as the client counts: a Publish noun is as many as it has payloads
        self.is_failed = False  # something was refused: EXEC will be, too
        self.bytes = 0

    def queue(self, command: Command, size: int) -> Reply:
        if type(command) is Answered and not command.command:
            self.is_failed = True  # there is no such command, or not with so many arguments
            return command.reply
        count = len(command.payloads) if isinstance(command, Publish) else 1
        self.bytes += size
        self.command_count += count
        if self.command_count > limits.TRANSACTION_COMMANDS_MAX or self.bytes > limits.SESSION_INFLIGHT_BYTES_MAX:
            self.is_failed = True
            self.commands.clear()
            return TRANSACTION_TOO_LARGE if count == 1 else Several((TRANSACTION_TOO_LARGE,) * count)
        self.commands.append(command)
        return _QUEUED if count == 1 else Several((_QUEUED,) * count)


class Execution:
    """One EXEC under way: owner of its commands' places (`Owner`), which it makes into one array.

    `_known` are the replies of those that were carried out already, as one operation: the commands of `_members`.
    """

    __slots__ = (
        "_inflight",
        "_items",
        "_known",
        "_members",
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
        self.is_ready = True
        self._known: deque[Reply] = deque()
        self._members: deque[bool] = deque()

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
            if self._members and self._members.popleft():
                for _ in range(len(command.payloads) if isinstance(command, Publish) else 1):
                    self.answer(self._known.popleft())
            else:
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
            elif isinstance(item, RunIds):
                flat += item.to_bytes()
            else:
                flat.append(item)
        self.end(flat)

    def go_on(self, replies: list[Reply], members: list[bool]) -> None:
        """The operation is done; what is no part of it is carried out at the end of this turn."""
        self._known = deque(replies)
        self._members = deque(members)
        self.is_ready = True
        self._session.want_resume()

    def end(self, reply: Reply) -> None:
        self._session.pipeline.execution = None
        self._whole.resolve(reply)


class AtomicWrite:
    """An EXEC that is one operation of the log, waiting for it (`Written`)."""

    __slots__ = ("_execution", "_members", "_session")

    def __init__(self, session: Session, execution: Execution, members: list[bool]) -> None:
        self._session = session
        self._execution = execution
        self._members = members

    def written(self, reply: Reply) -> None:
        if self._session.is_closed:
            return
        if not isinstance(reply, list):  # a watched key has changed, or it is refused as a whole
            self._execution.end(reply)
        elif not all(self._members):
            self._execution.go_on(reply, self._members)
        else:
            self._session.counters.error_replies += sum(type(one) is ErrorReply for one in reply)
            self._execution.end(reply if _reply_bytes(reply) <= OUTBOX_REPLIES_BYTES_MAX else REPLY_TOO_LARGE)

    def failed(self, error: BusError) -> None:
        if not self._session.is_closed:
            self._execution.end(error_reply(error))

    def is_abandoned(self) -> bool:
        return self._session.is_closed


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
    """The versions that this replica knows now: if it is behind, EXEC aborts once too often, never too seldom."""
    if session.transaction is not None:
        return WATCH_IN_MULTI
    for key in command.keys:
        session.watched.setdefault(key, session.backend.bus(key).version(key, session.backend.wall_ms()))
    return _OK


def unwatch(session: Session, _: Unwatch) -> Reply:
    session.watched = {}
    return _OK


def exec_refused(session: Session, refusal: str) -> ErrorReply:
    """EXEC itself is refused, in Redis' words: what was queued is forgotten, and no key is watched any more."""
    session.transaction, session.watched = None, {}
    session.pipeline.update_plain()
    return ErrorReply(f"EXECABORT Transaction discarded because of: {refusal.removeprefix('ERR ')}")


def exec_(session: Session, command: Exec) -> Reply:
    if command.refusal:
        return exec_refused(session, command.refusal)
    transaction, watched = session.transaction, session.watched
    if transaction is None:
        return EXEC_WITHOUT_MULTI
    session.transaction, session.watched = None, {}
    session.pipeline.update_plain()
    if transaction.is_failed:
        return EXEC_ABORTED
    queued = admitted(session, session.pipeline.judged(transaction.commands))
    plan = atomic_plan(session, queued, watched)
    if isinstance(plan, ErrorReply):
        return plan
    if plan is not None and transaction.bytes > limits.TRANSACTION_BYTES_MAX:
        return TRANSACTION_TOO_LARGE
    whole = PendingReply(session.pipeline, Order.FREE)
    execution = Execution(session, queued, whole)
    session.pipeline.begin_execution(execution, whole)
    if plan is None:
        execution.advance()
    else:
        _write(session, execution, plan)
    return NOTHING


def _write(session: Session, execution: Execution, plan: Atomic) -> None:
    execution.is_ready = False
    for name in plan.names:
        session.counters.commands[name] += 1
    session.backend.write_shard(plan.shard, plan.noun, AtomicWrite(session, execution, plan.members))
