"""Links: one authenticated connection to each other node, over which all shards' messages go, in order.

The node of the lower id dials, the other accepts, so that a pair has one connection. Messages to a peer gather in its
outbox and are written once a turn. A link that is lost is made anew after a pause that grows, with jitter, to a second;
one that says nothing for PEER_SILENCE_S is half open and dropped. What is sent without a link is dropped and counted.

A link is *joined* when its handshake is done, and *up* for the handler once both of its ends are bootstrapped: before
the cluster is founded, links only serve to found it (the rule is in identity.py).

It is one file, for founding and links share their state. Leaves to others: what messages mean (core/engine.py),
snapshots' bulk (bulk.py). Errors of this node itself (a disk that fails under the identity) go to the loop's exception
handler, which the composition root makes fatal.

Invariants: a peer has at most one link; on_up and on_down of a peer alternate; on_bootstrapped comes once, before them.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from random import Random
from typing import cast

import structlog

from riverbus import limits
from riverbus.peer_messages import PeerMessage
from riverbus.runtime.bulk import Bulk
from riverbus.runtime.connection import Connection, Owner, report_failure
from riverbus.runtime.handshake import FATAL, Handshake, hello_of, judge
from riverbus.runtime.identity import Identity, IdentityError, cluster_id_of
from riverbus.runtime.link import STRANGER, Link, PeerHandler, PeerStats, Troubles
from riverbus.runtime.snapshots import SnapshotStore
from riverbus.wire.frame_nouns import CONTROL, Founded, Frame, Hello, Ping, Pong, Refusal, Refused, Role
from riverbus.wire.frames import encode_into

log = structlog.get_logger("riverbus.peers")

Address = tuple[str, int]


class PeerLinks:
    """Implements core.ports.Links. `listen` may have port 0; `address` then says which it is, once started."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        identity: Identity,
        secret: bytes,
        listen: Address,
        peers: Mapping[int, Address],
        handler: PeerHandler,
        random: Random,
        *,
        server_ssl: ssl.SSLContext | None = None,
        client_ssl: ssl.SSLContext | None = None,
        snapshots: SnapshotStore | None = None,
        snapshot_bytes_per_s: int = limits.SNAPSHOT_BYTES_PER_S,
    ) -> None:
        self.identity = identity
        self.address = listen
        self.stats = {peer: PeerStats() for peer in identity.others}
        self.refused: Counter[str] = Counter()  # by Refusal name, whoever refused
        self.handshakes_failed = 0  # by silence or garbage
        self.bulk: Bulk | None = None
        self._loop = loop
        self._secret = secret
        self._peers = dict(peers)
        self._handler = handler
        self._random = random
        self._server_ssl = server_ssl
        self._client_ssl = client_ssl
        self._process = os.urandom(8).hex()
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, None] = {}
        self._links: dict[int, Link] = {}
        self._dirty: list[Link] = []
        self._is_flush_due = False
        self._is_closed = False
        self._is_hopeless = False
        self._tasks: list[asyncio.Task[None]] = []
        self._beat_timer: asyncio.TimerHandle | None = None
        self._beat_due = 0.0
        self._bootstrapped = asyncio.Event()
        self._waiting_for: list[int] = []
        self._troubles = Troubles(loop.time)
        assert set(identity.others) <= set(peers), "every other member has an address"
        if snapshots is not None:
            self.bulk = Bulk(loop, snapshots, self.connect, snapshot_bytes_per_s)
            snapshots.fetcher = self.bulk.fetch

    # --- core.ports.Links ---------------------------------------------------------------------------------------------

    def send(self, peer: int, message: PeerMessage) -> None:
        link = self._links.get(peer)
        if link is None or not link.takes_messages:
            self.stats[peer].messages_unlinked += 1
            return
        if not link.outbox:
            self._dirty.append(link)
            if not self._is_flush_due:
                self._is_flush_due = True
                self._loop.call_soon(self._on_flush_due)
        link.outbox_bytes += encode_into(link.outbox, message)
        if link.has_overflowed:
            self.stats[peer].outbox_overflows += 1
            link.takes_messages = False  # on_down comes when the connection is gone
            link.connection.drop(f"node {peer} does not read: {limits.PEER_OUTBOX_BYTES_MAX} bytes wait for it")

    def is_up(self, peer: int) -> bool:
        link = self._links.get(peer)
        return link is not None and link.takes_messages

    def backlog_bytes(self, peer: int) -> int:
        link = self._links.get(peer)
        return 0 if link is None else link.backlog_bytes

    def flush(self) -> None:
        """Write what has gathered, once a peer. Done by itself at the end of a turn, but may be called sooner."""
        dirty, self._dirty = self._dirty, []
        for link in dirty:
            link.flush()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, dial, and found or join the cluster. Raises OSError when the address cannot be had."""
        host, port = self.address
        self._server = await self._loop.create_server(self._accept, host, port, ssl=self._server_ssl)
        self.address = self._server.sockets[0].getsockname()[:2]
        self._beat_due = self._loop.time() + limits.PEER_PING_S
        self._beat_timer = self._loop.call_at(self._beat_due, self._beat)
        if self.identity.is_bootstrapped:
            self._announce()
        else:
            self._maybe_found()
        for peer in self.identity.others:
            if peer > self.identity.node_id:
                task = self._loop.create_task(self._keep_dialing(peer), name=f"link to node {peer}")
                task.add_done_callback(partial(report_failure, self._loop))
                self._tasks.append(task)

    async def wait_bootstrapped(self) -> None:
        await self._bootstrapped.wait()

    def awaited(self) -> list[str]:
        """Before the cluster is founded: which nodes this one waits for, and the last trouble with each."""
        found = []
        for peer in self._waiting_for:
            trouble = self._troubles.last(peer) or self._troubles.last(STRANGER)
            found.append(f"the cluster is not founded: waiting for node {peer}" + (f" ({trouble})" if trouble else ""))
        return found

    def set_address(self, peer: int, address: Address) -> None:
        """Dial `peer` there from the next try on."""
        self._peers[peer] = address

    def close(self) -> None:
        """Stop: what was sent is still written, and the handler hears nothing more. Idempotent."""
        if self._is_closed:
            return
        self.flush()
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        if self.bulk is not None:
            self.bulk.close()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close("this node stops")

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.bulk is not None:
            await self.bulk.wait_closed()
        if lost := [connection.lost for connection in self._connections]:  # bounded: a callback may have raised
            await asyncio.wait(lost, timeout=limits.HANDSHAKE_DEADLINE_S)

    # --- connections --------------------------------------------------------------------------------------------------

    def _accept(self) -> Connection:
        strangers = sum(not connection.handshake.is_over for connection in self._connections)
        connection = self._new_connection(Role.LINK, 0, self)
        if strangers >= limits.HANDSHAKES_MAX or self._is_closed:
            connection.drop("too many connections have not proved themselves yet")
        return connection

    async def connect(self, peer: int, role: Role, owner: Owner) -> Connection:
        """Dial a peer; the owner hears how the handshake goes. Raises OSError."""
        connection = self._new_connection(role, peer, owner)
        host, port = self._peers[peer]
        try:
            async with asyncio.timeout(limits.PEER_CONNECT_S):
                await self._loop.create_connection(lambda: connection, host, port, ssl=self._client_ssl)
        except BaseException:
            connection.drop("given up")
            raise
        return connection

    def _new_connection(self, role: Role, to: int, owner: Owner) -> Connection:
        hello = hello_of(self.identity, role, to, self._process, os.urandom(32))
        handshake = Handshake(hello, self._secret, bool(to), partial(self._judge, to or None))
        return Connection(self._loop, handshake, owner, self._connections)

    def _judge(self, expected: int | None, theirs: Hello) -> Refused | None:
        refused = judge(self.identity, theirs, expected)
        if refused is not None:
            return refused
        if theirs.role == Role.BULK:
            has_room = expected is not None or (self.bulk is not None and self.bulk.has_room)
            return None if has_room else Refused(Refusal.BUSY, "too many snapshots are being sent")
        if expected is None and theirs.node_id > self.identity.node_id:
            return Refused(Refusal.WRONG_NODE, "of two nodes, the one of the lower id dials")
        link = self._links.get(theirs.node_id)
        if link is not None and link.process != theirs.process and link.connection.is_open:
            return Refused(
                Refusal.DUPLICATE, f"node id {theirs.node_id} is used twice: another process is linked under it"
            )
        return None

    async def _keep_dialing(self, peer: int) -> None:
        pause = limits.PEER_RECONNECT_MIN_S
        while not self._is_hopeless:
            began = self._loop.time()
            try:
                connection = await self.connect(peer, Role.LINK, self)
            except OSError as error:
                self._troubles.say(peer, "cannot reach node", str(error) or type(error).__name__)
            else:
                await asyncio.wait([connection.lost])
            pause = limits.PEER_RECONNECT_MIN_S if self._loop.time() - began > limits.PEER_RECONNECT_MAX_S else pause
            await asyncio.sleep(pause * (0.5 + self._random.random() / 2))
            pause = min(2 * pause, limits.PEER_RECONNECT_MAX_S)

    # --- runtime.connection.Owner -------------------------------------------------------------------------------------

    def on_handshake(self, connection: Connection) -> None:
        theirs = connection.handshake.theirs
        assert theirs is not None
        if theirs.role == Role.BULK:
            assert self.bulk is not None
            self.bulk.serve(connection)
            return
        old = self._links.get(theirs.node_id)
        if old is not None:
            self._leave(old, "replaced by a newer connection")
        link = self._links[theirs.node_id] = Link(connection, theirs)
        self.stats[link.peer].connects += 1
        self._troubles.forget(link.peer)
        log.info("linked to node", peer=link.peer, address=connection.address)
        if self.identity.is_bootstrapped and not connection.handshake.mine.is_bootstrapped:
            connection.send(self._founded())
        if self.identity.is_bootstrapped:
            self._maybe_up(link)
        elif link.has_record:
            self._adopt(link, Founded(theirs.cluster_id, theirs.known))
        else:
            self._maybe_found()

    def on_frames(self, connection: Connection, frames: list[Frame]) -> None:
        theirs = connection.handshake.theirs
        assert theirs is not None
        link = self._links.get(theirs.node_id)
        if link is None or link.connection is not connection:
            return
        messages = cast("list[PeerMessage]", [frame for frame in frames if type(frame) not in CONTROL])
        if len(messages) < len(frames):
            for frame in frames:
                if type(frame) in CONTROL:
                    self._on_control(link, frame)
        if messages and link.is_up:
            self._handler.on_messages(link.peer, messages)
        elif messages and connection.is_open:
            connection.drop("it sent messages before it was bootstrapped")

    def on_lost(self, connection: Connection) -> None:
        handshake = connection.handshake
        if handshake.verdict is not None:
            self._on_refusal(connection)
        elif not handshake.is_over and not self._is_closed:
            self.handshakes_failed += 1
            self._troubles.say(handshake.other, "no handshake", connection.reason, address=connection.address)
        theirs = handshake.theirs
        link = None if theirs is None else self._links.get(theirs.node_id)
        if link is not None and link.connection is connection:
            self._leave(link, connection.reason)

    # --- links --------------------------------------------------------------------------------------------------------

    def _maybe_up(self, link: Link) -> None:
        if link.has_record and self.identity.is_bootstrapped and not link.is_up and link.connection.is_open:
            link.is_up = link.takes_messages = True
            self._handler.on_up(link.peer)

    def _leave(self, link: Link, reason: str) -> None:
        del self._links[link.peer]
        link.count(self.stats[link.peer])
        self.stats[link.peer].disconnects += 1
        was_up = link.is_up
        link.is_up = link.takes_messages = False
        link.connection.drop(reason)
        if self._is_closed:
            return
        log.warning("lost the link to node", peer=link.peer, reason=reason)
        if was_up:
            self._handler.on_down(link.peer)
        self._log_waiting()

    def _on_control(self, link: Link, frame: Frame) -> None:
        if isinstance(frame, Ping):
            link.connection.send(Pong(frame.time_us))
        elif isinstance(frame, Pong):
            self.stats[link.peer].rtt_s = time.monotonic() - frame.time_us / 1e6
        elif isinstance(frame, Founded):
            link.has_record = True
            if not self.identity.is_bootstrapped:
                self._adopt(link, frame)
            elif frame.cluster_id != self.identity.cluster_id:
                link.connection.drop(f"node {link.peer} founded another cluster")
            else:
                self._maybe_up(link)

    def _beat(self) -> None:
        """Once a second: ping every link, and drop those that are silent."""
        now = self._loop.time()
        was_stalled = now > self._beat_due + limits.PEER_PING_S  # then what was said to us still waits to be read
        self._beat_due = now + limits.PEER_PING_S
        self._beat_timer = self._loop.call_at(self._beat_due, self._beat)
        for link in list(self._links.values()):
            link.count(self.stats[link.peer])
            if now - link.connection.heard_at > limits.PEER_SILENCE_S and not was_stalled:
                self._leave(link, f"silent for {limits.PEER_SILENCE_S:g} s")
            else:
                link.connection.send(Ping(time.monotonic_ns() // 1000))
                link.unsent_bytes = link.connection.unsent_bytes

    def _on_flush_due(self) -> None:
        self._is_flush_due = False
        self.flush()

    # --- founding (the rule is in identity.py) ------------------------------------------------------------------------

    def _maybe_found(self) -> None:
        identity = self.identity
        joined = [link for link in self._links.values() if link.connection.is_open and not link.has_record]
        if identity.node_id != identity.founder or len(joined) < len(identity.others):
            self._log_waiting()
            return
        incarnations = {link.peer: link.incarnation for link in joined}
        identity.bootstrap({**incarnations, identity.node_id: identity.incarnation})
        log.info("founded the cluster", cluster=identity.cluster_id, nodes=identity.members)
        self._announce()

    def _adopt(self, link: Link, founded: Founded) -> None:
        known = dict(founded.known)
        try:
            if cluster_id_of(known) != founded.cluster_id:
                raise IdentityError("the cluster's id is not its members'")
            self.identity.bootstrap(known)
        except IdentityError as error:
            self._leave(link, f"the cluster of node {link.peer} is not this node's: {error}")
            return
        log.info("joined the cluster", cluster=founded.cluster_id, nodes=self.identity.members, known_from=link.peer)
        self._announce()

    def _announce(self) -> None:
        """The record is on the disk: tell the handler, then the peers that are linked already."""
        self._handler.on_bootstrapped()
        self._bootstrapped.set()
        for link in list(self._links.values()):
            if not link.connection.handshake.mine.is_bootstrapped:
                link.connection.send(self._founded())
            self._maybe_up(link)

    def _founded(self) -> Founded:
        return Founded(self.identity.cluster_id, tuple(self.identity.incarnations.items()))

    def _log_waiting(self) -> None:
        if self.identity.is_bootstrapped:
            return
        missing = [peer for peer in self.identity.others if peer not in self._links]
        missing = missing or [self.identity.founder]
        if missing != self._waiting_for:
            self._waiting_for = missing
            nodes = f"node{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
            log.info(f"waiting for {nodes} to bootstrap", nodes=missing)

    # --- refusals -----------------------------------------------------------------------------------------------------

    def _on_refusal(self, connection: Connection) -> None:
        handshake = connection.handshake
        verdict = handshake.verdict
        assert verdict is not None
        self.refused[verdict.code.name] += 1
        if self._is_closed or self._is_hopeless:
            return
        event = "refused a node" if verdict.by_us else "refused by a node"
        is_news = self._troubles.say(
            handshake.other, event, verdict.reason, code=verdict.code.name, address=connection.address
        )
        if verdict.by_us:
            return
        is_fatal = verdict.code in FATAL and verdict.is_proven and not self.identity.is_bootstrapped
        self._is_hopeless = is_fatal
        if is_fatal or is_news:
            self._handler.on_refused(verdict.reason, is_fatal)
