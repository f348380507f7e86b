"""Beside Debian's redis-server: the same bytes asked of it and of us get the same errors, tables and keys."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest

from riverbus.commands import Answered, Malformed
from riverbus.wire.command_table import ROWS
from riverbus.wire.encoders import Resp2Encoder, Resp3Encoder
from riverbus.wire.redis import RedisProtocol

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server isn't installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    directory: Path = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
        yield "127.0.0.1", port
    finally:
        process.kill()
        process.wait()


def ask(server: tuple[str, int], data: bytes) -> bytes:
    """All that redis-server says to `data`, and to a QUIT behind it where its last line has ended."""
    with socket.create_connection(server, 5) as connection:
        connection.sendall(data + b"QUIT\r\n" if data.endswith(b"\n") else data)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer.removesuffix(b"+OK\r\n")


def ours(data: bytes) -> bytes:
    encoder = Resp2Encoder()
    answer = b""
    for noun in RedisProtocol(authenticated=True).receive_data(data):
        assert isinstance(noun, Answered | Malformed), noun
        answer += encoder.encode(noun.reply)
    return answer


LINES = """
SELECT x|SELECT 99|AUTH a b c d|HELLO x|HELLO 4|HELLO 3 FOO|HELLO 3 AUTH a|HELLO 3 SETNAME 'a b'
CLIENT|CLIENT FOO|CLIENT FOO bar|CLIENT SETNAME|CLIENT SETNAME 'a b'|CLIENT LIST TYPE foo|CLIENT LIST ID
CLIENT LIST ID x|CLIENT LIST FOO|CLIENT KILL ID x|CLIENT KILL ID 0|CLIENT KILL TYPE foo|CLIENT KILL SKIPME foo
CLIENT KILL FOO bar|CLIENT KILL ID 1 TYPE|CLIENT REPLY x|CLIENT NO-EVICT x|FUNCTION FLUSH x|SCRIPT FLUSH x
FUNCTION FLUSH SYNC x|SCRIPT FLUSH SYNC x|PUBSUB CHANNELS a b|PUBSUB NUMPAT x|PUBSUB FOO|PUBSUB HELP x
XADD a|XADD a * f|XADD a * f v g|XADD a x f v|XADD a 1-x f v|XADD a 1-1-1 f v|XRANGE a - x|XRANGE a (- +
XRANGE a - + FOO|XRANGE a - + COUNT|XRANGE a - + COUNT x|XRANGE a (18446744073709551615-18446744073709551615 +
XRANGE a - (0-0|XREVRANGE a (0-0 -|XRANGE a 5-x +|XRANGE a 18446744073709551616 +|XRANGE a ( +|XRANGE a '' +
XREAD STREAMS a|XREAD COUNT x STREAMS a 0|XREAD COUNT|XREAD BLOCK x STREAMS a 0|XREAD BLOCK -1 STREAMS a 0
XREAD GROUP a b STREAMS a >|XREAD NOACK STREAMS a 0|XREAD STREAMS a >|XREAD FOO STREAMS a 0
XREAD COUNT 1 BLOCK 0 COUNT 1 STREAMS|XREAD COUNT 1 COUNT STREAMS|XREAD STREAMS a b c COUNT
XINFO|XINFO STREAM|XINFO FOO|foo|foo 'a\\r\\nb' b|foo "a\\r\\nb" "c\\nd"|"" a|PUBLISH a|PING a b|ECHO|RESET x|TIME x
COMMAND FOO|COMMAND COUNT x|COMMAND LIST x|COMMAND LIST FILTERBY x y|COMMAND GETKEYS|COMMAND GETKEYS foo a
COMMAND GETKEYS PUBLISH a b|COMMAND GETKEYS SPUBLISH a b|COMMAND GETKEYS XADD a * f|COMMAND GETKEYS XADD a
COMMAND GETKEYS XADD a * f v|COMMAND GETKEYS XREAD STREAMS a b 0 0|COMMAND GETKEYS WATCH a b c
COMMAND GETKEYS XINFO STREAM a|COMMAND GETKEYS XRANGE a - +|COMMAND INFO foo|COMMAND DOCS foo
CONFIG|CONFIG GET|CONFIG FOO|WATCH|XLEN|ECHO hi|SELECT 0|FUNCTION FLUSH|SCRIPT FLUSH SYNC
ACL CAT a b|ACL LOG RESET x|ACL GENPASS 1 2
"""


@pytest.mark.parametrize("line", [line for row in LINES.strip().splitlines() for line in row.split("|")])
def test_errors_and_answers_are_redis_own(server: tuple[str, int], line: str) -> None:
    data = line.encode() + b"\r\n"
    assert ours(data) == ask(server, data)


@pytest.mark.parametrize(
    "data",
    [
        b"*x\r\n", b"*03\r\n", b"*\r\n", b"*2147483648\r\n", b"*1\r\n+PING\r\n", b"*1\r\n*1\r\n", b"*1\r\n\r\n",
        b"*1\r\n$x\r\n", b"*1\r\n$-1\r\n", b"*1\r\n$03\r\n", b"*1\r\n$\r\n", b"*1\r\n$999999999999\r\n",
        b"*" + b"1" * 65_537, b"*1\r\n$" + b"1" * 65_537, b"a" * 65_537, b"PING 'a\r\n", b'PING "a"b\r\n',
        b"ECHO 'a\\'b\\n'\r\n", b'ECHO "a\\x41\\n\\q"\n', b"*0\r\n*-1\r\n\r\n \r\nECHO a\r\n", b"*1\r\n$0\r\n\r\n",
        b"*2\r\n$4\r\nfo\r\n\r\n$1\r\na\r\n", b"foo " * 90 + b"\r\n", b"f" * 300 + b" " + b"b" * 300 + b" c\r\n",
    ],
)  # fmt: skip
def test_protocol_errors_are_redis_own(server: tuple[str, int], data: bytes) -> None:
    assert ours(data) == ask(server, data)


def test_arity_keys_and_flags_are_redis_own(server: tuple[str, int]) -> None:
    newer = {"client|setinfo", "client|no-touch", "xdelex", "xackdel", "xcfgset"}
    names = [one.name for row in ROWS.values() if row.group != "bus" for one in (row, *row.subcommands.values())]
    names = [name for name in names if name not in newer]
    theirs: list[list[Any]] = []
    us: list[list[Any]] = []
    for at in range(0, len(names), 60):
        request = f"COMMAND INFO {' '.join(names[at : at + 60])}\r\n".encode()
        theirs += _parsed(ask(server, request))
        us += _parsed(ours(request))
    for name, their_row, our_row in zip(names, theirs, us, strict=True):
        assert len(our_row) == len(their_row) == 10
        for place, what in enumerate(["name", "arity", "flags", "first", "last", "step", "acl"]):
            their_field, our_field = their_row[place], our_row[place]
            if name.startswith("command|getkeys") and what == "arity":
                their_field = -3  # as since 7.2
            if isinstance(their_field, list):
                their_field, our_field = sorted(their_field), sorted(our_field)
            assert our_field == their_field, (name, what)
        if name in ("rename", "renamenx"):
            continue  # Redis has a specification for each of the two keys
        assert [_searches(spec) for spec in our_row[8]] == [_searches(spec) for spec in their_row[8]], name


def test_tips_and_keys_are_sets_as_in_redis(server: tuple[str, int]) -> None:
    marks = [b"~1\r\n$23\r\nnondeterministic_output\r\n~1\r\n%", b"*10\r\n$3\r\nget\r\n"]
    theirs = ask(server, b"HELLO 3\r\nCOMMAND INFO xadd get\r\n")
    [noun] = RedisProtocol(authenticated=True).receive_data(b"COMMAND INFO xadd get\r\n")
    assert isinstance(noun, Answered)
    assert all(mark in theirs and mark in Resp3Encoder().encode(noun.reply) for mark in marks)


def _parsed(data: bytes) -> list[list[Any]]:
    reader = hiredis.Reader()
    reader.feed(data)
    reply = reader.gets()
    assert isinstance(reply, list)
    return reply


def _searches(spec: list[object]) -> object:
    """Where the keys are, without how they are used."""
    fields = dict(zip(spec[::2], spec[1::2], strict=True))
    return fields[b"begin_search"], fields[b"find_keys"]
