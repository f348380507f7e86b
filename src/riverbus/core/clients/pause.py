"""CLIENT PAUSE: for a while this node's clients are not answered; their commands wait in their backlogs.

While writes alone are paused, commands that read go on, but behind a write of the same connection they wait as well.
Leaves to others: which commands a pause holds up (`Pipeline` asks `holds`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverbus.core.clients.inflight import Order

if TYPE_CHECKING:
    from riverbus.core.clients.sessions import Sessions
    from riverbus.core.ports import Cancellable


class Pause:
    """`is_on` is looked at before each command that is not a plain publish."""

    def __init__(self, registry: Sessions) -> None:
        self._registry = registry
        self._timer: Cancellable | None = None
        self._until = 0.0
        self._writes_only = False
        self.is_on = False

    def begin(self, seconds: float, writes_only: bool) -> None:
        """A longer or stricter pause that is on stays as it is, as in Redis."""
        backend = self._registry.backend
        self._until = max(self._until if self.is_on else 0.0, backend.time() + seconds)
        self._writes_only = writes_only and (self._writes_only or not self.is_on)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = backend.schedule(self._until, self.end)
        self.is_on = True
        self._tell()

    def end(self) -> None:
        if self.is_on:
            self.is_on = False
            if self._timer is not None:
                self._timer.cancel()
            self._tell()

    def _tell(self) -> None:
        for session in self._registry.by_id.values():
            session.pipeline.update_plain()
            if not self.is_on:
                session.want_turn()

    def holds(self, order: Order, is_writing_exec: bool) -> bool:
        return not self._writes_only or order is Order.WRITE or is_writing_exec
