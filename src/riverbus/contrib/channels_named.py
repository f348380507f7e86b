"""Channels by name, as runworker reads them: each message goes to one receiver of all processes.

Such a channel is a stream of the bus, whose messages are claimed with XDEL: of all receivers that try, one deletes it,
and it is that one's. Rejected: reading it as a group, whose pending entries nobody would acknowledge, since a layer's
receive() has no second step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from channels.exceptions import ChannelFull

from riverbus import Bus, Gap, Message, MessageId, OutcomeUnknown, Refused
from riverbus.client.subscription import Subscription
from riverbus.contrib.channels_nouns import Loss, Settings, before
from riverbus.messages import ID_MIN

CLAIM_PAGE = 16  # oldest messages looked at together: one read, and enough for as many receivers


class NamedChannels:
    """Of one process. `report` is told what is lost of which channel."""

    def __init__(self, bus: Bus, settings: Settings, report: Callable[[str, Loss], None]) -> None:
        self._bus = bus
        self._settings = settings
        self._report = report
        self._arrived: dict[str, asyncio.Event] = {}  # by channel that is received here: something may be there

    def _name(self, channel: str) -> str:
        return f"{self._settings.prefix}:channel:{channel}"

    def is_one(self, source: str) -> bool:
        return source.startswith(self._name(""))

    def on_message(self, source: str) -> None:
        """Something was sent to it."""
        arrived = self._arrived.get(source.removeprefix(self._name("")))
        if arrived is not None:
            arrived.set()

    async def send(self, channel: str, body: bytes) -> None:
        name, capacity = self._name(channel), self._settings.capacity(channel)
        length = await self._bus.length(name)
        if length == 0:
            await self._make_stream(name)
        elif length >= capacity:
            expired = await self._bus.execute("XTRIM", name, "MINID", self._settings.alive_ms())
            if length - expired >= capacity:
                raise ChannelFull(channel)
            last = MessageId(self._settings.alive_ms(), 0)
            self._report(channel, Loss(name, ID_MIN, last, "expired"))
        await self._bus.publish(name, body)

    async def claim(self, subscription: Subscription[Message | Gap], channel: str) -> bytes:
        name = self._name(channel)
        if channel not in self._arrived:
            self._arrived[channel] = asyncio.Event()
            try:
                await subscription.add(name)
            except BaseException:
                del self._arrived[channel]
                raise
        arrived = self._arrived[channel]
        stuck_at: MessageId | None = None
        while True:
            arrived.clear()
            oldest = await self._bus.history(name, limit=CLAIM_PAGE)
            for message in oldest:
                id_ = cast(MessageId, message.id)
                if await self._is_claimed(channel, name, id_):
                    if id_.ms > self._settings.alive_ms():
                        arrived.set()  # there may be another, for another receiver here
                        return message.payload
                    self._report(channel, Loss(name, before(id_), id_, "expired"))
            if not oldest or oldest[0].id == stuck_at:
                await arrived.wait()
            else:  # others were faster; or nobody can claim, since the stream was deleted and is none any more
                stuck_at = oldest[0].id
                await self._make_stream(name)

    async def _is_claimed(self, channel: str, name: str, id_: MessageId) -> bool:
        """Of all who try, one deletes the message. Nobody gets it twice: if it is not known who did, it is a loss."""
        try:
            return bool(await self._bus.execute("XDEL", name, id_.to_bytes()) == 1)
        except OutcomeUnknown:
            if not await self._bus.history(name, id_, id_):
                self._report(channel, Loss(name, before(id_), id_, "unknown"))
            return False

    async def _make_stream(self, name: str) -> None:
        """A stream that keeps what is published to it until it is deleted, and no window: a group makes it one."""
        try:
            await self._bus.execute("XGROUP", "CREATE", name, "layer", "0", "MKSTREAM")
        except Refused as error:
            if error.code != "BUSYGROUP":
                raise
        except OutcomeUnknown:
            await self._make_stream(name)

    async def forget(self, subscription: Subscription[Message | Gap], channel: str) -> None:
        """Nobody here receives it any more."""
        if self._arrived.pop(channel, None) is not None:
            await subscription.remove(self._name(channel))

    async def flush(self) -> None:
        for channel in self._arrived:
            await self._bus.execute("XTRIM", self._name(channel), "MAXLEN", 0)
