"""The channel layer against the specification of channel layers: channels, groups, flush, capacity, expiry.

Each story has two layers over a bus of its own: they stand for two processes of one site.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from channels.exceptions import ChannelFull

from riverbus.contrib import channels_nouns
from riverbus.contrib.channels import ChannelLayer, LayerGap
from tests.client.fake_server import until
from tests.contrib.layers import is_silent, tell

pytestmark = pytest.mark.timeout(60)


# --- the specification ------------------------------------------------------------------------------------------------


def test_what_is_sent_is_received_in_order_whatever_its_types() -> None:
    message = {
        "type": "a.b",
        "text": "Äöü",
        "bytes": b"\x00\xff",
        "int": -(2**63),
        "float": 0.5,
        "list": [1, [2]],
        "dict": {"nested": {"deep": None}},
        "true": True,
    }

    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        await two.send(channel, message)
        await two.send(channel, {"type": "second"})
        assert await one.receive(channel) == message
        assert await one.receive(channel) == {"type": "second"}
        await one.send(channel, message)
        assert await one.receive(channel) == message
        assert await is_silent(one, channel)

    tell(story)


def test_a_message_sent_is_not_changed_by_its_sender_afterwards() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        message = {"type": "x", "list": [1]}
        await one.send(channel, message)
        message["list"].append(2)  # type: ignore[attr-defined]
        assert await one.receive(channel) == {"type": "x", "list": [1]}

    tell(story)


def test_each_channel_of_a_process_gets_its_own() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        first, second = await one.new_channel(), await one.new_channel("other")
        assert first.startswith("specific.")
        assert second.startswith("other.")
        assert "!" in first
        await two.send(second, {"type": "for the second"})
        await two.send(first, {"type": "for the first"})
        assert await one.receive(first) == {"type": "for the first"}
        assert await one.receive(second) == {"type": "for the second"}

    tell(story)


def test_a_receive_that_is_cancelled_loses_no_message() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        for i in range(20):
            receiving = asyncio.create_task(one.receive(channel))
            sending = asyncio.create_task(two.send(channel, {"type": "n", "n": i}))
            for _ in range(i):
                await asyncio.sleep(0)
            receiving.cancel()
            await sending
            result = (await asyncio.gather(receiving, return_exceptions=True))[0]
            assert (result if isinstance(result, dict) else await one.receive(channel))["n"] == i

    tell(story)


def test_a_send_into_a_full_channel_raises() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        for _ in range(3):
            await one.send(channel, {"type": "x"})
        with pytest.raises(ChannelFull):
            await one.send(channel, {"type": "x"})
        await one.receive(channel)
        await one.send(channel, {"type": "x"})
        large = await one.new_channel("large")
        for _ in range(5):
            await one.send(large, {"type": "x"})
        with pytest.raises(ChannelFull):
            await one.send(large, {"type": "x"})

    tell(story, capacity=3, channel_capacity={"large.*": 5})


def test_a_message_that_nobody_took_in_time_expires_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gaps: list[LayerGap] = []

    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        await one.send(channel, {"type": "old"})
        await two.send(channel, {"type": "old"})
        assert (await one.receive(channel)) == {"type": "old"}
        monkeypatch.setattr(channels_nouns, "now_ms", lambda: time.time_ns() // 1_000_000 + 61_000)
        assert await is_silent(one, channel)
        assert [(gap.group, gap.channels, gap.reason) for gap in gaps] == [(None, (channel,), "expired")]

    tell(story, on_gap=gaps.append)


def test_bad_names_and_messages_are_refused() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        for name in ("¯\\_(ツ)_/¯", "x" * 200, "with space", ""):
            with pytest.raises(TypeError):
                await one.send(name, {"type": "x"})
            with pytest.raises(TypeError):
                await one.group_send(name, {"type": "x"})
        with pytest.raises(AssertionError):
            await one.send("a", "no dict")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="another process"):
            await two.receive(await one.new_channel())

    tell(story)


# --- groups -----------------------------------------------------------------------------------------------------------


def test_a_group_sends_to_its_members_of_all_processes_and_to_nobody_else() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        a, b, c, d = await one.new_channel(), await one.new_channel(), await two.new_channel(), await two.new_channel()
        for layer, channel in ((one, a), (one, b), (two, c)):
            await layer.group_add("room", channel)
        await one.group_add("room", a)  # twice is once
        await one.group_discard("room", b)
        await one.group_discard("room", b)
        await two.group_add("other", d)
        await one.group_send("room", {"type": "hello"})
        assert await one.receive(a) == {"type": "hello"}
        assert await two.receive(c) == {"type": "hello"}
        assert await is_silent(one, a)
        assert await is_silent(one, b)
        assert await is_silent(two, d)

    tell(story)


def test_a_channel_in_several_groups_gets_what_each_is_sent() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        await one.group_add("a", channel)
        await one.group_add("b", channel)
        await two.group_send("a", {"type": "of a"})
        assert await one.receive(channel) == {"type": "of a"}
        await two.group_send("b", {"type": "of b"})
        assert await one.receive(channel) == {"type": "of b"}

    tell(story)


def test_what_was_sent_to_a_group_before_a_channel_joined_is_not_for_it() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        first, second = await one.new_channel(), await one.new_channel()
        await one.group_add("room", first)
        for i in range(20):
            await two.group_send("room", {"type": "before", "n": i})
        await one.group_add("room", second)
        await two.group_send("room", {"type": "after"})
        assert await one.receive(second) == {"type": "after"}
        assert (await one.receive(first))["n"] == 0

    tell(story)


def test_a_group_left_and_joined_again_brings_only_what_is_new() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        await one.group_add("room", channel)
        await one.group_discard("room", channel)
        await one.group_send("room", {"type": "meanwhile"})
        await one.group_add("room", channel)
        await one.group_send("room", {"type": "again"})
        assert await one.receive(channel) == {"type": "again"}

    tell(story)


def test_another_processs_channel_is_put_into_a_group_by_its_process() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        receiving = asyncio.create_task(one.receive(channel))
        await two.group_add("room", channel)
        await two.send(channel, {"type": "marker"})  # after it on the same way
        assert await receiving == {"type": "marker"}
        process = await one._here()
        await until(lambda: "room" in process._groups and bool(process._groups["room"].members))
        await two.group_send("room", {"type": "hello"})
        assert await one.receive(channel) == {"type": "hello"}
        with pytest.raises(ValueError, match="of no process"):
            await one.group_add("room", "by-name")

    tell(story)


def test_flush_forgets_messages_and_groups() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        channel = await one.new_channel()
        await one.group_add("room", channel)
        await one.send(channel, {"type": "x"})
        await one.flush()
        await one.group_send("room", {"type": "y"})
        assert await is_silent(one, channel)

    tell(story)


# --- channels by name -------------------------------------------------------------------------------------------------


def test_a_named_channel_keeps_its_messages_until_someone_comes_and_gives_each_to_one() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        for i in range(40):
            await one.send("tasks", {"type": "n", "n": i})
        taken: list[int] = []

        async def work(layer: ChannelLayer) -> None:
            while len(taken) < 40:
                taken.append((await layer.receive("tasks"))["n"])

        workers = [asyncio.create_task(work(layer)) for layer in (one, two, one)]
        await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)
        assert sorted(taken) == list(range(40))
        receiving = asyncio.create_task(two.receive("tasks"))
        await one.send("tasks", {"type": "live"})
        assert await receiving == {"type": "live"}

    tell(story)


def test_a_named_channel_deleted_by_someone_works_on() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        receiving = asyncio.create_task(one.receive("tasks"))
        await two.send("tasks", {"type": "1"})
        await receiving
        await (await two._here())._bus.execute("FLUSHALL")
        await two.send("tasks", {"type": "2"})
        assert await one.receive("tasks") == {"type": "2"}

    tell(story)


def test_what_expired_in_a_named_channel_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    gaps: list[LayerGap] = []

    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        await one.send("tasks", {"type": "old"})
        monkeypatch.setattr(channels_nouns, "now_ms", lambda: time.time_ns() // 1_000_000 + 61_000)
        await one.send("tasks", {"type": "new"})
        await until(lambda: bool(gaps))
        assert (gaps[0].channels, gaps[0].reason) == (("tasks",), "expired")
        assert await (await one._here())._bus.length("asgi:channel:tasks") == 1

    tell(story, capacity=1, on_gap=gaps.append)


def test_a_named_channel_that_is_full_refuses_whoever_sends() -> None:
    async def story(one: ChannelLayer, two: ChannelLayer) -> None:
        await one.send("tasks", {"type": "1"})
        await two.send("tasks", {"type": "2"})
        with pytest.raises(ChannelFull):
            await two.send("tasks", {"type": "3"})
        assert await one.receive("tasks") == {"type": "1"}
        await two.send("tasks", {"type": "3"})

    tell(story, capacity=2)
