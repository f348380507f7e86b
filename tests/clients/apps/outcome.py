"""What each application here does with its servers: it is told their URLs, and prints what came of it as JSON.

The applications run in an environment of their own (requirements.txt), as programs, and know nothing of Riverbus.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import redis.asyncio

# Of Redis they are one and the same, of Riverbus three nodes.
URLS = (os.environ["CLIENT_URLS"].split(",") * 3)[:3]
RUN = uuid.uuid4().hex[:8]  # names of this run's channels and keys
TIMEOUT_S = 30.0


def named(name: str) -> str:
    return f"{name}-{RUN}"


def plain(value: Any) -> Any:
    """As JSON has it, without the run's names."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return value.replace(f"-{RUN}", "").replace(RUN, "RUN")
    if isinstance(value, dict):
        return {str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, set):
        return sorted(plain(each) for each in value)
    return value


def attempt(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result, or the error's text."""
    try:
        return function(*arguments, **options)
    except Exception as error:  # noqa: BLE001 - it is the outcome
        return f"{type(error).__name__}: {error}"


def tell(outcome: Any) -> None:
    json.dump(plain(outcome), sys.stdout)


def run(story: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    async def told() -> Any:
        async with asyncio.timeout(TIMEOUT_S):
            return await story()

    tell(asyncio.run(told()))


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - of what others do
        await asyncio.sleep(0.01)


async def subscribed(url: str, *channels: str, count: int = 1) -> None:
    """Returns once the channels have so many subscribers: applications subscribe in the background."""
    async with redis.asyncio.Redis.from_url(url) as client:
        for channel in channels:
            while (await client.pubsub_numsub(channel))[0][1] < count:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
