"""Other people's clients and frameworks, unmodified, told nothing but URLs: on three nodes they end as on Redis.

Each program here (apps/*.py, node/*.mjs, go/main.go) does what such an application does and prints its outcome as JSON;
Redis gets one URL, the cluster one of each node, so that subscribers and publishers are on different nodes. `make
clients` installs what they need (requirements.lock, node/package-lock.json, go/go.sum); what is not there is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.cluster import Cluster

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / ".venv-clients"
REDIS_5 = INSTALLED / "redis5"
TIMEOUT_S = 90


class Application(NamedTuple):
    name: str
    command: list[str]
    needs: Path
    python_path: str = ""


def python(script: str, *arguments: str, redis_5: bool = False) -> Application:
    """In the environment of the applications."""
    needs, path = INSTALLED / "bin" / "python", str(REDIS_5) if redis_5 else ""
    name = " ".join([script, *arguments, *(["redis-py 5"] if redis_5 else [])])
    return Application(name, [str(needs), "-W", "ignore", str(HERE / "apps" / f"{script}.py"), *arguments], needs, path)


def newest(script: str) -> Application:
    """redis-py as the project's own environment has it."""
    path = HERE / "apps" / f"{script}.py"
    return Application(f"{script} redis-py newest", [sys.executable, "-W", "ignore", str(path)], path)


def node(script: str, *arguments: str, needs: str = "") -> Application:
    """A copy beside what npm installed, since Node.js looks for modules where a file is."""
    path = INSTALLED / "node" / f"{script}.mjs"
    installed = INSTALLED / "node/node_modules" / needs
    return Application(" ".join([script, *arguments]), ["node", str(path), *arguments], installed)


def go(*arguments: str) -> Application:
    program = INSTALLED / "go-redis"
    return Application(" ".join(["go-redis", *arguments]), [str(program), *arguments], program)


APPLICATIONS = [
    newest("redis_py_pubsub"),
    newest("redis_py_streams"),
    newest("redis_py_asyncio"),
    newest("redis_py_groups"),
    python("redis_py_pubsub", redis_5=True),
    python("redis_py_streams", redis_5=True),
    python("redis_py_asyncio", redis_5=True),
    python("channels_redis_pubsub"),
    python("broadcaster_urls", redis_5=True),
    python("socketio_redis_manager"),
    python("faststream_channels"),
    python("faststream_streams"),
    python("taskiq_brokers", "pubsub"),
    python("taskiq_brokers", "stream"),
    node("ioredis"),
    node("ioredis_keys"),
    node("node_redis"),
    node("socketio_adapter", "plain"),
    node("socketio_adapter", "sharded"),
    node("socketio_adapter", "streams"),
    node("soketi_adapter", needs="@soketi/soketi"),
    go(),
    go("keys"),
]


def outcome(application: Application, urls: str) -> Any:
    environment = {**os.environ, "CLIENT_URLS": urls, "PYTHONPATH": application.python_path}
    ended = subprocess.run(application.command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert ended.returncode == 0, f"{urls}\n{ended.stdout[-2000:]}\n{ended.stderr[-6000:]}"
    return json.loads(ended.stdout.rpartition("\n")[2])  # some log to stdout before it


@pytest.mark.timeout(300)
@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda application: application.name.replace(" ", "-"))
def test_an_application_ends_as_on_redis(application: Application, cluster: Cluster, redis_url: str) -> None:
    if not application.needs.exists():
        pytest.skip(f"{application.needs.name} of {application.name} is not installed: make clients")
    if application.command[0] == "node":
        for script in sorted((HERE / "node").glob("*.mjs")):
            shutil.copy(script, INSTALLED / "node")
    on_redis = outcome(application, redis_url)
    on_riverbus = outcome(application, cluster.url.replace("redis://", "").replace("127", "redis://127"))
    assert on_riverbus == on_redis


def test_redis_cli_says_the_same(cluster: Cluster, redis_url: str) -> None:
    lines = ["PING", 'ECHO "a b"', "PUBLISH none x", "XADD cli-log 1-1 a 1", "XADD cli-log 1-1 a 1", "XLEN cli-log"]
    lines += ["XRANGE cli-log - +", "TYPE cli-log", "NOSUCH", "XADD cli-log", "SELECT 0", "DEL cli-log"]
    lines += ["SET cli-key v EX 100", "GET cli-key", "DEL cli-key", "EXISTS cli-key", "MULTI", "PING", "EXEC"]
    said = []
    for url in (redis_url, f"redis://127.0.0.1:{cluster.nodes[1].resp_port}"):
        ended = subprocess.run(
            ["redis-cli", "-u", url], input="\n".join(lines), capture_output=True, text=True, timeout=TIMEOUT_S
        )
        said.append(ended.stdout)
    assert said[1].splitlines() == said[0].splitlines()
