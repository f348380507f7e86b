"""Tests of your own program against a cluster in the test's process, which can be made to fail.

Needs the extra: pip install 'riverbus[pytest]'. No node needs to run; `pytest` finds the `riverbus` fixture by itself.
"""

import asyncio
import os
import sys

import pytest

import riverbus as client


async def place_order(bus: client.Bus, order: str) -> None:
    """The program under test: it wants its order in the channel once, whatever happens."""
    await bus.publish("orders", order)


def test_an_order_is_placed_once_over_a_failover(riverbus) -> None:  # type: ignore[no-untyped-def]
    async def story() -> None:
        async with riverbus.connect(deadline=20) as bus:
            failover = asyncio.create_task(riverbus.failover())
            for number in range(100):
                await place_order(bus, f"order {number}")
            await failover
            orders = [message.payload.decode() for message in await bus.history("orders")]
            assert orders == [f"order {number}" for number in range(100)]

    asyncio.run(story())


@pytest.mark.riverbus(nodes=1, settings={"history": {"count": 10}})
def test_a_consumer_that_was_slow_is_told_what_it_missed(riverbus) -> None:  # type: ignore[no-untyped-def]
    async def story() -> None:
        async with riverbus.connect() as bus, bus.subscribe("prices") as prices:
            async with riverbus.slow_consumers():
                for number in range(50):
                    await bus.publish("prices", f"{number}")
            assert isinstance(await anext(prices), client.Gap)
            assert (await anext(prices)).payload == b"40"

    asyncio.run(story())


if __name__ == "__main__":
    options = ["-q", "-p", "riverbus.contrib.pytest_plugin", "-p", "no:cacheprovider"]
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *options, __file__])
