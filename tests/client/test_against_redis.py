"""What Redis and Riverbus have in common, against redis-server: the client's RESP3, history pages and patterns."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio as redis

import riverbus
from riverbus import Message, MessageId
from tests.client.contract import take
from tests.faults.cluster import die_with_parent, free_ports

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="Debian's redis-server is not installed")


@asynccontextmanager
async def redis_server(path: Path) -> AsyncIterator[tuple[riverbus.Bus, redis.Redis]]:
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        *("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(path), "--save", ""),
        stdout=asyncio.subprocess.DEVNULL,
        preexec_fn=die_with_parent,
    )
    try:
        async with (
            asyncio.timeout(20),
            riverbus.connect(f"redis://127.0.0.1:{port}") as bus,
            redis.Redis(host="127.0.0.1", port=port) as client,
        ):
            yield bus, client
    finally:
        process.kill()
        await process.wait()


def test_history_is_read_in_pages_both_ways(tmp_path: Path) -> None:
    async def story() -> None:
        async with redis_server(tmp_path) as (bus, client):
            for i in range(1, 301):
                await client.xadd("c", {"message": f"{i}"}, id=f"{i // 7 + 1}-{i}")
            everything = [Message("c", MessageId(i // 7 + 1, i), b"%d" % i) for i in range(1, 301)]
            assert await bus.history("c") == everything
            assert await bus.history("c", reverse=True) == everything[::-1]
            assert await bus.history("c", limit=100) == everything[:100]
            assert await bus.history("c", "3", "4") == [each for each in everything if each.id and each.id.ms in (3, 4)]
            assert await bus.history("c", f"({everything[8].id}", limit=2) == everything[9:11]
            assert await bus.length("c") == 300

    asyncio.run(story())


def test_a_pattern_subscription_is_redis_own(tmp_path: Path) -> None:
    async def story() -> None:
        async with redis_server(tmp_path) as (bus, client), bus.subscribe(pattern="c.?") as subscription:
            await client.publish("c.1", b"\x00\r\n")
            assert await take(subscription, 1) == [Message("c.1", None, b"\x00\r\n", pattern="c.?")]

    asyncio.run(story())


def test_what_redis_does_not_have_is_said_in_its_words(tmp_path: Path) -> None:
    async def story() -> None:
        async with redis_server(tmp_path) as (bus, _):
            with pytest.raises(riverbus.Refused, match=r"unknown command 'BUS\.PUBLISHRUN'"):
                await bus.publish("c", "x")
            with pytest.raises(riverbus.Refused, match=r"unknown command 'BUS\.SUBSCRIBE'"):
                async with bus.subscribe("c"):
                    pass

    asyncio.run(story())
