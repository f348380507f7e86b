"""Riverbus and a real redis-server, asked the same commands through redis-py, give the same replies and errors."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from riverbus.fuzz import assert_equivalent
from tests.cli.processes import node
from tests.faults.cluster import die_with_parent, free_ports
from tests.fuzz.redis_servers import Commands, Server

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
START_S = 10


@contextmanager
def redis_server(path: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(path), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                assert process.poll() is None
        yield port
    finally:
        process.kill()
        process.wait()


def test_riverbus_replies_as_redis_does(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as port, node(tmp_path / "riverbus") as (url, _):

        def redis() -> Server:
            return Server(port)

        def riverbus() -> Server:
            return Server(int(url.rpartition(":")[2]))

        figures = assert_equivalent(Commands, reference=redis, test=riverbus, errors="message", examples=60)
    assert figures.runs >= 60
