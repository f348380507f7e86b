"""A fetch over the bulk connection ends with an equal file or with a reason, however often it is cut."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riverbus import limits
from riverbus.runtime import bulk as bulk_module
from riverbus.runtime import snapshots as snapshots_module
from riverbus.runtime.connection import Connection
from riverbus.wire.frame_nouns import BulkChunk, Frame, Role
from tests.runtime.linked import Cluster, Node, run
from tests.runtime.snapshot_files import answer, names, put, slices

CONTENT = slices(200, size=20_000)  # 4 MB: some twenty chunks


def fetching(tmp_path: Path, story: Callable[[Cluster, Node, Node], Any], size: int = 2) -> None:
    """Node 2 fetches from node 1, which has snapshot 40 of shard 5."""

    async def told() -> None:
        async with Cluster(tmp_path, size) as cluster:
            await cluster.found()
            await put(cluster[1].store, 5, 40, CONTENT)
            await story(cluster, cluster[1], cluster[2])

    run(told())


def fetch(node: Node, peer: int = 1, shard: int = 5, index: int = 40) -> Any:
    return answer(lambda done: node.store.fetch(peer, shard, index, done))


def test_a_fetched_snapshot_is_equal_and_the_link_stays_up(tmp_path: Path) -> None:
    async def story(_: Cluster, first: Node, second: Node) -> None:
        assert await fetch(second) is None
        assert second.store.indexes(5) == [40]
        assert list(second.store.read(5, 40)) == CONTENT
        assert names(second.store) == ["shard-5-40.snap"]
        await put(second.store, 2, 1, [])
        assert await fetch(first, 2, 2, 1) is None  # the node of the higher id serves as well; an empty one too
        assert second.links.bulk is not None
        assert second.links.bulk.bytes_in == sum(map(len, CONTENT))
        assert (first.up, second.up) == ([2], [1])
        assert ("down", 1) not in second.heard

    fetching(tmp_path, story)


def test_what_the_peer_does_not_have_fails_at_once(tmp_path: Path) -> None:
    async def story(_: Cluster, first: Node, second: Node) -> None:
        assert await fetch(second, index=41) == "no snapshot 41 of shard 5 here: No such file or directory"
        first.store.delete(5, 40)
        await first.store.writer.run(lambda: None)
        assert "no snapshot 40" in str(await fetch(second))
        assert names(second.store) == []

    fetching(tmp_path, story)


def test_one_snapshot_is_fetched_once_at_a_time(tmp_path: Path) -> None:
    async def story(_: Cluster, __: Node, second: Node) -> None:
        one, other = await asyncio.gather(fetch(second), fetch(second))
        assert one is None
        assert other == "snapshot 40 of shard 5 is being fetched already"

    fetching(tmp_path, story)


def cut_after(monkeypatch: pytest.MonkeyPatch, chunks: int, times: int) -> list[int]:
    """The serving side loses its connection after so many chunks, so many times; the offsets of all chunks sent."""
    send = Connection.send
    sent: list[int] = []
    cuts: list[int] = []

    def send_or_cut(self: Connection, frame: Frame) -> None:
        if isinstance(frame, BulkChunk):
            if len(cuts) < times and len(sent) >= chunks * (len(cuts) + 1):
                cuts.append(1)
                self.drop("cut by the test")
                return
            sent.append(frame.offset)
        send(self, frame)

    monkeypatch.setattr(Connection, "send", send_or_cut)
    monkeypatch.setattr(bulk_module, "_RETRY_PAUSE_S", 0.0)
    return sent


def test_a_fetch_that_is_cut_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(_: Cluster, __: Node, second: Node) -> None:
        sent = cut_after(monkeypatch, 5, 3)
        assert await fetch(second) is None
        assert list(second.store.read(5, 40)) == CONTENT
        whole = -(-sum(map(len, CONTENT)) // limits.SNAPSHOT_CHUNK_BYTES)
        assert sent.count(0) <= 2, "it began anew at most if nothing had arrived"
        assert len(sent) < 2 * whole

    fetching(tmp_path, story)


def test_a_fetch_gives_up_after_its_retries_and_goes_on_in_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(cluster: Cluster, _: Node, second: Node) -> None:
        with monkeypatch.context() as patch:
            cut_after(patch, 3, 4)
            assert str(await fetch(second)).startswith("given up after 4 tries: ")
        await second.store.writer.run(lambda: None)
        (part,) = names(second.store)
        assert part.endswith(".part")
        await second.stop()
        with (second.path / "snapshots" / part).open("r+b") as file:
            file.seek(-30_000, os.SEEK_END)
            file.write(b"what a crash may leave")  # in a slice: what follows is fetched again
            file.seek(0, os.SEEK_END)
            file.write(bytes(50_000))
        await second.start()
        await cluster.until(lambda: second.up == [1])
        offsets = cut_after(monkeypatch, 1000, 0)
        assert await fetch(second) is None
        assert list(second.store.read(5, 40)) == CONTENT
        assert offsets[0] > 0
        assert names(second.store) == ["shard-5-40.snap"]

    fetching(tmp_path, story)


def test_what_was_left_of_another_nodes_snapshot_is_not_mixed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes slice the same state differently: the digests differ, and nothing is resumed."""

    async def story(_: Cluster, first: Node, second: Node) -> None:
        other = slices(100, size=30_000, seed=2)
        with monkeypatch.context() as patch:
            cut_after(patch, 3, 4)
            assert await fetch(second) is not None
        await put(first.store, 5, 40, other)
        offsets = cut_after(monkeypatch, 1000, 0)
        assert await fetch(second) is None
        assert offsets[0] == 0
        assert list(second.store.read(5, 40)) == other
        assert names(second.store) == ["shard-5-40.snap"]

    fetching(tmp_path, story)


