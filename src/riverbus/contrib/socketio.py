"""python-socketio over Riverbus: servers that share their clients, and lose no emit with a connection or a node.

    manager = RiverbusManager("redis://127.0.0.1:6380,127.0.0.1:6381", on_gap=tell_clients_to_reload)
    server = socketio.AsyncServer(client_manager=manager)

In place of AsyncRedisManager. What differs: while a server's connection is away the others' emits wait in the channel's
history, and are handled when it is back, in order; where history was trimmed meanwhile, `on_gap` is told; an emit that
was not accepted raises (NotAccepted, OutcomeUnknown) instead of being logged and dropped. `write_only=True` is for
processes that only emit.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from socketio.async_pubsub_manager import AsyncPubSubManager

import riverbus
from riverbus import Gap
from riverbus.contrib.buses import Buses

OnGap = Callable[[Gap], Awaitable[None] | None]

log = logging.getLogger("riverbus.contrib.socketio")


class RiverbusManager(AsyncPubSubManager):  # type: ignore[misc] # python-socketio has no types
    """`url` is riverbus.connect()'s; `bus` is one that is there already. The other arguments are its base's."""

    name = "riverbus"

    def __init__(
        self,
        url: str | None = None,
        channel: str = "socketio",
        write_only: bool = False,
        logger: Any = None,
        json: Any = None,
        *,
        bus: riverbus.Bus | None = None,
        on_gap: OnGap | None = None,
    ) -> None:
        """Raises ValueError for a bad URL."""
        super().__init__(channel=channel, write_only=write_only, logger=logger, json=json)
        self._buses = Buses(url, bus)
        self._on_gap = on_gap
        self._is_listening = asyncio.Event()

    async def listening(self) -> None:
        """Returns once other servers' emits reach this one: what is emitted after that is not missed."""
        await self._is_listening.wait()

    async def close(self) -> None:
        """Close the bus, if it is the manager's own. Done by itself when the event loop ends."""
        await self._buses.close()

    async def _publish(self, data: object) -> None:
        bus = await self._buses.here()
        await bus.publish(self.channel, self.json.dumps(data))

    async def _listen(self) -> AsyncIterator[bytes]:
        bus = await self._buses.here()
        async with bus.subscribe(self.channel) as subscription:
            self._is_listening.set()
            async for item in subscription:
                if isinstance(item, Gap):
                    await self._tell(item)
                else:
                    yield item.payload

    async def _tell(self, gap: Gap) -> None:
        log.warning("emits of other servers in (%s, %s] of %s are gone", gap.after, gap.until, gap.channel)
        if self._on_gap is not None:
            told = self._on_gap(gap)
            if inspect.isawaitable(told):
                await told
