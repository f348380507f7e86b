"""What other channel layers drop and this one does not, or tells; and its lives on several event loops."""

from __future__ import annotations

import asyncio
import time

import pytest
from asgiref.sync import async_to_sync

import riverbus
from riverbus.client.embedded_cluster import EmbeddedCluster
from riverbus.contrib import channels_process
from riverbus.contrib.channels import ChannelLayer, LayerGap
from tests.client.fake_server import until
from tests.contrib.layers import is_silent, tell

pytestmark = pytest.mark.timeout(60)


# --- what other layers drop -------------------------------------------------------------------------------------------


def test_a_consumer_that_is_slow_gets_everything_from_history_when_it_catches_up() -> None:
    gaps: list[LayerGap] = []

    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        slow, fast = await one.new_channel(), await one.new_channel()
        await one.group_add("room", slow)
        await one.group_add("room", fast)
        for i in range(57):
            await two.group_send("room", {"type": "g", "n": i})
            await two.send(slow, {"type": "s", "n": i})
            assert (await one.receive(fast))["n"] == i
        found = [await one.receive(slow) for _ in range(2 * 57)]
        for kind in ("g", "s"):
            assert [message["n"] for message in found if message["type"] == kind] == list(range(57))
        await two.group_send("room", {"type": "live"})
        assert await one.receive(slow) == {"type": "live"}
        assert await is_silent(one, slow)
        assert gaps == []

    tell(story, capacity=5, on_gap=gaps.append)


def test_what_left_the_history_before_a_slow_consumer_came_is_told() -> None:
    gaps: list[LayerGap] = []

    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        await one.group_add("room", channel)
        for i in range(30):
            await two.group_send("room", {"type": "g", "n": i})
        found = [(await one.receive(channel))["n"] for _ in range(4 + 10)]
        assert found == [0, 1, 2, 3, *range(20, 30)]
        assert await is_silent(one, channel)
        (gap,) = gaps
        assert (gap.group, gap.channels, gap.reason) == ("room", (channel,), "trimmed")

    tell(story, history=10, capacity=4, on_gap=gaps.append)


def test_a_hook_may_be_a_coroutine_named_in_the_settings() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        await one.group_add("room", channel)
        for i in range(9):
            await two.group_send("room", {"type": "g", "n": i})
        assert [(await one.receive(channel))["n"] for _ in range(3)] == [0, 7, 8]
        await until(lambda: bool(told_of))
        assert told_of[0].group == "room"

    told_of.clear()
    tell(story, history=2, capacity=1, on_gap=f"{__name__}.hook")


told_of: list[LayerGap] = []


async def hook(gap: LayerGap) -> None:
    await asyncio.sleep(0)
    told_of.append(gap)


def test_over_a_failover_every_member_gets_every_message_once() -> None:
    async def story() -> None:
        async with asyncio.timeout(30), EmbeddedCluster() as cluster:
            url = await cluster.listen() + "?deadline=20"
            one, two = ChannelLayer(url), ChannelLayer(url)
            channel = await one.new_channel()
            await one.group_add("room", channel)
            failover = asyncio.create_task(cluster.failover())
            sent, unknown, i = [], 0, 0
            while not failover.done() or i < 50:
                try:
                    await two.group_send("room", {"type": "n", "n": i})
                    sent.append(i)
                except riverbus.OutcomeUnknown:
                    unknown += 1
                i += 1
            await failover
            await two.group_send("room", {"type": "n", "n": -1})
            received = []
            while (number := (await one.receive(channel))["n"]) != -1:
                received.append(number)
            assert received == sorted(set(received))
            assert set(sent) <= set(received)
            assert len(received) <= len(sent) + unknown
            await one.close()
            await two.close()

    asyncio.run(story())


# --- loops and lives --------------------------------------------------------------------------------------------------


def test_views_that_are_not_async_send_from_loops_of_their_own() -> None:
    async def story() -> None:
        async with asyncio.timeout(30), EmbeddedCluster(nodes=1) as cluster:
            layer = ChannelLayer(await cluster.listen())
            channel = await layer.new_channel()
            await layer.group_add("room", channel)

            def view() -> None:
                for i in range(3):
                    async_to_sync(layer.group_send, force_new_loop=True)("room", {"type": "n", "n": i})

            await asyncio.to_thread(view)
            assert [(await layer.receive(channel))["n"] for _ in range(3)] == [0, 1, 2]
            assert len(layer._buses._opened) == 1
            assert len(layer._processes) == 1
            await layer.close()

    asyncio.run(story())


def test_a_layer_that_nobody_closed_ends_with_its_loop() -> None:
    layer = ChannelLayer("embedded://")

    async def story() -> None:
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "x"})
        assert await layer.receive(channel) == {"type": "x"}

    asyncio.run(story())
    asyncio.run(story())
    assert layer._processes == {}


def test_a_consumer_that_went_away_leaves_its_groups_and_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        await one.group_add("room", channel)
        assert await is_silent(one, channel)
        process = await one._here()
        assert channel in process._queues
        monkeypatch.setattr(channels_process, "_monotonic_s", lambda: time.monotonic() + 61)
        await one.new_channel()
        await until(lambda: channel not in process._queues and not process._groups)

    tell(story)
