"""The commands about this node as a whole: CONFIG SET and RESETSTAT, MONITOR, WAIT, CLIENT PAUSE, UNPAUSE and UNBLOCK.

WAIT asks the other nodes whether their replicas have applied all that this node's replicas have when it is asked, which
includes whatever its connection was answered. It does not count this node, nor a node that is out of reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverbus.commands import ClientPause, ClientUnblock, ClientUnpause, ConfigResetStat, ConfigSet, Monitor, Wait
from riverbus.core.clients import census, introspection
from riverbus.core.clients.inflight import Order
from riverbus.core.clients.node_settings import BadSetting
from riverbus.core.clients.outbox import NOTHING, PendingReply
from riverbus.core.clients.refusals import MONITOR_IN_EXEC, UNBLOCKED
from riverbus.messages import NULL_ARRAY, ErrorReply, Reply, Status

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session
    from riverbus.core.ports import Cancellable

_OK = Status("OK")
_ASK_AGAIN_S = 0.05


def config_set(session: Session, command: ConfigSet) -> Reply:
    registry = session.registry
    known = introspection.settings_of(registry)
    seen: set[str] = set()
    changes: list[tuple[str, str]] = []
    for name_bytes, value in command.settings:
        given = name_bytes.decode("utf-8", "surrogateescape")
        name = given.lower()
        if name not in known:
            return ErrorReply(f"ERR Unknown option or number of arguments for CONFIG SET - '{_line(given)}'")
        if name in seen:
            return _failed(name, "duplicate parameter")
        if name not in registry.settings.shown:
            return _failed(name, "can't set immutable config")
        seen.add(name)
        changes.append((name, value.decode("utf-8", "replace")))
    for name, text in changes:
        try:
            registry.settings.check(name, text)
        except BadSetting as error:
            return _failed(name, str(error))
    registry.settings.change(changes)
    return _OK


def _failed(name: str, reason: str) -> ErrorReply:
    return ErrorReply(f"ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")


def _line(text: str) -> str:
    return text[:128].replace("\r", " ").replace("\n", " ")


def config_reset_stat(session: Session, _: ConfigResetStat) -> Reply:
    session.registry.counters.reset()
    return _OK


def monitor(session: Session, _: Monitor) -> Reply:
    if session.pipeline.execution is not None:
        return MONITOR_IN_EXEC  # its lines would come between the replies of the array
    session.registry.monitors.add(session)
    return _OK


# --- CLIENT -----------------------------------------------------------------------------------------------------------


def client_pause(session: Session, command: ClientPause) -> Reply:
    session.registry.pause.begin(command.ms / 1000, command.writes_only)
    return _OK


def client_unpause(session: Session, _: ClientUnpause) -> Reply:
    session.registry.pause.end()
    return _OK


def client_unblock(session: Session, command: ClientUnblock) -> Reply:
    """1 if that connection was blocked: it gets what it would at its timeout, or an error."""
    blocked = session.registry.by_id.get(command.id)
    if blocked is None or blocked.blocked_read is None:
        return 0
    blocked.blocked_read.unblock(UNBLOCKED if command.with_error else NULL_ARRAY)
    return 1


# --- WAIT -------------------------------------------------------------------------------------------------------------


def wait(session: Session, command: Wait) -> Reply:
    Waiter(session, command).begin()
    return NOTHING


class Waiter:
    """A WAIT under way (a `Waiting`)."""

    __slots__ = ("_again", "_applied", "_command", "_count", "_is_over", "_pending", "_session", "_timeout")

    def __init__(self, session: Session, command: Wait) -> None:
        self._session = session
        self._command = command
        self._pending = PendingReply(session.pipeline.owner, Order.READ)
        self._applied = [bus.applied_index for bus in session.backend.shard_buses]
        self._count = 0
        self._is_over = False
        self._again: Cancellable | None = None
        self._timeout: Cancellable | None = None

    def begin(self) -> None:
        session = self._session
        if session.pipeline.execution is not None:
            session.pipeline.expect(self._pending)
        else:
            session.pipeline.expect_alone(self._pending)
            session.blocked_read = self
            if self._command.timeout_ms:
                at = session.backend.time() + self._command.timeout_ms / 1000
                self._timeout = session.backend.schedule(at, lambda: self.unblock(None))
        self._ask()

    def _ask(self) -> None:
        if not self._is_over:
            self._session.backend.ask_peers(census.encode(census.Holds(self._applied)), self._on_answers)

    def _on_answers(self, answers: list[bytes]) -> None:
        if self._is_over:
            return
        self._count = sum(each.counts == [1] for each in census.decode_answers(answers, census.Counts))
        if self._count >= self._command.replicas or self._session.blocked_read is not self:
            self.unblock(None)
        else:
            backend = self._session.backend
            self._again = backend.schedule(backend.time() + _ASK_AGAIN_S, self._ask)

    def unblock(self, reply: Reply) -> None:
        """With the count, unless it is an error."""
        if not self._is_over and not self._session.is_closed:
            self.give_up()
            self._pending.resolve(reply if type(reply) is ErrorReply else self._count)

    def give_up(self) -> None:
        self._is_over = True
        for timer in (self._again, self._timeout):
            if timer is not None:
                timer.cancel()
        if self._session.blocked_read is self:
            self._session.blocked_read = None
