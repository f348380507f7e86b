"""One RESP3 connection to a node: pipelined calls, pushes, and a verdict on when the node is gone.

An asyncio protocol over any transport: a socket, or the embedded bus' memory. Commands of one turn of the loop are one
write. Replies come in the order of the calls. A subscribe command's answer is a push, so it is awaited by its kind
(`CONFIRMATIONS`) at its place in that order; every other push goes to `on_push`.

It never reconnects and never retries: that is `Commander`'s and `Subscription`'s. When it ends, each waiting call gets
a `ConnectionLost`, which says whether its bytes had been handed to the transport.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from riverbus.client.nouns import ConnectionLost, error_from_reply

CONFIRMATIONS = frozenset({b"bus.subscribe", b"bus.unsubscribe", b"psubscribe", b"punsubscribe"})
STALL_RECHECK_S = 0.1  # after a pause of this very process, data that waits is read before the node is blamed

_INCOMPLETE = object()

PushHandler = Callable[[list[Any]], None]


class _ErrorText(Exception):
    """What hiredis makes of an error reply."""


def reply_error(error: Exception) -> Exception:
    """An error that came inside an array."""
    return error_from_reply(str(error)) if isinstance(error, _ErrorText) else error


def encode_command(*parts: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(parts), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]))


class Connection(asyncio.Protocol):
    def __init__(self, reply_timeout: float, on_push: PushHandler | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._reply_timeout = reply_timeout
        self._on_push = on_push
        self._reader = hiredis.Reader(replyError=_ErrorText, notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[Any]] = deque()  # one per command, in order
        self._gathered: list[bytes] = []  # commands of this turn, not handed to the transport yet
        self._is_retired = False
        self._is_paused = False
        self._heard_at = self._loop.time()  # the last byte received, or the first command sent into silence
        self._stall_timer: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[str] = self._loop.create_future()  # its result is the reason

    @property
    def is_usable(self) -> bool:
        return self._transport is not None and not self._is_retired and not self.closed.done()

    @property
    def heard_at(self) -> float:
        """The loop's time at which the node was last heard (or first waited for)."""
        return self._heard_at

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    # --- what its owner does ------------------------------------------------------------------------------------------

    def call(self, command: bytes) -> asyncio.Future[Any]:
        """The reply, or raises BusError (the reply was an error) or ConnectionLost."""
        future = self._loop.create_future()
        if not self.is_usable:
            future.set_exception(ConnectionLost("the connection is closed", is_sent=False))
            return future
        if not self._gathered:
            self._loop.call_soon(self._flush)
        if not self._waiting:
            self._heard_at = self._loop.time()
        self._gathered.append(command)
        self._waiting.append(future)
        return future

    def pause_reading(self) -> None:
        if self.is_usable and not self._is_paused:
            self._is_paused = True
            cast(asyncio.Transport, self._transport).pause_reading()

    def resume_reading(self) -> None:
        if self.is_usable and self._is_paused:
            self._is_paused = False
            self._heard_at = self._loop.time()
            cast(asyncio.Transport, self._transport).resume_reading()

    def retire(self) -> None:
        """Take no more calls; close once those in flight are answered."""
        self._is_retired = True
        if not self._waiting:
            self.close("retired")

    def close(self, reason: str) -> None:
        """Calls in flight fail now; nothing more is delivered."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._end(reason)

    # --- what the transport does --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._stall_timer = self._loop.call_later(self._reply_timeout, self._check_stall, False)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        reader = self._reader
        try:
            reader.feed(data)
            while not self.closed.done():
                reply = reader.gets()
                if reply is _INCOMPLETE:
                    break
                self._on_reply(reply)
        except hiredis.ProtocolError as error:
            self.close(f"the node broke the protocol: {error}")
        if self._is_retired and not self._waiting:
            self.close("retired")

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._end(str(error) if error is not None else "closed by the node")

    # --- inside -------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._transport is not None and self._gathered:
            self._transport.write(b"".join(self._gathered))
        self._gathered.clear()

    def _on_reply(self, reply: Any) -> None:
        if type(reply) is hiredis.PushNotification:
            if reply and reply[0] in CONFIRMATIONS and self._waiting:
                self._answer(reply)
            elif self._on_push is not None:
                self._on_push(reply)
        elif self._waiting:
            self._answer(reply)
        else:
            self.close("the node answered what was not asked")

    def _answer(self, reply: Any) -> None:
        future = self._waiting.popleft()
        if future.done():  # its caller was cancelled
            return
        if isinstance(reply, _ErrorText):
            future.set_exception(error_from_reply(str(reply)))
        else:
            future.set_result(reply)

    def _check_stall(self, is_recheck: bool) -> None:
        """A node answers every command within a second; silence with commands in flight means that it is gone."""
        if self._transport is None:
            return
        silent_for = self._loop.time() - self._heard_at
        if not self._waiting or self._is_paused or silent_for < self._reply_timeout:
            wait = self._reply_timeout - silent_for if self._waiting and not self._is_paused else self._reply_timeout
            self._stall_timer = self._loop.call_later(max(wait, 0.01), self._check_stall, False)
        elif not is_recheck:
            self._stall_timer = self._loop.call_later(STALL_RECHECK_S, self._check_stall, True)
        else:
            self.close(f"no answer for {silent_for:.1f} s")

    def _end(self, reason: str) -> None:
        if self.closed.done():
            return
        self.closed.set_result(reason)
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        unsent = len(self._gathered)  # the last of those that wait
        self._gathered.clear()
        while self._waiting:
            is_sent = len(self._waiting) > unsent
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(ConnectionLost(reason, is_sent))


def handshake(user: str | None, password: str | None, name: str | None) -> bytes:
    """HELLO 3 with what there is of credentials and name."""
    parts: list[bytes] = [b"HELLO", b"3"]
    if password is not None:
        parts += [b"AUTH", (user or "default").encode(), password.encode()]
    if name is not None:
        parts += [b"SETNAME", name.encode()]
    return encode_command(*parts)


def push_text(items: Sequence[Any], at: int) -> bytes:
    """One item of a push as bytes. Raises ValueError if the server sent something else."""
    if at >= len(items) or not isinstance(items[at], bytes):
        raise ValueError(f"unexpected push: {items!r}")
    return cast(bytes, items[at])
