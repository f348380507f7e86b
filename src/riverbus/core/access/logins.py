"""Failed logins by address, so that a guesser is told to wait: FAILED_LOGINS_MAX within FAILED_LOGINS_S.

An address is a host; of IPv6 the first 64 bits, of which any customer has them all. Bounded: the address that failed
the longest ago is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict

from riverbus.limits import ADDRESSES_MAX, FAILED_LOGINS_S


def host_of(address: str) -> str:
    """Of `host:port` or `[host]:port`, as CLIENT LIST shows it."""
    host = address.rpartition(":")[0].strip("[]")
    if ":" not in host or "." in host:
        return host
    head, double, tail = host.partition("::")
    groups = head.split(":") if head else []
    if double:
        after = tail.split(":") if tail else []
        groups += ["0"] * (8 - len(groups) - len(after)) + after
    return ":".join(group.lstrip("0") or "0" for group in groups[:4]) + "::"


class FailedLogins:
    """`failures_max` 0: nobody is made to wait."""

    def __init__(self, failures_max: int) -> None:
        self.failures_max = failures_max
        self.refused = 0  # logins that were not looked at
        self._by_host: OrderedDict[str, tuple[float, int]] = OrderedDict()  # since when, how many

    def wait_s(self, address: str, now: float) -> int:
        """Seconds until this address may try again; 0: it may."""
        since, count = self._by_host.get(host_of(address), (0.0, 0))
        left = since + FAILED_LOGINS_S - now
        if not self.failures_max or count < self.failures_max or left <= 0:
            return 0
        self.refused += 1
        return int(left) + 1

    def on_failure(self, address: str, now: float) -> None:
        host = host_of(address)
        since, count = self._by_host.pop(host, (now, 0))
        if now - since >= FAILED_LOGINS_S:
            since, count = now, 0
        self._by_host[host] = (since, count + 1)
        if len(self._by_host) > ADDRESSES_MAX:
            self._by_host.popitem(last=False)
