"""The servers that are measured, each started fresh on loopback and stopped at the end of a `with`.

Riverbus as its users start it (`riverbus dev`, `riverbus serve`); redis-server without persistence, as Pub/Sub needs
none, or for Streams with an fsync before each answer; NATS JetStream as three servers with a stream of three replicas
on file, its defaults for all else (no fsync of a write), and limits like Riverbus' own window. Where clients connect is
part of what is measured: `leader` and `others`.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    START_SECONDS_MAX,
    BenchmarkError,
    child,
    find_program,
    free_ports,
    scratch_directory,
    wait_until,
)
from riverbus.core.slots import ShardMap

CHANNEL = "bench"
WINDOW_MESSAGES = 10_000
WINDOW_SECONDS = 300
DELIVERED = "delivered"  # the subject to which the NATS consumer pushes
REPLY_SECONDS_MAX = 3.0
SETTLED_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where clients connect: the node that leads the channel (or its stream), and the other nodes."""

    protocol: str
    leader: int
    others: list[int]
    pid: int
    admin: int = 0  # Riverbus' port for health and status, of one of the nodes

    @property
    def all(self) -> list[int]:
        return [self.leader, *self.others]


# --- Redis ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def redis_server(is_durable: bool = False, snapshots: str = "") -> Iterator[int]:
    """Its port. Durable: it waits for its disk before it answers (appendfsync always), and is one node nevertheless.

    `snapshots` is its `save`: when it writes one.
    """
    program = find_program("redis-server", "redis-server")
    with scratch_directory() as directory:
        port, log = free_ports(1), directory / "log"
        options = ["--bind", "127.0.0.1", "--save", snapshots, "--dir", str(directory)]
        options += ["--appendonly", "yes", "--appendfsync", "always"] if is_durable else ["--appendonly", "no"]
        with child([program, "--port", str(port), *options], log) as process:
            wait_until(lambda: resp_call(port, "PING") == "+PONG", "redis-server", process, log)
            yield port


def resp_call(port: int, *arguments: str) -> str:
    """The reply's first line (bulk strings: their text), of one command on one connection. Raises OSError."""
    encoded = b"*%d\r\n" % len(arguments)
    for argument in arguments:
        encoded += b"$%d\r\n%s\r\n" % (len(argument.encode()), argument.encode())
    with socket.create_connection(("127.0.0.1", port), timeout=REPLY_SECONDS_MAX) as connection:
        connection.sendall(encoded)
        with connection.makefile("rb") as stream:
            line = stream.readline().decode().strip()
            return stream.read(int(line[1:])).decode() if line.startswith("$") else line


# --- NATS JetStream ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def nats_cluster() -> Iterator[Cluster]:
    """Three servers, and a stream of three replicas for CHANNEL and CHANNEL.0, CHANNEL.1, ..."""
    program = find_program("nats-server", "nats-server")
    with scratch_directory() as directory, contextlib.ExitStack() as stack:
        base = free_ports(6)
        routes = ",".join(f'"nats://127.0.0.1:{base + 3 + number}"' for number in range(3))
        started = []
        for number in range(3):
            config, log = directory / f"{number}.conf", directory / f"{number}.log"
            config.write_text(_nats_config(number, base, routes, directory / f"data{number}"))
            started.append((stack.enter_context(child([program, "-c", str(config)], log)), log))
        ports = [base + number for number in range(3)]
        stream = {
            "name": "BENCH",
            "subjects": [CHANNEL, f"{CHANNEL}.*"],
            "num_replicas": 3,
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_msgs_per_subject": WINDOW_MESSAGES,
            "max_age": WINDOW_SECONDS * 10**9,
            "max_bytes": -1,
            "duplicate_window": 120 * 10**9,
        }
        process, log = started[0]
        wait_until(lambda: _is_made(ports[0], "STREAM.CREATE.BENCH", stream), "nats-server", process, log)
        leader = ports[_stream_leader(ports[0])]
        yield Cluster("nats", leader, [port for port in ports if port != leader], process.pid)


def _nats_config(number: int, base: int, routes: str, data: Path) -> str:
    return f"""
        server_name: n{number}
        listen: "127.0.0.1:{base + number}"
        jetstream {{ store_dir: "{data}", max_memory_store: 1GB, max_file_store: 10GB }}
        cluster {{ name: bench, listen: "127.0.0.1:{base + 3 + number}", routes: [{routes}] }}
    """


def _is_made(port: int, call: str, body: dict[str, object]) -> bool:
    """False while the cluster has no leader yet."""
    answer = nats_call(port, f"$JS.API.{call}", body)
    error = answer.get("error")
    if error and error.get("code") != 503 and error.get("err_code") != 10058:  # 10058: made by a call that timed out
        raise BenchmarkError(f"NATS refuses {call}: {error}")
    return not error or error.get("err_code") == 10058


