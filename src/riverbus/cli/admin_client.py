"""Questions to a node's admin port, for `status` and `dev`: one blocking request each, on loopback as a rule."""

from __future__ import annotations

import http.client
import ssl
from typing import Any

import msgspec

from riverbus.runtime.units import Address

TIMEOUT_S = 2.0


def ask(address: Address, path: str, token: str | None = None, tls: ssl.SSLContext | None = None) -> tuple[int, Any]:
    """Status code and decoded JSON, or text if it is none; with `tls` over HTTPS. Raises OSError if nobody answers."""
    connection = (
        http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
        if tls is None
        else http.client.HTTPSConnection(address.host, address.port, timeout=TIMEOUT_S, context=tls)
    )
    try:
        connection.request("GET", path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = response.read()
    except http.client.HTTPException as error:
        raise OSError(f"{address} does not speak HTTP: {error}") from error
    finally:
        connection.close()
    try:
        return response.status, msgspec.json.decode(body)
    except msgspec.DecodeError:
        return response.status, body.decode(errors="replace").strip()
