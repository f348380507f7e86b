"""All sessions of a node: who is connected, who has something to write, and what is done at the end of a turn.

The world that runs the node calls `open` for a connection, the session's methods for what happens on it, and at the end
of every turn `end_turn`, then `flush` (or, for each session in `dirty`, what `flush` does). `end_turn` comes after all
that was applied was handed to `fanout.on_run`: only then may commands go on that had to wait, and cursors be read.

PUBSUB's questions from other nodes come to `answer`; a state that was replaced by a snapshot, to `on_state_replaced`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverbus.core.access.acl_users import Users
from riverbus.core.clients import census
from riverbus.core.clients.blocked import BlockedReads
from riverbus.core.clients.durable import DurableNames
from riverbus.core.clients.fanout import Fanout
from riverbus.core.clients.keyspace_events import KeyspaceEvents
from riverbus.core.clients.lag import before
from riverbus.core.clients.monitors import Monitors
from riverbus.core.clients.node_settings import NodeSettings
from riverbus.core.clients.pause import Pause
from riverbus.core.clients.session import Session
from riverbus.core.counters import Counters
from riverbus.messages import MessageId

if TYPE_CHECKING:
    from riverbus.core.ports import Backend, Output, ReplyEncoder
    from riverbus.core.state.bus import Bus


class Sessions:
    """See the module. `by_id` is in order of arrival."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.counters = Counters()
        self.dirty: list[Session] = []  # has something to write, or its state changed; see Session.take_output
        self.resumable: list[Session] = []  # something that a command waited for has happened
        self.blocked = BlockedReads()
        self.settings = NodeSettings()
        self.monitors = Monitors()
        self.pause = Pause(self)
        self.users = Users(backend)
        self.fanout = Fanout(self.counters, self.dirty, self.blocked)
        self.events = KeyspaceEvents(self)
        self.durable = DurableNames(self)
        self.by_id: dict[int, Session] = {}
        self._closed: list[Session] = []  # in this turn
        self._started_at: float | None = None  # the first turn's time: there is none before
        self.rejected = 0  # connections that the front refused, which counts them here
        self._last_id = 0
        self._is_turn_asked = False

    def open(
        self,
        output: Output,
        encoder2: ReplyEncoder,
        encoder3: ReplyEncoder,
        address: str,
        local_address: str,
        now: float,
    ) -> Session:
        """A client has connected. Encoders are those of RESP2, which it begins with, and of RESP3."""
        self._last_id += 1
        session = Session(self, self._last_id, output, (encoder2, encoder3), address, local_address, now)
        self.by_id[session.id] = session
        self.counters.connections_opened += 1
        return session

    @property
    def uptime_s(self) -> int:
        return 0 if self._started_at is None else int(self.backend.time() - self._started_at)

    def forget(self, session: Session) -> None:
        """For Session.on_closed."""
        del self.by_id[session.id]
        self._closed.append(session)

    # --- the end of a turn ------------------------------------------------------------------------------------------

    def ask_for_turn(self) -> None:
        """There is more to do than this turn will: have another."""
        if not self._is_turn_asked:
            self._is_turn_asked = True
            self.backend.schedule(self.backend.time(), self._on_turn)

    def _on_turn(self) -> None:
        self._is_turn_asked = False

    def end_turn(self) -> None:
        """Deliver what was applied, wake who waited for it, go on with what had to wait. Cheap if there is nothing."""
        if self._started_at is None:
            self._started_at = self.backend.time()
        self.users.look(self)
        self.fanout.spill()
        self.blocked.retry_woken()
        if self.resumable:
            resumable = self.resumable
            self.resumable = []
            for session in resumable:
                session.resume()
            self.fanout.spill()
            if self.resumable:
                self.ask_for_turn()

    def flush(self) -> None:
        """Write what there is to write."""
        if self.dirty:
            dirty = self.dirty[:]
            self.dirty.clear()  # in place: fan-out appends to this list
            for session in dirty:
                data = session.take_output()
                if data:
                    session.output.write(data)
                if session.pipeline.is_closing and session.close_after_flush and not session.is_closed:
                    session.output.close()
        if self._closed:
            closed, self._closed = self._closed, []
            for session in closed:
                session.release()

    # --- other nodes, other states ----------------------------------------------------------------------------------

    def answer(self, question: bytes) -> bytes:
        """Another node's question about this one; b"" if it can't be read."""
        return census.answer_bytes(self, question)

    def on_state_replaced(self, shard: int, old: Bus, new: Bus) -> None:
        """A snapshot took the place of `old`: what it brought was never fanned out. Subscribers read it as if slow."""
        self.fanout.spill()
        # Of a channel whose messages came and grew too old meanwhile there is nothing but its last id: that is a gap.
        known = before(MessageId(old.time_ms, 0))  # what was published since has a higher id
        names = [*new.names(), *(name for name, _ in new.forgotten_after(known))]
        changed = [name for name in names if new.last_id(name) > old.last_id(name)]
        for key, members in self.fanout.receiving(changed):
            after = old.last_id(key[1])
            for outbox in members:
                session = outbox.session
                if not session.is_closed:
                    session.need_lag().fall_behind(key, after)
                    session.want_turn()
        self.blocked.wake_all()
        self.ask_for_turn()

    def status(self) -> dict[str, object]:
        return {
            "connected": len(self.by_id),
            "opened": self.counters.connections_opened,
            "rejected": self.rejected,
            "blocked_reads": self.blocked.count,
            "durable": self.durable.status(),
            "subscriptions": self.fanout.sizes(),
            "published_messages": self.counters.published_messages,
            "delivered_messages": self.counters.delivered_messages,
            "early_answers": self.counters.early_answers,
            "dropped": dict(self.counters.dropped),
        }

    def invariants(self) -> None:
        self.fanout.invariants()
        self.blocked.invariants()
        for session in self.by_id.values():
            assert not session.is_closed
            session.invariants()
            assert session.outbox.is_dirty or not session.outbox.unsent
        assert all(session.is_resumable or session.is_closed for session in self.resumable)
