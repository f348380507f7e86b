"""HTTP of the admin port: requests through the parser that ships (uvicorn's, over h11) into the application.

An input is what one connection receives, in two chunks. It goes to the server's own protocol class on a transport in
memory, all connections of an episode in one event loop, so that what reaches the application and what does not is as in
the real process. Checked: nothing is raised, nothing is logged as an error, every answer has an expected status, a path
that asks for the token is never answered without it, and no connection or task is left over.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from random import Random
from typing import Any, cast

from riverbus.runtime.admin import AdminServer
from tests.malformed.mutations import BYTES, Mutation, mutate, pick, splice

TOKEN = "token"
STATUSES = frozenset({100, 200, 307, 400, 401, 404, 405, 503})
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d\d\d) ")


class _Source:
    def status(self) -> dict[str, object]:
        return {"node": 1}

    def unready(self) -> list[str]:
        return []


class _Transport:
    def __init__(self) -> None:
        self.data = bytearray()
        self.is_closed = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def write(self, data: bytes) -> None:
        if not self.is_closed:
            self.data += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_protocol(self, protocol: object) -> None:
        raise AssertionError("there are no websockets here")


class _Alarm(logging.Handler):
    """Whatever uvicorn or asyncio calls an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage() + str(record.exc_info))


_alarm = _Alarm()


class HttpSubject:
    def __init__(self, seed: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: _alarm.texts.append(str(context)))
        for name in ("uvicorn.error", "asyncio"):
            logger = logging.getLogger(name)
            if _alarm not in logger.handlers:
                logger.addHandler(_alarm)
        _alarm.texts.clear()
        config = AdminServer(_Source(), lambda: b"metric 1\n", TOKEN if seed % 2 else None)._server.config
        self.has_token = seed % 2 == 1
        self.config = config
        config.load()
        self.state = _server_state()

    def feed(self, data: bytes) -> str:
        cut, data = data[0], data[1:]
        at = len(data) * cut // 256
        transport = _Transport()
        protocol = cast(Any, self.config.http_protocol_class)(
            config=self.config, server_state=self.state, app_state={}, _loop=self.loop
        )
        protocol.connection_made(cast(Any, transport))
        for chunk in (data[:at], data[at:]):
            if chunk and not transport.is_closed:
                protocol.data_received(chunk)
        self._run_tasks(protocol, transport)
        protocol.connection_lost(None)
        if self.state.tasks:
            self._run_tasks(protocol, transport)
        assert not self.state.tasks, "no task outlives its connection"
        assert not _alarm.texts, _alarm.texts
        return self._outcome(data, transport)

    def _run_tasks(self, protocol: Any, transport: _Transport) -> None:
        """Until no request is being answered: each takes a few turns, and the next of a pipeline begins."""
        for _ in range(1000):
            if not self.state.tasks:
                return
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        raise AssertionError("requests are not answered")

    def _outcome(self, data: bytes, transport: _Transport) -> str:
        if not transport.data:
            return "closed" if transport.is_closed else "incomplete"
        statuses = _statuses(bytes(transport.data))
        assert STATUSES.issuperset(statuses), statuses
        if self.has_token and 200 in statuses and TOKEN.encode() not in data:
            assert b"z" in data, "only health checks are answered without the token"  # of /livez and /readyz
            assert b'"node"' not in transport.data
            assert b"metric 1" not in transport.data
        first = statuses[0]
        return f"refused: {first}" if first >= 400 else f"answered {first}, {min(len(statuses), 3)}"

    def finish(self) -> None:
        assert not self.state.connections
        self.loop.close()


def _server_state() -> Any:
    from uvicorn.server import ServerState

    return ServerState()


def _statuses(answers: bytes) -> list[int]:
    """Of the answers, in order: their bodies have no status lines in them."""
    assert answers.startswith(b"HTTP/1.1 "), answers[:40]
    return [int(status) for status in _STATUS_LINE.findall(answers)]


# --- inputs -----------------------------------------------------------------------------------------------------------

METHODS = (b"GET", b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"CONNECT", b"get", b"", b"PRI", b"\xff")
TARGETS = (
    b"/livez", b"/readyz", b"/status", b"/metrics", b"/status?x=1", b"/livez/", b"/", b"*", b"//status",
    b"/%2e%2e/status", b"/status%00", b"/%", b"/%zz", b"/st\xc3\xa4tus", b"http://a/status", b"/status#x",
    b"/" + b"a" * 300, b"", b"/\x7f", b"/../status", b"/STATUS", b"/s\ttatus", b"/%F0%9F%98%80",
)  # fmt: skip
VERSIONS = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"http/1.1", b"")
HEADERS = (
    b"Host: a", b"Host: a", b"Host: b", b"Connection: close", b"Connection: keep-alive", b"Connection: upgrade",
    b"Upgrade: websocket", b"Upgrade: h2c", b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: -1",
    b"Content-Length: 18446744073709551616", b"Content-Length: 5, 5", b"Content-Length: 5, 6", b"Content-Length: 0x5",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity",
    b"Expect: 100-continue", b"Expect: 200-ok", b"Authorization: Bearer token", b"Authorization: Bearer toke",
    b"Authorization: Bearer token2", b"Authorization: Basic dG9rZW4=", b"Authorization: \xff\xfe", b"Authorization:",
    b"Accept: */*", b"Range: bytes=0-0", b"Cookie: a=b; c", b"X: " + b"y" * 400, b"X : y", b" folded", b": empty", b"X",
    b"X: a\rb", b"X: a\x00b", b"X-\xc3: y", b"Accept-Encoding: gzip;q=nan", b"If-None-Match: *", b"TE: trailers",
)  # fmt: skip
BODIES = (b"", b"", b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"ffffffffffffffffff\r\n",
          b"-1\r\n\r\n", b"5;ext=1\r\nhello\r\n0\r\nX: y\r\n\r\n", b"x" * 2000)  # fmt: skip
TOKENS = (b"\r\n", b"\n", b"\r", b"\r\n\r\n", b":", b" ", b"\t", b"\x00", b"\xff", b"HTTP/1.1", b"GET ", b"%00",
          b"chunked", b"0\r\n\r\n", b"\x16\x03\x01\x00\xa5\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
          b"*1\r\n$4\r\nPING\r\n")  # fmt: skip


def _token(data: bytes, random: Random) -> bytes:
    at = int(random.random() * (len(data) + 1))
    return data[:at] + pick(random, TOKENS) + data[at + int(random.random() * 6) :]


MUTATIONS: tuple[Mutation, ...] = (*BYTES, _token, _token, _token)


def generator(random: Random) -> Callable[[], bytes]:
    def request() -> bytes:
        draw = random.random
        if draw() < 0.6:
            lines = [b" ".join((pick(random, METHODS[:4]), pick(random, TARGETS[:8]), pick(random, VERSIONS[:4])))]
            lines.append(b"Host: a")
        else:
            lines = [b" ".join((pick(random, METHODS), pick(random, TARGETS), pick(random, VERSIONS)))]
        while draw() < 0.5:
            lines.append(pick(random, HEADERS))
        return b"\r\n".join(lines) + b"\r\n\r\n" + pick(random, BODIES)

    def generate() -> bytes:
        draw = random.random
        data = request()
        if draw() < 0.2:
            data = splice(data, request(), random) if draw() < 0.3 else data + request()
        while draw() < 0.4:
            data = mutate(data, random, MUTATIONS)
        if draw() < 0.002:
            data = data[:20] + b"a" * 40_000 + data[20:]
        return bytes((random.getrandbits(8),)) + data

    return generate
