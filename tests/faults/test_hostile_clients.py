"""Clients that break the protocol, send too much, go silent, never read, or come by the thousand.

Each gets a clear error or nothing, the node's memory stays bounded, and a well-behaved client beside them is answered.
"""

from __future__ import annotations

import asyncio
import random
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from tests.faults.cluster import POLL_S, READY_S, Node, running, until
from tests.faults.workload import client_of

MIB = 1024 * 1024
PAYLOAD_BYTES = 1024
ANSWER_S_MAX = 1.0  # promise 4
PUBLISHES_AFTER = 20  # that the well-behaved client makes after the hostile ones did their worst
MALFORMED = [
    b"*1\r\n$-5\r\nPING\r\n",
    b"*1\r\n:5\r\n",
    b"*2\r\n$4\r\nPINGXX$1\r\na\r\n",
    b"*99999999999999999999\r\n",
    b"*1048577\r\n",
    b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$999999999999\r\n",
    b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$536870912\r\n",
    b"*1\r\n*1\r\n*1\r\n$4\r\nPING\r\n",
    b"A" * (128 * 1024),
    b"*2\r\n$4\r\nECHO\r\n$" + b"9" * 70_000,
]
NONSENSE = [
    b"\xff\xfe\x00\x01" * 100 + b"\r\n",
    b"GET / HTTP/1.1\r\n",
    b"*1\r\n$0\r\n\r\n",
]  # well formed, an error and no more


