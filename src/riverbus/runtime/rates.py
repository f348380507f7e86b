"""How fast clients may send: by connection, and by user over all of its connections to this node.

Whoever sends more is read slower: its socket is not read until its budget is positive again, so TCP slows it down, and
nothing it has sent is refused or lost. A budget refills steadily and holds one second's worth, which is the burst.
"""

from __future__ import annotations

from typing import NamedTuple

from riverbus.runtime.config import Config


class Rate(NamedTuple):
    """Per second; 0: as many as one likes."""

    commands: int = 0
    bytes: int = 0

    @property
    def is_limited(self) -> bool:
        return bool(self.commands or self.bytes)


class Budget:
    """Of one connection, or one user."""

    __slots__ = ("_at", "_bytes", "_commands", "_rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._at = now
        self._commands = float(rate.commands)
        self._bytes = float(rate.bytes)

    def spend(self, commands: int, size: int, now: float) -> float:
        """Seconds until more may come; 0: at once."""
        rate, passed = self._rate, max(0.0, now - self._at)
        self._at = now
        wait = 0.0
        if rate.commands:
            self._commands = min(rate.commands, self._commands + passed * rate.commands) - commands
            wait = -self._commands / rate.commands
        if rate.bytes:
            self._bytes = min(rate.bytes, self._bytes + passed * rate.bytes) - size
            wait = max(wait, -self._bytes / rate.bytes)
        return max(0.0, wait)


class Rates:
    """The rates of a node, and the budgets of its users."""

    def __init__(self, connection: Rate, user: Rate) -> None:
        self.connection = connection
        self.user = user
        self._users: dict[str, tuple[Budget, float]] = {}  # with when it was last spent from
        self._users_kept = _USERS_KEPT

    @property
    def are_limited(self) -> bool:
        return self.connection.is_limited or self.user.is_limited

    def spend(self, budget: Budget, user: str, commands: int, size: int, now: float) -> float:
        """Seconds for which this connection is not to be read."""
        wait = budget.spend(commands, size, now)
        if self.user.is_limited:
            shared, _ = self._users.get(user) or (Budget(self.user, now), now)
            self._users[user] = (shared, now)
            wait = max(wait, shared.spend(commands, size, now))
            if len(self._users) > self._users_kept:
                self._forget(now)
        return wait

    def _forget(self, now: float) -> None:
        """A budget that nobody spent from for some seconds is full again, and as good as none."""
        self._users = {user: held for user, held in self._users.items() if now - held[1] < _FULL_AFTER_S}
        self._users_kept = max(_USERS_KEPT, 2 * len(self._users))


def rates_of(config: Config) -> Rates:
    limits = config.limits
    return Rates(
        Rate(limits.commands_per_second, limits.bytes_per_second),
        Rate(limits.user_commands_per_second, limits.user_bytes_per_second),
    )


_USERS_KEPT = 1024
_FULL_AFTER_S = 600.0
