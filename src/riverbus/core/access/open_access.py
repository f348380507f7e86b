"""A world without users (core/ports.py `Access`): everyone is `default`, who may do everything. For the simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riverbus.core.access.acl import User


class OpenAccess:
    def __init__(self, config: Mapping[str, str]) -> None:
        self._config = config

    def users(self) -> Mapping[str, User]:
        return {}

    def categories(self) -> Mapping[str, frozenset[str]]:
        return {}

    def check_password(self, user: str, password: bytes, hashes: Sequence[str], done: Callable[[bool], None]) -> None:
        done(False)

    def random_bytes(self, count: int) -> bytes:
        return bytes(count)

    def config(self) -> Mapping[str, str]:
        return self._config
