"""The fault proxy itself: what it does to the bytes between two ends, and that it takes it back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.faults.proxy import Network, Weather

THERE, BACK = (1, 2), (2, 1)
SHORT_S = 0.15

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Between:
    """Two ends: `dialer` reached `target` through the network."""

    def __init__(self, network: Network, port: int, accepted: asyncio.Queue[Ends]) -> None:
        self.network = network
        self._port = port
        self._accepted = accepted
        self.writers: list[asyncio.StreamWriter] = []

    async def dial(self) -> Ends:
        ends = await asyncio.open_connection("127.0.0.1", self._port)
        self.writers.append(ends[1])
        return ends

    async def accepted(self) -> Ends:
        async with asyncio.timeout(5):
            ends = await self._accepted.get()
        self.writers.append(ends[1])
        return ends


@asynccontextmanager
async def between() -> AsyncIterator[Between]:
    accepted: asyncio.Queue[Ends] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted.put((reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    network = Network(random.Random(1))  # whose first draw is below a half: with a loss of 0.5 the first is lost
    port = await network.open(1, 2, server.sockets[0].getsockname()[1])
    ends = Between(network, port, accepted)
    try:
        yield ends
    finally:
        server.close()
        await network.close()
        for writer in ends.writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in ends.writers), return_exceptions=True)


async def read(reader: asyncio.StreamReader, count: int) -> bytes:
    async with asyncio.timeout(5):
        return await reader.readexactly(count)


async def is_silent(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(SHORT_S):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


def run(story: Callable[[Between], Awaitable[None]]) -> None:
    async def told() -> None:
        async with between() as ends:
            await story(ends)

    asyncio.run(told())


def test_bytes_and_the_end_pass_when_nothing_is_wrong() -> None:
    async def story(ends: Between) -> None:
        reader, writer = await ends.dial()
        far_reader, far_writer = await ends.accepted()
        writer.write(b"there")
        far_writer.write(b"back")
        assert (await read(far_reader, 5), await read(reader, 4)) == (b"there", b"back")
        writer.close()
        assert await far_reader.read() == b""

    run(story)


def test_one_way_held_keeps_bytes_until_it_heals_and_the_other_way_passes() -> None:
    async def story(ends: Between) -> None:
        reader, writer = await ends.dial()
        far_reader, far_writer = await ends.accepted()
        with ends.network.held([THERE]):
            writer.write(b"there")
            far_writer.write(b"back")
            assert await read(reader, 4) == b"back"
            assert await is_silent(far_reader)
        assert await read(far_reader, 5) == b"there"

    run(story)


def test_a_connection_made_while_a_way_is_held_waits_for_it() -> None:
    async def story(ends: Between) -> None:
        with ends.network.held([BACK]):
            _, writer = await ends.dial()
            writer.write(b"there")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT_S):
                    await ends.accepted()
        far_reader, _ = await ends.accepted()
        assert await read(far_reader, 5) == b"there"

    run(story)


def test_the_end_of_a_connection_is_not_heard_through_a_held_way() -> None:
    async def story(ends: Between) -> None:
        _, writer = await ends.dial()
        far_reader, _ = await ends.accepted()
        with ends.network.held([THERE]):
            writer.close()
            assert await is_silent(far_reader)
        async with asyncio.timeout(5):
            assert await far_reader.read() == b""

    run(story)


@pytest.mark.parametrize("weather", [Weather(delay_s=SHORT_S), Weather(loss=0.5), Weather(bytes_per_s=1000 / SHORT_S)])
def test_weather_delays_and_keeps_the_order(weather: Weather) -> None:
    async def story(ends: Between) -> None:
        _, writer = await ends.dial()
        far_reader, _ = await ends.accepted()
        begun = asyncio.get_running_loop().time()
        data = bytes(range(250)) * 4
        with ends.network.under([THERE], weather):
            for at in range(0, len(data), 100):
                writer.write(data[at : at + 100])
                await writer.drain()
            assert await read(far_reader, len(data)) == data
            assert asyncio.get_running_loop().time() - begun >= 0.9 * SHORT_S

    run(story)


def test_what_weather_held_up_passes_in_order_when_it_clears() -> None:
    async def story(ends: Between) -> None:
        _, writer = await ends.dial()
        far_reader, _ = await ends.accepted()
        with ends.network.under([THERE], Weather(delay_s=60)):
            writer.write(b"first ")
            assert await is_silent(far_reader)
        writer.write(b"second")
        assert await read(far_reader, 12) == b"first second"

    run(story)


def test_a_reset_is_a_reset_for_both_and_half_open_tells_only_one() -> None:
    async def story(ends: Between) -> None:
        (reader, _), (far_reader, _) = await ends.dial(), await ends.accepted()
        (pipe,) = ends.network.pipes
        pipe.reset()
        for each in (reader, far_reader):
            with pytest.raises(ConnectionResetError):
                await read(each, 1)

        (reader, _), (far_reader, _) = await ends.dial(), await ends.accepted()
        (pipe,) = ends.network.pipes
        pipe.leave_half_open(pipe.dialer)
        with pytest.raises(ConnectionResetError):
            await read(reader, 1)
        assert await is_silent(far_reader)

    run(story)


def test_a_refused_way_ends_connections_and_refuses_new_ones() -> None:
    async def story(ends: Between) -> None:
        reader, _ = await ends.dial()
        await ends.accepted()
        with ends.network.refused([THERE]):
            with pytest.raises(ConnectionResetError):
                await read(reader, 1)
            again, _ = await ends.dial()
            with pytest.raises(ConnectionResetError):
                await read(again, 1)
        _, writer = await ends.dial()
        writer.write(b"there")
        assert await read((await ends.accepted())[0], 5) == b"there"

    run(story)


def test_a_sender_whose_bytes_do_not_pass_is_not_read() -> None:
    async def story(ends: Between) -> None:
        _, writer = await ends.dial()
        far_reader, _ = await ends.accepted()
        data = bytes(64 * 1024 * 1024)
        with ends.network.held([THERE]):
            writer.write(data)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT_S):
                    await writer.drain()
        assert await read(far_reader, len(data)) == data

    run(story)
