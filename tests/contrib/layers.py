"""Stories of channel layers: two, as of two processes of one site, over one bus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import riverbus
from riverbus.contrib.channels import ChannelLayer


def tell(story: Callable[[ChannelLayer, ChannelLayer], Awaitable[None]], history: int = 1000, **config: Any) -> None:
    """Two processes' layers over one bus."""

    async def told() -> None:
        async with asyncio.timeout(30), riverbus.embedded(settings={"history": {"count": history}}) as bus:
            one, two = ChannelLayer(bus=bus, **config), ChannelLayer(bus=bus, **config)
            try:
                await story(one, two)
            finally:
                await one.close()
                await two.close()

    asyncio.run(told())


async def is_silent(layer: ChannelLayer, channel: str) -> bool:
    """Nothing is there; a receive that is cancelled takes nothing."""
    try:
        async with asyncio.timeout(0.05):
            await layer.receive(channel)
    except TimeoutError:
        return True
    return False
