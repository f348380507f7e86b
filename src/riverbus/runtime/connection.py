"""One TCP (or TLS) connection between two nodes: bytes to frames, the handshake first, then its owner's frames.

The owner is told once that the handshake is done, then of frames, a chunk's together, and once that the connection is
lost, with the reason. It may change after the handshake: links and bulk are served by different owners.

Leaves to others: what is said, and when a silent peer is given up. Invariants: until the handshake is done no frame but
its own is understood, and it is done within its deadline or the connection is aborted; `lost` is set exactly once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol, cast

from riverbus.limits import HANDSHAKE_DEADLINE_S, KIB
from riverbus.runtime.handshake import Handshake, State
from riverbus.wire.frame_nouns import Frame, Role
from riverbus.wire.frames import BULK, HANDSHAKE, LINK, FrameDecoder, FrameError, encode_into

_JOIN_BYTES_MAX = 64 * KIB  # below it one copy is cheaper than a vector of small pieces


def report_failure(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """A task's done callback: what it raised is this node's own fault, and goes to the loop's exception handler."""
    if not task.cancelled() and (error := task.exception()) is not None:
        loop.call_exception_handler({"message": f"{task.get_name()} failed", "exception": error, "task": task})


class Owner(Protocol):
    """Whom a connection's news go to."""

    def on_handshake(self, connection: Connection) -> None: ...

    def on_frames(self, connection: Connection, frames: list[Frame]) -> None: ...

    def on_lost(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """`registry` holds every open connection, so that its keeper can count and close them."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, handshake: Handshake, owner: Owner, registry: dict[Connection, None]
    ) -> None:
        self.handshake = handshake
        self.owner = owner
        self.address = "an unknown address"
        self.reason = ""  # why it was lost
        self.bytes_in = 0
        self.bytes_out = 0
        self.heard_at = loop.time()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._registry = registry
        self._decoder = FrameDecoder(HANDSHAKE)
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._writable: list[asyncio.Future[None]] = []

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self.reason and not self._transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # --- called by its owner ------------------------------------------------------------------------------------------

    def send(self, frame: Frame) -> None:
        parts: list[bytes] = []
        self.write(parts, encode_into(parts, frame))

    def write(self, parts: Sequence[bytes], size: int) -> None:
        """Give the transport encoded frames, `size` bytes together; dropped when the connection is closing."""
        if not self.is_open:
            return
        assert self._transport is not None
        self.bytes_out += size
        if size <= _JOIN_BYTES_MAX:
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)

    async def wait_writable(self) -> None:
        """Return once the transport's buffer is low, or the connection is lost."""
        while self._is_paused and self.is_open:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._writable.append(waiter)
            await waiter

    def pause_reading(self) -> None:
        if self.is_open and self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.is_open and self._transport is not None:
            self._transport.resume_reading()

    def drop(self, reason: str) -> None:
        """Abort: what was not sent is lost. `on_lost` follows in a later turn."""
        self.reason = self.reason or reason
        if self._transport is not None:
            self._transport.abort()

    def close(self, reason: str) -> None:
        """Close once what was written is sent, or after the handshake's deadline."""
        self.reason = self.reason or reason
        if self._transport is not None:
            self._transport.close()
            if self._deadline is None:
                self._deadline = self._loop.call_later(HANDSHAKE_DEADLINE_S, self._on_deadline)

    # --- called by the transport --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._registry[self] = None
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = f"{peer[0]}:{peer[1]}"
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.reason:
            self._transport.abort()  # dropped before it was there
            return
        self._deadline = self._loop.call_later(HANDSHAKE_DEADLINE_S, self._on_deadline)
        for frame in self.handshake.start():
            self.send(frame)

    def data_received(self, data: bytes) -> None:
        if self.reason:
            return
        self.bytes_in += len(data)
        self.heard_at = self._loop.time()
        self._decoder.feed(data)
        try:
            if not self.handshake.is_over and not self._shake_hands():
                return
            frames = self._decoder.drain()
        except FrameError as error:
            self.drop(f"it sent a bad frame: {error}")
            return
        if frames:
            self.owner.on_frames(self, frames)

    def connection_lost(self, exc: Exception | None) -> None:
        self.reason = self.reason or (f"lost: {exc}" if exc is not None else "closed by the peer")
        if self._deadline is not None:
            self._deadline.cancel()
        self._registry.pop(self, None)
        self.resume_writing()
        try:
            self.owner.on_lost(self)
        finally:
            if not self.lost.done():  # a cancelled task that awaited it has cancelled it
                self.lost.set_result(None)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        waiters, self._writable = self._writable, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _shake_hands(self) -> bool:
        """Feed the handshake; True once it is done and the connection is its owner's."""
        handshake = self.handshake
        while not handshake.is_over:
            frame = self._decoder.next()
            if frame is None:
                return False
            for answer in handshake.receive(frame):
                self.send(answer)
        if handshake.state is State.REFUSED:
            assert handshake.verdict is not None
            self.close(f"refused: {handshake.verdict.reason}")
            return False
        assert handshake.theirs is not None
        assert self._deadline is not None
        self._deadline.cancel()
        self._deadline = None
        self._decoder.phase = BULK if handshake.theirs.role == Role.BULK else LINK
        self.owner.on_handshake(self)
        return self.is_open

    def _on_deadline(self) -> None:
        self._deadline = None
        self.drop(f"no handshake within {HANDSHAKE_DEADLINE_S:g} s")
