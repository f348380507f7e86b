"""A snapshot's way from node to node: over a second connection, so that it never delays the link of the pair.

    fetching node                    serving node
    REQUEST shard, index  --------->
                          <---------  OFFER size, digest      or MISSING reason
    START offset          --------->                          where what an earlier try left ends
                          <---------  CHUNK offset, checksum, data ...

Both ends give up when nothing moves for SNAPSHOT_FETCH_STALL_S. The serving end reads in a thread, a chunk ahead of a
socket that takes it, and all it serves shares one rate. The fetching end checks each chunk, writes in a thread, tries
again after a disconnect, and commits only a whole of the offered size and digest.

Leaves to others: authentication (the same handshake as a link's), files (snapshots.py), whom to fetch from and when
(core/snapshots.py). Invariant: `done` of a fetch comes exactly once, unless this node stops first.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import structlog
import xxhash

from riverbus import limits
from riverbus.runtime.connection import Connection, Owner, report_failure
from riverbus.runtime.snapshots import Done, SnapshotFile, SnapshotStore, Source
from riverbus.wire.frame_nouns import BulkChunk, BulkMissing, BulkOffer, BulkRequest, BulkStart, Frame, Role

log = structlog.get_logger("riverbus.bulk")

F = TypeVar("F", bound=Frame)
Connect = Callable[[int, Role, Owner], Coroutine[Any, Any, Connection]]

_FRAMES_WAITING_MAX = 16  # received and not taken yet; then the socket is not read
_PATIENCE_S = 6 * limits.SNAPSHOT_FETCH_STALL_S  # for START: the other end may have to read what it has first
_RETRY_PAUSE_S = 0.2
_PACE_AHEAD_S = 0.01  # sleeping for less than that costs more turns than it spares


class BulkError(OSError):
    """This try failed; another may not."""


class HopelessError(Exception):
    """Another try would fail too."""


class Bulk:
    """Serves this node's snapshots and fetches others'. Counters are totals since the start."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, store: SnapshotStore, connect: Connect, bytes_per_s: int
    ) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.fetched = 0
        self.fetches_failed = 0
        self.served = 0
        self.serves_failed = 0
        self._loop = loop
        self._store = store
        self._connect = connect
        self._bytes_per_s = bytes_per_s
        self._paced_until = 0.0
        self._serving = 0
        self._fetching: set[tuple[int, int]] = set()
        self._fetch_slots = asyncio.Semaphore(limits.SNAPSHOT_FETCHES_MAX)
        self._tasks: dict[asyncio.Task[None], None] = {}

    @property
    def has_room(self) -> bool:
        return self._serving < limits.SNAPSHOT_SERVES_MAX

    def serve(self, connection: Connection) -> None:
        """A peer dialed for bulk and has proved itself: the connection is ours from here on."""
        talk = _Talk(self._loop)
        talk.on_handshake(connection)
        connection.owner = talk
        self._start(self._serve(talk, connection), f"snapshot for {connection.address}")

    def fetch(self, peer: int, shard: int, index: int, done: Done) -> None:
        """core.ports.Snapshots.fetch."""
        if (shard, index) in self._fetching:
            self._loop.call_soon(done, f"snapshot {index} of shard {shard} is being fetched already")
            return
        self._fetching.add((shard, index))
        self._start(self._fetch(peer, shard, index, done), f"snapshot {index} of shard {shard} from node {peer}")

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._loop.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        report_failure(self._loop, task)

    # --- fetching -----------------------------------------------------------------------------------------------------

    async def _fetch(self, peer: int, shard: int, index: int, done: Done) -> None:
        async with self._fetch_slots:
            failure = await self._fetch_by_tries(peer, shard, index)
        self._fetching.discard((shard, index))
        if failure is None:
            self.fetched += 1
            log.info("fetched a snapshot", shard=shard, index=index, peer=peer)
        else:
            self.fetches_failed += 1
            log.warning("could not fetch a snapshot", shard=shard, index=index, peer=peer, reason=failure)
        done(failure)

    async def _fetch_by_tries(self, peer: int, shard: int, index: int) -> str | None:
        failure = None
        for attempt in range(1 + limits.SNAPSHOT_FETCH_RETRIES):
            if attempt:
                await asyncio.sleep(_RETRY_PAUSE_S * attempt)
            try:
                await self._try_to_fetch(peer, shard, index)
                return None
            except HopelessError as error:
                return str(error)
            except OSError as error:
                failure = str(error) or type(error).__name__
        return f"given up after {1 + limits.SNAPSHOT_FETCH_RETRIES} tries: {failure}"

    async def _try_to_fetch(self, peer: int, shard: int, index: int) -> None:
        talk = _Talk(self._loop)
        connection = await self._connect(peer, Role.BULK, talk)
        file: SnapshotFile | None = None
        try:
            await talk.wait_ready()
            connection.send(BulkRequest(shard, index))
            offer = await talk.next()
            if isinstance(offer, BulkMissing):
                raise HopelessError(offer.reason)
            offer = _expect(offer, BulkOffer)
            file = await self._store.open_fetched(shard, index, offer.digest)
            await self._receive(talk, connection, file, offer)
            committed: asyncio.Future[str | None] = self._loop.create_future()
            file.commit_as(offer.size, offer.digest, committed.set_result)
            failure = await committed
            if failure is not None:
                raise HopelessError(failure)
        finally:
            connection.drop("the fetch is over")
            if file is not None:
                file.release()

    async def _receive(self, talk: _Talk, connection: Connection, file: SnapshotFile, offer: BulkOffer) -> None:
        at = file.size
        connection.send(BulkStart(at))
        while at < offer.size:
            chunk = _expect(await talk.next(), BulkChunk)
            data = chunk.data
            if chunk.offset != at or not data or xxhash.xxh3_64_intdigest(data) != chunk.checksum:
                raise BulkError(f"a chunk was damaged on its way, at {at} of {offer.size}")
            file.write(data)
            at += len(data)
            self.bytes_in += len(data)
            if file.backlog_bytes > limits.SNAPSHOT_BACKLOG_BYTES_MAX:
                await self._store.writer.run(lambda: None)  # runs after all that is queued
            if file.failure is not None:
                raise HopelessError(file.failure)

    # --- serving ------------------------------------------------------------------------------------------------------

    async def _serve(self, talk: _Talk, connection: Connection) -> None:
        self._serving += 1
        source: Source | None = None
        try:
            request = _expect(await talk.next(), BulkRequest)
            try:
                source = await self._store.open_source(request.shard, request.log_index)
            except OSError as error:
                self.serves_failed += 1
                connection.send(
                    BulkMissing(
                        f"no snapshot {request.log_index} of shard {request.shard} here: {error.strerror or error}"
                    )
                )
                connection.close("there is no such snapshot")
                return
            connection.send(BulkOffer(source.size, source.digest))
            start = _expect(await talk.next(_PATIENCE_S), BulkStart)
            await self._send(connection, source, start.offset)
            await asyncio.wait([connection.lost], timeout=_PATIENCE_S)  # the other end closes once it has all
            self.served += 1
        except OSError as error:
            self.serves_failed += 1
            log.info("a snapshot was not sent to its end", address=connection.address, reason=str(error))
        finally:
            self._serving -= 1
            if source is not None:
                self._store.release_source(source)
            if connection.is_open:
                connection.drop("the snapshot was sent")

    async def _send(self, connection: Connection, source: Source, at: int) -> None:
        while at < source.size:
            count = min(limits.SNAPSHOT_CHUNK_BYTES, source.size - at)
            data, checksum = await self._store.reader.run(partial(_read_chunk, source.descriptor, count, at))
            await self._pace(count)
            connection.send(BulkChunk(at, checksum, data))
            await self._wait_taken(connection)
            at += count
            self.bytes_out += count

    async def _pace(self, count: int) -> None:
        now = self._loop.time()
        self._paced_until = max(self._paced_until, now) + count / self._bytes_per_s
        if self._paced_until - now > _PACE_AHEAD_S:
            await asyncio.sleep(self._paced_until - now)

    async def _wait_taken(self, connection: Connection) -> None:
        """Wait until the socket has taken what was written. Raises BulkError when it takes nothing for too long."""
        while True:
            unsent = connection.unsent_bytes
            try:
                async with asyncio.timeout(limits.SNAPSHOT_FETCH_STALL_S):
                    await connection.wait_writable()
            except TimeoutError:
                if connection.unsent_bytes < unsent:
                    continue
                raise BulkError("the other end reads nothing") from None
            if not connection.is_open:
                raise BulkError(connection.reason or "closed")
            return


