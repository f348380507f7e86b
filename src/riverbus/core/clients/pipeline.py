"""The order in which a connection's commands are carried out.

A command starts at once if what it has to wait for (`Order`) is done; else it and all behind it go to the backlog,
which is resumed at the end of a turn, never in the middle of applying an entry. Publishes don't wait for each other:
any number are in flight, and their replies keep their order by their places in the outbox. What may be asked in which
state (not authenticated, a RESP2 subscriber, in MULTI, CLIENT REPLY OFF) is looked at only while `_is_plain` is false,
so that a publish costs little.

Leaves to others: what each command does (*_commands.py by command_table.py), and the line of replies
(core/clients/outbox.py). Bounds: `wants_read` says when to stop reading the socket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from riverbus import limits
from riverbus.commands import Answered, ClientReply, Command, Exec, Publish, Reset
from riverbus.core.clients.command_table import TABLE, Row
from riverbus.core.clients.inflight import InFlight, Order, command_bytes
from riverbus.core.clients.names import PUBLISH_NAMES, name_of
from riverbus.core.clients.outbox import NOTHING, Owner, PendingPublish, PendingReply
from riverbus.core.clients.refusals import NO_AUTH, subscriber_refusal
from riverbus.core.clients.transactions import Execution, exec_refused
from riverbus.messages import ErrorReply, Push, Reply, Several

if TYPE_CHECKING:
    from riverbus.core.access.acl_rights import Rights
    from riverbus.core.clients.session import Session


class Pipeline:
    """Of one session; owner (`Owner`) of all its commands' places but those inside EXEC."""

    __slots__ = (
        "_backend",
        "_backlog",
        "_backlog_bytes",
        "_commands",
        "_exclusive",
        "_is_muted",
        "_is_plain",
        "_outbox",
        "_parked",
        "_rights",
        "_session",
        "_waiting",
        "execution",
        "inflight",
        "is_closed",
        "is_closing",
        "is_stalled_by_bytes",
        "owner",
        "reply_mode",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self._backend = session.backend
        self._outbox = session.outbox
        self._commands = session.counters.commands
        self._backlog: deque[Command] = deque()
        self._backlog_bytes = 0
        self._parked: deque[tuple[PendingReply, Callable[[], Reply]]] = deque()  # fresh reads, without room to answer
        self._exclusive: PendingReply | None = None  # all commands behind it wait: EXEC, XREAD BLOCK
        self._waiting: Command | None = None  # the command of `_exclusive`
        self.is_stalled_by_bytes = False
        self._is_plain = False
        self._rights: Rights | None = None  # the session's
        self._is_muted = False  # the present command is not answered
        self.owner: Owner = self  # who puts the present command in line
        self.execution: Execution | None = None
        self.inflight = InFlight()
        self.is_closing = False  # nothing more is carried out
        self.is_closed = False  # nobody is owed anything: the session's
        self.reply_mode = "on"  # on | off | skip (the next reply)

    @property
    def wants_read(self) -> bool:
        return (
            self.inflight.commands + len(self._backlog) < limits.SESSION_INFLIGHT_COMMANDS_MAX
            and self.inflight.bytes + self._backlog_bytes < limits.SESSION_INFLIGHT_BYTES_MAX
        )

    def update_plain(self) -> None:
        """After any change of what decides whether a command may be carried out, queued or answered."""
        session = self._session
        self._rights = session.rights
        self._is_plain = (
            session.is_authenticated
            and session.transaction is None
            and self._exclusive is None
            and self.reply_mode == "on"
            and not self.is_closing
            and not session.registry.pause.is_on
            and not (session.protocol == 2 and session.is_subscriber)
        )

    # --- commands in ------------------------------------------------------------------------------------------------

    def handle(self, commands: Sequence[Command]) -> bool:
        """False if they were publishes, whose replies are to come: there is nothing to write, or to look at, now."""
        is_more = False
        for command in commands:
            if (
                type(command) is Publish
                and self._is_plain
                and not self._backlog
                and not self.inflight.reads
                and not self._backend.has_special_rules
                and (self._rights is None or self._rights.publish_denial(command) is None)
            ):
                self._publish(command)
                continue
            is_more = True
            if self._backlog or not self._start(command):
                self._defer(command)
        return is_more

    def _publish(self, command: Publish) -> None:
        """`run` and `expect` and the handler inlined: the hot path of a node (benchmarks/micro_sessions.py)."""
        channel, kind, payloads, style = command
        count = len(payloads)
        charge_bytes = sum(map(len, payloads))
        pending = PendingPublish(self, Order.WRITE, count, charge_bytes, with_ids=style == "id")
        self._outbox.reserve(pending)
        inflight = self.inflight
        inflight.writes += 1
        inflight.commands += count
        inflight.bytes += charge_bytes
        self._commands[PUBLISH_NAMES[kind, style]] += count
        self._backend.publish(channel, kind, payloads, pending)

    def _start(self, command: Command) -> bool:
        """Carry out a command, or return False: it must wait."""
        if self.is_closing:
            return True
        if self._exclusive is not None:
            return False
        if self._outbox.reply_bytes > limits.OUTBOX_HIGH_BYTES:
            self.is_stalled_by_bytes = True
            return False
        row = TABLE[type(command)]
        pause = self._session.registry.pause
        if pause.is_on and pause.holds(row.order, type(command) is Exec and self._is_writing()):
            return False
        is_judged = self._rights is not None or not self._is_plain
        if is_judged and (reply := self._reply_by_state(command, row)) is not None:
            self.answer(reply)
            return True
        order = row.order if row.order_of is None else row.order_of(self._session, command)
        if not self.inflight.may_start(order) or (order is Order.READ and self._session.is_blocked):
            return False
        if self.reply_mode == "on":
            self._run(row, command)
        else:
            self._run_muted(row, command)
        return True

    def _is_writing(self) -> bool:  # the queued commands
        queued = self._session.transaction
        return queued is not None and any(TABLE[type(one)].order is Order.WRITE for one in queued.commands)

    def _run(self, row: Row, command: Command) -> None:
        """For the present owner."""
        self._commands[name_of(command)] += len(command.payloads) if type(command) is Publish else 1
        reply = row.run(self._session, command)
        if reply is not NOTHING:
            self.answer(reply)
        elif self._exclusive is not None:
            self._waiting = command

    def _run_muted(self, row: Row, command: Command) -> None:
        """CLIENT REPLY OFF, or SKIP for the one reply that follows."""
        if isinstance(command, ClientReply | Reset):
            self._run(row, command)  # RESET is of a connection whose replies are on again
            return
        is_skip = self.reply_mode == "skip"
        rest: Publish | None = None
        if is_skip and isinstance(command, Publish) and len(command.payloads) > 1:
            rest = command._replace(payloads=command.payloads[1:])
            command = command._replace(payloads=command.payloads[:1])
        self._is_muted = True
        self._run(row, command)
        self._is_muted = False
        if is_skip:
            self.reply_mode = "on"
            self.update_plain()
        if rest is not None:
            self._run(row, rest)

    def _reply_by_state(self, command: Command, row: Row) -> Reply | None:
        """What the session's state makes of a command: refused, or queued by MULTI; None if it is to be carried out."""
        transaction = self._session.transaction
        refusal = self._refusal(command, row)
        if refusal is not None:
            if type(command) is Exec:
                return exec_refused(self._session, refusal.text)
            if transaction is not None:
                transaction.is_failed = True
            return Several((refusal,) * len(command.payloads)) if isinstance(command, Publish) else refusal
        if transaction is not None and not row.is_immediate:
            return transaction.queue(command, command_bytes(command))
        return None

    def _refusal(self, command: Command, row: Row) -> ErrorReply | None:
        """In the order of Redis' checks."""
        session = self._session
        if type(command) is Answered and not command.command:
            return None  # no command at all: the protocol's own words come before any state
        if not session.is_authenticated and not (row.needs_no_auth or _is_bad_log_in(command)):
            return NO_AUTH
        if session.rights is not None and (denial := session.rights.denial(command)) is not None:
            context = "toplevel" if session.transaction is None else "multi"
            session.registry.users.on_denied(session, denial, context)
            return denial.reply(session.user)
        if session.protocol == 2 and session.is_subscriber and not row.is_for_subscribers:
            return subscriber_refusal(name_of(command))
        return None

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _defer(self, command: Command) -> None:
        if not self.is_closing:
            self._backlog.append(command)
            self._backlog_bytes += command_bytes(command)

    def resume(self) -> None:
        """At the end of a turn: whatever can go on now, goes on."""
        while self._parked and not self.is_congested:
            pending, produce = self._parked[0]
            if (reply := produce()) is NOTHING:
                break  # a long reply: a page of it in a turn
            self._parked.popleft()
            pending.resolve(reply)
        self.is_stalled_by_bytes = bool(self._parked)
        if self.execution is not None:
            self.execution.advance()
        backlog = self._backlog
        while backlog:
            command = backlog.popleft()
            size = command_bytes(command)
            self._backlog_bytes -= size
            if not self._start(command):
                backlog.appendleft(command)
                self._backlog_bytes += size
                break

    def on_taken(self) -> None:
        """The outbox was written out. What waited for that goes on, unless too much is held behind some reply."""
        has_room = bool(self._parked) or self._outbox.reply_bytes <= limits.OUTBOX_HIGH_BYTES
        if has_room:
            self.is_stalled_by_bytes = False
            self._session.want_turn()

    @property
    def is_congested(self) -> bool:
        """True: large replies had better wait until some are written. What is held behind them doesn't count."""
        return self._session.is_blocked or self._outbox.unsent_bytes > limits.OUTBOX_HIGH_BYTES

    def park(self, pending: PendingReply, produce: Callable[[], Reply]) -> None:
        """Resolve it later, when there is room for what `produce` makes, and all of it is made (reads.py)."""
        self._parked.append((pending, produce))
        self.is_stalled_by_bytes = True
        self._session.mark_dirty()

    def close(self) -> None:
        """Nothing behind the present command is carried out."""
        self.is_closing = True
        self._backlog.clear()
        self._backlog_bytes = 0
        self.update_plain()

    def clear(self) -> None:
        """The connection is gone."""
        self.is_closed = True
        self.close()
        self._parked.clear()
        self.execution = None

    # --- replies ----------------------------------------------------------------------------------------------------

    def expect(self, pending: PendingReply) -> None:
        """Give a reply that is not known yet its place in line."""
        if self.execution is not None and pending.owner is self.execution:
            self.execution.expect(pending)
            return
        pending.is_muted = self._is_muted
        self._outbox.reserve(pending)
        self.inflight.add(pending)

    def expect_alone(self, pending: PendingReply) -> None:
        """As `expect`, and nothing behind it is carried out before it is resolved."""
        self.expect(pending)
        self._exclusive = pending
        self.update_plain()

    def answer(self, reply: Reply) -> None:
        """The reply to the present command."""
        session = self._session
        if session.is_closed:
            return
        if type(reply) is ErrorReply:
            session.counters.error_replies += 1
        if self.execution is not None and self.owner is self.execution:
            self.execution.answer(reply)
        elif not self._is_muted or _is_push(reply):
            self._outbox.add(self._outbox.encoder.encode(reply))

    def on_resolved(self, pending: PendingReply, reply: Reply) -> None:
        """A reply that was waited for is known (as `Owner`)."""
        session, outbox = self._session, self._outbox
        if self.is_closed:
            return
        self.inflight.remove(pending)
        session.count_reply(pending, reply)
        if pending is self._exclusive:
            self._exclusive = None
            self.update_plain()
        outbox.fill(pending, b"" if pending.is_muted else outbox.encoder.encode(reply))
        if not outbox.is_dirty:
            session.mark_dirty()
        if self._backlog or session.lag is not None:
            session.want_resume()

    # --- rights that changed ------------------------------------------------------------------------------------------

    def judge_blocked(self) -> None:
        """The user's rights were changed while a command waits: it may have lost its grant."""
        session, pending, command = self._session, self._exclusive, self._waiting
        if session.rights is None or session.blocked_read is None or pending is None or command is None:
            return
        if (denial := session.rights.denial(command)) is not None:
            session.registry.users.on_denied(session, denial, "toplevel")
            session.blocked_read.unblock(denial.reply(session.user))

    def judged(self, commands: list[Command]) -> list[Command]:
        """The commands of a transaction, as the user's rights are at EXEC: what was revoked answers why."""
        session = self._session
        if session.rights is None:
            return commands
        kept: list[Command] = []
        for command in commands:
            denial = session.rights.denial(command)
            if denial is None:
                kept.append(command)
                continue
            session.registry.users.on_denied(session, denial, "multi")
            count = len(command.payloads) if isinstance(command, Publish) else 1
            kept += [Answered(denial.reply_in_exec(), name_of(command))] * count
        return kept

    # --- EXEC -------------------------------------------------------------------------------------------------------

    def begin_execution(self, execution: Execution, whole: PendingReply) -> None:
        """`whole` is the place of EXEC's reply. Nothing else is carried out, or delivered, before it."""
        self.execution = execution
        self.expect_alone(whole)
        self._outbox.hold_behind(whole)

    def order_of(self, command: Command) -> Order:
        return TABLE[type(command)].order

    def run_for(self, execution: Execution, command: Command) -> None:
        """Carry out a command of a transaction: its reply goes to `execution`."""
        self.owner = execution
        self._run(TABLE[type(command)], command)
        self.owner = self

    def invariants(self) -> None:
        self.inflight.invariants()
        if not self.is_closed:
            assert (not self.inflight.commands) == self._outbox.is_settled
            assert self.execution is None or self._exclusive is not None
            assert self._backlog_bytes == sum(map(command_bytes, self._backlog))
            was_plain, had_rights = self._is_plain, self._rights
            self.update_plain()
            assert was_plain == self._is_plain, "a change of state without update_plain"
            assert had_rights is self._rights, "a change of rights without update_plain"


def _is_bad_log_in(command: Command) -> bool:
    """HELLO or AUTH in a form that the protocol has refused already."""
    return type(command) is Answered and command.command in ("hello", "auth")


def _is_push(reply: Reply) -> bool:
    """Subscription commands answer by pushes, which CLIENT REPLY does not turn off."""
    return type(reply) is Push or (type(reply) is Several and type(reply.replies[0]) is Push)
