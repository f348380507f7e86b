"""What the links keep of each peer: the joined connection with its outbox, totals for /metrics, the troubles logged.

Leaves to others: when a link is made, up, or given up (peers.py). `PeerHandler` is whom they work for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from riverbus import limits
from riverbus.peer_messages import PeerMessage
from riverbus.runtime.connection import Connection
from riverbus.wire.frame_nouns import Hello

log = structlog.get_logger("riverbus.peers")

STRANGER = 0  # no node has this id
_STRANGERS_LOG_S = 1.0  # whoever reaches the port could otherwise fill the log


class PeerHandler(Protocol):
    """Whom the links work for. Called on the loop, from within a turn."""

    def on_bootstrapped(self) -> None:
        """The cluster is founded and on record: Raft may run. Once, and at once for a directory that knows."""
        ...

    def on_up(self, peer: int) -> None: ...

    def on_down(self, peer: int) -> None: ...

    def on_messages(self, peer: int, messages: list[PeerMessage]) -> None: ...

    def on_refused(self, reason: str, fatal: bool) -> None:
        """Another node does not take this one; `fatal`: it never will, so the process is to stop and say why."""
        ...


class PeerStats:
    """What /metrics shows of one peer, totals since the start."""

    __slots__ = ("bytes_in", "bytes_out", "connects", "disconnects", "messages_unlinked", "outbox_overflows", "rtt_s")

    def __init__(self) -> None:
        self.bytes_in = 0  # brought up to date once a second
        self.bytes_out = 0
        self.connects = 0
        self.disconnects = 0
        self.messages_unlinked = 0  # sent while there was no link: dropped
        self.outbox_overflows = 0  # the peer did not read: its link was dropped with all that waited
        self.rtt_s = 0.0


class Link:
    """A joined connection and what waits to be written to it."""

    def __init__(self, connection: Connection, theirs: Hello) -> None:
        self.connection = connection
        self.peer = theirs.node_id
        self.process = theirs.process
        self.incarnation = theirs.incarnation
        self.has_record = theirs.is_bootstrapped
        self.is_up = False  # as the handler was told
        self.takes_messages = False  # up, and not about to be dropped
        self.outbox: list[bytes] = []
        self.outbox_bytes = 0
        self.unsent_bytes = 0  # in the transport, after the last write
        self._counted_in = 0
        self._counted_out = 0

    def count(self, stats: PeerStats) -> None:
        """Add what went over it since the last call."""
        connection = self.connection
        stats.bytes_in += connection.bytes_in - self._counted_in
        stats.bytes_out += connection.bytes_out - self._counted_out
        self._counted_in, self._counted_out = connection.bytes_in, connection.bytes_out

    @property
    def has_overflowed(self) -> bool:
        """More waits for a peer that does not read than may."""
        if self.outbox_bytes + self.unsent_bytes > limits.PEER_OUTBOX_BYTES_MAX:
            self.unsent_bytes = self.connection.unsent_bytes
        return self.outbox_bytes + self.unsent_bytes > limits.PEER_OUTBOX_BYTES_MAX

    @property
    def backlog_bytes(self) -> int:
        if self.unsent_bytes:
            self.unsent_bytes = self.connection.unsent_bytes
        return self.outbox_bytes + self.unsent_bytes

    def flush(self) -> None:
        parts, self.outbox = self.outbox, []
        self.connection.write(parts, self.outbox_bytes)
        self.outbox_bytes = 0
        self.unsent_bytes = self.connection.unsent_bytes


class Troubles:
    """Logs trouble with a peer unless it is what was said of it last: one line, not thousands."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._said: dict[int, str] = {}
        self._quiet_until = 0.0

    def say(self, peer: int, event: str, reason: str, **details: object) -> bool:
        """True if it was news. `peer` is a node that has proved itself or was dialed, or STRANGER."""
        text = f"{event}: {reason}"
        if self._said.get(peer) == text or (peer == STRANGER and self._time() < self._quiet_until):
            return False
        if peer == STRANGER:
            self._quiet_until = self._time() + _STRANGERS_LOG_S
        self._said[peer] = text
        log.warning(event, peer=peer or None, reason=reason, **details)
        return True

    def last(self, peer: int) -> str:
        """What was said of it last, "" if nothing since it was forgotten."""
        return self._said.get(peer, "")

    def forget(self, peer: int) -> None:
        self._said.pop(peer, None)
