"""Simulated connections of clients: RESP bytes through wire/redis to a session of a simulated node, as by a socket.

A connection delivers in order, each way after a delay. It dies with its node's process, and then its client learns so.
A client that stops reading fills its socket: the session is told, as runtime/clients.py tells it. One that vanishes
is not noticed by the node until its kernel gives up.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import hiredis

from riverbus.sim.clock import Clock
from riverbus.wire.encoders import Resp2Encoder, Resp3Encoder
from riverbus.wire.redis import RedisProtocol

if TYPE_CHECKING:
    from riverbus.sim.node import SimNode

SOCKET_BYTES = 16 * 1024  # of a client that does not read: then the session is blocked
DELAY_S = (0.0001, 0.001)
_DELAY_LOW_S, _DELAY_SPREAD_S = DELAY_S[0], DELAY_S[1] - DELAY_S[0]
GIVE_UP_S = 10.0  # a kernel's patience with a peer that vanished

RESP2, RESP3 = Resp2Encoder(), Resp3Encoder()


def command(*args: bytes) -> bytes:
    """One command as RESP."""
    return b"*%d\r\n%b" % (len(args), b"".join([b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args]))


class SimConnection:
    """One connection of a client to a node; `on_reply` gets each reply and push, `on_closed` the end."""

    def __init__(
        self,
        clock: Clock,
        random: Random,
        node: SimNode,
        address: str,
        on_reply: Callable[[object], None],
        on_closed: Callable[[], None],
    ) -> None:
        assert node.engine is not None
        self._clock = clock
        self._random = random
        self.node = node
        self._life = node.life
        self._on_reply = on_reply
        self._on_closed = on_closed
        self._protocol = RedisProtocol()
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)
        self._arrival = [0.0, 0.0]  # of the last bytes, to the node and from it: a stream keeps its order
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._is_blocked = False
        self._is_heard = True
        self._sent_bytes = 0
        self._read_bytes = 0
        self.is_reading = True
        self.is_open = True
        self.session = node.engine.sessions.open(self, RESP2, RESP3, address, f"node:{node.id}", clock.now)
        self._protocol.authenticated = self.session.is_authenticated  # as runtime/clients.py does
        node.connections.append(self)

    # --- the client's side ------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self._after_delay(0, lambda: self._arrive_at_node(data))

    def hang_up(self) -> None:
        """The client closes; its program learns nothing more. What it sent before still arrives."""
        if self.is_open:
            self.is_open = False
            self._after_delay(0, self._node_learns)

    def vanish(self) -> None:
        """The client's machine is gone without a word."""
        if self.is_open:
            self.is_open = self.is_reading = self._is_heard = False
            self._clock.after(GIVE_UP_S, self._node_learns)

    def _node_learns(self) -> None:
        if self.node.life == self._life and self._forget():
            self.node.on_hang_up(self.session)

    def _forget(self) -> bool:
        is_known = self in self.node.connections
        if is_known:
            self.node.connections.remove(self)
        return is_known

    def stop_reading(self) -> None:
        self.is_reading = False

    def read_again(self) -> None:
        self.is_reading = True
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        for data in unread:
            if self.is_open:  # else the program has moved on to another connection
                self._parse(data)
        if self._is_blocked and self.is_open and self.node.life == self._life:
            self._is_blocked = False
            self.node.on_client_bytes(self.session.on_writable)

    # --- the node's side (core/ports.py Output) -----------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Bytes of the session, at the end of a turn."""
        self._sent_bytes += len(data)
        if self.is_open:
            self._after_delay(1, lambda: self._arrive_at_client(data))
        if not self.is_reading:
            self._unread_bytes += len(data)
            if self._unread_bytes > SOCKET_BYTES and not self._is_blocked:
                self._is_blocked = True
                self.session.on_blocked()

    def close(self) -> None:
        """The session flushed what it had and closes."""
        self.session.on_closed()
        self.abort()

    def abort(self) -> None:
        """The session gave the client up."""
        self._forget()
        self.on_node_gone()

    def unacknowledged_bytes(self) -> int | None:
        """What the client's program has not read."""
        return self._sent_bytes - self._read_bytes

    def on_node_gone(self) -> None:
        if self.is_open:
            self.is_open = False
            self._after_delay(1, self._on_closed)

    def _arrive_at_node(self, data: bytes) -> None:
        def handle() -> None:
            if not self.session.is_closed:
                self.session.handle(self._protocol.receive_data(data))

        if self._is_heard and self.node.life == self._life:
            self.node.on_client_bytes(handle)

    def _arrive_at_client(self, data: bytes) -> None:
        if not self.is_open:
            return
        if self.is_reading:
            self._parse(data)
        else:
            self._unread.append(data)

    def _parse(self, data: bytes) -> None:
        self._read_bytes += len(data)
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._on_reply(reply)

    def _after_delay(self, way: int, action: Callable[[], None]) -> None:
        at = self._clock.now + (_DELAY_LOW_S + _DELAY_SPREAD_S * self._random.random())
        if (last := self._arrival[way]) > at:
            at = last
        self._arrival[way] = at
        self._clock.at(at, action)
