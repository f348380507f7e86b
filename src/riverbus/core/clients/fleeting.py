"""Messages of channels of durability `none`: delivered here at once, sent to the other nodes once a turn, and gone.

They touch no log, so nothing is promised of them but their order: what one connection publishes to such channels
arrives in that order, or is missing. They are given up, and counted, for a peer without a link or with too much waiting
on it (RELAY_DROPPED), and for a subscriber whose socket is full (FLEETING_UNREAD): there is no window to read them from
later.

A turn's messages travel to each peer as one `Relay` frame, in the form that a log's batch has (entries.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from riverbus import limits
from riverbus.core.counters import RELAY_DROPPED
from riverbus.core.state.entries import BatchBuilder, DamagedEntry, Run, UnknownEntry, decode_batch
from riverbus.messages import Kind
from riverbus.peer_messages import Relay

if TYPE_CHECKING:
    from riverbus.core.clients.sessions import Sessions
    from riverbus.core.ports import Links

_KINDS = (Kind.PUBLISH, Kind.SPUBLISH)


class Fleeting:
    def __init__(self, links: Links, peers: Sequence[int], sessions: Sessions) -> None:
        self._links = links
        self._peers = peers
        self._fanout = sessions.fanout
        self._dropped = sessions.counters.dropped
        self._gathered = BatchBuilder(0)
        self._messages = 0  # in it

    def publish(self, channel: bytes, kind: int, payloads: list[bytes]) -> None:
        """To the subscribers here, now; to those of other nodes at the end of the turn."""
        self._fanout.deliver_now(channel, kind, payloads)
        if self._peers:
            self._gathered.add_run(channel, kind, payloads)
            self._messages += len(payloads)
            if self._gathered.size > limits.RELAY_BYTES_TARGET:
                self.flush()

    def flush(self) -> None:
        """The end of a turn. Cheap when there is nothing."""
        if not self._messages:
            return
        frame = Relay(self._gathered.finish(0))
        for peer in self._peers:
            if self._links.is_up(peer) and self._links.backlog_bytes(peer) < limits.RELAY_BACKLOG_BYTES_MAX:
                self._links.send(peer, frame)
            else:
                self._dropped[RELAY_DROPPED] += self._messages
        self._messages = 0

    def on_relay(self, relay: Relay) -> None:
        """From another node. Raises DamagedEntry."""
        try:
            runs = decode_batch(relay.batch).ops
        except UnknownEntry as unknown:
            raise DamagedEntry(str(unknown)) from unknown
        for run in runs:
            if not isinstance(run, Run) or run.kind not in _KINDS:
                raise DamagedEntry("a relay holds messages and nothing else")
        for run in runs:
            assert isinstance(run, Run)
            self._fanout.deliver_now(run.channel, run.kind, run.payloads())
