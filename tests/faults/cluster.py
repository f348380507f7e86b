"""Real `riverbus serve` processes on loopback: started, killed, paused, wiped, and never left behind.

`running(tmp_path)` gives a `Cluster` that can commit. Everything waits by asking the node itself, with a deadline. When
a test fails, the end of each node's log is printed with it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import riverbus
from tests.ports import PORTS

POLL_S = 0.05
READY_S = 30.0
LOG_TAIL_BYTES = 6000
PR_SET_PDEATHSIG = 1

KEEP_EVERYTHING = """
[[channel]]
match = "*"
history = { count = 10000000, age = "24h", bytes = "2GiB" }
"""


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now. Held together while chosen, so that they differ."""
    chosen: list[int] = []
    held: list[socket.socket] = []
    try:
        while len(chosen) < count:
            port = random.choice(PORTS)
            probe = socket.socket()
            held.append(probe)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen.append(port)
    finally:
        for probe in held:
            probe.close()
    return chosen


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Node:
    id: int
    data: Path
    log: Path
    resp_port: int
    http_port: int
    admin_port: int
    peer_port: int
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)  # beside the tests' own
    program: tuple[str, ...] = ("riverbus.cli",)
    process: asyncio.subprocess.Process | None = None
    is_paused: bool = False

    async def start(self) -> None:
        assert self.process is None, "a node is started once until it is killed"
        # A variable of the tests, such as RIVERBUS_FAULTS, would be an unknown key of the node's configuration.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RIVERBUS_")}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *self.program, "serve"),
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=inherited | self.environment,
                preexec_fn=die_with_parent,
            )

    async def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        await self.stop(signal.SIGKILL)

    async def stop(self, number: int = signal.SIGTERM) -> int | None:
        process, self.process = self.process, None
        self.is_paused = False
        if process is None:
            return None
        if process.returncode is None:
            process.send_signal(number)
        async with asyncio.timeout(READY_S):
            return await process.wait()

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.is_paused = False

    async def wait_exit(self, timeout_s: float = READY_S) -> int:
        """The exit code of a process that should end by itself."""
        assert self.process is not None
        async with asyncio.timeout(timeout_s):
            code = await self.process.wait()
        self.process = None
        return code

    def put_data_at(self, path: Path) -> None:
        self.arguments[self.arguments.index("--data") + 1] = str(path)
        self.data = path

    def wipe(self) -> None:
        assert self.process is None, "only a dead node's disk is lost"
        shutil.rmtree(self.data)

    async def get(self, path: str) -> tuple[int, bytes]:
        """An admin endpoint's status and body. Raises OSError when the node does not answer."""
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.admin_port)
            try:
                writer.write(b"GET %b HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n" % path.encode())
                answer = await reader.read()
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head:
            raise ConnectionError("no answer")
        if b"transfer-encoding: chunked" in head.lower():
            body = _unchunked(body)
        return int(head.split(b" ", 2)[1]), body

    async def is_ready(self) -> bool:
        try:
            return (await self.get("/readyz"))[0] == 200
        except (OSError, TimeoutError):
            return False

    async def status(self) -> dict[str, Any]:
        """Raises OSError or TimeoutError when the node does not answer."""
        code, body = await self.get("/status")
        assert code == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    async def wait_ready(self, timeout_s: float = READY_S) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not await self.is_ready():
            if self.process is not None and self.process.returncode is not None:
                raise AssertionError(f"node {self.id} ended with code {self.process.returncode}\n{self.log_tail()}")
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"node {self.id} is not ready after {timeout_s} s\n{self.log_tail()}")
            await asyncio.sleep(POLL_S)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self) -> str:
        return f"--- log of node {self.id} ---\n{self.log_text()[-LOG_TAIL_BYTES:]}"

    def rss_bytes(self) -> int:
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def descriptors(self) -> int:
        assert self.process is not None
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


