"""`riverbus dev --nodes 3`: a cluster on this machine, of real nodes in processes of their own.

Node i (from 0) has its ports at P+i for Redis clients, then, a stride further each, for peers, admin and HTTP. When
the cluster can commit, the one line `ready` is printed. The nodes' logs are files beside their data. A node that dies
before that ends the command with what it said; one that is killed later is left dead, as the others must do without it,
and the command that starts it again is printed. No node outlives this process, however it ends (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import shlex
import signal
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from riverbus import limits
from riverbus.cli import output
from riverbus.cli.admin_client import ask
from riverbus.runtime.units import Address

if TYPE_CHECKING:
    from riverbus.runtime.config import Config

STRIDE_MIN = 10
READY_DEADLINE_S = 60.0
STOP_DEADLINE_S = 10.0
POLL_S = 0.1
LOG_TAIL_LINES = 5
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)  # before the fork: nothing may be loaded between it and the exec


@dataclass
class Node:
    id: int
    resp: Address
    peer: Address
    admin: Address
    log: Path
    command: list[str]
    process: asyncio.subprocess.Process | None = None
    log_begin: int = 0  # where this life's part of the log begins

    def ask(self, path: str, config: Config) -> tuple[int, Any]:
        """As `admin_client.ask`. Our own child on this machine: that it is the one is seen by its process number."""
        token = config.admin.token
        return ask(
            self.admin,
            path,
            None if token is None else token.get_secret_value(),
            _any_certificate() if config.admin.tls.is_on else None,
        )

    def log_tail(self) -> list[str]:
        lines = self.log.read_bytes()[self.log_begin :].decode(errors="replace").splitlines()
        return [line for line in lines if line.strip()][-LOG_TAIL_LINES:]


def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def dev(
    nodes: Annotated[int, typer.Option(min=1, max=limits.NODES_MAX, help="How many.")] = 3,
    base_port: Annotated[
        int, typer.Option(metavar="P", min=1, max=65_535, help="Node i (from 0) serves Redis clients on P+i.")
    ] = 6380,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Directory of all nodes' data.")] = Path(
        "riverbus-data/dev"
    ),
    shards: Annotated[int | None, typer.Option(help="As for serve.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file for all nodes.")] = None,
) -> None:
    """Run a cluster on this machine until Ctrl-C."""
    stride = max(STRIDE_MIN, nodes)
    if base_port + 3 * stride + nodes > 65_536:
        last = base_port + 3 * stride + nodes - 1
        output.fail(f"--base-port {base_port}: {nodes} nodes need the ports up to {last}", code=output.USAGE)
    more = [] if shards is None else ["--shards", str(shards)]
    more += [] if config is None else ["--config", str(config)]
    settings = _settings(config)
    try:
        secret_file = _secret_file(data)
    except OSError as error:
        output.fail(f"--data {data}: {error.strerror}")
    members = _plan(nodes, base_port, stride, data, ["--secret-file", str(secret_file), *more])
    raise typer.Exit(asyncio.run(_run(members, settings)))


def _settings(path: Path | None) -> Config:
    """What the nodes will read, but for what this command says to each. Ends the command when it is wrong."""
    from riverbus.runtime.config import ConfigError, load

    here = {"listen": "127.0.0.1:0"}
    flags = {"node": {"id": 1, "cluster": ""}, "resp": here, "peer": here, "admin": here, "http": here}
    try:
        return load(path, flags)
    except ConfigError as error:
        output.fail(*error.problems, code=output.USAGE)


def _secret_file(data: Path) -> Path:
    """A secret of this cluster's own, kept with its data. Raises OSError."""
    data.mkdir(parents=True, exist_ok=True)
    path = data / "secret"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32) + "\n")
    return path


def _plan(count: int, base_port: int, stride: int, data: Path, more: list[str]) -> list[Node]:
    def address(kind: int, number: int) -> Address:
        return Address("127.0.0.1", base_port + kind * stride + number)

    cluster = ",".join(f"{number + 1}={address(1, number)}" for number in range(count))
    program = [sys.executable, "-m", "riverbus.cli", "serve"]
    members = []
    for number in range(count):
        resp, peer, admin, http = (address(kind, number) for kind in range(4))
        command = [*program, "--node-id", str(number + 1), "--data", str(data / f"node-{number + 1}")]
        command += ["--resp", str(resp), "--peer", str(peer), "--admin", str(admin), "--http", str(http)]
        command += ["--cluster", cluster, *more]
        members.append(Node(number + 1, resp, peer, admin, data / f"node-{number + 1}.log", command))
    return members


