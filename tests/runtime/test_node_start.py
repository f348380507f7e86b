"""A node says that it is ready once clients can connect, not before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from riverbus.runtime.clients import ClientServer
from riverbus.runtime.config import load
from riverbus.runtime.node import Node
from riverbus.runtime.tls import Certificates
from riverbus.runtime.units import Address

ANY_PORT = {"listen": "127.0.0.1:0"}


def test_a_node_that_can_commit_and_does_not_listen_yet_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        flags = {"node": {"data": tmp_path / "data"}, "resp": ANY_PORT, "admin": ANY_PORT, "peer": ANY_PORT}
        config = load(flags=flags, environ={})
        node = Node(config)
        listen = ClientServer.listen
        seen: list[object] = []

        async def late(clients: ClientServer, address: Address, certificates: Certificates | None = None) -> Address:
            async with asyncio.timeout(10):
                while node.engine is None or node.engine.unready():  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0)
            seen.extend((bool(node.unready()), node.status()["state"]))
            return await listen(clients, address, certificates)

        monkeypatch.setattr(ClientServer, "listen", late)
        try:
            await node.start()
            assert seen == [True, "starting"]
            assert (node.unready(), node.status()["state"]) == ([], "running")
        finally:
            await node.close()

    asyncio.run(story())
