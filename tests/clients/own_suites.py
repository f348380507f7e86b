"""Runs the tests that other projects publish of their own clients, unmodified, against a server; reads what came out.

A suite is unpacked from its project's source archive (suites/sources.txt: version and hash) for each run. Where it has
its server's place written down in the code, that text alone is replaced. What it found is read from pytest's XML. What
is meant to differ from Redis is listed in suites/differences.txt, by test and reason. test_own_suites.py compares.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.faults.cluster import die_with_parent

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / ".venv-clients"
ARCHIVES = INSTALLED / "suites"
TOOLS = ARCHIVES / "tools"
DIFFERENCES = HERE / "suites" / "differences.txt"
TIMEOUT_S = 900


class Place(NamedTuple):
    """Where a suite has its server written down. `{port}` in the replacement is the port."""

    file: str
    text: str
    replacement: str


class Suite(NamedTuple):
    name: str
    project: str  # the first word of its ids in differences.txt
    archive: str
    files: tuple[str, ...]
    short: str = ""  # pytest's -k: what of it runs in the short form; nothing of it if empty
    arguments: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()

    @property
    def source(self) -> Path:
        return ARCHIVES / f"{self.archive}.tar.gz"


class Outcome(NamedTuple):
    result: str  # passed, failure, error or skipped
    message: str = ""


class Run:
    """One suite against one server, as a process beside this one."""

    def __init__(self, suite: Suite, port: int, path: Path, chosen: Sequence[str]) -> None:
        """`chosen` are pytest's arguments that say which tests: files or ids, and -k."""
        path.mkdir()
        with tarfile.open(suite.source) as archive:
            # The argument `filter` came with Python 3.11.4; pip has compared the archive's hash.
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            archive.extractall(path)
        folder = path / suite.archive
        for file, text, replacement in suite.places:
            code = (folder / file).read_text()
            assert text in code, f"{file} of {suite.archive} has no {text!r}"
            (folder / file).write_text(code.replace(text, replacement.format(port=port)))
        self._found = path / "found.xml"
        self._output = path / "output"
        options = ["asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function", "junit_family=xunit1"]
        options += ["addopts=", "log_cli=false", "filterwarnings="]
        command = [str(INSTALLED / "bin" / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=30"]
        command += [
            "--tb=native",
            "--assert=plain",
            f"--junitxml={self._found}",
            *(f"--override-ini={option}" for option in options),
        ]
        command += [argument.format(port=port) for argument in suite.arguments]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, *chosen],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(TOOLS), "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,
            )

    def outcomes(self) -> dict[str, Outcome]:
        """Of each test, by its id; waits for the end."""
        try:
            code = self._process.wait(TIMEOUT_S)
        finally:
            self._process.kill()
        assert code in (0, 1), f"pytest ended with {code}\n{self._output.read_text(errors='replace')[-6000:]}"
        return dict(_outcome(case) for case in ElementTree.parse(self._found).iter("testcase"))


def _outcome(case: ElementTree.Element) -> tuple[str, Outcome]:
    file = case.get("file", "")
    within = case.get("classname", "").removeprefix(file.removesuffix(".py").replace("/", ".")).strip(".")
    id_ = "::".join(filter(None, [file, *within.split("."), case.get("name", "")]))
    for found in case:
        if found.tag in ("failure", "error", "skipped"):
            return id_, Outcome(found.tag, found.get("message", "") + "\n" + (found.text or ""))
    return id_, Outcome("passed")


def base_of(id_: str) -> str:
    """A test without its parameters: what differences.txt lists."""
    return id_.partition("[")[0]


def differing(on_redis: dict[str, Outcome], on_riverbus: dict[str, Outcome]) -> list[str]:
    """Ids of the tests that do not end alike. One that the older Redis beside us makes the suite skip may pass here."""
    none = Outcome("none")
    found = []
    for id_ in sorted(on_redis.keys() | on_riverbus.keys()):
        ends = on_redis.get(id_, none).result, on_riverbus.get(id_, none).result
        if ends[0] != ends[1] and ends != ("skipped", "passed"):
            found.append(id_)
    return found


def listed_differences() -> dict[str, str]:
    """Reasons by `project id`."""
    reasons: dict[str, str] = {}
    reason = ""
    for line in DIFFERENCES.read_text().splitlines():
        if line.startswith("[") and line.endswith("]"):
            reason = line[1:-1]
        elif line and not line.startswith("#"):
            assert reason, f"{line} comes before any [reason]"
            assert line not in reasons, f"{line} is listed twice"
            reasons[line] = reason
    return reasons


_PORT = ("--redis-url=redis://127.0.0.1:{port}/0",)
_ASYNCIO = ("pubsub", "connection", "connection_pool", "connect", "client", "retry", "monitor", "encoding", "pipeline")
_ASYNCIO_FILES = tuple(
    f"tests/test_asyncio/test_{name}.py" for name in (*_ASYNCIO, "keyspace_notifications", "cwe_404")
)
_CONNECTIONS = ("connection", "connection_pool", "connect", "client", "retry", "encoding", "pipeline", "lock")

SUITES = (
    Suite(
        "redis-py pubsub",
        "redis",
        "redis-8.1.0",
        ("tests/test_pubsub.py", "tests/test_keyspace_notifications.py", "tests/test_monitor.py"),
        "TestPubSubMessages or TestPubSubSubcommands or TestPubSubPings or Monitor",
        _PORT,
    ),
    Suite(
        "redis-py commands",
        "redis",
        "redis-8.1.0",
        ("tests/test_commands.py",),
        "test_x or test_acl or (test_client and not setinfo)",
        _PORT,
    ),
    Suite(
        "redis-py connections",
        "redis",
        "redis-8.1.0",
        tuple(f"tests/test_{name}.py" for name in (*_CONNECTIONS, "multiprocessing")),
        "",
        _PORT,
        (Place("tests/test_connection.py", '"redis://localhost:6379/0?"', '"redis://127.0.0.1:{port}/0?"'),),
    ),
    Suite(
        "redis-py asyncio",
        "redis",
        "redis-8.1.0",
        _ASYNCIO_FILES,
        "",
        _PORT,
        (
            Place(
                "tests/test_asyncio/test_connection.py", '"redis://localhost:6379/0?"', '"redis://127.0.0.1:{port}/0?"'
            ),
        ),
    ),
    Suite(
        "redis-py asyncio commands",
        "redis",
        "redis-8.1.0",
        ("tests/test_asyncio/test_commands.py",),
        "",
        _PORT,
    ),
    Suite(
        "channels_redis pubsub",
        "channels_redis",
        "channels_redis-4.3.0",
        ("tests/test_pubsub.py",),
        "test",
        (),
        (Place("tests/test_pubsub.py", "redis://localhost:6379", "redis://127.0.0.1:{port}"),),
    ),
    Suite(
        "walrus streams",
        "walrus",
        "walrus-0.9.8",
        ("walrus/tests/streams.py",),
        "test",
        (),
        (
            Place("walrus/tests/base.py", "os.environ.get('WALRUS_REDIS_PORT') or 6379", "{port}"),
            Place("walrus/tests/base.py", "db=15", "db=0"),  # there is only database 0
        ),
    ),
)