async def _run(members: list[Node], config: Config) -> int:
    """The exit code."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        for node in members:
            await _start(node)
        stopping = asyncio.create_task(stop.wait())
        readying = asyncio.create_task(_until_ready(members, config))
        await asyncio.wait([stopping, readying], return_when=asyncio.FIRST_COMPLETED)
        if not readying.done():
            readying.cancel()
            return 0
        if problems := readying.result():
            print("riverbus: " + "\n  ".join(problems), file=sys.stderr)
            return output.FAILED
        _introduce(members, config)
        return await _watch(members, stopping)
    finally:
        await _stop(members)


async def _start(node: Node) -> None:
    parent = os.getpid()

    def die_with_parent() -> None:
        # A session of its own: Ctrl-C on the terminal is for this process, which then stops the nodes in order.
        os.setsid()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before we could ask to be told

    with node.log.open("ab") as log:
        node.log_begin = log.tell()
        node.process = await asyncio.create_subprocess_exec(
            *node.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,
            env={**os.environ, "RIVERBUS_LOG_FORMAT": os.environ.get("RIVERBUS_LOG_FORMAT", "text")},
        )


async def _until_ready(members: list[Node], config: Config) -> list[str]:
    """Returns when every node can commit, with no problem; or with why that will not be."""
    deadline = asyncio.get_running_loop().time() + READY_DEADLINE_S
    waiting: dict[int, str] = {node.id: "has not been asked" for node in members}
    while waiting:
        for node in members:
            if node.process is not None and node.process.returncode is not None:
                return [f"node {node.id} ended with code {node.process.returncode}", *node.log_tail()]
        if asyncio.get_running_loop().time() > deadline:
            return [f"node {id_} is not ready after {READY_DEADLINE_S:.0f} s: {why}" for id_, why in waiting.items()]
        for node in members:
            if node.id in waiting:
                reasons = await asyncio.to_thread(_unready, node, config)
                if reasons:
                    waiting[node.id] = reasons
                else:
                    del waiting[node.id]
        if waiting:
            await asyncio.sleep(POLL_S)
    return []


def _unready(node: Node, config: Config) -> str:
    """Why the node is not ready; "" if it is. Whoever had the port before us may answer, and be ready."""
    assert node.process is not None
    try:
        _, state = node.ask("/status", config)
        if not isinstance(state, dict) or state.get("process") != node.process.pid:
            return f"another process answers at {node.admin}"
        code, answer = node.ask("/readyz", config)
    except OSError as error:
        return output.reason(error)
    return "" if code == 200 else "; ".join(answer["reasons"])


def _introduce(members: list[Node], config: Config) -> None:
    leads: dict[int, list[str]] = {node.id: [] for node in members}
    for shard in members[0].ask("/status", config)[1]["shards"]:
        leads.setdefault(shard["leader"], []).append(str(shard["shard"]))
    redis, http = ("rediss" if config.tls.is_on else "redis"), ("https" if config.admin.tls.is_on else "http")
    for node in members:
        assert node.process is not None
        print(
            f"node {node.id}: {redis}://{node.resp}  {http}://{node.admin}/metrics  process {node.process.pid}  "
            f"leads shards {' '.join(leads[node.id]) or 'none'}  log {node.log}"
        )
    cli = "redis-cli --tls" if config.tls.is_on else "redis-cli"
    port = members[0].resp.port
    print(f"try:    {cli} -p {port} subscribe chat    {cli} -p {members[-1].resp.port} publish chat hi")
    print(f"        riverbus log chat --url {redis}://{members[0].resp}    riverbus status --admin {members[0].admin}")
    print("ready", flush=True)


async def _watch(members: list[Node], stopping: asyncio.Task[bool]) -> int:
    """Until it is told to stop, or no node is left."""
    alive = {asyncio.create_task(_wait(node)): node for node in members}
    while alive:
        done, _ = await asyncio.wait([stopping, *alive], return_when=asyncio.FIRST_COMPLETED)
        if stopping in done:
            for task in alive:
                task.cancel()
            return 0
        for task in done:
            node = alive.pop(task)
            code = await task
            if code > 0:  # by itself, and it said why
                print("\n".join(node.log_tail()), file=sys.stderr)
            print(f"node {node.id} ended with code {code}; start it again with:", file=sys.stderr)
            print(f"  {shlex.join(node.command)}", file=sys.stderr, flush=True)
    output.errors.print("riverbus: no node is left")
    return output.FAILED


async def _wait(node: Node) -> int:
    assert node.process is not None
    return await node.process.wait()


async def _stop(members: list[Node]) -> None:
    running = [node.process for node in members if node.process is not None and node.process.returncode is None]
    for process in running:
        process.terminate()
    waits = [asyncio.create_task(process.wait()) for process in running]
    if not waits:
        return
    _, late = await asyncio.wait(waits, timeout=STOP_DEADLINE_S)
    for process, wait in zip(running, waits, strict=True):
        if wait in late:
            process.kill()
            await wait
