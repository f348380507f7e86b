"""A cluster of three nodes and a redis-server beside it, for all tests of this folder."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cluster import KEEP_EVERYTHING, Cluster, die_with_parent, free_ports, running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with asyncio.Runner() as runner:
        context = running(tmp_path_factory.mktemp("clients"), count=3, shards=4, config=KEEP_EVERYTHING)
        started = runner.run(context.__aenter__())
        try:
            yield started
        finally:
            runner.run(context.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    (port,) = free_ports(1)
    path: Path = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", f"{port}", "--bind", "127.0.0.1", "--save", "", "--dir", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent) as server:
        try:
            while not _answers(port):
                assert server.poll() is None, "redis-server ended"
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.kill()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
            client.sendall(b"PING\r\n")
            return client.recv(7) == b"+PONG\r\n"
    except OSError:
        return False
