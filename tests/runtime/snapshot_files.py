"""Making snapshots of nothing in particular: what the tests of files and of fetching share."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable

import xxhash

from riverbus.runtime.snapshots import SnapshotStore
from tests.runtime.linked import WAIT_S


def slice_of(payload: bytes) -> bytes:
    return struct.pack("<IQ", len(payload), xxhash.xxh3_64_intdigest(payload)) + payload


def slices(count: int, size: int = 1000, seed: int = 1) -> list[bytes]:
    source = random.Random(seed)
    return [slice_of(source.randbytes(size + number)) for number in range(count)]


async def answer(call: Callable[[Callable[[str | None], None]], None]) -> str | None:
    """What `call` says by its `done`."""
    future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    call(future.set_result)
    async with asyncio.timeout(WAIT_S):
        return await future


async def put(store: SnapshotStore, shard: int, index: int, content: list[bytes]) -> None:
    file = store.create(shard, index)
    for framed in content:
        file.write(framed)
    assert await answer(file.commit) is None


def names(store: SnapshotStore) -> list[str]:
    return sorted(path.name for path in store.directory.iterdir())
