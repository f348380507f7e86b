"""The simulated network: what TCP links between nodes look like when cables, switches and peers misbehave.

A pair of nodes has one connection. While it is up, messages arrive in order, each after a delay; when a partition or a
crash lasts longer than the keepalive, both ends learn that it is down, and what was in flight is lost. A one-way cut
stalls one direction until the keepalive notices. Raft messages may also be lost, duplicated and reordered: Raft has to
bear that, whatever carries it. All bytes pass through wire/frames, as in the real world.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, cast

from riverbus.peer_messages import PeerMessage, RaftMessage
from riverbus.sim.clock import Clock
from riverbus.wire.frames import LINK, FrameDecoder, encode

if TYPE_CHECKING:
    from riverbus.sim.node import SimNode

KEEPALIVE_S = 3.0
RECONNECT_S = 0.3


class Weather:
    """How bad the network is: set once a seed, and by faults while they last."""

    def __init__(self) -> None:
        self.delay_s = (0.0002, 0.002)
        self.loss = 0.0
        self.duplication = 0.0
        self.reorder = 0.0


class _Pair:
    """A connection's life number: what was sent in an earlier life does not arrive in this one."""

    __slots__ = ("is_up", "life", "silent_since")

    def __init__(self) -> None:
        self.is_up = False
        self.life = 0
        self.silent_since: float | None = None


class Network:
    def __init__(self, clock: Clock, random: Random) -> None:
        self.clock = clock
        self.weather = Weather()
        self._random = random
        self._nodes: dict[int, SimNode] = {}
        self._cut: set[tuple[int, int]] = set()  # directed
        self._pairs: dict[tuple[int, int], _Pair] = {}
        self._held: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
        self._last_arrival: dict[tuple[int, int], float] = {}
        self.sent = 0
        self.lost = 0

    def add(self, node: SimNode) -> None:
        for other in self._nodes:
            self._pairs[self._key(node.id, other)] = _Pair()
        self._nodes[node.id] = node

    @staticmethod
    def _key(a: int, b: int) -> tuple[int, int]:
        return (a, b) if a < b else (b, a)

    # --- faults -----------------------------------------------------------------------------------------------------

    def cut(self, source: int, target: int) -> None:
        self._cut.add((source, target))

    def heal(self) -> None:
        self._cut.clear()

    def is_cut(self, source: int, target: int) -> bool:
        return (source, target) in self._cut

    # --- links ------------------------------------------------------------------------------------------------------

    def is_up(self, source: int, target: int) -> bool:
        return self._pairs[self._key(source, target)].is_up

    def send(self, source: int, target: int, message: PeerMessage) -> None:
        pair = self._pairs[self._key(source, target)]
        if not pair.is_up:
            return
        self.sent += 1
        random, weather = self._random, self.weather
        copies = 1
        in_order = True
        if type(message) is RaftMessage:
            if random.random() < weather.loss:
                self.lost += 1
                return
            copies += random.random() < weather.duplication
            in_order = random.random() >= weather.reorder
        frame = encode(message)
        for _ in range(copies):
            arrival = self.clock.now + random.uniform(*weather.delay_s)
            if in_order:
                arrival = max(arrival, self._last_arrival.get((source, target), 0.0))
                self._last_arrival[source, target] = arrival
            else:
                arrival += random.uniform(0.0, 0.2)
            self.clock.at(arrival, lambda: self._arrive(source, target, pair.life, frame))

    def _arrive(self, source: int, target: int, life: int, frame: bytes) -> None:
        pair = self._pairs[self._key(source, target)]
        if not pair.is_up or pair.life != life:
            return
        held = self._held.setdefault((source, target), [])
        if held or (source, target) in self._cut or not self._nodes[target].is_running:
            held.append((life, frame))  # TCP sends it again until the cut heals or the connection dies
            return
        self._deliver(source, target, frame)

    def _deliver(self, source: int, target: int, frame: bytes) -> None:
        decoder = FrameDecoder(LINK)
        decoder.feed(frame)
        self._nodes[target].on_messages(source, cast(list[PeerMessage], decoder.drain()))

    def _release(self, source: int, target: int) -> None:
        """After a cut has healed: what was sent meanwhile arrives, in order."""
        held = self._held.pop((source, target), None)
        if held:
            pair = self._pairs[self._key(source, target)]
            for life, frame in held:
                if pair.is_up and pair.life == life:
                    self._deliver(source, target, frame)

    def watch(self) -> None:
        """Every 100 ms: connections between nodes that cannot hear each other die; others are made."""
        for (a, b), pair in self._pairs.items():
            first, second = self._nodes[a], self._nodes[b]
            is_well = first.is_running and second.is_running and not ({(a, b), (b, a)} & self._cut)
            if is_well:
                pair.silent_since = None
                self._release(a, b)
                self._release(b, a)
                if not pair.is_up and self._random.random() < 0.1 / RECONNECT_S:
                    self._set_up(pair, first, second)
            elif pair.is_up:
                if pair.silent_since is None:
                    pair.silent_since = self.clock.now
                is_dead = not first.is_alive or not second.is_alive  # the peer's kernel says so at once
                if is_dead or self.clock.now - pair.silent_since >= KEEPALIVE_S:
                    self._set_down(pair, first, second)
        self.clock.after(0.1, self.watch)

    def _set_up(self, pair: _Pair, first: SimNode, second: SimNode) -> None:
        pair.is_up = True
        pair.life += 1
        first.on_peer_up(second.id)
        second.on_peer_up(first.id)

    def _set_down(self, pair: _Pair, first: SimNode, second: SimNode) -> None:
        pair.is_up = False
        pair.silent_since = None
        first.on_peer_down(second.id)
        second.on_peer_down(first.id)


class SimLinks:
    """One node's face of the network (core/ports.py Links)."""

    def __init__(self, network: Network, node: int) -> None:
        self._network = network
        self._node = node

    def send(self, peer: int, message: PeerMessage) -> None:
        self._network.send(self._node, peer, message)

    def is_up(self, peer: int) -> bool:
        return self._network.is_up(self._node, peer)
