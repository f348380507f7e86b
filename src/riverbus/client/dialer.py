"""How a connection to a node comes about: over a socket here, through memory in `embedded.py`.

A dialer knows the nodes and which is next; it hands out connections that have shaken hands. What failed stays failed
for its caller to retry: BusError when the node refused the credentials, ConnectionError when it could not be reached.
Ended, and whatever else a dialer raises (a directory that the embedded bus cannot use), is nothing that waiting mends.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from typing import Protocol

from riverbus.client.address import Address
from riverbus.client.connection import Connection, PushHandler, handshake
from riverbus.client.nouns import ConnectionLost

CONNECT_TIMEOUT_S = 2.0  # one node; a dead machine answers nothing at all


class Dialer(Protocol):
    """What `Bus` needs of a way to its nodes."""

    async def dial(self, on_push: PushHandler | None = None) -> Connection:
        """A connection to the next node that has said HELLO. Raises ConnectionError or BusError."""
        ...

    async def close(self) -> None: ...


class SocketDialer:
    """Goes round the hosts of a URL, from one drawn at random, so that clients spread over the nodes."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._next = random.randrange(len(address.hosts))

    async def dial(self, on_push: PushHandler | None = None) -> Connection:
        address = self._address
        host, port = address.hosts[self._next]
        self._next = (self._next + 1) % len(address.hosts)
        loop = asyncio.get_running_loop()
        connection = Connection(address.reply_timeout, on_push)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.create_connection(
                    lambda: connection, host, port, ssl=address.tls, server_hostname=host if address.tls else None
                )
                await connection.call(handshake(address.user, address.password, address.client_name))
        except ConnectionLost as lost:
            raise ConnectionError(f"{host}:{port}: {lost}") from None
        except TimeoutError:
            connection.close("no answer to the handshake")
            raise ConnectionError(f"{host}:{port}: no answer to the handshake") from None
        except OSError as error:
            connection.close("the handshake failed")
            raise ConnectionError(f"{host}:{port}: {_reason(error)}") from error
        except BaseException:
            connection.close("the handshake failed")
            raise
        return connection

    async def close(self) -> None:
        return None


def _reason(error: OSError) -> str:
    """asyncio's own texts name the address again, uvloop's are sometimes empty."""
    if isinstance(error, ssl.SSLError) or error.errno is None or error.errno < 0:
        return error.strerror or str(error) or type(error).__name__
    return os.strerror(error.errno)
