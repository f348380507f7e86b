"""A publish under a rule of durability `memory`: the place of its reply, which is known before the log has the entry.

It is answered once a majority has it in memory, with the subscribers that this node had at that moment. Whatever waits
for the writes of its connection (a read, a SUBSCRIBE, EXEC) goes on waiting until it is applied, so that a connection
sees what it has written. A failure after the answer can't be told any more: it is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverbus.core.clients.outbox import PendingPublish
from riverbus.core.counters import MEMORY_UNCONFIRMED
from riverbus.messages import BusError, MessageId, Repeated, Reply

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session


class PendingEarly(PendingPublish, eq=False, kw_only=True):
    """core/ports.py PublishedEarly. If it is applied, or fails, before a majority is known, it is as any publish."""

    session: Session
    is_answered: bool = False

    def held(self, receivers: int) -> None:
        session = self.session
        if session.is_closed:
            return
        self.is_answered = True
        reply: Reply = receivers if self.count == 1 else Repeated(receivers, self.count)
        session.pipeline.inflight.answer_early(self)
        session.count_reply(self, reply)
        session.counters.early_answers += self.count
        session.outbox.fill(self, b"" if self.is_muted else session.outbox.encoder.encode(reply))
        session.mark_dirty()

    def published(self, run: MessageId, offset: int, receivers: int) -> None:
        if self.is_answered:
            self._settle()
        else:
            PendingPublish.published(self, run, offset, receivers)

    def failed(self, error: BusError) -> None:
        if self.is_answered:
            self.session.counters.dropped[MEMORY_UNCONFIRMED] += self.count
            self._settle()
        else:
            PendingPublish.failed(self, error)

    def _settle(self) -> None:
        if not self.session.is_closed:
            self.session.pipeline.inflight.settle(self)
            self.session.want_resume()
