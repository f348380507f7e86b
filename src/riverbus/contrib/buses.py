"""One bus for each event loop, for plugs that frameworks make before a loop runs, and call from several.

Django's async_to_sync, for one, runs a new loop for each call of a view. A bus belongs to its loop, and is closed with
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import riverbus
from riverbus.client.lifetime import until_loop_ends

SCHEME_EMBEDDED = "embedded://"


class Buses:
    """`url` is riverbus.connect()'s, or embedded:// for a bus in this process; `bus` is one that is there already."""

    def __init__(
        self, url: str | None, bus: riverbus.Bus | None, on_closed: Callable[[riverbus.Bus], None] = lambda _: None
    ) -> None:
        """Raises ValueError for a bad URL."""
        if (url is None) == (bus is None):
            raise ValueError("give a URL or a bus")
        self._url = url
        self._given = bus
        self._on_closed = on_closed
        self._opened: dict[asyncio.AbstractEventLoop, tuple[riverbus.Bus, AsyncGenerator[None, None]]] = {}
        if url is not None:
            self._open(url)

    async def here(self) -> riverbus.Bus:
        """The bus of the loop that runs now; connected when it is used."""
        if self._given is not None:
            return self._given
        assert self._url is not None
        loop = asyncio.get_running_loop()
        if loop not in self._opened:
            bus = self._open(self._url)

            async def close() -> None:
                self._opened.pop(loop, None)
                self._on_closed(bus)
                await bus.close()

            self._opened[loop] = bus, await until_loop_ends(close)  # which suspends nothing: there is one bus
        return self._opened[loop][0]

    async def close(self) -> None:
        """Closes the bus of this loop, unless it was given. Idempotent."""
        opened = self._opened.get(asyncio.get_running_loop())
        if opened is not None:
            await opened[1].aclose()

    @staticmethod
    def _open(url: str) -> riverbus.Bus:
        return riverbus.embedded() if url == SCHEME_EMBEDDED else riverbus.connect(url)