async def connect(node: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", node.resp_port)


async def answer_to(node: Node, data: bytes, timeout_s: float = 5.0) -> tuple[bytes, bool]:
    """What a node says to `data`, and whether it then closed the connection."""
    reader, writer = await connect(node)
    answer, is_closed = b"", False
    try:
        writer.write(data)
        async with asyncio.timeout(timeout_s):
            while part := await reader.read(65_536):
                answer += part
            is_closed = True
    except TimeoutError:
        pass
    except ConnectionError:
        is_closed = True
    finally:
        writer.transport.abort()
    return answer, is_closed


class _Publisher:
    """One client that publishes now and then, and how it was answered. -UNKNOWN is counted; other errors are raised."""

    def __init__(self, node: Node) -> None:
        self._client = client_of(node)
        self.worst_s = 0.0
        self.count = self.unknown = 0
        self.is_stopping = False  # a flag: redis-py can lose a cancellation that meets its own timeouts

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.is_stopping:
            begun = loop.time()
            try:
                await self._client.publish("well-behaved", "x")
            except ResponseError as error:
                if not str(error).startswith("UNKNOWN"):
                    raise
                self.unknown += 1
            self.worst_s, self.count = max(self.worst_s, loop.time() - begun), self.count + 1
            await asyncio.sleep(0.005)
        await self._client.aclose()

    def __str__(self) -> str:
        return f"{self.count} publishes, {self.unknown} unknown, worst {self.worst_s * 1000:.0f} ms"


def directory_in(path: Path) -> Path:
    made = path / "unharmed"
    made.mkdir()
    return made


@asynccontextmanager
async def well_behaved(node: Node, path: Path) -> AsyncIterator[None]:
    """One client that publishes beside the block: every publish is answered, and in time.

    As far as this machine can: the same client does the same at a node of its own, which nobody harms. What that is
    made to wait by a disk and processors that all share, this one may be, too.
    """
    async with running(path, count=1, shards=1) as unharmed:
        here, there = _Publisher(node), _Publisher(unharmed.nodes[0])
        async with asyncio.TaskGroup() as group:
            for publisher in (here, there):
                group.create_task(publisher.run())
            try:
                yield
                after = here.count + PUBLISHES_AFTER
                await until(lambda: here.count >= after, "the well-behaved client is still answered")
            finally:
                here.is_stopping = there.is_stopping = True
    print(f"well-behaved client: {here}; at a node that nobody harms: {there}")
    assert here.unknown <= there.unknown
    assert here.worst_s < ANSWER_S_MAX + there.worst_s


@pytest.mark.timeout(120)
def test_malformed_input_gets_an_error_and_a_close_and_harms_nobody(tmp_path: Path) -> None:
    unharmed = directory_in(tmp_path)

    async def story() -> None:
        async with running(tmp_path, count=1, shards=1) as cluster:
            (node,) = cluster.nodes
            async with well_behaved(node, unharmed):
                for data in MALFORMED:
                    answer, is_closed = await answer_to(node, data)
                    assert is_closed, f"the connection stays open after {data[:60]!r}; it said {answer[:100]!r}"
                    assert answer.startswith(b"-ERR"), f"no clear error to {data[:60]!r} but {answer[:100]!r}"
                for data in NONSENSE:
                    answer, _ = await answer_to(node, data, timeout_s=0.5)
                    assert answer.startswith(b"-ERR"), f"no clear error to {data[:60]!r} but {answer[:100]!r}"
                rng = random.Random(1)
                for _ in range(300):
                    mutated = bytearray(b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$5\r\nhello\r\n" * 3)
                    for _ in range(rng.randrange(1, 5)):
                        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
                    await answer_to(node, bytes(mutated[: rng.randrange(1, len(mutated) + 1)]), timeout_s=0.02)
            assert node.process is not None
            assert node.process.returncode is None

    asyncio.run(story())


@pytest.mark.timeout(120)
def test_an_oversized_payload_is_refused_before_it_is_buffered(tmp_path: Path) -> None:
    unharmed = directory_in(tmp_path)

    async def story() -> None:
        async with running(tmp_path, count=1, shards=1) as cluster:
            (node,) = cluster.nodes
            before = node.rss_bytes()
            async with well_behaved(node, unharmed):
                for _ in range(8):
                    head = b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$%d\r\n" % (64 * MIB)
                    answer, is_closed = await answer_to(node, head + bytes(32 * MIB))
                    assert is_closed
                    assert answer == b"" or answer.startswith(b"-ERR")  # a reset may overtake the error
            assert node.rss_bytes() - before < 64 * MIB

    asyncio.run(story())


@pytest.mark.timeout(120)
def test_two_thousand_idle_and_half_open_connections_cost_little(tmp_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

    unharmed = directory_in(tmp_path)

    async def story() -> None:
        async with running(tmp_path, count=1, shards=1) as cluster:
            (node,) = cluster.nodes
            before, descriptors = node.rss_bytes(), node.descriptors()
            writers: list[asyncio.StreamWriter] = []
            async with well_behaved(node, unharmed):
                for at in range(2000):
                    _, writer = await connect(node)
                    writers.append(writer)
                    if at % 2:  # half a command, and never the rest
                        writer.write(b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$100\r\nhalf")
                grown = node.rss_bytes() - before
                assert grown < 100 * MIB, f"{grown // 2000} bytes a connection"
                for writer in writers:
                    writer.transport.abort()
                deadline = asyncio.get_running_loop().time() + READY_S
                while node.descriptors() > descriptors + 20:
                    assert asyncio.get_running_loop().time() < deadline, "descriptors leak"
                    await asyncio.sleep(POLL_S)

    asyncio.run(story())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", ["SUBSCRIBE flood", "BUS.SUBSCRIBE flood", "PSUBSCRIBE fl*"])
def test_a_subscriber_that_never_reads_costs_no_more_than_its_buffer(tmp_path: Path, command: str) -> None:
    """Four deaf subscribers while 192 MiB go through a window of 16 MiB; one that reads gets all of it."""
    messages = 192 * 1024
    small_window = '[[channel]]\nmatch = "*"\nhistory = { count = 1000000, age = "1h", bytes = "16MiB" }\n'

    unharmed = directory_in(tmp_path)

    async def story() -> None:
        async with running(tmp_path, count=1, shards=1, config=small_window) as cluster:
            (node,) = cluster.nodes
            deaf = []
            for _ in range(4):
                reader, writer = await connect(node)
                writer.write(b"HELLO 3\r\n" + command.encode() + b"\r\n")
                await reader.readuntil(b"flood" if "PSUB" not in command else b"fl*")
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                deaf.append(writer)
            before = node.rss_bytes()
            peak = before
            async with well_behaved(node, unharmed):
                publisher = client_of(node)
                for _ in range(messages // 512):
                    pipeline = publisher.pipeline(transaction=False)
                    for _ in range(512):
                        pipeline.publish("flood", bytes(PAYLOAD_BYTES))
                    await pipeline.execute()
                    peak = max(peak, node.rss_bytes())
                await publisher.aclose()
            print(f"{command}: {before // MIB} MiB before, at most {peak // MIB} MiB")
            assert peak - before < 160 * MIB
            for writer in deaf:
                writer.transport.abort()

    asyncio.run(story())


@pytest.mark.timeout(120)
def test_a_client_that_never_reads_its_replies_is_stopped(tmp_path: Path) -> None:
    """It asks for a long history again and again: it is not read further, or cut; its replies are not held."""

    unharmed = directory_in(tmp_path)

    async def story() -> None:
        async with running(tmp_path, count=1, shards=1) as cluster:
            (node,) = cluster.nodes
            client = client_of(node)
            for _ in range(20):
                await client.publish("long", bytes(256 * 1024))
            await client.aclose()
            before = node.rss_bytes()
            async with well_behaved(node, unharmed):
                _, writer = await connect(node)
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                asked, deadline = 0, asyncio.get_running_loop().time() + 5
                try:
                    while asked < 2000 and asyncio.get_running_loop().time() < deadline:  # 10 GiB of replies
                        writer.write(b"XRANGE long - +\r\n" * 10)
                        asked += 10
                        async with asyncio.timeout(0.1):
                            await writer.drain()
                        assert node.rss_bytes() - before < 256 * MIB
                except (ConnectionError, TimeoutError):
                    pass
                assert node.rss_bytes() - before < 256 * MIB
                writer.transport.abort()

    asyncio.run(story())
