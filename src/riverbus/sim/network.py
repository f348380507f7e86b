"""The simulated network: what TCP links between nodes look like when cables, switches and peers misbehave.

A pair of nodes has one connection. While it is up, what a turn sent arrives in order, after a delay, as one piece or in
a trickle of pieces; when a partition or a crash lasts longer than the keepalive, or the connection is reset, both ends
learn that it is down, and what was in flight is lost. A one-way cut stalls one direction until the keepalive notices.
Raft messages may also be lost, duplicated and reordered: Raft has to bear that, whatever carries it. All bytes pass
through wire/frames, as in the real world, and a link comes up only between directories that know each other
(identity.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, cast

from riverbus.peer_messages import PeerMessage, RaftMessage
from riverbus.sim.clock import Clock
from riverbus.sim.identity import may_link
from riverbus.sim.swarm import Weather
from riverbus.wire.frames import LINK, FrameDecoder, encode, encode_into

if TYPE_CHECKING:
    from riverbus.sim.node import SimNode

KEEPALIVE_S = 3.0
WATCH_S = 0.1
_CONNECTS_PER_WATCH = 0.33
_REORDERED_BY_S = 0.2
_PIECES_MAX = 5
_PIECE_S = 0.05
_TRICKLE_BEHIND_S = 2.0  # more than that no link holds back: peers stop sending, and C15 would wait for it for ever

Way = tuple[int, int]  # from, to


class _Pair:
    """Two nodes' connection; its life number: what was sent in an earlier life does not arrive in this one."""

    __slots__ = ("first", "is_up", "life", "lives", "met", "second", "silent_since")

    def __init__(self, first: SimNode, second: SimNode) -> None:
        self.first = first
        self.second = second
        self.is_up = False
        self.life = 0
        self.lives: Way = (0, 0)  # of the two processes that it connects
        self.met: Way | None = None  # the lives in which two fresh nodes greeted each other
        self.silent_since: float | None = None

    @property
    def is_whole(self) -> bool:
        """Does the connection still have the processes at its ends that made it?"""
        lives = self.lives
        return lives[0] == self.first.life and lives[1] == self.second.life