class Cluster:
    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return "redis://" + ",".join(f"127.0.0.1:{node.resp_port}" for node in self.nodes)

    def connect(self, deadline: float = 30.0) -> riverbus.Bus:
        return riverbus.connect(self.url, deadline=deadline)

    def node(self, node_id: int) -> Node:
        return self.nodes[node_id - 1]

    async def start(self) -> None:
        for node in self.nodes:
            if node.process is None:
                await node.start()

    async def wait_ready(self, timeout_s: float = READY_S) -> None:
        await asyncio.gather(*(node.wait_ready(timeout_s) for node in self.nodes))

    async def statuses(self) -> list[dict[str, Any]]:
        return await asyncio.gather(*(node.status() for node in self.nodes))

    async def busiest_leader(self) -> Node:
        """The node that leads the most shards, as a node that is ready sees it."""
        for node in self.nodes:
            if node.process is not None and not node.is_paused and await node.is_ready():
                leaders = [shard["leader"] for shard in (await node.status())["shards"]]
                return self.node(max(sorted(set(leaders)), key=leaders.count))
        raise AssertionError("no node is ready")

    async def wait_converged(self, timeout_s: float = READY_S) -> list[dict[str, Any]]:
        """All replicas of each shard at the same entry with the same hash, nothing being written. Their statuses."""

        def is_converged(statuses: list[dict[str, Any]]) -> bool:
            states = [[(s["shard"], s["applied"], s["hash"]) for s in each["shards"]] for each in statuses]
            return all(state == states[0] for state in states)

        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            statuses = await self.statuses()
            if is_converged(statuses):
                return statuses
            if asyncio.get_running_loop().time() > deadline:
                lines = [str([(s["applied"], s["hash"][:8]) for s in each["shards"]]) for each in statuses]
                raise AssertionError("replicas have not converged:\n" + "\n".join(lines))
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        for node in self.nodes:
            await node.kill()


def make_cluster(path: Path, count: int, shards: int, config: str) -> Cluster:
    """Directories, ports and arguments of a cluster whose processes are not started yet."""
    ports = iter(free_ports(count * 4))
    secret = path / "secret"
    secret.write_text("a secret of this test only\n")
    secret.chmod(0o600)
    config_file = path / "riverbus.toml"
    config_file.write_text(config)
    nodes = [
        Node(i, path / f"node{i}", path / f"node{i}.log", next(ports), next(ports), next(ports), next(ports))
        for i in range(1, count + 1)
    ]
    members = ",".join(f"{node.id}=127.0.0.1:{node.peer_port}" for node in nodes)
    for node in nodes:
        node.arguments = [
            *("--data", str(node.data), "--resp", f"127.0.0.1:{node.resp_port}"),
            *("--http", f"127.0.0.1:{node.http_port}", "--admin", f"127.0.0.1:{node.admin_port}"),
            *("--peer", f"127.0.0.1:{node.peer_port}", "--node-id", str(node.id), "--cluster", members),
            *("--secret-file", str(secret), "--shards", str(shards), "--config", str(config_file)),
        ]
    return Cluster(nodes)


@asynccontextmanager
async def supervised(cluster: Cluster) -> AsyncIterator[Cluster]:
    """Started and able to commit; its logs printed when the block fails; killed at its end."""
    try:
        await cluster.start()
        await cluster.wait_ready()
        yield cluster
    except BaseException:
        for node in cluster.nodes:
            print(node.log_tail())
        raise
    finally:
        await cluster.close()


@asynccontextmanager
async def running(path: Path, count: int = 3, shards: int = 4, config: str = KEEP_EVERYTHING) -> AsyncIterator[Cluster]:
    async with supervised(make_cluster(path, count, shards, config)) as cluster:
        yield cluster


async def until(condition: Callable[[], bool], what: str, timeout_s: float = READY_S) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(POLL_S)


def _unchunked(body: bytes) -> bytes:
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        found.append(rest[:length])
        body = rest[length + 2 :]
        if not length:
            break
    return b"".join(found)
