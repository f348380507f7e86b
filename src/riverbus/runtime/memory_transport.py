"""Two asyncio transports joined in memory: what one end writes, the other's protocol receives in a later turn.

As a socket pair behaves, without the sockets: one `data_received` for all that was written in a turn; flow control both
ways (a paused end lets the other's buffer grow until its protocol is told to pause); `close` flushes, `abort` drops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from riverbus.limits import OUTBOX_HIGH_BYTES, OUTBOX_LOW_BYTES

CHUNK_BYTES = 256 * 1024  # delivered at once, as a socket's reads are bounded


class MemoryTransport(asyncio.Transport):
    """One end. Made in pairs by `join`."""

    _other: MemoryTransport

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, names: tuple[str, str]) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._names = {"sockname": names[0], "peername": names[1]}
        self._buffer = bytearray()  # written here, not received there
        self._high, self._low = OUTBOX_HIGH_BYTES, OUTBOX_LOW_BYTES
        self._is_reading = True
        self._is_scheduled = False
        self._is_writer_paused = False
        self._is_closing = False
        self._is_lost = False

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing:
            return
        self._buffer += data
        self._schedule()
        if len(self._buffer) > self._high and not self._is_writer_paused:
            self._is_writer_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._schedule()

    def abort(self) -> None:
        self._is_closing = True
        self._buffer.clear()
        self._loop.call_soon(self._lose)

    def is_closing(self) -> bool:
        return self._is_closing

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = OUTBOX_HIGH_BYTES if high is None else high
        self._low = self._high // 4 if low is None else low

    # --- reading ------------------------------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._other._schedule()

    # --- the rest of a transport --------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._names.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    # --- inside -------------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._is_scheduled and not self._is_lost:
            self._is_scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._is_scheduled = False
        other = self._other
        if self._buffer and other._is_reading and not other._is_closing:
            data = bytes(self._buffer[:CHUNK_BYTES])
            del self._buffer[:CHUNK_BYTES]
            other._protocol.data_received(data)
            if self._buffer:
                self._schedule()
        if self._is_writer_paused and len(self._buffer) <= self._low:
            self._is_writer_paused = False
            self._protocol.resume_writing()
        if self._is_closing and (not self._buffer or other._is_closing):
            self._lose()

    def _lose(self) -> None:
        """Both ends are told, each once."""
        for end in (self, self._other):
            end._is_closing = True
            if not end._is_lost:
                end._is_lost = True
                end._buffer.clear()
                end._protocol.connection_lost(None)


def join(loop: asyncio.AbstractEventLoop, here: asyncio.Protocol, there: asyncio.Protocol) -> None:
    """Connect two protocols; each is told of its transport before this returns."""
    ends = MemoryTransport(loop, here, ("here", "there")), MemoryTransport(loop, there, ("there", "here"))
    ends[0]._other, ends[1]._other = ends[1], ends[0]
    there.connection_made(ends[1])
    here.connection_made(ends[0])
