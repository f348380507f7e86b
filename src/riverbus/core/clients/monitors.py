"""MONITOR: connections that are shown each command as it arrives at this node, from whichever client.

What is shown is what the protocol hands over as `Traced`; it leaves out what must not be seen (passwords) and what
Redis leaves out (admin commands). A monitor that doesn't keep up is disconnected: there is no history to serve it from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from riverbus.commands import Command, Traced
from riverbus.core.counters import MONITOR_SLOW
from riverbus.messages import Status

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session

_ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', 10: "\\n", 13: "\\r", 9: "\\t", 7: "\\a", 8: "\\b"}
_QUOTED = [_ESCAPES.get(byte, chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in range(256)]


def quoted(argument: bytes) -> str:
    """As Redis prints a string (sdscatrepr)."""
    return '"' + "".join([_QUOTED[byte] for byte in argument]) + '"'


class Monitors:
    """`are_on`: there is one."""

    def __init__(self) -> None:
        self._sessions: dict[Session, None] = {}
        self.are_on = False

    def __contains__(self, session: Session) -> bool:
        return session in self._sessions

    def add(self, session: Session) -> None:
        self._sessions[session] = None
        self.are_on = True

    def remove(self, session: Session) -> None:
        self._sessions.pop(session, None)
        self.are_on = bool(self._sessions)

    def show(self, client: Session, commands: Sequence[Command]) -> list[Command]:
        """The commands, without their traces, which every monitor is shown."""
        bare: list[Command] = []
        for command in commands:
            if not isinstance(command, Traced):
                bare.append(command)
                continue
            bare.append(command.command)
            seconds, ms = divmod(client.backend.wall_ms(), 1000)
            words = " ".join(map(quoted, command.arguments))
            line = Status(f"{seconds}.{ms:03d}000 [0 {client.address}] {words}")
            for session in list(self._sessions):
                _deliver(session, line)
        return bare


def _deliver(session: Session, line: Status) -> None:
    if session.is_blocked:
        session.disconnect(MONITOR_SLOW)
        return
    outbox = session.outbox
    outbox.stream.append(outbox.encoder.encode(line))
    session.mark_dirty()
