"""Something closed with the event loop that it lives on, for objects whose user has no `async with` to put them in.

asyncio has no "loop ends" event, but it closes asynchronous generators that are still suspended, with the loop still
running (`shutdown_asyncgens`: asyncio.run, asyncio.Runner, asgiref, pytest-asyncio and anyio all call it).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable


async def _suspended(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await close()


async def until_loop_ends(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Has `close` awaited at the end of this loop, or at `aclose()` of what this returns, which must be kept."""
    lifetime = _suspended(close)
    await anext(lifetime)
    return lifetime
