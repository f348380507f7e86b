"""The load generator counts what a server answers, and a run in which the server misbehaves is void."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from benchmarks.harness import BenchmarkError, Budget
from benchmarks.load import generate

BUDGET = Budget(pairs=1, seconds=0.2, warmup_seconds=0.2, is_quick=True)
PUBLISH_BYTES = len(b"*3\r\n$7\r\nPUBLISH\r\n$5\r\nbench\r\n$100\r\n\r\n") + 100

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


class FakeServer:
    """Answers each publish with `answer`; its subscriber gets the message, with `spoiled` for some of its bytes."""

    def __init__(self, answer: bytes = b":0\r\n", spoiled: bytes = b"") -> None:
        self._answer = answer
        self._spoiled = spoiled
        self._subscriber: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # OSError: the subscriber may be gone, its socket closed by the thread that served it
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while request := stream.readline():
                if request == b"*1\r\n":
                    stream.read(len(b"$4\r\nPING\r\n"))
                    connection.sendall(b"+PONG\r\n")
                elif request == b"*2\r\n":
                    stream.read(len(b"$9\r\nSUBSCRIBE\r\n$5\r\nbench\r\n"))
                    connection.sendall(b"*3\r\n$9\r\nsubscribe\r\n$5\r\nbench\r\n:1\r\n")
                    self._subscriber = connection
                else:
                    body = stream.read(PUBLISH_BYTES - len(request))
                    connection.sendall(self._answer)
                    if self._subscriber is not None:
                        delivery = request + body.replace(b"PUBLISH", b"message")
                        self._subscriber.sendall(delivery.replace(delivery[60:63], self._spoiled or delivery[60:63]))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.close()


def test_every_answer_is_counted_once(server: FakeServer) -> None:
    outcome = generate(BUDGET, publish_ports=[server.port], window=16, messages=500, warmup=0, seconds=20)
    assert outcome.must_be_complete().acked == 500
    assert outcome.ack_times is not None
    assert 0 < outcome.ack_times.p50 <= outcome.ack_times.max


def test_deliveries_are_counted_by_their_size(server: FakeServer) -> None:
    outcome = generate(
        BUDGET, publish_ports=[server.port], subscribe_ports=[server.port], subscribers=1, window=8, warmup=0.05
    )
    assert outcome.must_be_complete().delivered > 0


def test_stamped_deliveries_have_latencies_from_when_they_were_due(server: FakeServer) -> None:
    outcome = generate(
        BUDGET, publish_ports=[server.port], subscribe_ports=[server.port], subscribers=1, stamps=1, rate=1000
    )
    assert outcome.must_be_complete().deliver_times is not None
    assert outcome.deliver_times is not None
    assert outcome.deliver_times.count == outcome.delivered == 200


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        (lambda: FakeServer(answer=b"-CLUSTERDOWN no majority\r\n"), "errors, the first: -CLUSTERDOWN no majority"),
        (lambda: FakeServer(spoiled=b"###"), "not what was published"),
    ],
)
def test_errors_and_wrong_bytes_make_a_run_void(fake: Callable[[], FakeServer], reason: str) -> None:
    server = fake()
    # It ends at the first; deliveries are compared during the warm-up, of which a busy machine may have little.
    with pytest.raises(BenchmarkError, match=reason):
        generate(BUDGET, publish_ports=[server.port], subscribe_ports=[server.port], subscribers=1, window=4, warmup=2)
    server.close()
