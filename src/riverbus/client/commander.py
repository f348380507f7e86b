"""Carries commands to some node that takes them: one pipelined connection, moved when its node fails.

What is retried, until the deadline: a read whatever happened; a write only if it surely had no effect (its bytes never
left, or the reply was -CLUSTERDOWN or -BUSY). A write whose connection died in flight raises OutcomeUnknown.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any

from riverbus.client.connection import Connection
from riverbus.client.dialer import Dialer
from riverbus.client.nouns import ConnectionLost, Unreachable
from riverbus.limits import CLIENT_BACKOFF_MAX_S, CLIENT_BACKOFF_MIN_S, CLIENT_INFLIGHT_BYTES_MAX
from riverbus.messages import BusError, NotAccepted, OutcomeUnknown, Overloaded


class Backoff:
    """Waits that double from the minimum to the maximum, each drawn from its upper half so that clients spread."""

    def __init__(self) -> None:
        self._next_s = CLIENT_BACKOFF_MIN_S

    async def wait(self) -> None:
        wait_s, self._next_s = self._next_s, min(self._next_s * 2, CLIENT_BACKOFF_MAX_S)
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))

    def reset(self) -> None:
        self._next_s = CLIENT_BACKOFF_MIN_S


class Room:
    """A count of bytes in flight with a limit. Who finds no room waits, in order of arrival."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        size = min(size, self._bytes_max)  # one that is larger than all the room goes alone
        if not self._queue and self._bytes + size <= self._bytes_max:
            self._bytes += size
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((size, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # the room was given in the same turn
                self.give_back(size)
            raise

    def give_back(self, size: int) -> None:
        self._bytes -= min(size, self._bytes_max)
        while self._queue:
            wanted, future = self._queue[0]
            if not future.done():
                if self._bytes + wanted > self._bytes_max:
                    return
                self._bytes += wanted
                future.set_result(None)
            self._queue.popleft()


class Commander:
    def __init__(self, dialer: Dialer, deadline: float) -> None:
        self._dialer = dialer
        self._deadline = deadline  # seconds
        self._connection: Connection | None = None
        self._dialing = asyncio.Lock()
        self._room = Room(CLIENT_INFLIGHT_BYTES_MAX)
        self._retired: list[Connection] = []  # left, but with calls that may still be answered
        self._last_failure = "no try has ended"
        self._is_closed = False

    async def connect(self) -> None:
        """Raises Unreachable after the deadline, or BusError when the credentials are refused."""
        await self._connected(asyncio.get_running_loop().time() + self._deadline)

    async def read(self, command: bytes) -> Any:
        return await self._run(command, is_read=True)

    async def write(self, command: bytes) -> Any:
        return await self._run(command, is_read=False)

    def close(self) -> None:
        self._is_closed = True
        for connection in (self._connection, *self._retired):
            if connection is not None:
                connection.close("the bus was closed")

    async def _run(self, command: bytes, is_read: bool) -> Any:
        size = len(command) + 64
        await self._room.take(size)
        try:
            connection = self._connection
            if connection is not None and connection.is_usable:  # the way of nearly every command
                try:
                    return await connection.call(command)
                except (NotAccepted, Overloaded, ConnectionLost) as error:
                    self._raise_unless_safe(error, is_read)
                    self._leave(connection, error)
            return await self._run_again(command, is_read)
        finally:
            self._room.give_back(size)

    async def _run_again(self, command: bytes, is_read: bool) -> Any:
        give_up_at = asyncio.get_running_loop().time() + self._deadline
        backoff = Backoff()
        while True:
            connection = await self._connected(give_up_at)
            try:
                return await connection.call(command)
            except (NotAccepted, Overloaded, ConnectionLost) as error:
                self._raise_unless_safe(error, is_read)
                self._leave(connection, error)
                if asyncio.get_running_loop().time() >= give_up_at:
                    if isinstance(error, BusError):
                        raise
                    raise Unreachable(str(error)) from None
            await backoff.wait()

    def _raise_unless_safe(self, error: Exception, is_read: bool) -> None:
        if isinstance(error, ConnectionLost) and error.is_sent and not is_read:
            raise OutcomeUnknown(f"the connection was lost before the reply: {error}") from None

    def _leave(self, connection: Connection, error: Exception) -> None:
        """Another node may be better placed; what is in flight on this one is still awaited."""
        self._last_failure = str(error)
        if self._connection is connection and not isinstance(error, Overloaded):
            self._connection = None
            connection.retire()
            self._retired = [each for each in (*self._retired, connection) if not each.closed.done()]

    async def _connected(self, give_up_at: float) -> Connection:
        try:
            async with asyncio.timeout_at(give_up_at), self._dialing:
                backoff = Backoff()
                while self._connection is None or not self._connection.is_usable:
                    if self._is_closed:
                        raise Unreachable("the bus is closed")
                    try:
                        self._connection = await self._dialer.dial()
                    except (OSError, NotAccepted) as error:
                        self._last_failure = str(error)
                        await backoff.wait()
                return self._connection
        except TimeoutError:
            raise Unreachable(f"no node was reached: {self._last_failure}") from None