def _stream_leader(port: int) -> int:
    answer = nats_call(port, "$JS.API.STREAM.INFO.BENCH", {})
    try:
        return int(answer["cluster"]["leader"].removeprefix("n"))
    except KeyError:
        raise BenchmarkError(f"NATS names no leader of the stream: {answer}") from None


def push_consumer(cluster: Cluster) -> None:
    """Have the stream's leader push what is committed to DELIVERED: a core NATS subscriber gets it before that."""
    consumer: dict[str, object] = {
        "durable_name": "reader",
        "deliver_subject": DELIVERED,
        "deliver_policy": "new",
        "ack_policy": "none",
        "replay_policy": "instant",
        "num_replicas": 1,
        "mem_storage": True,
    }
    body: dict[str, object] = {"stream_name": "BENCH", "config": consumer}
    if not _is_made(cluster.leader, "CONSUMER.DURABLE.CREATE.BENCH.reader", body):
        raise BenchmarkError("NATS made no consumer")


def nats_call(port: int, subject: str, body: dict[str, object]) -> dict[str, Any]:
    """One request, its reply as JSON; {"error": {"code": 503}} if there is nobody to answer. Raises OSError."""
    payload = json.dumps(body).encode() if body else b""
    with socket.create_connection(("127.0.0.1", port), timeout=REPLY_SECONDS_MAX) as connection:
        stream = connection.makefile("rwb")
        stream.readline()
        connect = b'CONNECT {"verbose":false,"headers":true,"no_responders":true,"protocol":1}\r\n'
        stream.write(connect + b"SUB _INBOX.call 1\r\nPUB %s _INBOX.call %d\r\n" % (subject.encode(), len(payload)))
        stream.write(payload + b"\r\n")
        stream.flush()
        while line := stream.readline():
            words = line.split()
            if words[0] == b"MSG":
                answer: dict[str, Any] = json.loads(stream.read(int(words[-1])))
                return answer
            if words[0] == b"HMSG":
                return {"error": {"code": 503}}
            if words[0] == b"-ERR":
                raise BenchmarkError(f"NATS: {line.decode().strip()}")
    raise ConnectionError("the server hung up")


# --- Riverbus ---------------------------------------------------------------------------------------------------------


def _riverbus(*arguments: str) -> list[str]:
    """The command of this very environment, so that what is measured is the tree that the benchmarks are in."""
    return [sys.executable, "-m", "riverbus.cli", *arguments]


@contextlib.contextmanager
def riverbus_cluster() -> Iterator[Cluster]:
    """`riverbus dev --nodes 3` with its defaults: every acknowledged write is on the disks of two nodes."""
    with scratch_directory() as directory:
        base, log = free_ports(40), directory / "log"
        command = _riverbus("dev", "--nodes", "3", "--base-port", str(base), "--data", str(directory / "data"))
        with child(command, log) as process:
            wait_until(lambda: "ready" in log.read_text(errors="replace").split("\n"), "riverbus dev", process, log)
            admin = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", log.read_text())
            if admin is None:
                raise BenchmarkError(f"riverbus dev names no admin port: {log.read_text()[:300]}")
            leader = base + _settled_leader(int(admin[1])) - 1
            others = [port for port in range(base, base + 3) if port != leader]
            yield Cluster("resp", leader, others, process.pid, int(admin[1]))


def _settled_leader(admin: int) -> int:
    """Which node leads CHANNEL, once leaders are spread evenly and stay: at the start they move."""
    leaders: list[int] = []
    since = time.monotonic()
    until = since + START_SECONDS_MAX
    while time.monotonic() < until:
        before = leaders
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/status", timeout=REPLY_SECONDS_MAX) as response:
            leaders = [shard["leader"] for shard in json.load(response)["shards"]]
        counts = [leaders.count(node) for node in (1, 2, 3)]
        if leaders != before or max(counts) - min(counts) > 1 or 0 in leaders:
            since = time.monotonic()
        elif time.monotonic() - since > SETTLED_SECONDS:
            return leaders[ShardMap(len(leaders)).shard_of(CHANNEL.encode())]
        time.sleep(0.1)
    raise BenchmarkError(f"Riverbus did not spread its leaders: {leaders}")


@contextlib.contextmanager
def riverbus_node(config: str = "") -> Iterator[Cluster]:
    """`riverbus serve`: a cluster of one, fsync before each acknowledgement."""
    with scratch_directory() as directory:
        base, log = free_ports(4), directory / "log"
        command = _riverbus("serve", "--data", str(directory / "data"))
        for offset, flag in enumerate(("--resp", "--http", "--admin", "--peer")):
            command += [flag, f"127.0.0.1:{base + offset}"]
        if config:
            (directory / "riverbus.toml").write_text(config)
            command += ["--config", str(directory / "riverbus.toml")]
        with child(command, log) as process:
            wait_until(lambda: resp_call(base, "PUBLISH", "warm", "up").startswith(":"), "riverbus serve", process, log)
            yield Cluster("resp", base, [], process.pid, base + 2)
