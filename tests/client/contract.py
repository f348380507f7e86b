"""What every `Bus` does, whatever carries its bytes: run by each implementation's own test file.

`check_all` takes a function that opens a fresh bus; each check uses channels of its own, so that one bus does for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from riverbus import Bus, Gap, Message, MessageId, Refused, Unreachable

OpenBus = Callable[[], AbstractAsyncContextManager[Bus]]
Check = Callable[[Bus], Awaitable[None]]


async def publish_returns_rising_ids(bus: Bus) -> None:
    ids = [await bus.publish("ids", b"%d" % i) for i in range(10)]
    assert all(isinstance(each, MessageId) for each in ids)
    assert ids == sorted(set(ids))


async def concurrent_publishes_keep_the_order_of_the_calls(bus: Bus) -> None:
    ids = await asyncio.gather(*(bus.publish("order", b"%d" % i) for i in range(500)))
    assert ids == sorted(set(ids))
    assert [message.payload for message in await bus.history("order")] == [b"%d" % i for i in range(500)]


async def history_is_cut_by_ids_limit_and_direction(bus: Bus) -> None:
    ids = [await bus.publish("past", f"m{i}") for i in range(40)]
    everything = [Message("past", id_, f"m{i}".encode()) for i, id_ in enumerate(ids)]
    assert await bus.history("past") == everything
    assert await bus.history("past", reverse=True) == everything[::-1]
    assert await bus.history("past", limit=3) == everything[:3]
    assert await bus.history("past", limit=25) == everything[:25]
    assert await bus.history("past", limit=25, reverse=True) == everything[::-1][:25]
    assert await bus.history("past", ids[10], str(ids[12])) == everything[10:13]
    assert await bus.history("past", f"({ids[10]}", ids[12]) == everything[11:13]
    assert await bus.length("past") == 40


async def a_channel_never_published_to_is_empty(bus: Bus) -> None:
    assert await bus.history("nothing") == []
    assert await bus.length("nothing") == 0


async def a_live_subscription_gets_what_follows_it(bus: Bus) -> None:
    await bus.publish("live", "before")
    async with bus.subscribe("live", on_gap="raise") as subscription:
        id_ = await bus.publish("live", "after")
        assert await take(subscription, 1) == [Message("live", id_, b"after")]


async def a_subscription_since_the_beginning_goes_from_history_to_live(bus: Bus) -> None:
    ids = [await bus.publish("resume", b"%d" % i) for i in range(30)]
    async with bus.subscribe("resume", since="0-0", on_gap="raise") as subscription:
        ids += [await bus.publish("resume", b"%d" % i) for i in range(30, 60)]
        assert await take(subscription, 60) == [Message("resume", id_, b"%d" % i) for i, id_ in enumerate(ids)]


async def a_subscription_since_an_id_starts_right_after_it(bus: Bus) -> None:
    ids = [await bus.publish("since", b"%d" % i) for i in range(5)]
    async with bus.subscribe("since", since=ids[2], on_gap="raise") as subscription:
        assert [message.id for message in await take(subscription, 2)] == ids[3:]


async def one_subscription_holds_several_channels(bus: Bus) -> None:
    await bus.publish("left", "old")
    await bus.publish("right", "old")
    async with bus.subscribe("left", "right", since={"left": "0-0"}, on_gap="raise") as subscription:
        await bus.publish("right", "new")
        found = await take(subscription, 2)
    assert {(message.channel, message.payload) for message in found} == {("left", b"old"), ("right", b"new")}


async def channels_come_to_a_subscription_and_leave_it(bus: Bus) -> None:
    ids = [await bus.publish("late", "missed"), await bus.publish("late", "wanted")]
    async with bus.subscribe("early", on_gap="raise") as subscription:
        await subscription.add("late", since=ids[0])
        await subscription.add("live")
        await bus.publish("live", "one")
        assert {message.payload for message in await take(subscription, 2)} == {b"wanted", b"one"}
        await subscription.remove("live")
        await bus.publish("live", "nobody listens")
        await subscription.add("live")
        await bus.publish("live", "two")
        assert [message.payload for message in await take(subscription, 1)] == [b"two"]
        with pytest.raises(ValueError, match="followed already"):
            await subscription.add("live")
        with pytest.raises(ValueError, match="not followed"):
            await subscription.remove("never")


async def any_other_command_is_answered_in_its_types(bus: Bus) -> None:
    id_ = await bus.execute("XADD", "entries", "*", b"field", 7)
    assert await bus.execute("XRANGE", "entries", "-", "+", is_read=True) == [[id_, [b"field", b"7"]]]
    with pytest.raises(Refused, match="number of arguments"):
        await bus.execute("XLEN")


async def a_pattern_gets_live_messages_without_ids(bus: Bus) -> None:
    async with bus.subscribe(pattern="match.*") as subscription:
        await bus.publish("other", "no")
        await bus.publish("match.one", "yes")
        assert await take(subscription, 1) == [Message("match.one", None, b"yes", pattern="match.*")]


async def names_and_payloads_are_any_bytes(bus: Bus) -> None:
    name, payload = b"\x00\xff\r\n", bytes(range(256)) * 300
    async with bus.subscribe(name, on_gap="raise") as subscription:
        await bus.publish(name, payload)
        (message,) = await take(subscription, 1)
    assert message.payload == payload
    assert message.channel.encode("utf-8", "surrogateescape") == name
    assert (await bus.history(message.channel))[0] == message


async def a_closed_subscription_ends_its_iteration(bus: Bus) -> None:
    subscription = bus.subscribe("closing")
    async with subscription:
        pass
    assert [item async for item in subscription] == []


async def a_position_is_taken_under_the_name_as_text_or_bytes(bus: Bus) -> None:
    id_ = await bus.publish("named", "kept")
    for since in ({"named": "0-0"}, {b"named": "0-0"}):
        for name in ("named", b"named"):
            async with bus.subscribe(name, since=since, on_gap="raise") as subscription:
                assert await take(subscription, 1) == [Message("named", id_, b"kept")]


async def what_would_be_silence_is_a_value_error(bus: Bus) -> None:
    with pytest.raises(ValueError, match="since has a position for 'chta', which is not among the channels"):
        bus.subscribe("chat", since={"chta": "0-0"})
    with pytest.raises(ValueError, match="psubscribe has no reply of its own"):
        await bus.execute("psubscribe", "a*")
    with pytest.raises(ValueError, match="a command has a name"):
        await bus.execute()


async def a_value_of_another_type_is_an_error_of_that_call_alone(bus: Bus) -> None:
    wrong: list[Any] = [None, 5, ["x"], {"x": 1}]
    calls = [bus.publish("typed", f"{at}") for at in range(3)]
    calls += [bus.publish("typed", each) for each in wrong] + [bus.publish(each, "x") for each in wrong]
    calls += [bus.publish("typed", bytearray(b"3")), bus.publish("typed", memoryview(b"4"))]
    async with asyncio.timeout(10):
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in results if isinstance(each, BaseException)] == [TypeError] * 2 * len(wrong)
    assert [message.payload for message in await bus.history("typed")] == [b"0", b"1", b"2", b"3", b"4"]
    for each in wrong:
        with pytest.raises(TypeError):
            bus.subscribe(each)
    with pytest.raises(TypeError, match="a position is a MessageId, str or bytes, not int"):
        bus.subscribe("typed", since=5)  # type: ignore[call-overload]


async def a_closed_bus_says_so_to_each_call(bus: Bus) -> None:
    await bus.close()
    with pytest.raises(Unreachable, match="the bus is closed"):
        await bus.publish("after", "x")
    with pytest.raises(Unreachable, match="the bus is closed"):
        await bus.history("after")
    with pytest.raises(Unreachable, match="the bus is closed"):
        bus.subscribe("after")


CHECKS: list[Check] = [
    publish_returns_rising_ids,
    concurrent_publishes_keep_the_order_of_the_calls,
    history_is_cut_by_ids_limit_and_direction,
    a_channel_never_published_to_is_empty,
    a_live_subscription_gets_what_follows_it,
    a_subscription_since_the_beginning_goes_from_history_to_live,
    a_subscription_since_an_id_starts_right_after_it,
    one_subscription_holds_several_channels,
    channels_come_to_a_subscription_and_leave_it,
    any_other_command_is_answered_in_its_types,
    a_pattern_gets_live_messages_without_ids,
    names_and_payloads_are_any_bytes,
    a_position_is_taken_under_the_name_as_text_or_bytes,
    what_would_be_silence_is_a_value_error,
    a_value_of_another_type_is_an_error_of_that_call_alone,
    a_closed_bus_says_so_to_each_call,
    a_closed_subscription_ends_its_iteration,
]

each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


async def run(open_bus: OpenBus, check: Check) -> None:
    async with asyncio.timeout(20), open_bus() as bus:
        await check(bus)


async def take(subscription: object, count: int) -> list[Message]:
    """The next `count` items, all of which are messages."""
    found: list[Message] = []
    async with asyncio.timeout(10):
        async for item in subscription:  # type: ignore[attr-defined]
            assert not isinstance(item, Gap)
            found.append(item)
            if len(found) == count:
                break
    return found