def test_a_snapshot_that_is_deleted_while_it_is_sent_arrives_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(_: Cluster, first: Node, second: Node) -> None:
        send = Connection.send

        def send_and_delete(self: Connection, frame: Frame) -> None:
            if isinstance(frame, BulkChunk):
                first.store.delete(5, 40)
            send(self, frame)

        monkeypatch.setattr(Connection, "send", send_and_delete)
        assert await fetch(second) is None
        assert not first.store.path_of(5, 40).exists()
        assert list(second.store.read(5, 40)) == CONTENT

    fetching(tmp_path, story)


def test_chunks_damaged_on_their_way_are_never_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(_: Cluster, __: Node, second: Node) -> None:
        send = Connection.send

        def damage(self: Connection, frame: Frame) -> None:
            if isinstance(frame, BulkChunk) and frame.offset:
                frame = frame._replace(data=bytes(len(frame.data)))
            send(self, frame)

        monkeypatch.setattr(Connection, "send", damage)
        monkeypatch.setattr(bulk_module, "_RETRY_PAUSE_S", 0.0)
        assert "a chunk was damaged on its way" in str(await fetch(second))
        assert second.store.indexes(5) == []

    fetching(tmp_path, story)


def test_a_file_damaged_at_the_source_is_never_committed(tmp_path: Path) -> None:
    async def story(_: Cluster, first: Node, second: Node) -> None:
        with first.store.path_of(5, 40).open("r+b") as file:
            file.seek(100_000)
            file.write(b"flipped")
        assert "size or digest differ" in str(await fetch(second))
        assert names(second.store) == []

    fetching(tmp_path, story)


def test_a_peer_that_sends_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SNAPSHOT_FETCH_STALL_S", 0.05)
    monkeypatch.setattr(bulk_module, "_RETRY_PAUSE_S", 0.0)

    async def story(_: Cluster, __: Node, second: Node) -> None:
        send = Connection.send
        monkeypatch.setattr(
            Connection, "send", lambda self, frame: None if isinstance(frame, BulkChunk) else send(self, frame)
        )
        monkeypatch.setattr(bulk_module._Talk.next, "__defaults__", (0.05,))
        assert "nothing came for 0.05 s" in str(await fetch(second))

    fetching(tmp_path, story)


def test_a_full_disk_fails_the_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(_: Cluster, __: Node, second: Node) -> None:
        def full(self: snapshots_module.SnapshotFile, data: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(snapshots_module.SnapshotFile, "_write_all", full)
        assert await fetch(second) == "cannot write snapshot 40 of shard 5: No space left on device"
        assert names(second.store) == []

    fetching(tmp_path, story)


def test_a_peer_that_is_gone_fails_the_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_module, "_RETRY_PAUSE_S", 0.0)

    async def story(_: Cluster, first: Node, second: Node) -> None:
        await first.stop()
        assert str(await fetch(second)).startswith("given up after 4 tries: ")

    fetching(tmp_path, story)


def test_sending_keeps_to_its_rate(tmp_path: Path) -> None:
    async def told() -> None:
        async with Cluster(tmp_path, 2) as cluster:
            cluster[1].snapshot_bytes_per_s = 16 * limits.MIB
            await cluster.found()
            await put(cluster[1].store, 5, 40, CONTENT)
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await fetch(cluster[2]) is None
            assert loop.time() - began >= 0.8 * sum(map(len, CONTENT)) / (16 * limits.MIB)

    run(told())


def test_a_node_that_stops_while_it_fetches_and_serves_stops(tmp_path: Path) -> None:
    async def told() -> None:
        async with Cluster(tmp_path, 2) as cluster:
            cluster[1].snapshot_bytes_per_s = limits.MIB
            await cluster.found()
            await put(cluster[1].store, 5, 40, CONTENT)
            calls: list[str | None] = []
            cluster[2].store.fetch(1, 5, 40, calls.append)
            bulk = cluster[2].links.bulk
            assert bulk is not None
            await cluster.until(lambda: cluster.said("linked"))
            while not bulk.bytes_in:
                await cluster[2].store.reader.run(lambda: None)
            await cluster[2].stop()
            await cluster[1].stop()
            assert calls == []

    run(told())


def test_a_stranger_gets_no_snapshot(tmp_path: Path) -> None:
    async def told() -> None:
        async with Cluster(tmp_path, 2) as cluster:
            await cluster.found()
            await put(cluster[1].store, 5, 40, CONTENT)
            await cluster[2].stop()
            cluster[2].secret = b"another"
            await cluster[2].start()
            talk = bulk_module._Talk(asyncio.get_running_loop())
            connection = await cluster[2].links.connect(1, Role.BULK, talk)
            with pytest.raises(OSError, match="refused: it has another cluster secret"):
                await talk.wait_ready()
            await connection.lost

    run(told())
