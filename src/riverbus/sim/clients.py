"""Simulated clients: they speak RESP bytes through wire/redis to a session of a simulated node, as a socket would.

A connection delivers in order, each way after a delay. It dies with its node's process, and then its client learns so.
A client that stops reading fills its socket: the session is told, as runtime/clients.py tells it.
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

_SOCKET_BYTES = 64 * 1024  # of a client that does not read: then the session is blocked

RESP2, RESP3 = Resp2Encoder(), Resp3Encoder()


def command(*args: bytes) -> bytes:
    """One command as RESP."""
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


class SimConnection:
    """One connection of a client to a node; `on_reply` gets each reply and push, `on_closed` the end."""

    def __init__(
        self, clock: Clock, random: Random, node: SimNode, on_reply: Callable[[object], None], on_closed: Callable[[], None]
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
        self.is_reading = True
        self.is_open = True
        engine = node.engine
        self.session = engine.sessions.open(self, RESP2, RESP3, f"sim:{id(self) % 60_000}", f"node:{node.id}", clock.now)
        node.connections.append(self)

    # --- the client's side ------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self._after_delay(0, lambda: self._arrive_at_node(data))

    def close(self) -> None:
        """The client hangs up (core/ports.py Output.close has the same name: the server's flush and close)."""
        if self.is_open:
            self.is_open = False
            if self.node.life == self._life and self.node.is_alive:
                self.session.on_closed()
                self.node.connections.remove(self)
            self._after_delay(1, self._on_closed)

    def abort(self) -> None:
        self.close()

    def stop_reading(self) -> None:
        self.is_reading = False

    def read_again(self) -> None:
        self.is_reading = True
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        for data in unread:
            if self.is_open:  # else the program has moved on to another connection
                self._parse(data)
        if self._is_blocked and self.is_open and self._is_node_up():
            self._is_blocked = False
            self.node.input()
            self.session.on_writable()

    # --- the node's side --------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Bytes of the session, at the end of a turn."""
        if not self.is_open:
            return
        self._after_delay(1, lambda: self._arrive_at_client(data))
        if not self.is_reading:
            self._unread_bytes += len(data)
            if self._unread_bytes > _SOCKET_BYTES and not self._is_blocked:
                self._is_blocked = True
                self.session.on_blocked()

    def on_node_gone(self) -> None:
        if self.is_open:
            self.is_open = False
            self._after_delay(1, self._on_closed)

    def _is_node_up(self) -> bool:
        return self.node.life == self._life and self.node.is_running

    def _arrive_at_node(self, data: bytes) -> None:
        if self.is_open and self.node.life == self._life:
            self.node.on_client_bytes(lambda: self._handle(data))

    def _handle(self, data: bytes) -> None:
        if self.is_open:
            self.session.handle(self._protocol.receive_data(data))

    def _arrive_at_client(self, data: bytes) -> None:
        if not self.is_open:
            return
        if self.is_reading:
            self._parse(data)
        else:
            self._unread.append(data)

    def _parse(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._on_reply(reply)

    def _after_delay(self, way: int, action: Callable[[], None]) -> None:
        at = max(self._clock.now + self._random.uniform(0.0001, 0.001), self._arrival[way])
        self._arrival[way] = at
        self._clock.at(at, action)