class _Talk:
    """A bulk connection whose frames a coroutine takes one by one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._connection: Connection | None = None
        self._frames: deque[Frame] = deque()
        self._failure: str | None = None
        self._is_ready = False
        self._is_reading = True
        self._waiter: asyncio.Future[None] | None = None

    def on_handshake(self, connection: Connection) -> None:
        self._connection = connection
        self._is_ready = True
        self._wake()

    def on_frames(self, connection: Connection, frames: list[Frame]) -> None:
        self._frames.extend(frames)
        if self._is_reading and len(self._frames) > _FRAMES_WAITING_MAX:
            self._is_reading = False
            connection.pause_reading()
        self._wake()

    def on_lost(self, connection: Connection) -> None:
        self._failure = connection.reason
        self._wake()

    async def wait_ready(self) -> None:
        """Raises BulkError when the handshake fails; it has a deadline of its own."""
        while not self._is_ready:
            await self._wait(None)

    async def next(self, patience_s: float = limits.SNAPSHOT_FETCH_STALL_S) -> Frame:
        """Raises BulkError when the connection is lost, or no byte came for `patience_s`."""
        connection = self._connection
        assert connection is not None
        while not self._frames:
            heard = connection.bytes_in
            try:
                await self._wait(patience_s)
            except TimeoutError:
                if connection.bytes_in == heard:
                    raise BulkError(f"nothing came for {patience_s:g} s") from None
        frame = self._frames.popleft()
        if not self._is_reading and not self._frames:
            self._is_reading = True
            connection.resume_reading()
        return frame

    async def _wait(self, timeout_s: float | None) -> None:
        if self._failure is not None:
            raise BulkError(self._failure)
        self._waiter = self._loop.create_future()
        async with asyncio.timeout(timeout_s):
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _expect(frame: Frame, kind: type[F]) -> F:
    if not isinstance(frame, kind):
        raise BulkError(f"a {type(frame).__name__} came instead of a {kind.__name__}")
    return frame


def _read_chunk(descriptor: int, count: int, at: int) -> tuple[bytes, int]:
    data = os.pread(descriptor, count, at)
    if len(data) < count:
        raise BulkError("the file is shorter than it was")
    return data, xxhash.xxh3_64_intdigest(data)
