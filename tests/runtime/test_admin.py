"""The admin server over a real socket, and what /metrics says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from riverbus.runtime import admin
from riverbus.runtime.admin import AdminServer
from riverbus.runtime.metrics import Metrics
from riverbus.runtime.turn import Histogram
from riverbus.runtime.units import Address

STATUS: dict[str, object] = {
    "node": 1,
    "version": "0.1.0",
    "voters": [1, 2, 3],
    "peers_up": [3],
    "ready": True,
    "disk_full": False,
    "shards": [
        {"shard": 0, "role": "leader", "leader": 1, "term": 7, "commit": 9, "applied": 8, "snapshots_taken": 2},
        {"shard": 1, "role": "follower", "leader": 2, "term": 3, "commit": 5, "applied": 5, "snapshots_taken": 0},
    ],
    "sessions": {"connected": 4, "published_messages": 12, "dropped": {"window_passed": 3, "replies_unread": 0}},
    "log": {"syncs": 5, "sync_ns_total": 2_500_000_000, "unheard_of": 1},
}


class Source:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def status(self) -> dict[str, object]:
        return STATUS

    def unready(self) -> list[str]:
        return self.reasons


def run(story: Callable[[Source, httpx.AsyncClient, Address], Awaitable[None]], token: str | None = None) -> None:
    async def served() -> None:
        source = Source()
        server = AdminServer(source, Metrics(source.status, {}).render, token)
        address = await server.start(Address("127.0.0.1", 0))
        try:
            async with httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as client:
                await story(source, client, address)
        finally:
            await server.close()
        with pytest.raises(OSError):
            await asyncio.open_connection(*address)

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await served()

    uvloop.run(bounded())


def test_readyz_says_no_with_its_reasons_and_yes_without() -> None:
    async def story(source: Source, client: httpx.AsyncClient, address: Address) -> None:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": []})
        source.reasons = ["no leader in contact"]
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "reasons": ["no leader in contact"]})
        assert (await client.get("/livez")).json() == {"live": True}

    run(story)


def test_status_is_the_nodes_own_as_json() -> None:
    async def story(source: Source, client: httpx.AsyncClient, address: Address) -> None:
        assert (await client.get("/status")).json() == STATUS

    run(story)


def test_unknown_paths_and_methods_are_errors_that_say_what_there_is() -> None:
    async def story(source: Source, client: httpx.AsyncClient, address: Address) -> None:
        answer = await client.get("/statuz")
        assert (answer.status_code, answer.text) == (
            404,
            "no such path; there are /livez, /readyz, /status, /metrics\n",
        )
        answer = await client.post("/status", content=b"x" * 1_000_000)
        assert answer.status_code == 405
        assert (await client.get("/livez")).status_code == 200

    run(story)


def test_with_a_token_status_and_metrics_ask_for_it_and_health_does_not() -> None:
    async def story(source: Source, client: httpx.AsyncClient, address: Address) -> None:
        for path in ("/status", "/metrics"):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 401
            assert (await client.get(path, headers={"Authorization": "Bearer let-me-in"})).status_code == 200
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200

    run(story, token="let-me-in")


def test_a_connection_that_never_finishes_its_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "REQUEST_DEADLINE_S", 0.1)

    async def story(source: Source, client: httpx.AsyncClient, address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /livez HTTP/1.1\r\nHost:")
        assert await reader.read() == b""
        writer.close()

    run(story)


def test_headers_without_end_are_refused() -> None:
    async def story(source: Source, client: httpx.AsyncClient, address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /livez HTTP/1.1\r\n" + b"X-Header: " + b"x" * 100_000)
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()

    run(story)


def test_a_port_that_is_taken_is_an_error_and_not_the_end_of_the_process() -> None:
    async def story(source: Source, client: httpx.AsyncClient, address: Address) -> None:
        with pytest.raises(OSError, match="in use"):
            await AdminServer(source, lambda: b"").start(address)

    run(story)


def test_metrics_are_the_status_in_base_units_with_bounded_labels() -> None:
    lag = Histogram((0.001, 0.01))
    for seconds in (0.0005, 0.005, 0.006, 5.0):
        lag.observe(seconds)
    text = Metrics(lambda: STATUS, {"riverbus_loop_lag_seconds": ("lag", lag)}).render().decode()
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["riverbus_node_ready", ()] == 1
    assert samples["riverbus_shard_leader", (("shard", "0"),)] == 1
    assert samples["riverbus_shard_leader", (("shard", "1"),)] == 0
    assert samples["riverbus_shard_snapshots_taken_total", (("shard", "0"),)] == 2
    assert samples["riverbus_messages_published_total", ()] == 12
    assert samples["riverbus_dropped_total", (("reason", "window_passed"),)] == 3
    assert samples["riverbus_peer_up", (("peer", "2"),)] == 0
    assert samples["riverbus_peer_up", (("peer", "3"),)] == 1
    assert samples["riverbus_log_sync_seconds_total", ()] == 2.5
    assert samples["riverbus_loop_lag_seconds_bucket", (("le", "0.01"),)] == 3
    assert samples["riverbus_loop_lag_seconds_count", ()] == 4
    assert samples["riverbus_loop_lag_seconds_sum", ()] == pytest.approx(5.0115)
    assert any(name == "process_open_fds" for name, _ in samples)
    names = {name for name, _ in samples if not name.startswith("process_")}
    assert all(name.startswith("riverbus_") for name in names)


def test_a_node_that_has_not_started_has_metrics_too() -> None:
    assert b"process_open_fds" in Metrics(dict, {}).render()
