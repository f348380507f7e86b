"""Where the cluster is: `redis://[user:password@]host[:port][,host[:port]...][/0][?options]`, or `rediss://` for TLS.

As redis-py's URLs, but with several nodes of the cluster, each of which takes any command. Options are the fields of
`Address` that are in `OPTIONS`; an unknown one is an error. Passwords never show in `repr`.
"""

from __future__ import annotations

import difflib
import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

PORT_DEFAULT = 6380
TLS_OPTIONS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")  # as redis-py's
OPTIONS = ("client_name", "deadline", "reply_timeout", *TLS_OPTIONS)


@dataclass(frozen=True)
class Address:
    hosts: tuple[tuple[str, int], ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    client_name: str | None = None
    deadline: float = 10.0  # seconds for which what was not accepted is tried again
    reply_timeout: float = 3.0  # seconds of silence with a command in flight, after which a connection is dead


def parse_url(url: str, tls: ssl.SSLContext | None = None, client_name: str | None = None) -> Address:
    """Raises ValueError, which names the part that is wrong and never the password."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("redis", "rediss"):
        raise ValueError("a Riverbus URL starts with redis:// or rediss://")
    rest, _, query = rest.partition("?")
    options = _options(query)
    place, _, database = rest.partition("/")
    if database not in ("", "0"):
        raise ValueError(f"there is only database 0, not {database!r}")
    credentials, _, hosts = place.rpartition("@")
    if scheme == "redis" and (unused := [name for name in TLS_OPTIONS if name in options]):
        raise ValueError(f"{unused[0]} is for TLS: the URL then starts with rediss://")
    user, has_password, password = credentials.partition(":")
    parts = hosts.split(",")
    if len(parts) > 1 and not all(parts):
        raise ValueError(f"a host is missing in {hosts!r}")
    return Address(
        hosts=tuple(_host(part) for part in parts),
        user=unquote(user) or None,
        password=unquote(password) if has_password else None,
        tls=tls if tls is not None or scheme == "redis" else _tls_context(options),
        client_name=client_name or options.get("client_name"),
        deadline=_seconds(options, "deadline", Address.deadline),
        reply_timeout=_seconds(options, "reply_timeout", Address.reply_timeout),
    )


def _options(query: str) -> dict[str, str]:
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
    except ValueError:
        raise ValueError("options in the URL are written as name=value, with & between them") from None
    for name in options:
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown option {name!r} in the URL{hint}")
    return options


def _seconds(options: dict[str, str], name: str, default: float) -> float:
    try:
        value = float(options.get(name, default))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a number of seconds above 0, not {options[name]!r}")
    return value


def _host(part: str) -> tuple[str, int]:
    if part.startswith("["):  # [::1]:6380
        host, bracket, port = part[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError(f"not a host and port: {part!r}")
        port = port[1:]
    else:
        host, _, port = part.partition(":")
    if port and not (port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"not a host and port: {part!r}")
    return host or "127.0.0.1", int(port) if port else PORT_DEFAULT


def _tls_context(options: dict[str, str]) -> ssl.SSLContext:
    """The server's certificate is checked, and its name, unless the options say otherwise; ours is shown if asked."""
    cert, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if key is not None and cert is None:
        raise ValueError("ssl_keyfile needs ssl_certfile")
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if cert is not None:
            context.load_cert_chain(cert, key)
    except OSError as error:
        files = ", ".join(path for path in (options.get("ssl_ca_certs"), cert, key) if path is not None)
        raise ValueError(f"{files}: {error.strerror or error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    wanted = options.get("ssl_cert_reqs", "required")
    if wanted not in ("required", "none"):
        raise ValueError(f"ssl_cert_reqs is 'required' or 'none', not {wanted!r}")
    names = options.get("ssl_check_hostname", "true").lower()
    if names not in ("true", "false"):
        raise ValueError(f"ssl_check_hostname is 'true' or 'false', not {names!r}")
    if wanted == "none" or names == "false":
        context.check_hostname = False
    if wanted == "none":
        context.verify_mode = ssl.CERT_NONE
    return context
