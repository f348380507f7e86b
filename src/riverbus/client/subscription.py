"""A subscription: an async iterator over one connection of its own, that outlives every node it is connected to.

For each channel it keeps its position, the id of the last message taken in. A connection that ends is replaced by one
to another node, where `BUS.SUBSCRIBE channel SINCE position` goes on; what arrives at or below the position was seen
already and is dropped. The server says where history was trimmed: that becomes a `Gap`, never silence. Without `since`
the position is the channel's last id at the moment of the first subscription, which the confirmation carries.

Patterns have no positions (plain PSUBSCRIBE), nor have channels of durability `none`: each reconnection yields a Gap.
Channels come and go while it runs (`add`, `remove`), over the same connection.

Memory is bounded: above `CLIENT_BUFFER_HIGH_BYTES` of messages that the program has not taken, the socket is not read,
and the server keeps a cursor for us into its shared history.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from riverbus.client.commander import Backoff
from riverbus.client.connection import Connection, encode_command, push_text
from riverbus.client.dialer import Dialer
from riverbus.client.nouns import (
    ConnectionLost,
    Ended,
    Gap,
    HistoryLost,
    Message,
    Refused,
    Unreachable,
    id_from,
    id_from_bytes,
    name_from_bytes,
    name_to_bytes,
)
from riverbus.limits import CLIENT_BUFFER_HIGH_BYTES, CLIENT_BUFFER_LOW_BYTES
from riverbus.messages import ID_MIN, MessageId, NotAccepted, OutcomeUnknown, Overloaded

HEARTBEAT_S = 1.0  # how often the node must show that it is in contact with a majority
ITEM_OVERHEAD_BYTES = 256  # a buffered message's tuple, id and name, beside its payload

Item = TypeVar("Item", bound="Message | Gap", covariant=True)
_Weather = (ConnectionError, ConnectionLost, NotAccepted, OutcomeUnknown, Overloaded)


class Subscription(Generic[Item]):
    """Made by `Bus.subscribe`. `async with` it to know from when on it holds, or iterate right away."""

    def __init__(
        self, dialer: Dialer, positions: Mapping[bytes, MessageId | None], patterns: tuple[bytes, ...], on_gap: str
    ) -> None:
        self._dialer = dialer
        self._positions = dict(positions)  # None: live, from the first confirmation on
        self._names = {channel: name_from_bytes(channel) for channel in (*positions, *patterns)}
        self._patterns = patterns
        self._on_gap = on_gap
        self._buffer: deque[Message | Gap] = deque()
        self._buffer_bytes = 0
        self._connection: Connection | None = None
        self._runner: asyncio.Task[None] | None = None
        self._arrival = asyncio.Event()  # something to take, or the end
        self._established = asyncio.Event()
        self._adding: dict[bytes, asyncio.Future[None]] = {}  # until the node confirms
        self._fleeting: dict[bytes, None] = {}  # channels without positions, as their last confirmation said
        self._leaving: dict[bytes, asyncio.Future[Any]] = {}  # likewise
        self._failure: BaseException | None = None
        self._is_closed = False
        self.reconnects = 0
        self.duplicates_dropped = 0

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def is_connected(self) -> bool:
        """Whether a node serves it now; else one is looked for."""
        return self._connection is not None and self._connection.is_usable

    @property
    def positions(self) -> dict[str, MessageId | None]:
        """By channel, the id of the last message received (which may still be in the buffer)."""
        return {self._names[channel]: position for channel, position in self._positions.items()}

    # --- the program's side -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Subscription[Item]:
        """Returns once it holds on every channel: what is acknowledged after that will be delivered."""
        self._start()
        try:
            await self._established.wait()
        except BaseException:
            await self.close()
            raise
        if self._failure is not None:
            await self.close()
            raise self._failure
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Subscription[Item]:
        return self

    async def __anext__(self) -> Item:
        """Raises HistoryLost at a gap if asked to, and BusError if the nodes refuse this subscription for good."""
        self._start()
        while not self._buffer:
            if self._failure is not None:
                raise self._failure
            if self._is_closed:
                raise StopAsyncIteration
            self._arrival.clear()
            await self._arrival.wait()
        item = self._buffer.popleft()
        self._buffer_bytes -= _size(item)
        if self._connection is not None and self._buffer_bytes <= CLIENT_BUFFER_LOW_BYTES:
            self._connection.resume_reading()
        if isinstance(item, Gap) and self._on_gap == "raise":
            raise HistoryLost(item)
        return cast(Item, item)

    async def add(self, channel: str | bytes, since: MessageId | str | bytes | None = None) -> None:
        """Follow one more channel, from just after `since`, or live. Returns once it holds.

        Raises ValueError when it is followed already, BusError when the nodes refuse it for good.
        """
        name = name_to_bytes(channel)
        position = None if since is None else id_from(since)
        while name in self._leaving:  # what still comes of its former life must not count for the new one
            await asyncio.wait([self._leaving[name]])
        if name in self._positions:
            raise ValueError(f"{channel!r} is followed already")
        if self._failure is not None:
            raise self._failure
        if self._is_closed:
            raise Unreachable("the subscription is closed")
        self._positions[name] = position
        self._names[name] = name_from_bytes(name)
        added = self._adding[name] = asyncio.get_running_loop().create_future()
        self._start()
        if self._connection is not None:
            self._follow(self._connection, name)
        try:
            await added
        except BaseException:
            self._positions.pop(name, None)
            raise
        finally:
            self._adding.pop(name, None)

    async def remove(self, channel: str | bytes) -> None:
        """Follow it no longer. What of it is buffered can still be taken. Raises ValueError when it is not followed."""
        name = name_to_bytes(channel)
        if name not in self._positions:
            raise ValueError(f"{channel!r} is not followed")
        del self._positions[name]
        self._fleeting.pop(name, None)
        if self._connection is not None and self._connection.is_usable:
            left = self._leaving[name] = self._connection.call(encode_command(b"BUS.UNSUBSCRIBE", name))
            left.add_done_callback(lambda call: self._on_left(name, call))
            await asyncio.wait([left])

    def _on_left(self, name: bytes, call: asyncio.Future[Any]) -> None:
        del self._leaving[name]
        if not call.cancelled():
            call.exception()  # a connection that ended follows nothing

    async def close(self) -> None:
        """Idempotent. What is buffered can still be taken; then iteration ends."""
        self._is_closed = True
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait([runner])
        self._fail_adding(Unreachable("the subscription was closed"))
        self._wake()

    # --- the node's side ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._runner is None and not self._is_closed:
            self._runner = asyncio.get_running_loop().create_task(self._run(), name="riverbus subscription")

    async def _run(self) -> None:
        backoff = Backoff()
        try:
            while True:
                try:
                    connection = await self._dialer.dial(self._on_push)
                    try:
                        await self._establish(connection)
                        backoff.reset()
                        await self._keep(connection)
                    finally:
                        self._connection = None
                        connection.close("the subscription moves on")
                except Ended:
                    raise
                except _Weather:
                    await backoff.wait()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - handed to the program at its next step
            self._failure = error
            self._fail_adding(error)
            self._wake()

    async def _establish(self, connection: Connection) -> None:
        self._connection = connection
        answers = [(channel, self._follow(connection, channel)) for channel in self._positions]
        matched = [connection.call(encode_command(b"PSUBSCRIBE", pattern)) for pattern in self._patterns]
        try:
            for channel, answer in answers:
                try:
                    await answer
                except Refused:
                    if channel in self._positions:  # else whoever added it has been told
                        raise
            for confirmation in matched:
                await confirmation
        except BaseException:
            connection.close("the subscription was not established")  # ends those that still wait
            await asyncio.gather(*matched, *(answer for _, answer in answers), return_exceptions=True)
            raise
        if self._established.is_set():
            self.reconnects += 1
            for pattern in self._patterns:
                self._take_in(Gap(None, None, None, name_from_bytes(pattern)))
        self._established.set()

    def _follow(self, connection: Connection, channel: bytes) -> asyncio.Future[Any]:
        answer = connection.call(self._subscribe_command(channel))
        answer.add_done_callback(lambda answer: self._on_followed(connection, channel, answer))
        return answer

    def _on_followed(self, connection: Connection, channel: bytes, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled():
            return
        error = answer.exception()
        added = self._adding.get(channel)
        if error is None:
            try:
                last_id = None if answer.result()[2:] == [None] else id_from_bytes(push_text(answer.result(), 2))
            except ValueError as broken:
                connection.close(f"the node broke the protocol: {broken}")
                return
            if last_id is None:
                self._on_no_positions(channel)
            elif self._positions.get(channel, last_id) is None:
                self._positions[channel] = last_id
            if added is not None and not added.done():
                added.set_result(None)
        elif added is not None and not added.done() and isinstance(error, Refused):
            self._positions.pop(channel, None)
            added.set_exception(error)
        else:
            connection.close(f"a channel was not followed: {error}")  # the next node follows all of them

    def _on_no_positions(self, channel: bytes) -> None:
        """Of durability none: live only. What came while nobody followed is gone."""
        if channel in self._fleeting:
            self._take_in(Gap(self._names[channel], None, None))
        self._fleeting[channel] = None

    def _fail_adding(self, error: BaseException) -> None:
        for added in self._adding.values():
            if not added.done():
                added.set_exception(error)

    def _subscribe_command(self, channel: bytes) -> bytes:
        position = self._positions[channel]
        if position is None:
            return encode_command(b"BUS.SUBSCRIBE", channel)
        return encode_command(b"BUS.SUBSCRIBE", channel, b"SINCE", position.to_bytes())

    async def _keep(self, connection: Connection) -> None:
        """Until the connection ends. Each heartbeat asks for a fresh read, which a cut-off node refuses."""
        beat = 0
        while not connection.closed.done():
            await asyncio.wait([connection.closed], timeout=HEARTBEAT_S)
            if connection.closed.done() or connection.is_paused:
                continue
            if channels := list(self._positions):
                channel = channels[beat % len(channels)]
                beat += 1
                await connection.call(encode_command(b"XLEN", channel))
            else:
                await connection.call(encode_command(b"PING"))

    def _on_push(self, items: list[Any]) -> None:
        kind = items[0] if items else None
        try:
            if kind == b"bus.message":
                self._on_message(items)
            elif kind == b"bus.gap":
                self._on_gap_push(items)
            elif kind == b"pmessage":
                pattern, channel, payload = (push_text(items, at) for at in (1, 2, 3))
                self._take_in(Message(name_from_bytes(channel), None, payload, name_from_bytes(pattern)))
        except (ValueError, KeyError) as error:
            if self._connection is not None:
                self._connection.close(f"the node broke the protocol: {error}")

    def _on_message(self, items: list[Any]) -> None:
        channel, id_, payload = push_text(items, 1), id_from_bytes(push_text(items, 2)), push_text(items, 3)
        if channel not in self._positions:
            return  # it was removed, and the node has not heard of it yet
        if id_ == ID_MIN:  # of durability none: there are no ids
            self._take_in(Message(self._names[channel], None, payload))
            return
        position = self._positions[channel]
        if position is not None and id_ <= position:
            self.duplicates_dropped += 1
            return
        self._positions[channel] = id_
        self._take_in(Message(self._names[channel], id_, payload))

    def _on_gap_push(self, items: list[Any]) -> None:
        channel = push_text(items, 1)
        after, until = (id_from_bytes(push_text(items, at)) for at in (2, 3))
        if channel not in self._positions:
            return
        position = self._positions[channel]
        if position is not None:
            after = max(after, position)
        if until > after:
            self._positions[channel] = until
            self._take_in(Gap(self._names[channel], after, until))

    def _take_in(self, item: Message | Gap) -> None:
        self._buffer.append(item)
        self._buffer_bytes += _size(item)
        if self._buffer_bytes > CLIENT_BUFFER_HIGH_BYTES and self._connection is not None:
            self._connection.pause_reading()
        self._arrival.set()

    def _wake(self) -> None:
        self._arrival.set()
        self._established.set()


def _size(item: Message | Gap) -> int:
    return ITEM_OVERHEAD_BYTES + (len(item.payload) if isinstance(item, Message) else 0)
