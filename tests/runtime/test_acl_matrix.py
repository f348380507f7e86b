"""C17 on real sockets and real processes: nothing without a grant, no way in without a password, no secret in a log."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from redis.exceptions import AuthenticationError, ClusterDownError, NoPermissionError, ResponseError

import riverbus
from tests.cli.processes import free_ports, read_line, started, stop
from tests.cli.processes import riverbus as command
from tests.faults.cluster import Cluster, Node, make_cluster, supervised
from tests.runtime.certificates import Authority

ADMIN, WORKER, ALICE = "admin-hunter2", "worker-hunter3", "alice-hunter4"
TOKEN = "token-hunter5"
CONFIG = f"""
[[user]]
name = "admin"
password = "{ADMIN}"

[[user]]
name = "worker"
password = "{WORKER}"
rules = "~jobs:* &news.* +@all -@dangerous"

[admin]
token = "{TOKEN}"
"""


class Client(redis.Redis):
    """redis-py, with commands as lines."""

    async def line(self, text: str) -> Any:
        return await self.execute_command(*text.split())  # type: ignore[no-untyped-call]


@asynccontextmanager
async def client(at: Node, user: str | None = None, password: str | None = None) -> AsyncIterator[Client]:
    one = Client(port=at.resp_port, username=user, password=password, socket_timeout=20, retry_on_error=[])
    try:
        yield one
    finally:
        await one.aclose()


async def raw(at: Node, data: bytes) -> bytes:
    """All that a node answers to these bytes, until it has nothing more to say to a PING behind them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", at.resp_port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


BEFORE_AUTH = [
    b"SET a 1\r\n",
    b"*3\r\n$7\r\nPUBLISH\r\n$6\r\nnews.x\r\n$1\r\nm\r\n" * 5,
    b"HELLO 3\r\nSET a 1\r\n",
    b"HELLO 3 AUTH admin wrong\r\nSET a 1\r\n",
    b"HELLO 3 AUTH default  \r\nSET a 1\r\n",
    b"AUTH wrong\r\nAUTH default wrong\r\nSET a 1\r\n",
    b"AUTH admin\r\nSET a 1\r\n",
    b"MULTI\r\nSET a 1\r\nEXEC\r\n",
    b"RESET\r\nSET a 1\r\n",
    b"SUBSCRIBE news.x\r\nSSUBSCRIBE news.x\r\nPSUBSCRIBE *\r\nBUS.SUBSCRIBE news.x SINCE 0-0\r\n",
    b"ACL SETUSER default on nopass ~* +@all\r\nSET a 1\r\n",
    b"CONFIG SET requirepass x\r\nCLIENT KILL TYPE normal\r\nMONITOR\r\nCLIENT LIST\r\nINFO\r\nKEYS *\r\n",
    b"CLIENT REPLY OFF\r\nSET a 1\r\n",
    b"*2\r\n$4\r\nAUTH\r\n$20000\r\n" + b"x" * 20000 + b"\r\nSET a 1\r\n",
    b"XREAD STREAMS news.x 0\r\nXRANGE news.x - +\r\n",
    b"QUIT\r\nSET a 1\r\n",
]


REFUSALS = (
    b"-NOAUTH",
    b"-EXECABORT Transaction discarded because of: NOAUTH",
    b"-WRONGPASS",
    b"-ERR",
)


async def nothing_before_auth(cluster: Cluster) -> None:
    for at in cluster.nodes:
        for said in BEFORE_AUTH:
            answer = await raw(at, said)
            for line in answer.split(b"\r\n"):
                assert not line or line.startswith((*REFUSALS, b"+RESET", b"+OK")), (said, line)
            assert answer.count(b"+OK") <= said.count(b"QUIT")
    async with client(cluster.nodes[0], "admin", ADMIN) as admin:
        assert await admin.dbsize() == 0
        assert await admin.xlen("news.x") == 0


REFUSED = [
    "SET other 1",
    "XADD other * k v",
    "DEL jobs:1 other",
    "XREAD STREAMS jobs:1 other 0 0",
    "XREADGROUP GROUP g c STREAMS jobs:1 other > >",
    "XRANGE news.x - +",
    "PUBLISH secret m",
    "SPUBLISH secret m",
    "BUS.PUBLISH secret m",
    "CONFIG GET *",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "ACL SETUSER worker +@all",
    "ACL LIST",
    "ACL GETUSER admin",
    "MONITOR",
    "KEYS *",
    "FLUSHALL",
    "INFO",
]


