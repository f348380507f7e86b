"""What an applied entry did to keys, told on this node: blocked readers are woken, keyspace events are delivered.

Events (notify-keyspace-events) are messages to local subscribers of `__keyspace@0__:<key>` and
`__keyevent@0__:<event>`. They are in no log, as in Redis: who does not listen, or whose socket is full, misses them,
and that is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from riverbus.commands import Command
from riverbus.core.counters import EVENTS_UNREAD
from riverbus.durable_commands import DurableOpen
from riverbus.keyspace_commands import FlushAll, Transaction
from riverbus.messages import ID_MIN

if TYPE_CHECKING:
    from riverbus.core.clients.sessions import Sessions
    from riverbus.core.state.bus import WriteResult
    from riverbus.core.state.keyspace.keyspace import Event

_KEYSPACE = b"__keyspace@0__:"
_KEYEVENT = b"__keyevent@0__:"


def _flushes(noun: Command) -> bool:
    return isinstance(noun, FlushAll) or (isinstance(noun, Transaction) and any(map(_flushes, noun.commands)))


class KeyspaceEvents:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def on_write(self, result: WriteResult) -> None:
        """A keyspace command was applied, whose reply is told already."""
        if type(result.op.noun) is DurableOpen:
            self._sessions.durable.on_opened(result.op.noun)
        fanout = self._sessions.fanout
        for run in result.runs:
            assert run.first is not None
            fanout.on_run(run.run.channel, run.run, run.first)
        blocked = self._sessions.blocked
        if blocked.waiting:
            if _flushes(result.op.noun):
                blocked.wake_all()  # for which there is no event
            for _, name, key in result.events:
                if name == "xadd":
                    blocked.on_run(key)
        if result.events:
            self.on_events(result.events)

    def on_events(self, events: Sequence[Event]) -> None:
        """Those of no command: what expired, and plain XADDs, which are told as runs besides (`Fanout.on_run`)."""
        blocked = self._sessions.blocked
        if blocked.waiting:
            for _, name, key in events:
                if name != "xadd":
                    blocked.on_change(key)
        self._sessions.counters.expired_keys += len([event for event in events if event[0] == "x"])
        flags = self._sessions.settings.event_flags
        if flags and ("K" in flags or "E" in flags):
            for kind, name, key in events:
                if kind in flags:
                    self._tell(flags, name.encode(), key)

    def _tell(self, flags: frozenset[str], name: bytes, key: bytes) -> None:
        if "K" in flags:
            self._deliver(_KEYSPACE + key, name)
        if "E" in flags:
            self._deliver(_KEYEVENT + name, key)

    def _deliver(self, channel: bytes, payload: bytes) -> None:
        fanout, counters = self._sessions.fanout, self._sessions.counters
        fanout.spill()
        for (space, _, pattern), outboxes in fanout.receiving((channel,)):
            if space not in ("channel", "pattern"):
                continue
            for outbox in outboxes:
                if outbox.session.is_blocked:
                    counters.dropped[EVENTS_UNREAD] += 1
                    continue
                outbox.stream.append(outbox.encoder.deliver(space, channel, pattern, ID_MIN, [payload]))
                outbox.session.mark_dirty()
                counters.delivered_messages += 1
