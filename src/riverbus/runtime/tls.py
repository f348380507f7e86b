"""TLS of clients' connections: the handshake before anything else, its failures in words, certificates that change.

A connection is accepted as TCP, and handed on (`Protocol.connection_made`) when its handshake is done; until then it
costs one of TLS_HANDSHAKES_MAX places and TLS_HANDSHAKE_S at most. The context is taken when a connection comes, so a
new certificate holds from the next one on and those that are open stay. A file that cannot be read, or a key that is
not the certificate's, is said in the log and changes nothing: what held before goes on holding.

Leaves to others: what the files are (security.py), what a client says once it is in (clients.py).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

import structlog
from uvloop.loop import SSLProtocol  # type: ignore[attr-defined]

from riverbus import limits
from riverbus.runtime.config import Config, ConfigError
from riverbus.runtime.config_users import Tls
from riverbus.runtime.security import load_certificate, server_context

log = structlog.get_logger("riverbus.tls")

_SAID_EVERY_S = 10.0  # one line at most of strangers' failed handshakes, with how many there were
_PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL_NAME", "BAD_RECORD_TYPE", "PACKET_LENGTH")


class Certificates:
    """The context of new connections; `look` reads the files again if one of them has changed."""

    def __init__(self, name: str, tls: Tls) -> None:
        """Raises ConfigError. TLS is on."""
        self._name = name
        self.tls = tls
        self._seen = self._look_at_files()
        context = server_context(tls)
        assert context is not None
        self.context = context

    def look(self, is_forced: bool = False) -> bool:
        """True if there is a new context."""
        seen = self._look_at_files()
        if seen == self._seen and not is_forced:
            return False
        self._seen = seen
        try:
            context = server_context(self.tls)
        except ConfigError as error:
            log.error("the changed certificate is not taken: the old one goes on", tls=self._name, error=str(error))
            return False
        assert context is not None
        self.context = context
        log.info("the certificate was read again", tls=self._name, cert=str(self.tls.cert))
        return True

    def _look_at_files(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in (self.tls.cert, self.tls.key, self.tls.ca) if path is not None]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Follows links, as certificates are often swapped by one."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class NodeCertificates:
    """All that a node shows: to clients, to operators, to other nodes. Looked at on a timer, and when told to."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._in_place: list[tuple[Certificates, list[ssl.SSLContext]]] = []
        self.clients: Certificates | None = None
        self.admin: ssl.SSLContext | None = None

    def open(self, peer_server: ssl.SSLContext | None, peer_client: ssl.SSLContext | None) -> None:
        """Raises ConfigError."""
        config = self._config
        if config.tls.is_on:
            self.clients = Certificates("tls", config.tls)
        if config.admin.tls.is_on:
            admin = Certificates("admin.tls", config.admin.tls)
            self.admin = admin.context
            self._in_place.append((admin, [admin.context]))
        if peer_server is not None and peer_client is not None:
            self._in_place.append((Certificates("peer.tls", config.peer.tls), [peer_server, peer_client]))
        self._timer = self._loop.call_later(limits.CERTIFICATES_LOOK_S, self._on_timer)

    def _on_timer(self) -> None:
        self.look()
        self._timer = self._loop.call_later(limits.CERTIFICATES_LOOK_S, self._on_timer)

    def look(self, is_forced: bool = False) -> None:
        """Take what has changed. Contexts that others hold are renewed in place: new authorities are added to them."""
        if self.clients is not None:
            self.clients.look(is_forced)
        for certificates, contexts in self._in_place:
            if certificates.look(is_forced):
                for context in contexts:
                    load_certificate(context, certificates.tls)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Gate:
    """Lets TLS connections in. `protocol` is made anew for each; it hears of those that come through."""

    def __init__(
        self, certificates: Certificates, protocol: Callable[[], asyncio.Protocol], on_failure: Callable[[], None]
    ) -> None:
        self._certificates = certificates
        self._protocol = protocol
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._handshakes: dict[_Arrival, None] = {}
        self._said_at = float("-inf")
        self._unsaid = 0

    def connection(self) -> asyncio.Protocol:
        """For create_server."""
        arrival = _Arrival(self, self._loop, self._protocol(), self._certificates.context)
        return cast(asyncio.Protocol, arrival)

    def close(self) -> None:
        for arrival in list(self._handshakes):
            arrival.transport.abort()

    def begin(self, arrival: _Arrival) -> None:
        if len(self._handshakes) >= limits.TLS_HANDSHAKES_MAX:
            arrival.refuse("too many connections are in their handshake")
        else:
            self._handshakes[arrival] = None

    def end(self, arrival: _Arrival, reason: str) -> None:
        """Why it failed, or "". Strangers can't fill the log: the next line says how many there were."""
        self._handshakes.pop(arrival, None)
        if not reason:
            return
        self._on_failure()
        now = self._loop.time()
        if now < self._said_at + _SAID_EVERY_S:
            self._unsaid += 1
            return
        log.warning(
            "a client's TLS handshake failed: closed", address=arrival.address, reason=reason, since_last=self._unsaid
        )
        self._said_at, self._unsaid = now, 0


class _Arrival(SSLProtocol):  # type: ignore[misc]
    """uvloop's own TLS, as its create_server makes it, but for this: it says where it came from, and how it ended."""

    def __init__(
        self, gate: Gate, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, context: ssl.SSLContext
    ) -> None:
        self._gate = gate
        self.address = "?"
        self.transport: asyncio.Transport
        self._refusal = ""
        self._ended: asyncio.Future[None] = loop.create_future()
        self._ended.add_done_callback(self._on_ended)
        super().__init__(
            loop, protocol, context, self._ended, server_side=True, ssl_handshake_timeout=limits.TLS_HANDSHAKE_S
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = f"{peer[0]}:{peer[1]}"
        self.transport = cast(asyncio.Transport, transport)
        super().connection_made(transport)
        self._gate.begin(self)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ended.done():
            self._refusal = self._refusal or "it went away"  # which uvloop takes for an end like any other
        super().connection_lost(error)

    def refuse(self, reason: str) -> None:
        self._refusal = reason
        self.transport.abort()

    def _on_ended(self, ended: asyncio.Future[None]) -> None:
        error = None if ended.cancelled() else ended.exception()
        self._gate.end(self, _reason(error) if error is not None else self._refusal)


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        if reason.startswith(_PLAIN):
            return "it does not speak TLS: a client of this port connects with rediss:// (--tls)"
        if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "it showed no certificate, and tls.ca asks for one"
        return reason.lower().replace("_", " ")
    if isinstance(error, TimeoutError) or "handshake" in str(error):
        return f"no handshake within {limits.TLS_HANDSHAKE_S:g} s"
    return f"it went away: {error}"
