"""Who may come in: users and their passwords, the cluster's secret, TLS contexts, and what CONFIG GET shows of it.

Passwords are compared as SHA-256 digests in constant time, as Redis' ACL does it: that is for machines' long random
passwords, not for people's. A file with a secret that others of this machine can read is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path

from riverbus import limits
from riverbus.runtime.config import Config, ConfigError, Tls

SECRET_BYTES_MIN = 16
_NOBODY = bytes(32)


class Accounts:
    """The users of the configuration, and what clients may know of it (core/ports.py `Access`)."""

    def __init__(self, config: Config) -> None:
        self._digests = {user.name: _digest_of(user.password.get_secret_value()) for user in config.user}
        self._shown = _config_shown(config)

    def has_users(self) -> bool:
        return bool(self._digests)

    def authenticate(self, user: str, password: bytes) -> bool:
        """Takes as long for an unknown user as for a known one."""
        expected = self._digests.get(user, _NOBODY)
        return hmac.compare_digest(hashlib.sha256(password).digest(), expected)

    def config(self) -> Mapping[str, str]:
        return self._shown


def _digest_of(password: str) -> bytes:
    if password.startswith("sha256:"):
        return bytes.fromhex(password.removeprefix("sha256:"))
    return hashlib.sha256(password.encode()).digest()


def _config_shown(config: Config) -> dict[str, str]:
    """The parameters that clients and their test suites ask for, in Redis' words."""
    return {
        "appendfsync": "always",
        "appendonly": "yes",
        "bind": config.resp.listen.host,
        "databases": "1",
        "dir": str(config.node.data),
        "maxclients": str(config.limits.sessions),
        "maxmemory": str(config.limits.retained),
        "maxmemory-policy": "noeviction",
        "notify-keyspace-events": "",
        "port": str(config.resp.listen.port),
        "proto-max-bulk-len": str(limits.MESSAGE_BYTES_MAX),
        "save": "",
        "stream-node-max-entries": "100",
        "tcp-keepalive": "60",
        "timeout": "0",
    }


def read_secret(path: Path | None) -> bytes:
    """The cluster's secret, without the line's end; b"" when there is no file. Raises ConfigError."""
    if path is None:
        return b""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(64 * limits.KIB).strip()
    except OSError as error:
        raise ConfigError([f"node.secret_file: {path}: {error.strerror}"]) from None
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        raise ConfigError([f"node.secret_file: {path} is open to other users: chmod 600 {path}"])
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError([f"node.secret_file: {path} must hold at least {SECRET_BYTES_MIN} bytes"])
    return secret


def server_context(tls: Tls) -> ssl.SSLContext | None:
    """For a listening side; clients must show a certificate if `ca` is set. None: TLS is off. Raises ConfigError."""
    if not tls.is_on:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, tls)
    if tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls) -> ssl.SSLContext | None:
    """For the connecting side of a peer link, which shows the same certificate. None when TLS is off."""
    if not tls.is_on:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: Tls) -> None:
    assert tls.cert is not None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert, tls.key)
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (tls.cert, tls.key, tls.ca) if path is not None)
        raise ConfigError([f"tls: {files}: {error.strerror or error}"]) from None