async def grants_hold_on_every_node(cluster: Cluster) -> None:
    for at in cluster.nodes:
        async with client(at, "worker", WORKER) as worker:
            assert await worker.line("SET jobs:1 x")
            await worker.line("PUBLISH news.x m")
            for text in REFUSED:
                with pytest.raises(NoPermissionError):
                    await worker.line(text)
            for space, name in (("SUBSCRIBE", "secret"), ("PSUBSCRIBE", "news.?"), ("PSUBSCRIBE", "*"),
                                ("SSUBSCRIBE", "secret"), ("BUS.SUBSCRIBE", "secret")):  # fmt: skip
                answer = await raw(at, f"AUTH worker {WORKER}\r\n{space} {name}\r\n".encode())
                assert answer.endswith(b"-NOPERM No permissions to access a channel\r\n"), answer
    async with client(cluster.nodes[0], "admin", ADMIN) as admin:
        assert await admin.line("DBSIZE") == 1


async def changes_reach_every_node(cluster: Cluster) -> None:
    first, second, third = cluster.nodes
    async with client(first, "admin", ADMIN) as admin:
        await admin.line(f"ACL SETUSER alice on >{ALICE} ~a:* &a:* +@all -@dangerous")
        async with client(second, "alice", ALICE) as early, client(third, "alice", ALICE) as late:
            await eventually(lambda: early.line("SET a:1 x"))
            await eventually(lambda: late.line("GET a:1"))
            heard = late.pubsub()
            await heard.subscribe("a:news")
            await admin.line("ACL SETUSER alice -set")
            await eventually_refused(lambda: early.line("SET a:1 x"), NoPermissionError)
            assert await early.line("GET a:1") == b"x"
            await admin.line("ACL SETUSER alice resetchannels &b:*")
            await eventually_refused(lambda: heard.get_message(timeout=5), (redis.ConnectionError, NoPermissionError))
            await admin.line("ACL DELUSER alice")
            await eventually_refused(lambda: early.line("GET a:1"), (redis.ConnectionError, AuthenticationError))
            assert "alice" not in [name.decode() for name in await admin.line("ACL USERS")]
        await admin.line(f"ACL SETUSER alice on >{ALICE} ~a:* +get +set")
        with pytest.raises(ResponseError, match="configuration file's"):
            await admin.line("ACL SETUSER worker +@all")


async def eventually(ask: Any) -> Any:
    """An error of rights is given some turns: the node that is asked applies the change a moment after it was acked."""
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        try:
            return await ask()
        except (NoPermissionError, AuthenticationError):
            assert asyncio.get_running_loop().time() < deadline


async def carried_out(ask: Any) -> Any:
    """While a leader is elected a command is refused, or its outcome is not known: for one that may be said twice."""
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        try:
            return await ask()
        except ResponseError as error:
            is_passing = isinstance(error, ClusterDownError) or str(error).startswith("UNKNOWN ")
            if not is_passing or asyncio.get_running_loop().time() >= deadline:
                raise


async def eventually_refused(ask: Any, kind: Any) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    with contextlib.suppress(kind):
        while asyncio.get_running_loop().time() < deadline:
            await ask()
        raise AssertionError("it was never refused")


async def users_outlive_their_nodes(cluster: Cluster) -> None:
    await cluster.nodes[1].kill()
    async with client(cluster.nodes[0], "admin", ADMIN) as admin:
        await carried_out(lambda: admin.line("ACL SETUSER alice -get"))
    await cluster.start()
    await cluster.wait_ready()
    async with client(cluster.nodes[1], "alice", ALICE) as alice:
        await eventually(lambda: alice.line("SET a:2 x"))
        await eventually_refused(lambda: alice.line("GET a:2"), NoPermissionError)
    await asyncio.gather(*(each.kill() for each in cluster.nodes))
    await cluster.start()
    await cluster.wait_ready()
    for at in cluster.nodes:
        async with client(at, "alice", ALICE) as alice:
            assert await alice.line("SET a:3 x")
            with pytest.raises(NoPermissionError):
                await alice.line("GET a:3")