class Network:
    def __init__(self, clock: Clock, random: Random, weather: Weather) -> None:
        self.clock = clock
        self.weather = self._usual = weather
        self._random = random
        self._nodes: dict[int, SimNode] = {}
        self._cut: dict[Way, int] = {}  # how many faults cut it
        self._clog_s: dict[Way, float] = {}
        self._pairs: dict[Way, _Pair] = {}  # by the lower id and the higher
        self._links: dict[Way, _Pair] = {}  # the same, by either way
        self._trickling: dict[Way, int] = {}  # how many faults make it so
        self._streams: dict[Way, tuple[int, FrameDecoder]] = {}  # with the life of the connection that it reads
        self._held: dict[Way, list[tuple[int, bytes, bool]]] = {}
        self._last_arrival: dict[Way, float] = {}
        self.is_dropped: Callable[[Way, PeerMessage], bool] | None = None  # what a scenario lets fall
        self.sent = 0
        self.lost = 0
        self.refused_links = 0

    def add(self, node: SimNode) -> None:
        for other in self._nodes.values():
            pair = _Pair(other, node)
            self._pairs[other.id, node.id] = self._links[other.id, node.id] = self._links[node.id, other.id] = pair
        self._nodes[node.id] = node

    # --- faults -----------------------------------------------------------------------------------------------------

    def cut(self, ways: list[Way]) -> None:
        for way in ways:
            self._cut[way] = self._cut.get(way, 0) + 1

    def mend(self, ways: list[Way]) -> None:
        for way in ways:
            count = self._cut.get(way, 0) - 1
            if count > 0:
                self._cut[way] = count
            else:
                self._cut.pop(way, None)

    def clog(self, way: Way, delay_s: float) -> None:
        self._clog_s[way] = delay_s

    def unclog(self, way: Way) -> None:
        self._clog_s.pop(way, None)

    def trickle(self, way: Way) -> None:
        self._trickling[way] = self._trickling.get(way, 0) + 1

    def flow(self, way: Way) -> None:
        """The end of one trickle."""
        if self._trickling.get(way, 0) > 1:
            self._trickling[way] -= 1
        else:
            self._trickling.pop(way, None)

    def reset(self, way: Way) -> None:
        """The connection is gone at once, for both ends."""
        pair = self._links.get(way)
        if pair is not None and pair.is_up:
            self._set_down(pair, pair.first, pair.second)

    def worsen(self, weather: Weather) -> None:
        self.weather = weather

    def clear_up(self) -> None:
        """Back to the seed's own weather."""
        self.weather = self._usual

    def heal(self) -> None:
        """Fair weather, all ways open, for good."""
        self._cut.clear()
        self._clog_s.clear()
        self._trickling.clear()
        self.weather = self._usual = replace(self._usual, delay_s=Weather().delay_s, loss=0, duplication=0, reorder=0)

    def is_cut(self, source: int, target: int) -> bool:
        return (source, target) in self._cut

    # --- links ------------------------------------------------------------------------------------------------------

    def is_up(self, source: int, target: int) -> bool:
        return self._links[source, target].is_up

    def send(self, source: int, target: int, messages: list[PeerMessage]) -> None:
        """All that a turn had for a peer."""
        way = (source, target)
        pair = self._links[way]
        if not pair.is_up or not pair.is_whole:
            return
        self.sent += len(messages)
        if (is_dropped := self.is_dropped) is not None:
            messages = [message for message in messages if not is_dropped(way, message)]
        weather = self.weather
        if weather.is_rain:
            messages = self._rained_on(way, pair, messages)
        if messages:
            low, high = weather.delay_s
            arrival = self.clock.now + (low + (high - low) * self._random.random())
            if self._clog_s:
                arrival += self._clog_s.get(way, 0.0)
            if (last := self._last_arrival.get(way)) is not None and last > arrival:
                arrival = last
            self._last_arrival[way] = arrival
            parts: list[bytes] = []
            for message in messages:
                encode_into(parts, message)
            life, data = pair.life, b"".join(parts)
            if way in self._trickling:
                self._send_in_pieces(way, pair, data, arrival)
            else:
                self.clock.at(arrival, lambda: self._arrive(way, pair, life, data, True))

    def _send_in_pieces(self, way: Way, pair: _Pair, data: bytes, arrival: float) -> None:
        random, life = self._random, pair.life
        cuts = sorted(random.randint(0, len(data)) for _ in range(random.randint(1, _PIECES_MAX - 1)))
        for start, stop in pairwise((0, *cuts, len(data))):
            piece = data[start:stop]
            self.clock.at(arrival, lambda piece=piece: self._arrive(way, pair, life, piece, True))  # type: ignore[misc]
            self._last_arrival[way] = arrival
            pause = random.uniform(0.0, _PIECE_S)
            if arrival - self.clock.now < _TRICKLE_BEHIND_S:
                arrival += pause

    def _rained_on(self, way: Way, pair: _Pair, messages: list[PeerMessage]) -> list[PeerMessage]:
        """What of the messages arrives in order; the reordered ones go their own ways."""
        random, weather, life = self._random, self.weather, pair.life
        in_order: list[PeerMessage] = []
        for message in messages:
            if type(message) is not RaftMessage:
                in_order.append(message)
                continue
            if random.random() < weather.loss:
                self.lost += 1
                continue
            for _ in range(1 + (random.random() < weather.duplication)):
                if random.random() >= weather.reorder:
                    in_order.append(message)
                    continue
                delay = random.uniform(*weather.delay_s) + random.uniform(0.0, _REORDERED_BY_S)
                frame = encode(message)
                self.clock.after(delay, lambda frame=frame: self._arrive(way, pair, life, frame, False))  # type: ignore[misc]
        return in_order

    def _arrive(self, way: Way, pair: _Pair, life: int, data: bytes, is_stream: bool) -> None:
        """`is_stream`: the next bytes of the connection; else a whole frame that went its own way."""
        if not pair.is_up or pair.life != life or not pair.is_whole:
            return
        node = self._nodes[way[1]]
        if way in self._cut or way in self._held or node.is_paused or not node.is_alive:
            # TCP sends it again until the cut heals or the connection dies.
            self._held.setdefault(way, []).append((life, data, is_stream))
            return
        self._deliver(node, way, life, data, is_stream)

    def _deliver(self, node: SimNode, way: Way, life: int, data: bytes, is_stream: bool) -> None:
        if not is_stream:
            decoder = FrameDecoder(LINK)
        elif (stream := self._streams.get(way)) is not None and stream[0] == life:
            decoder = stream[1]
        else:
            decoder = FrameDecoder(LINK)
            self._streams[way] = (life, decoder)
        decoder.feed(data)
        if messages := decoder.drain():
            node.on_messages(way[0], cast("list[PeerMessage]", messages))

    def _release(self, source: int, target: int) -> None:
        """After a cut has healed: what was sent meanwhile arrives, in order."""
        held = self._held.pop((source, target), None)
        if held:
            pair = self._links[source, target]
            for life, data, is_stream in held:
                if pair.is_up and pair.life == life:
                    self._deliver(self._nodes[target], (source, target), life, data, is_stream)

    def watch(self) -> None:
        """Every 100 ms: connections between nodes that cannot hear each other die; others are made."""
        for (a, b), pair in self._pairs.items():
            first, second = pair.first, pair.second
            if pair.is_up and not pair.is_whole:
                self._set_down(pair, first, second)  # a process was restarted since
            if first.is_running and second.is_running and (a, b) not in self._cut and (b, a) not in self._cut:
                pair.silent_since = None
                if self._held:
                    self._release(a, b)
                    self._release(b, a)
                if not pair.is_up and self._random.random() < _CONNECTS_PER_WATCH:
                    self._greet(pair, first, second)
            elif pair.is_up:
                if pair.silent_since is None:
                    pair.silent_since = self.clock.now
                is_dead = not first.is_alive or not second.is_alive  # the peer's kernel says so at once
                if is_dead or self.clock.now - pair.silent_since >= KEEPALIVE_S:
                    self._set_down(pair, first, second)
        self._maybe_found()
        self.clock.after(WATCH_S, self.watch)

    def _greet(self, pair: _Pair, first: SimNode, second: SimNode) -> None:
        if not may_link(first.disk.identity, second.disk.identity):
            self.refused_links += 1
            return
        if not first.disk.identity.is_founded:
            pair.met = (first.life, second.life)
            return
        for node in (first, second):
            node.maybe_open()
        if first.is_serving and second.is_serving:
            pair.is_up = True
            pair.life += 1
            pair.lives = (first.life, second.life)
            for way in ((first.id, second.id), (second.id, first.id)):
                self._last_arrival.pop(way, None)  # what an earlier connection has in flight delays nothing
            first.on_peer_up(second.id)
            second.on_peer_up(first.id)

    def _maybe_found(self) -> None:
        founder = self._nodes[min(self._nodes)]
        if not founder.is_running or founder.disk.identity.is_founded:
            return
        others = [node for node in self._nodes.values() if node is not founder]
        if all(self._links[founder.id, other.id].met == (founder.life, other.life) for other in others):
            founder.disk.identity.found([other.disk.identity for other in others])
            founder.maybe_open()

    def _set_down(self, pair: _Pair, first: SimNode, second: SimNode) -> None:
        pair.is_up = False
        pair.silent_since = None
        first.on_peer_down(second.id)
        second.on_peer_down(first.id)


class SimLinks:
    """One node's face of the network (core/ports.py Links): gathers what a turn sends."""

    def __init__(self, network: Network, node: int) -> None:
        self._network = network
        self._node = node
        self.gathered: dict[int, list[PeerMessage]] = {}

    def send(self, peer: int, message: PeerMessage) -> None:
        if (gathered := self.gathered.get(peer)) is None:
            self.gathered[peer] = [message]
        else:
            gathered.append(message)

    def is_up(self, peer: int) -> bool:
        return self._network.is_up(self._node, peer)

    def backlog_bytes(self, peer: int) -> int:
        return 0  # the simulated network takes what it is given; what it clogs is in flight

    def flush(self) -> None:
        if self.gathered:
            gathered, self.gathered = self.gathered, {}
            for peer, messages in gathered.items():
                self._network.send(self._node, peer, messages)
