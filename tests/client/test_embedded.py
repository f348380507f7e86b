"""The embedded bus: the contract that the client over sockets passes, and what is its own: data that outlives it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import riverbus
from riverbus import Gap, Refused
from riverbus.limits import MESSAGE_BYTES_MAX
from riverbus.runtime.config import ConfigError
from riverbus.runtime.identity import IdentityError
from tests.client import contract
from tests.client.contract import take


@pytest.mark.parametrize("is_durable", [False, True], ids=["memory", "directory"])
@contract.each_check
def test_contract(check: contract.Check, is_durable: bool, tmp_path: Path) -> None:
    @asynccontextmanager
    async def open_bus() -> AsyncIterator[riverbus.Bus]:
        async with riverbus.embedded(tmp_path / "data" if is_durable else None) as bus:
            yield bus

    asyncio.run(contract.run(open_bus, check))


def test_in_memory_it_starts_no_thread() -> None:
    async def story() -> None:
        before = threading.active_count()
        async with riverbus.embedded() as bus:
            await bus.publish("c", "x")
            assert threading.active_count() == before

    asyncio.run(story())


def test_a_message_that_is_too_large_is_refused_by_its_size() -> None:
    async def story() -> None:
        async with riverbus.embedded() as bus:
            words = f"^ERR message of {MESSAGE_BYTES_MAX + 1} bytes, the limit is {MESSAGE_BYTES_MAX}"
            with pytest.raises(Refused, match=words):
                await bus.publish("c", bytes(MESSAGE_BYTES_MAX + 1))

    asyncio.run(story())


def test_one_subscription_takes_as_many_channels_as_a_connection_may() -> None:
    """In time that grows with their number, not with its square; each begins with a cursor of its own."""

    async def story() -> None:
        names = [f"c{at}" for at in range(20_000)]
        async with riverbus.embedded() as bus, asyncio.timeout(30), bus.subscribe(*names, since="0-0") as subscription:
            for name in (names[0], names[-1]):
                await bus.publish(name, "x")
                assert (await anext(subscription)).channel == name
            assert subscription.reconnects == 0

    asyncio.run(story())


def test_two_buses_in_memory_share_nothing() -> None:
    async def story() -> None:
        async with riverbus.embedded() as one, riverbus.embedded() as other:
            await one.publish("c", "x")
            assert (await one.length("c"), await other.length("c")) == (1, 0)

    asyncio.run(story())


def test_in_a_directory_messages_are_there_again_at_the_next_start(tmp_path: Path) -> None:
    async def story() -> None:
        async with riverbus.embedded(tmp_path) as bus:
            ids = [await bus.publish("c", f"{i}") for i in range(20)]
        async with riverbus.embedded(tmp_path) as bus, bus.subscribe("c", since=ids[4], on_gap="raise") as subscription:
            assert [message.id for message in await bus.history("c")] == ids
            assert [message.id for message in await take(subscription, 15)] == ids[5:]
            assert await bus.publish("c", "new") > ids[-1]

    asyncio.run(story())


def test_a_directory_is_one_bus_at_a_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with riverbus.embedded(tmp_path):
            with pytest.raises(IdentityError, match="in use"):
                async with riverbus.embedded(tmp_path):
                    pass

    asyncio.run(story())


def test_a_directory_that_cannot_be_used_is_an_error_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "file").touch()
        with pytest.raises(NotADirectoryError):
            async with asyncio.timeout(2), riverbus.embedded(tmp_path / "file" / "data"):
                pass
        bus = riverbus.embedded(tmp_path / "file" / "data")
        with pytest.raises(NotADirectoryError):
            async with asyncio.timeout(2):
                await bus.publish("c", "x")
        with pytest.raises(NotADirectoryError):
            async with asyncio.timeout(2), bus.subscribe("c"):
                pass
        await bus.close()

    asyncio.run(story())


def test_a_window_that_moved_on_is_a_gap() -> None:
    async def story() -> None:
        async with riverbus.embedded(settings={"history": {"count": 3}}) as bus:
            ids = [await bus.publish("c", f"{i}") for i in range(10)]
            async with bus.subscribe("c", since=ids[1]) as subscription:
                gap = await anext(subscription)
                assert isinstance(gap, Gap)
                assert (gap.channel, gap.after) == ("c", ids[1])
                assert ids[1] < gap.until < ids[7]  # type: ignore[operator]
                assert [message.id for message in await take(subscription, 3)] == ids[7:]

    asyncio.run(story())


def test_an_error_of_its_own_ends_it_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        async with riverbus.embedded() as bus:
            bus._commander._deadline = 0.2
            subscription = bus.subscribe("c")
            await subscription.__aenter__()

            def fail(*_: object) -> None:
                raise AssertionError("broken for the test")

            monkeypatch.setattr("riverbus.core.engine.Engine.on_applied", fail)
            with pytest.raises(riverbus.OutcomeUnknown):
                await bus.publish("c", "x")
            with pytest.raises(riverbus.Unreachable, match="broken for the test"):
                await bus.publish("c", "x")
            with pytest.raises(riverbus.Unreachable, match="broken for the test"):
                async with asyncio.timeout(5):
                    await anext(subscription)
            assert len(reported) == 1

    asyncio.run(story())


def test_bad_settings_are_refused_with_the_key() -> None:
    with pytest.raises(ConfigError, match="histroy"):
        riverbus.embedded(settings={"histroy": {"count": 3}})
