"""Carries commands to some node that takes them: one pipelined connection, moved when its node fails.

What is retried, until the deadline: a read, and a write that the bus knows again (`write_once`), whatever happened; any
other write only if it surely had no effect (its bytes never left, or the reply was -CLUSTERDOWN or -BUSY). Such a write
whose connection died in flight raises OutcomeUnknown.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from enum import Enum
from typing import Any

from riverbus.client.connection import Connection
from riverbus.client.dialer import Dialer
from riverbus.client.nouns import ConnectionLost, Ended, Unreachable
from riverbus.limits import CLIENT_BACKOFF_MAX_S, CLIENT_BACKOFF_MIN_S, CLIENT_INFLIGHT_BYTES_MAX, PUBLISH_KEYS_MS
from riverbus.messages import BusError, NotAccepted, OutcomeUnknown, Overloaded

ONCE_S_MAX = PUBLISH_KEYS_MS / 2 / 1000  # far within what the bus remembers


Sent = tuple[Connection, asyncio.Future[Any]]


class Retry(Enum):
    IF_SAFE = 0  # while it surely had no effect
    READ = 1  # whatever happened
    ONCE = 2  # whatever happened: the bus knows it again. At the deadline the outcome may be unknown


class Backoff:
    """Waits that double from the minimum to the maximum, each drawn from its upper half so that clients spread."""

    def __init__(self) -> None:
        self._next_s = CLIENT_BACKOFF_MIN_S

    async def wait(self) -> None:
        wait_s, self._next_s = self._next_s, min(self._next_s * 2, CLIENT_BACKOFF_MAX_S)
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))

    def reset(self) -> None:
        self._next_s = CLIENT_BACKOFF_MIN_S


def _may_be_done(error: Exception) -> bool:
    return isinstance(error, OutcomeUnknown) or (isinstance(error, ConnectionLost) and error.is_sent)


def _unknown(error: Exception) -> OutcomeUnknown:
    if isinstance(error, OutcomeUnknown):
        return error
    if isinstance(error, ConnectionLost):
        return OutcomeUnknown(f"the connection was lost before the reply: {error}")
    return OutcomeUnknown(f"an earlier try may have been carried out, and the last one: {error}")


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
        self.room = Room(CLIENT_INFLIGHT_BYTES_MAX)
        self._retired: list[Connection] = []  # left, but with calls that may still be answered
        self._last_failure = "no try has ended"
        self._is_closed = False

    async def connect(self) -> None:
        """Raises Unreachable after the deadline, or BusError when the credentials are refused."""
        await self._connected(asyncio.get_running_loop().time() + self._deadline)

    async def read(self, command: bytes) -> Any:
        return await self._run(command, Retry.READ)

    async def write(self, command: bytes) -> Any:
        return await self._run(command, Retry.IF_SAFE)

    async def write_once(self, command: bytes, sent: Sent | None = None) -> Any:
        """A write with one effect however often it is sent, sent until it is answered; no longer than `ONCE_S_MAX`.

        `sent`: its first try, if there was one. Takes no room: its caller does.
        """
        may_be_done = False
        if sent is not None:
            connection, answer = sent
            try:
                return await answer
            except (NotAccepted, Overloaded, OutcomeUnknown, ConnectionLost) as error:
                may_be_done = _may_be_done(error)
                self._leave(connection, error)
        return await self._run_again(command, Retry.ONCE, may_be_done)

    @property
    def usable(self) -> Connection | None:
        connection = self._connection
        return connection if connection is not None and connection.is_usable else None

    def close(self) -> None:
        self._is_closed = True
        for connection in (self._connection, *self._retired):
            if connection is not None:
                connection.close("the bus was closed")

    async def _run(self, command: bytes, retry: Retry) -> Any:
        size = len(command) + 64
        await self.room.take(size)
        try:
            connection = self._connection
            if connection is not None and connection.is_usable:  # the way of nearly every command
                try:
                    return await connection.call(command)
                except (NotAccepted, Overloaded, ConnectionLost) as error:
                    self._raise_unless_safe(error, retry)
                    self._leave(connection, error)
            return await self._run_again(command, retry)
        finally:
            self.room.give_back(size)

    async def _run_again(self, command: bytes, retry: Retry, may_be_done: bool = False) -> Any:
        """`may_be_done`: an earlier try may have had its effect."""
        patience_s = min(self._deadline, ONCE_S_MAX) if retry is Retry.ONCE else self._deadline
        give_up_at = asyncio.get_running_loop().time() + patience_s
        backoff = Backoff()
        while True:
            try:
                connection = await self._connected(give_up_at)
            except Unreachable as error:
                if may_be_done:
                    raise _unknown(error) from None
                raise
            try:
                return await connection.call(command)
            except (NotAccepted, Overloaded, OutcomeUnknown, ConnectionLost) as error:
                self._raise_unless_safe(error, retry)
                may_be_done = may_be_done or (retry is Retry.ONCE and _may_be_done(error))
                self._leave(connection, error)
                if asyncio.get_running_loop().time() >= give_up_at:
                    if may_be_done:
                        raise _unknown(error) from None
                    if isinstance(error, BusError):
                        raise
                    raise Unreachable(str(error)) from None
            await backoff.wait()

    def _raise_unless_safe(self, error: Exception, retry: Retry) -> None:
        if retry is Retry.ONCE:
            return
        if isinstance(error, OutcomeUnknown):
            raise error
        if isinstance(error, ConnectionLost) and error.is_sent and retry is Retry.IF_SAFE:
            raise _unknown(error) from None

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
                    except Ended:
                        raise
                    except (ConnectionError, NotAccepted) as error:
                        self._last_failure = str(error)
                        await backoff.wait()
                return self._connection
        except TimeoutError:
            raise Unreachable(f"no node was reached: {self._last_failure}") from None
