"""The `riverbus` fixture: a cluster of three nodes in the test's own process, and the faults that a cluster has.

    async def test_it(riverbus):                       # with pytest-asyncio, anyio, or asyncio.run inside
        async with riverbus.connect() as bus:
            ...
            await riverbus.failover()

It is a `riverbus.client.embedded_cluster.EmbeddedCluster`, started at its first use and gone after the test.
`@pytest.mark.riverbus(nodes=1, settings={"history": {"count": 3}})` says what it is to be. pytest finds this module by
its entry point; a session that does not use the fixture imports nothing of Riverbus but this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from riverbus.client.embedded_cluster import EmbeddedCluster

MARKER = "riverbus(nodes=3, settings={}): how many nodes the `riverbus` fixture has, and their configuration"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
def riverbus(request: pytest.FixtureRequest) -> Iterator[EmbeddedCluster]:
    """A Riverbus cluster in this process: connect(), listen(), failover(), partition(), slow_consumers(), kill()."""
    from riverbus.client.embedded_cluster import EmbeddedCluster

    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("riverbus"))):  # the nearest one holds
        if marker.args or not set(marker.kwargs) <= {"nodes", "settings"}:
            raise pytest.UsageError("pytest.mark.riverbus takes nodes=... and settings=... only")
        options.update(marker.kwargs)
    cluster = EmbeddedCluster(**options)
    yield cluster
    loop = cluster.loop  # None when its loop ended, and it with it
    if loop is not None and not loop.is_running() and not loop.is_closed():
        loop.run_until_complete(cluster.close())
