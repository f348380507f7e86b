"""The bus in this process: the interface of `connect()`, with no server and no socket.

The very engine that a node runs, a cluster of one, spoken to in RESP through memory (runtime/embedded.py): what works
here works on a cluster. In memory it is gone at the end; with a directory it is durable, one fsync a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from riverbus.client.address import Address
from riverbus.client.bus import Bus
from riverbus.client.connection import Connection, PushHandler, handshake
from riverbus.client.nouns import Ended
from riverbus.runtime.config import load
from riverbus.runtime.embedded import EmbeddedNode

SHARDS_DEFAULT = 1  # in one process there is nothing to spread over


class EmbeddedDialer:
    """Starts the node at the first connection, on the loop that asks."""

    def __init__(self, settings: Mapping[str, Any], data: Path | None) -> None:
        self._config = load(
            flags={**settings, "node": {"shards": SHARDS_DEFAULT, **settings.get("node", {})}}, environ={}
        )
        self._data = data
        self._node: EmbeddedNode | None = None
        self._starting = asyncio.Lock()

    async def dial(self, on_push: PushHandler | None = None) -> Connection:
        async with self._starting:
            if self._node is None:
                node = EmbeddedNode(self._config, self._data)
                await node.start()
                self._node = node
        connection = Connection(Address.reply_timeout, on_push)
        try:
            self._node.connect(connection)
        except ConnectionError as error:
            raise Ended(str(error)) from None
        await connection.call(handshake(None, None, None))
        return connection

    async def close(self) -> None:
        if self._node is not None:
            await self._node.close()


def embedded(data: Path | str | None = None, settings: Mapping[str, Any] | None = None) -> Bus:
    """A bus in this process: `async with riverbus.embedded() as bus`.

    With `data`, a directory, what was published is there again at the next start. `settings` is what a configuration
    file would say, such as {"history": {"count": 100}}. Raises ConfigError for bad settings; at the first call OSError,
    IdentityError or LogError when the directory cannot be used.
    """
    dialer = EmbeddedDialer(settings or {}, None if data is None else Path(data))
    return Bus(dialer, Address.deadline)
