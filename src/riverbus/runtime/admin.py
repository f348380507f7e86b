"""HTTP for operators and their tools: /livez, /readyz, /metrics, /status. Reads only, in the node's own loop.

Answers come from a `StatusSource`, at the time of the request; the node keeps nothing for it. With a token configured,
/metrics and /status ask for it (`Authorization: Bearer ...`); the health checks, which load balancers make, never do.
A stranger costs little: bodies are not read, headers are bounded, and a connection that sends no request is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from riverbus.runtime.units import Address, cannot_listen

CONNECTIONS_MAX = 64
REQUEST_DEADLINE_S = 10.0
HEADER_BYTES_MAX = 16_384
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    b"content-length: 28\r\n\r\nthis is not an HTTP request\n"
)


class StatusSource(Protocol):
    """What the admin server shows: the node."""

    def status(self) -> dict[str, object]: ...

    def unready(self) -> list[str]:
        """Why this node cannot take writes now, one reason an item; empty when it can."""
        ...


def application(source: StatusSource, render_metrics: Callable[[], bytes], token: str | None = None) -> Starlette:
    def livez(request: Request) -> Response:
        return JSONResponse({"live": True})

    def readyz(request: Request) -> Response:
        reasons = source.unready()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    def status(request: Request) -> Response:
        return Response(msgspec.json.encode(source.status()), media_type="application/json")

    def metrics(request: Request) -> Response:
        return Response(render_metrics(), media_type=CONTENT_TYPE_LATEST)

    def route(path: str, answer: Callable[[Request], Response], is_open: bool) -> Route:
        # async, though nothing waits: starlette would run a plain function in a thread, beside the engine's own.
        async def endpoint(request: Request) -> Response:
            if not is_open and not _is_authorized(request, token):
                return PlainTextResponse(
                    "give the admin token as a bearer token\n", 401, {"WWW-Authenticate": "Bearer"}
                )
            return answer(request)

        return Route(path, endpoint, methods=["GET"])

    routes = [
        route("/livez", livez, True),
        route("/readyz", readyz, True),
        route("/status", status, False),
        route("/metrics", metrics, False),
    ]
    paths = ", ".join(each.path for each in routes)

    async def not_found(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"no such path; there are {paths}\n", 404)

    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {404: not_found}
    return Starlette(routes=routes, exception_handlers=handlers)


def _is_authorized(request: Request, token: str | None) -> bool:
    if token is None:
        return True
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


class AdminServer:
    """The server of `application`. Start and stop belong to the node."""

    def __init__(self, source: StatusSource, render_metrics: Callable[[], bytes], token: str | None = None) -> None:
        config = uvicorn.Config(
            application(source, render_metrics, token),
            http=_ImpatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    async def start(self, address: Address, tls: ssl.SSLContext | None = None) -> Address:
        """Where it listens, the port chosen if it was 0; with `tls` over HTTPS only. Raises OSError."""
        self._server.config.load()
        self._server.config.ssl = tls
        family, _, _, _, name = (
            await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        )[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(name)
        except OSError as error:
            listening.close()
            raise cannot_listen(address, error) from error
        self._socket = listening
        host, port = listening.getsockname()[:2]
        self._task = asyncio.create_task(self._server.serve([listening]), name="admin server")
        await self._server.is_started.wait()
        return Address(host, port)

    async def close(self) -> None:
        if self._task is None:
            return
        self._server.should_exit = True
        await self._task
        assert self._socket is not None
        self._socket.close()


class _Server(uvicorn.Server):
    """Without uvicorn's signal handlers: signals are the command's, which stops the whole node."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_started = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_started.set()


class _ImpatientProtocol(H11Protocol):
    """Closes a connection that is in no response when it is looked at; uvicorn would wait for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(REQUEST_DEADLINE_S, self._on_deadline)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Ends the request under way, if there is one. uvicorn's own raises in some states of h11's machine: where the
        broken part follows a HEAD, or a request whose answer is not made yet."""
        cycle = self.cycle
        is_answering = False
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            is_answering = cycle.response_started
        if not is_answering:
            self.transport.write(_BAD_REQUEST)
        self.transport.close()

    def _on_deadline(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._deadline = self.loop.call_later(REQUEST_DEADLINE_S, self._on_deadline)
