"""Durations, sizes and addresses as people write them in a configuration, and back.

A duration needs its unit ("10m", "1h30m", "250ms"), since a bare number would be read as seconds by one and as
milliseconds by another. A size may be a bare number of bytes, or "64MiB"; "MB" is the decimal one. All ValueErrors are
worded for the operator who wrote the value.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import NamedTuple

_DURATION_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(?:\d+(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+)(ms|s|m|h|d)")
_BYTES = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _BYTES[_letter + "iB"] = 1024**_power
    _BYTES[_letter + "B"] = 1000**_power
_BYTES["kB"] = 1000
_SIZE = re.compile(r"(\d+)\s*([A-Za-z]*)")


class Address(NamedTuple):
    """Where to listen or to connect. Port 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can reach it. A name other than localhost is taken for a network's."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def cannot_listen(address: Address, error: OSError) -> OSError:
    """The error of a bind, with the address in it: a node has several."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OSError(error.errno, f"cannot listen on {address}: {reason}")


def parse_address(text: str) -> Address:
    """`127.0.0.1:6380`, `[::1]:6380`, `host:6380`."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""  # an IPv6 address without brackets
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return Address(host, int(port))


def parse_cluster(text: str) -> dict[int, str]:
    """`1=10.0.0.1:7380,2=10.0.0.2:7380` -> the peer address of each node id."""
    members: dict[int, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        node, equals, address = part.partition("=")
        if not equals or not node.strip().isdigit():
            raise ValueError(f"{part!r} is not ID=HOST:PORT")
        if int(node) in members:
            raise ValueError(f"node {int(node)} is there twice")
        members[int(node)] = address.strip()
    return members


def parse_duration(text: object) -> int:
    """Milliseconds."""
    if not isinstance(text, str) or not _DURATION.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is not a duration: write a number and ms, s, m, h or d, such as 10m")
    return sum(int(count) * _DURATION_MS[unit] for count, unit in _DURATION_PART.findall(text))


def parse_bytes(text: object) -> int:
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or match[2] not in _BYTES:
        raise ValueError(f"{text!r} is not a size: write bytes, or a number and KiB, MiB, GiB, TiB, KB, MB, GB or TB")
    return int(match[1]) * _BYTES[match[2]]


def format_duration(ms: int) -> str:
    """The largest unit that divides it."""
    for unit in ("d", "h", "m", "s"):
        if ms and ms % _DURATION_MS[unit] == 0:
            return f"{ms // _DURATION_MS[unit]}{unit}"
    return f"{ms}ms"


def format_bytes(size: int) -> str:
    """The largest binary unit that divides it, so that nothing is lost."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return str(size)
