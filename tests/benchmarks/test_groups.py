"""The generator for consumer groups counts what was acknowledged, and a run that was answered wrongly is void."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

import pytest

from benchmarks.harness import BenchmarkError, Budget
from benchmarks.load import consume, generate

BUDGET = Budget(pairs=1, seconds=0.2, warmup_seconds=0.1, is_quick=True)

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


class FakeStream:
    """A server with one stream and one group: adds, hands out in order, acknowledges."""

    def __init__(self, spoiled: bytes = b"", forgets: bool = False) -> None:
        self._spoiled = spoiled  # comes instead of what was added
        self._forgets = forgets  # XACK of some that were handed out finds nothing
        self._entries: list[bytes] = []
        self._handed = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.acknowledged = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(ConnectionError), connection, connection.makefile("rb") as stream:
            while command := _read_command(stream):
                with self._lock:
                    answer = self._answer(*command)
                connection.sendall(answer)

    def _answer(self, name: bytes, *arguments: bytes) -> bytes:
        if name == b"PING":
            return b"+PONG\r\n"
        if name == b"XADD":
            self._entries.append(arguments[-1])
            return _bulk(b"%d-0" % len(self._entries))
        if name == b"XGROUP":
            return b"+OK\r\n"
        if name == b"XACK":
            count = len(arguments) - 2 - self._forgets
            self.acknowledged += count
            return b":%d\r\n" % count
        limit, start = int(arguments[4]), self._handed
        some = self._entries[start : start + limit]
        self._handed += len(some)
        if not some:
            return b"*-1\r\n"
        entries = b"".join(
            b"*2\r\n%b*2\r\n%b%b" % (_bulk(b"%d-0" % at), _bulk(b"f"), _bulk(self._spoiled or value))
            for at, value in enumerate(some, start + 1)
        )
        return b"*1\r\n*2\r\n%b*%d\r\n%b" % (_bulk(arguments[-2]), len(some), entries)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


def _read_command(stream: BinaryIO) -> list[bytes]:
    head = stream.readline()
    return [stream.read(int(stream.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:] or 0))]


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


def a_run(server: FakeStream, **options: int) -> float:
    options = {"entries": 1000, "consumers": 3, "count": 30} | options
    return consume(BUDGET, publish_port=server.port, consume_ports=[server.port], **options)


@pytest.mark.parametrize("feeds", [0, 1])
def test_a_run_ends_when_all_that_was_added_is_acknowledged(feeds: int) -> None:
    server = FakeStream()
    assert a_run(server, feeds=feeds) > 0
    server.close()
    assert server.acknowledged == len(server._entries) >= 1000


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        (lambda: FakeStream(spoiled=b"#" * 100), "not what was added"),
        (lambda: FakeStream(forgets=True), "29 of 30 entries were pending"),
    ],
)
def test_wrong_entries_and_lost_ones_make_a_run_void(fake: Callable[[], FakeStream], reason: str) -> None:
    server = fake()
    with pytest.raises(BenchmarkError, match=reason):
        a_run(server)
    server.close()


def test_an_added_entry_is_counted_once_though_its_id_takes_two_lines() -> None:
    server = FakeStream()
    outcome = generate(BUDGET, publish_ports=[server.port], adds=1, window=16, messages=500, warmup=0, seconds=20)
    assert outcome.must_be_complete().acked == 500
    server.close()
    assert len(server._entries) == 500
