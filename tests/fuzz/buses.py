"""What a client of the bus sees of a few channels: an obvious list, and a `riverbus.Bus`, embedded or of a cluster.

A message is named by its place among all that were published to its channel (from 0), whatever id it got.
"""

from __future__ import annotations

from types import TracebackType
from typing import Annotated, Literal, Protocol

from annotated_types import Interval

import riverbus
from riverbus import Gap, MessageId
from riverbus.fuzz import earlier, hint

Channel = Literal["a", "b"]
Place = int
Sent = tuple[Place, bytes]
SOME_PLACE = {"first": earlier("publish"), "last": earlier("publish")}


class Channels(Protocol):
    @hint(weight=3)
    async def publish(self, channel: Channel, payload: bytes) -> Place: ...

    @hint(arguments=SOME_PLACE)
    async def history(
        self,
        channel: Channel,
        first: Place | None = None,
        last: Place | None = None,
        limit: Annotated[int, Interval(ge=-1, le=4)] | None = None,
        reverse: bool = False,
    ) -> list[Sent]:
        """Places that the channel does not have (yet) are beyond its end."""

    @hint(arguments={"after": earlier("publish")})
    async def resume(self, channel: Channel, after: Place | None = None) -> list[Sent]:
        """What a subscriber gets that saw everything up to `after`, up to the newest."""

    async def length(self, channel: Channel) -> int: ...


class ListChannels:
    def __init__(self) -> None:
        self._all: dict[str, list[Sent]] = {"a": [], "b": []}

    async def publish(self, channel: Channel, payload: bytes) -> Place:
        place = len(self._all[channel])
        self._all[channel].append((place, payload))
        return place

    async def history(
        self,
        channel: Channel,
        first: Place | None = None,
        last: Place | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Sent]:
        start, end = first or 0, len(self._all[channel]) if last is None else last
        found = [sent for sent in self._all[channel] if start <= sent[0] <= end]
        found = found[::-1] if reverse else found
        return found if limit is None else found[: max(0, limit)]

    async def resume(self, channel: Channel, after: Place | None = None) -> list[Sent]:
        return [sent for sent in self._all[channel] if after is None or sent[0] > after]

    async def length(self, channel: Channel) -> int:
        return len(self._all[channel])


class BusChannels:
    """Channels of a bus, with names that no run used before."""

    runs = 0

    def __init__(self, bus: riverbus.Bus) -> None:
        self._bus = bus
        BusChannels.runs += 1
        self._prefix = f"run-{BusChannels.runs}-"
        self._ids: dict[str, list[MessageId]] = {"a": [], "b": []}

    async def __aenter__(self) -> BusChannels:
        await self._bus.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._bus.close()

    def _id(self, channel: str, place: Place) -> MessageId:
        ids = self._ids[channel]
        if place < len(ids):
            return ids[place]
        return ids[-1].next() if ids else MessageId(1, 0)

    def _sent(self, channel: str, message: riverbus.Message | Gap) -> Sent:
        assert isinstance(message, riverbus.Message), message
        assert message.id is not None
        assert message.channel == self._prefix + channel
        return self._ids[channel].index(message.id), message.payload

    async def publish(self, channel: Channel, payload: bytes) -> Place:
        self._ids[channel].append(await self._bus.publish(self._prefix + channel, payload))
        return len(self._ids[channel]) - 1

    async def history(
        self,
        channel: Channel,
        first: Place | None = None,
        last: Place | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Sent]:
        start = "-" if first is None else self._id(channel, first)
        end = "+" if last is None else self._id(channel, last)
        found = await self._bus.history(self._prefix + channel, start, end, limit, reverse)
        return [self._sent(channel, message) for message in found]

    async def resume(self, channel: Channel, after: Place | None = None) -> list[Sent]:
        ids = self._ids[channel]
        if not ids or (after is not None and after >= len(ids) - 1):
            return []
        found: list[Sent] = []
        since = MessageId(0, 0) if after is None else self._id(channel, after)
        async with self._bus.subscribe(self._prefix + channel, since=since) as messages:
            async for message in messages:
                found.append(self._sent(channel, message))
                if found[-1][0] == len(ids) - 1:
                    break
        return found

    async def length(self, channel: Channel) -> int:
        return await self._bus.length(self._prefix + channel)
