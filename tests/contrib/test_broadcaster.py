"""The broadcaster backend: under broadcaster's own Broadcast, and with what only Riverbus' has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import broadcaster
import pytest
from broadcaster._base import Unsubscribed

import riverbus
from riverbus.client.embedded_cluster import EmbeddedCluster
from riverbus.contrib.broadcaster import Broadcast, Event, RiverbusBackend
from riverbus.limits import PLUG_QUEUE_COUNT_MAX


def tell(story: Callable[[riverbus.Bus], Awaitable[None]], **settings: Any) -> None:
    async def told() -> None:
        async with asyncio.timeout(20), riverbus.embedded(settings=settings) as bus:
            await story(bus)

    asyncio.run(told())


def test_under_broadcaster_itself_each_subscriber_gets_its_channel() -> None:
    async def story(bus: riverbus.Bus) -> None:
        async with (
            broadcaster.Broadcast(backend=RiverbusBackend(bus=bus)) as broadcast,
            broadcast.subscribe("a") as first,
            broadcast.subscribe("a") as second,
            broadcast.subscribe("b") as other,
        ):
            await broadcast.publish("a", "hello")
            await broadcast.publish("b", "bye")
            assert await first.get() == broadcaster.Event("a", "hello")
            assert await second.get() == broadcaster.Event("a", "hello")
            assert await other.get() == broadcaster.Event("b", "bye")

    tell(story)


def test_the_last_subscriber_to_leave_ends_the_subscription_and_a_new_one_begins_it() -> None:
    async def story(bus: riverbus.Bus) -> None:
        backend = RiverbusBackend(bus=bus)
        async with Broadcast(backend=backend) as broadcast:
            async with broadcast.subscribe("a") as subscriber:
                pass
            with pytest.raises(Unsubscribed):
                await subscriber.get()
            await broadcast.publish("a", "nobody")
            async with broadcast.subscribe("a") as subscriber:
                await broadcast.publish("a", "somebody")
                assert (await subscriber.get()).message == "somebody"

    tell(story)


def test_two_first_subscribers_at_once_both_get_everything() -> None:
    async def story(bus: riverbus.Bus) -> None:
        async with Broadcast(backend=RiverbusBackend(bus=bus)) as broadcast:
            ready = asyncio.Barrier(3)

            async def listen() -> str:
                async with broadcast.subscribe("a") as subscriber:
                    await ready.wait()
                    return (await subscriber.get()).message

            listeners = [asyncio.create_task(listen()) for _ in range(2)]
            await ready.wait()
            await broadcast.publish("a", "hello")
            assert await asyncio.gather(*listeners) == ["hello", "hello"]

    tell(story)


def test_a_subscriber_that_comes_back_gets_what_it_missed_then_live_and_nothing_twice() -> None:
    async def story(bus: riverbus.Bus) -> None:
        async with Broadcast(backend=RiverbusBackend(bus=bus)) as broadcast:
            async with broadcast.subscribe("a") as subscriber:
                await broadcast.publish("a", "0")
                event = await subscriber.get()
                assert isinstance(event, Event)
            for i in range(1, 4):
                await broadcast.publish("a", f"{i}")
            async with broadcast.subscribe("a", since=event.id) as subscriber:
                await broadcast.publish("a", "4")
                await broadcast.publish("a", "5")
                assert [(await subscriber.get()).message for _ in range(5)] == ["1", "2", "3", "4", "5"]
            async with broadcast.subscribe("a", since="0-0") as subscriber:
                assert (await subscriber.get()).message == "0"  # and leaves in the middle of history

    tell(story)


def test_history_that_is_gone_is_told() -> None:
    async def story(bus: riverbus.Bus) -> None:
        gaps: list[riverbus.Gap] = []
        async with Broadcast(backend=RiverbusBackend(bus=bus)) as broadcast:
            for i in range(10):
                await broadcast.publish("a", f"{i}")
            async with broadcast.subscribe("a", since="0-1", on_gap=gaps.append) as subscriber:
                assert (await subscriber.get()).message == "8"
        assert [gap.channel for gap in gaps] == ["a"]

    tell(story, history={"count": 2})


def test_a_slow_subscriber_reads_on_from_history_and_the_fast_one_does_not_wait() -> None:
    count = PLUG_QUEUE_COUNT_MAX + 300

    async def story(bus: riverbus.Bus) -> None:
        async with (
            Broadcast(backend=RiverbusBackend(bus=bus)) as broadcast,
            broadcast.subscribe("a") as slow,
            broadcast.subscribe("a") as fast,
        ):
            wanted = [f"{i}" for i in range(count)]
            publishing = asyncio.gather(*(broadcast.publish("a", each) for each in wanted))
            assert [(await fast.get()).message for _ in range(count)] == wanted
            await publishing
            assert [(await slow.get()).message for _ in range(count)] == wanted
            await broadcast.publish("a", "live")
            assert (await slow.get()).message == "live"

    tell(story)


def test_over_a_failover_nothing_is_lost() -> None:
    async def story() -> None:
        async with asyncio.timeout(30), EmbeddedCluster() as cluster:
            url = (await cluster.listen()).replace("redis://", "riverbus://")
            async with Broadcast(url) as broadcast, broadcast.subscribe("a") as subscriber:
                await broadcast.publish("a", "before")
                await cluster.failover("a")
                await broadcast.publish("a", "after")
                assert [(await subscriber.get()).message for _ in range(2)] == ["before", "after"]

    asyncio.run(story())


def test_other_urls_are_broadcasters_own() -> None:
    async def story() -> None:
        async with Broadcast("memory://") as broadcast:
            async with broadcast.subscribe("a") as subscriber:
                await broadcast.publish("a", "hello")
                assert (await subscriber.get()).message == "hello"
            with pytest.raises(ValueError, match="history"):
                async with broadcast.subscribe("a", since="0-0"):
                    pass

    asyncio.run(story())
    with pytest.raises(ValueError, match="URL or a bus"):
        RiverbusBackend()
