"""Who may come in: users of the configuration, the cluster's secret, TLS contexts, and what CONFIG GET shows of it.

Leaves to others: whether a password is right (passwords.py), what a user may do (acl_rights.py), TLS connections
(tls.py). A file with a secret that others of this machine can read is refused.
"""

from __future__ import annotations

import os
import secrets
import ssl
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import riverbus
from riverbus import limits
from riverbus.core.access.acl import RuleError, User, check_names, checked_name, hashed, merged, read_user, text_of
from riverbus.runtime.config import Config, ConfigError
from riverbus.runtime.config_users import ClientTls, Tls
from riverbus.runtime.config_users import User as ConfiguredUser
from riverbus.runtime.passwords import Passwords
from riverbus.wire.command_table import ROWS
from riverbus.wire.introspection import find
from riverbus.wire.parse_acl import categories_of

SECRET_BYTES_MIN = 16


class Accounts:
    """The users of the configuration, and what clients may know of it (core/ports.py `Access`).

    `enter` begins a turn of the loop: a slow check ends outside of any.
    """

    def __init__(self, config: Config, enter: Callable[[], None]) -> None:
        self._users = {user.name: user_of(user) for user in config.user}
        self._passwords = Passwords({user.name: slow for user in config.user if (slow := user.slow())}, enter)
        self._categories = categories_of(ROWS)
        self._shown = _config_shown(config)

    def users(self) -> Mapping[str, User]:
        return self._users

    def categories(self) -> Mapping[str, frozenset[str]]:
        return self._categories

    def check_password(self, user: str, password: bytes, hashes: Sequence[str], done: Callable[[bool], None]) -> None:
        self._passwords.check(user, password, hashes, done)

    def random_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def config(self) -> Mapping[str, str]:
        return self._shown

    def close(self) -> None:
        self._passwords.close()


def user_of(configured: ConfiguredUser) -> User:
    """Raises ConfigError when a rule can't be applied, or names a command or category that there is not."""
    digests = [hashed(b">" + text.encode()) for text in configured.plain()]
    digests += ["#" + digest for digest in configured.digests()]
    try:
        rules = [text_of(rule) for rule in merged(configured.rules.encode().split())]
        check_names(rules, _Commands())
        name = checked_name(configured.name.encode())
        return read_user(name, ["on" if configured.enabled else "off", *digests, *rules])
    except RuleError as error:
        about = f"rule {error.rule!r}: " if error.rule else ""
        raise ConfigError([f"user {configured.name!r}: {about}{error.reason}"]) from None


class _Commands:
    """Which there are (core/access/acl.py `Names`)."""

    def has_command(self, name: str) -> bool:
        return find(ROWS, name.encode()) is not None

    def has_subcommands(self, name: str) -> bool:
        row = find(ROWS, name.encode())
        return row is not None and bool(row.subcommands)


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
        "process-id": str(os.getpid()),
        "proto-max-bulk-len": str(limits.MESSAGE_BYTES_MAX),
        "riverbus-version": riverbus.__version__,
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
    load_certificate(context, tls)
    if tls.ca is not None:
        is_required = not isinstance(tls, ClientTls) or tls.asks_for_certificates
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
    return context


def client_context(tls: Tls) -> ssl.SSLContext | None:
    """For the connecting side of a peer link, which shows the same certificate. None when TLS is off."""
    if not tls.is_on:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_certificate(context, tls)
    return context


def load_certificate(context: ssl.SSLContext, tls: Tls) -> None:
    """Into a context, new or in use. Raises ConfigError."""
    assert tls.cert is not None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert, tls.key)
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (tls.cert, tls.key, tls.ca) if path is not None)
        raise ConfigError([f"tls: {files}: {error.strerror or error}"]) from None
