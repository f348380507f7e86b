"""encode/broadcaster over Riverbus: reconnections lose nothing, and subscribers come back to where they were.

    async with Broadcast("riverbus://127.0.0.1:6380,127.0.0.1:6381") as broadcast:
        async with broadcast.subscribe("chatroom", since=last_event_id) as subscriber:
            async for event in subscriber:
                send(event.message, id=event.id)

`RiverbusBackend` alone goes into broadcaster's own `Broadcast(backend=...)`, whose URLs know no plug-ins; the
`Broadcast` here takes `riverbus://` URLs too (and broadcaster's own), and adds `since` to subscribe. One connection
serves all channels; a subscriber that reads history has one more until it has caught up. What `publish` returned from
is acknowledged: errors are raised, never logged and dropped. A subscriber that is slow has no queue without end: beyond
PLUG_QUEUE_COUNT_MAX events it keeps its place only, and reads on from the channel's history.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import broadcaster
from broadcaster import BroadcastBackend

import riverbus
from riverbus import Gap, MessageId
from riverbus.client.nouns import id_from
from riverbus.client.subscription import Subscription
from riverbus.limits import PLUG_QUEUE_COUNT_MAX

OnGap = Callable[[Gap], None]
SCHEMES = {"riverbus": "redis", "riverbuss": "rediss"}

logger = logging.getLogger("riverbus.contrib.broadcaster")


class Event(broadcaster.Event):
    """One message, with the `id` to resume from."""

    def __init__(self, channel: str, message: str, id: MessageId) -> None:  # noqa: A002 - as browsers call it
        super().__init__(channel, message)
        self.id = id

    __hash__ = None  # type: ignore[assignment] # compared by channel and message, as its base


def log_gap(gap: Gap) -> None:
    logger.warning("messages of %s in (%s, %s] are gone: they fell out of its history", *gap[:3])


class RiverbusBackend(BroadcastBackend):
    """`url` is riverbus.connect()'s, also with riverbus:// in place of redis://. `bus` is one that is there already.

    `on_gap` is called where history was trimmed before this process had read it; by default that is logged.
    """

    def __init__(self, url: str = "", *, bus: riverbus.Bus | None = None, on_gap: OnGap = log_gap) -> None:
        """Raises ValueError for a bad URL."""
        if bool(url) == (bus is not None):
            raise ValueError("give a URL or a bus")
        self._owns_bus = bus is None
        self._bus = riverbus.connect(_redis_url(url)) if bus is None else bus
        self._on_gap = on_gap
        self._subscription: Subscription[riverbus.Message | Gap] | None = None
        self._is_subscribed = asyncio.Event()
        self._changing = asyncio.Lock()

    @property
    def bus(self) -> riverbus.Bus:
        return self._bus

    async def connect(self) -> None:
        """Raises NotAccepted when no node is reached, Refused when the credentials are wrong."""
        if self._owns_bus:
            await self._bus.__aenter__()

    async def disconnect(self) -> None:
        if self._subscription is not None:
            await self._subscription.close()
        if self._owns_bus:
            await self._bus.close()

    async def subscribe(self, channel: str) -> None:
        """Returns once it holds: what is acknowledged after that will be delivered."""
        async with self._changing:
            if self._subscription is not None:
                if channel not in self._subscription.positions:
                    await self._subscription.add(channel)
                return
            subscription = self._bus.subscribe(channel)
            await subscription.__aenter__()
            self._subscription = subscription
            self._is_subscribed.set()

    async def unsubscribe(self, channel: str) -> None:
        async with self._changing:
            if self._subscription is not None and channel in self._subscription.positions:
                await self._subscription.remove(channel)

    async def publish(self, channel: str, message: Any) -> None:
        """Returns once it is on the disks of a majority. Raises NotAccepted or OutcomeUnknown, as Bus.publish."""
        await self._bus.publish(channel, message)

    async def next_published(self) -> broadcaster.Event:
        await self._is_subscribed.wait()
        subscription = cast("Subscription[riverbus.Message | Gap]", self._subscription)
        while True:
            item = await anext(subscription)
            if isinstance(item, Gap):
                self._on_gap(item)
            else:
                return _event(item)

    async def history(self, channel: str, since: MessageId, on_gap: OnGap | None = None) -> AsyncGenerator[Event, None]:
        """What was published after `since`, up to now."""
        newest = await self._bus.history(channel, limit=1, reverse=True)
        until = cast(MessageId, newest[0].id) if newest else since
        if until <= since:
            return
        async with self._bus.subscribe(channel, since=since) as subscription:
            position = since
            while position < until:
                item = await anext(subscription)
                if isinstance(item, Gap):
                    position = cast(MessageId, item.until)
                    (on_gap or self._on_gap)(item)
                else:
                    position = cast(MessageId, item.id)
                    yield _event(item)


class Backlog(asyncio.Queue["broadcaster.Event | None"]):
    """What one subscriber has not taken. Once it was full, nothing comes in until the subscriber reads history."""

    def __init__(self) -> None:
        super().__init__(PLUG_QUEUE_COUNT_MAX)
        self.is_behind = False

    def offer(self, event: broadcaster.Event) -> None:
        self.is_behind = self.is_behind or self.full()
        if not self.is_behind:
            self.put_nowait(event)

    def end(self) -> None:
        while not self.empty():
            self.get_nowait()
        self.put_nowait(None)


class Subscriber(broadcaster._base.Subscriber):
    """What was missed first, then what is published; nothing twice."""

    def __init__(
        self, backlog: Backlog, backend: RiverbusBackend, channel: str, since: MessageId | None, on_gap: OnGap | None
    ) -> None:
        super().__init__(backlog)
        self._backlog = backlog
        self._backend = backend
        self._channel = channel
        self._on_gap = on_gap
        self._position = since
        self._missed = None if since is None else backend.history(channel, since, on_gap)

    async def get(self) -> Event:
        """The next event. Raises Unsubscribed at the end."""
        while True:
            if (
                self._missed is None
                and self._backlog.is_behind
                and self._backlog.empty()
                and self._position is not None
            ):
                self._backlog.is_behind = False  # first, so that nothing falls between
                self._missed = self._backend.history(self._channel, self._position, self._on_gap)
            if self._missed is not None:
                found: Event | None = await anext(self._missed, None)
                if found is None:
                    self._missed = None
                    continue
            else:
                found = cast(Event, await super().get())
            if self._position is None or found.id > self._position:
                self._position = found.id
                return found

    async def close(self) -> None:
        if self._missed is not None:
            await self._missed.aclose()
        self._backlog.end()


class Broadcast(broadcaster.Broadcast):
    """broadcaster's, for `riverbus://` URLs too, with `since` for whoever comes back."""

    def _create_backend(self, url: str) -> BroadcastBackend:
        if url.partition("://")[0] in SCHEMES:
            return RiverbusBackend(url)
        return super()._create_backend(url)

    async def __aenter__(self) -> Broadcast:
        await self.connect()
        return self

    async def _listener(self) -> None:
        while True:
            event = await self._backend.next_published()
            for queue in list(self._subscribers.get(event.channel, ())):
                if isinstance(queue, Backlog):
                    queue.offer(event)
                else:
                    await queue.put(event)

    @asynccontextmanager
    async def subscribe(
        self, channel: str, since: MessageId | str | None = None, on_gap: OnGap | None = None
    ) -> AsyncIterator[Subscriber]:
        """From just after the id `since` ("0-0": all that is kept), or live. Events have an `id` (of Riverbus only).

        `on_gap` is called where what this subscriber missed is gone, instead of the backend's. Raises ValueError when
        the backend is not Riverbus and has no history.
        """
        backend = self._backend
        if not isinstance(backend, RiverbusBackend):
            if since is not None or on_gap is not None:
                raise ValueError("only the Riverbus backend has history")
            async with super().subscribe(channel) as plain:
                yield cast(Subscriber, plain)
            return
        backlog = Backlog()
        subscriber = Subscriber(backlog, backend, channel, None if since is None else id_from(since), on_gap)
        self._subscribers.setdefault(channel, set()).add(backlog)
        try:
            await backend.subscribe(channel)  # before history is read, so that nothing falls between
            yield subscriber
        finally:
            self._subscribers[channel].remove(backlog)
            if not self._subscribers[channel]:
                del self._subscribers[channel]
                await backend.unsubscribe(channel)
            await subscriber.close()


def _event(message: riverbus.Message) -> Event:
    return Event(message.channel, message.payload.decode(), cast(MessageId, message.id))


def _redis_url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return SCHEMES.get(scheme, scheme) + separator + rest
