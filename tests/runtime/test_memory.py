"""The collector's settings, and what makes them safe: a connection that ends leaves no cycle behind."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys

import uvloop

from riverbus.client.connection import encode_command
from riverbus.core.clients.session import Session
from riverbus.runtime.clients import Connection
from tests.runtime.test_clients import serving

SCRIPT = """
import gc
from riverbus.runtime import memory
memory.settle()
counts = [generation["collections"] for generation in gc.get_stats()]
kept = [[] for _ in range(3_000_000)]
after = [generation["collections"] for generation in gc.get_stats()]
assert after[0] - counts[0] > 50, after
assert after[1] - counts[1] > 5, after
assert after[2] == counts[2], after
assert gc.get_freeze_count() > 1000
"""


def test_the_old_generation_is_never_collected_by_itself_and_the_young_are() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def living() -> set[str]:
    # By type: isinstance asks the object too, and a lazy one of another library may object.
    return {type(each).__name__ for each in gc.get_objects() if issubclass(type(each), Connection | Session)}


def test_a_client_that_came_subscribed_and_went_is_freed_without_the_collector() -> None:
    async def story() -> None:
        async with serving() as server:
            client = await server.connect()
            client.writer.write(encode_command(b"HELLO", b"3") + encode_command(b"SUBSCRIBE", b"a", b"b"))
            await server.until(lambda: server.node.sessions.fanout.receivers(b"b", 0) == 1)
            assert living() == {"Connection", "Session"}
            await client.close()
            await server.until(lambda: not living())

    gc.collect()
    gc.disable()
    try:
        uvloop.run(asyncio.wait_for(story(), 30))
    finally:
        gc.enable()
