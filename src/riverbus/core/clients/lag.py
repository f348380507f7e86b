"""What a slow subscriber holds instead of copies: for each channel in which it lags, the id after which it reads on.

A session lags while its socket is full, and until all its cursors have caught up. Its `Lag` then stands in for its
inbox, so that fan-out's loop needs no test: what is appended here is a hit, settled after the loop by `on_hit`:
- the channel has a cursor: nothing to do, the message will be read from the window;
- the socket is full: a cursor is made, just before the message;
- neither: delivered, as to any other subscriber.

`serve` runs at the end of a turn, when all that is applied was fanned out: so a cursor that reaches the window's end is
exactly where live delivery goes on. Order and completeness hold for each channel, not between channels.
BUS.SUBSCRIBE ... SINCE is a cursor, too. One that is ahead of its channel sleeps until a message arrives.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from riverbus import limits
from riverbus.core.counters import TOO_MANY_CURSORS, UNSUBSCRIBED_BEHIND, WINDOW_PASSED
from riverbus.messages import SEQ_MAX, Kind, MessageId

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session
    from riverbus.core.state.history import ReadResult

Key = tuple[str, bytes, bytes | None]  # space, channel, pattern

KINDS = {
    "channel": 1 << Kind.PUBLISH,
    "pattern": 1 << Kind.PUBLISH,
    "shard": 1 << Kind.SPUBLISH,
    "bus": 1 << Kind.PUBLISH | 1 << Kind.SPUBLISH,
}  # which kinds of messages each space receives, as the mask that `Bus.read_after` takes


def before(id_: MessageId) -> MessageId:
    """The greatest id below one that a message has (no message has 0-0)."""
    return MessageId(id_.ms, id_.seq - 1) if id_.seq else MessageId(id_.ms - 1, SEQ_MAX)


class Lag:
    """One session's cursors. Made when first needed."""

    __slots__ = ("_cursors", "_hits", "_pattern_cursors", "_session", "_sleeping")

    def __init__(self, session: Session, hits: list[tuple[Lag, bytes]]) -> None:
        self._session = session
        self._hits = hits  # the fan-out's: settled at the end of its loop
        self._cursors: dict[Key, MessageId] = {}
        self._sleeping: dict[Key, MessageId] = {}  # cursors ahead of their channel's last id
        self._pattern_cursors = 0  # of both: one subscription may have any number; all others are one a subscription

    @property
    def is_empty(self) -> bool:
        return not self._cursors and not self._sleeping

    @property
    def has_work(self) -> bool:
        return bool(self._cursors)

    def append(self, data: bytes) -> None:
        self._hits.append((self, data))

    def on_hit(self, key: Key, first: MessageId, last: MessageId, data: bytes) -> bool:
        """Settle one delivery, of the messages from `first` to `last`. True if it was delivered."""
        session = self._session
        if session.is_closed or key in self._cursors:
            return False
        if key in self._sleeping:
            self._cursors[key] = self._sleeping.pop(key)
            session.want_turn()
            return False
        if session.is_blocked:
            self.fall_behind(key, before(first))
            return False
        session.outbox.stream.append(data)
        return True

    def fall_behind(self, key: Key, after: MessageId) -> None:
        """Read the channel from the window, from just after `after`; unless a cursor does so already."""
        if key in self._sleeping:  # the state was replaced by a newer one: the cursor may not be ahead of it any more
            self._cursors[key] = self._sleeping.pop(key)
        elif key not in self._cursors:
            self._cursors[key] = after
            if key[0] == "pattern":
                self._pattern_cursors += 1
                if self._pattern_cursors > limits.BEHIND_CURSORS_MAX:
                    self._session.disconnect(TOO_MANY_CURSORS)

    def restart(self, key: Key, after: MessageId) -> None:
        """As `fall_behind`, but the new cursor holds (a second BUS.SUBSCRIBE to the channel)."""
        assert key[2] is None, "a pattern has no place to start from"
        self._sleeping.pop(key, None)
        self._cursors[key] = after

    def forget(self, space: str, names: set[bytes]) -> None:
        """Subscriptions have ended: their cursors go, and what they had not read is given up."""
        gone: list[Key]
        for cursors in (self._cursors, self._sleeping):
            if space == "pattern":
                gone = [key for key in cursors if key[0] == space and key[2] in names]
                self._pattern_cursors -= len(gone)
            else:
                # By name: a session may have as many cursors as subscriptions, and end or begin them one by one.
                gone = [(space, name, None) for name in names if (space, name, None) in cursors]
            for key in gone:
                del cursors[key]
            if cursors is self._cursors:
                self._session.counters.dropped[UNSUBSCRIBED_BEHIND] += len(gone)
        if self.is_empty:
            self._session.want_resume()  # which ends the lag

    def clear(self) -> None:
        self._cursors.clear()
        self._sleeping.clear()
        self._pattern_cursors = 0

    def serve(self) -> None:
        """Write what the windows hold for some cursors, BEHIND_READ_BYTES at most."""
        budget = limits.BEHIND_READ_BYTES
        for key in list(islice(self._cursors, limits.BEHIND_VISITS_MAX)):
            budget -= self._serve_one(key, budget)
            if budget <= 0:
                break

    def _serve_one(self, key: Key, bytes_max: int) -> int:
        """Returns the bytes read. A cursor with more to read goes to the end of the line."""
        session = self._session
        space, channel, pattern = key
        after = self._cursors.pop(key)
        bus = session.backend.bus(channel)
        result = bus.read_after(channel, after, None, bytes_max, KINDS[space])
        encoder, stream = session.outbox.encoder, session.outbox.stream
        if result.gap_until is not None:
            session.counters.dropped[WINDOW_PASSED] += 1
            self._write_gap(key, after, result.gap_until)
        size = 0
        for _, first, payloads in result.runs:
            stream.append(encoder.deliver(space, channel, pattern, first, payloads))
            session.counters.delivered_messages += len(payloads)
            size += sum(map(len, payloads))
        if result.more:
            self._cursors[key] = result.cursor
        elif after > bus.last_id(channel):
            self._sleeping[key] = after
        elif space == "pattern":
            self._pattern_cursors -= 1
        self._on_served(key, after, result)
        return size

    def _write_gap(self, key: Key, after: MessageId, until: MessageId) -> None:
        outbox = self._session.outbox
        outbox.stream.append(outbox.encoder.gap(*key, after, until))

    def _on_served(self, key: Key, after: MessageId, result: ReadResult) -> None:
        """Everything up to `result.cursor` was written, or told as a gap."""

    def invariants(self) -> None:
        assert not self._cursors.keys() & self._sleeping.keys()
        assert self._pattern_cursors == sum(key[0] == "pattern" for key in (*self._cursors, *self._sleeping))
        assert self._pattern_cursors <= limits.BEHIND_CURSORS_MAX or self._session.is_closed