async def operators_show_no_more_than_they_must(cluster: Cluster) -> None:
    for at in cluster.nodes:
        for path in ("/status", "/metrics"):
            assert (await at.get(path))[0] == 401
        assert (await at.get("/readyz"))[0] == 200
        assert (await at.get("/../secret"))[0] in (400, 404)
        request = urllib.request.Request(f"http://127.0.0.1:{at.admin_port}/status")
        request.add_header("Authorization", f"Bearer {TOKEN}")
        body = await asyncio.to_thread(_body_of, request)
        assert b"hunter" not in body


def _body_of(request: urllib.request.Request) -> bytes:
    with urllib.request.urlopen(request) as response:
        return bytes(response.read())


def no_secret_is_written(cluster: Cluster) -> None:
    for at in cluster.nodes:
        assert "hunter" not in at.log_text()
        for file in at.data.rglob("*"):
            if file.is_file():
                assert b"hunter" not in file.read_bytes(), file


@pytest.mark.timeout(120)
def test_the_matrix_on_three_nodes(tmp_path: Path) -> None:
    async def story() -> None:
        async with supervised(make_cluster(tmp_path, 3, 4, CONFIG)) as cluster:
            await nothing_before_auth(cluster)
            await grants_hold_on_every_node(cluster)
            await changes_reach_every_node(cluster)
            await users_outlive_their_nodes(cluster)
            await operators_show_no_more_than_they_must(cluster)
            no_secret_is_written(cluster)

    asyncio.run(story())


# --- TLS, as users run it ---------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_rediss_and_https_with_certificates_that_change(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("server")
    mine = authority.issue("client")
    hashed = command("config", "password", stdin=b"pw-hunter6\n").stdout.decode().strip()
    assert hashed.startswith("scrypt:")
    config = tmp_path / "riverbus.toml"
    config.write_text(
        f'[[user]]\nname = "u"\npassword = "{hashed}"\nrules = "~* &* +@all"\n'
        f'[admin.tls]\ncert = "{cert}"\nkey = "{key}"\n'
    )
    flags = ["--config", str(config), "--tls-cert", str(cert), "--tls-key", str(key), "--tls-ca", str(authority.ca)]

    async def story(url: str) -> None:
        place = url.removeprefix("redis://")
        files = f"ssl_ca_certs={authority.ca}&ssl_certfile={mine[0]}&ssl_keyfile={mine[1]}"
        async with riverbus.connect(f"rediss://u:pw-hunter6@{place}?{files}") as bus:
            await bus.publish("c", b"x" * 300_000)
        one = redis.from_url(f"rediss://u:pw-hunter6@{place}?{files}")
        await one.set("a", "b")
        assert await one.get("a") == b"b"
        await one.aclose()
        with pytest.raises(riverbus.Refused, match="WRONGPASS"):
            async with riverbus.connect(f"rediss://u:wrong@{place}?{files}"):
                pass
        with pytest.raises(riverbus.BusError):
            async with riverbus.connect(f"rediss://u:pw-hunter6@{place}?ssl_ca_certs={authority.ca}&deadline=1"):
                pass

    with tls_node(tmp_path / "data", authority, flags) as (url, admin, process):
        asyncio.run(story(url))
        context = ssl.create_default_context(cafile=str(authority.ca))
        assert urllib.request.urlopen(f"https://{admin}/readyz", context=context).status == 200
        authority.issue("server")  # the same files again
        process.send_signal(signal.SIGHUP)
        seen: list[bytes] = []
        while sum(b"the certificate was read again" in line for line in seen) < 2:
            seen.append(read_line(process))
        asyncio.run(story(url))
        assert urllib.request.urlopen(f"https://{admin}/readyz", context=context).status == 200
        assert not any(b"hunter" in line for line in seen)


@contextlib.contextmanager
def tls_node(data: Path, authority: Authority, flags: list[str]) -> Any:
    """As `tests.cli.processes.node`, of a node whose admin endpoint speaks HTTPS."""
    first = free_ports(3)
    resp, admin, peer = (f"127.0.0.1:{first + number}" for number in range(3))
    places = ["--data", str(data), "--resp", resp, "--admin", admin, "--peer", peer]
    with started("serve", *places, *flags) as process:
        while b"node started" not in read_line(process):
            pass
        yield f"redis://{resp}", admin, process
        assert stop(process) == 0
