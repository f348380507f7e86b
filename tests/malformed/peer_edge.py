"""Peers: bytes that a dialer, or who answered a dial, may send; through frames, handshake and links (runtime/peers.py).

An input is a mode, where it is cut in two, and bytes. Modes: a connection that was accepted, one that was dialed (both
by the shipped PeerLinks, its sockets and loop replaced; this node's nonce is known, so that valid transcripts can be
made beforehand), and the decoder alone in each of its phases. Transcripts are whole: hello, proof, verdict, messages;
right ones of several identities, with the cluster's secret and without, then changed frame by frame or byte by byte.

Checked: a bad frame drops its connection and raises nothing; a handshake that is done was made with the secret; a frame
that decodes encodes to the same bytes; no more is buffered than a phase's limit and a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, cast

from riverbus.peer_messages import (
    Answer,
    Ask,
    Forward,
    Health,
    Held,
    PeerMessage,
    Proposed,
    RaftMessage,
    Recall,
    Recalled,
    Received,
    Rejected,
    SnapshotStatus,
)
from riverbus.runtime import link, peers
from riverbus.runtime.connection import Connection
from riverbus.runtime.handshake import Handshake, State, hello_of, judge
from riverbus.runtime.identity import Identity, cluster_id_of
from riverbus.wire.frame_nouns import (
    Accepted,
    BulkChunk,
    BulkMissing,
    BulkOffer,
    BulkRequest,
    BulkStart,
    Founded,
    Frame,
    Hello,
    OtherVersion,
    Ping,
    Pong,
    Proof,
    Refused,
    Role,
)
from riverbus.wire.frames import BULK, HANDSHAKE, LINK, FrameDecoder, FrameError, Phase, encode
from tests.malformed.driver import kind_of
from tests.malformed.mutations import INTERESTING, mutate

SECRET, WRONG_SECRET = b"secret of the cluster", b"another"
NONCE, PROCESS = b"n" * 32, "77" * 8
MEMBERS = (1, 2, 3)
INCARNATIONS = {node: f"{node}{node}" * 16 for node in MEMBERS}
HERE = 2
ACCEPTED, DIALED, FRESH, DECODED = 0, 1, 2, 4  # modes: FRESH is added for a node that has no record; then the phases
PHASES = (HANDSHAKE, LINK, BULK)
CONNECTIONS_PER_NODE = 20  # then the node is made anew: one that is linked or hopeless judges otherwise


def identity_of(node: int, is_bootstrapped: bool, incarnation: str | None = None) -> Identity:
    identity = Identity(Path("/nowhere"), -1, node, 8, MEMBERS, incarnation or INCARNATIONS.get(node, "99" * 16))
    if is_bootstrapped:
        identity.incarnations = dict(INCARNATIONS)
        identity.cluster_id = cluster_id_of(INCARNATIONS)
    return identity


class PeerSubject:
    def __init__(self, seed: int) -> None:
        self.inputs = 0
        self.logs = (peers.log, link.log)
        peers.log = link.log = cast(Any, _Silent())
        self.nodes = [_Node(is_bootstrapped=True), _Node(is_bootstrapped=False)]

    def feed(self, data: bytes) -> str:
        mode, cut, data = data[0] % (DECODED + len(PHASES)), data[1], data[2:]
        at = len(data) * cut // 256
        if mode >= DECODED:
            return _decode(PHASES[mode - DECODED], data, at)
        self.inputs += 1
        if self.inputs % CONNECTIONS_PER_NODE == 0:
            self.nodes = [_Node(is_bootstrapped=True), _Node(is_bootstrapped=False)]
        return self.nodes[mode // FRESH].connect(mode % FRESH, data, at)

    def finish(self) -> None:
        peers.log, link.log = self.logs
        assert not any(node.links._connections for node in self.nodes), "lost connections are forgotten"


class _Node:
    def __init__(self, is_bootstrapped: bool) -> None:
        self.handler = _Handler()
        identity = identity_of(HERE, is_bootstrapped)
        if not is_bootstrapped:
            identity._write = lambda *_: None  # type: ignore[method-assign]
        addresses = dict.fromkeys(MEMBERS, ("127.0.0.1", 1))
        self.links = peers.PeerLinks(
            cast(Any, _Loop()), identity, SECRET, ("127.0.0.1", 0), addresses, self.handler, Random(0)
        )

    def connect(self, mode: int, data: bytes, at: int) -> str:
        if mode == ACCEPTED:
            connection = self.links._accept()
        else:
            connection = self.links._new_connection(Role.LINK, 3, self.links)
        handshake = connection.handshake
        handshake.mine = handshake.mine._replace(nonce=NONCE, process=PROCESS)
        transport = _Transport()
        connection.connection_made(cast(Any, transport))
        for chunk in (data[:at], data[at:]):
            if chunk:
                connection.data_received(chunk)
                _check_held(connection, len(chunk))
        heard = self.handler.messages
        self.handler.messages = 0
        if handshake.state is State.DONE:
            assert handshake._proof(by_dialer=mode == ACCEPTED).digest in data, "who is let in has the secret"
        state = handshake.state.name
        reason = kind_of(connection.reason)
        connection.connection_lost(None)
        self.links.identity.invariants()
        return f"{'refused' if reason else 'open'} in {state}: {reason}{', heard' if heard else ''}"


def _check_held(connection: Connection, chunk_bytes: int) -> None:
    decoder = connection._decoder
    assert decoder.buffered_bytes <= decoder.phase.bytes_max + 4 + chunk_bytes


def _decode(phase: Phase, data: bytes, at: int) -> str:
    decoder = FrameDecoder(phase)
    kinds = ""
    try:
        for chunk in (data[:at], data[at:]):
            decoder.feed(chunk)
            frames = decoder.drain()
            assert decoder.buffered_bytes <= phase.bytes_max + 4 + len(chunk)
            for frame in frames:
                kinds = type(frame).__name__
                if type(frame) is not OtherVersion:  # of which nothing was understood
                    assert encode(frame) in data, "a noun has one encoding"
    except FrameError as error:
        return f"refused: {kind_of(str(error))}"
    return kinds or "incomplete"


# --- what is replaced -------------------------------------------------------------------------------------------------


class _Silent:
    """A log that nobody reads."""

    def info(self, event: str, **details: object) -> None: ...

    warning = info


class _Timer:
    def cancel(self) -> None: ...


class _Future:
    def done(self) -> bool:
        return False

    def set_result(self, result: object) -> None: ...


class _Loop:
    """What of an event loop a connection uses."""

    def time(self) -> float:
        return 0.0

    def create_future(self) -> _Future:
        return _Future()

    def call_later(self, delay: float, callback: Callable[[], None]) -> _Timer:
        return _Timer()

    def call_soon(self, callback: Callable[[], None]) -> _Timer:
        return _Timer()


class _Transport:
    def __init__(self) -> None:
        self.is_closed = False

    def get_extra_info(self, name: str) -> None:
        return None

    def write(self, data: bytes) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_closed

    def abort(self) -> None:
        self.is_closed = True

    close = abort


class _Handler:
    def __init__(self) -> None:
        self.messages = 0
        self.up: set[int] = set()

    def on_bootstrapped(self) -> None: ...

    def on_up(self, peer: int) -> None:
        assert peer in MEMBERS
        assert peer not in self.up
        self.up.add(peer)

    def on_down(self, peer: int) -> None:
        self.up.remove(peer)

    def on_messages(self, peer: int, messages: list[PeerMessage]) -> None:
        assert peer in self.up, "only who is linked is heard"
        self.messages += len(messages)

    def on_refused(self, reason: str, fatal: bool) -> None:
        assert not fatal or not self.up


# --- inputs -----------------------------------------------------------------------------------------------------------

MESSAGES: tuple[Frame, ...] = (
    RaftMessage(0, b"\x08\x08\x10\x01\x18\x02\x20\x06"), RaftMessage(63, b""), RaftMessage(1, b"x" * 700),
    Forward(1, 7, 12, b"batch" * 9), Proposed(1, 12, 99, 7), Rejected(0, 3, "CLUSTERDOWN", "no leader"),
    Ask(5, b"question"), Answer(5, b"answer" * 20), SnapshotStatus(2, True), Health(False), Ping(123456), Pong(5),
    Received(1, 7, 90), Held(1, 7, 80), Recall(3), Recalled(1, 7, 95),
)  # fmt: skip
BULKS: tuple[Frame, ...] = (
    BulkRequest(3, 77), BulkOffer(4096, b"d" * 16), BulkMissing("gone"), BulkStart(12), BulkChunk(12, 99, b"c" * 300),
)  # fmt: skip


def generator(random: Random) -> Callable[[], bytes]:
    transcripts = _transcripts()

    def generate() -> bytes:
        draw = random.random
        mode = random.getrandbits(8) % (DECODED + len(PHASES))
        frames = list(transcripts[mode][int(draw() * len(transcripts[mode]))])
        while draw() < 0.3:
            _change_frames(frames, random)
        data = b"".join(frames)
        while draw() < 0.45:
            data = mutate(data, random)
        return bytes((mode, random.getrandbits(8))) + data

    return generate


def _change_frames(frames: list[bytes], random: Random) -> None:
    at = int(random.random() * len(frames))
    how = int(random.random() * 5)
    if how == 0 and frames:
        del frames[at]
    elif how == 1:
        frames.insert(at, frames[int(random.random() * len(frames))] if frames else b"")
    elif how == 2:
        frames.insert(at, encode(MESSAGES[int(random.random() * len(MESSAGES))]))
    elif how == 3 and frames and len(frames[at]) > 5:
        # Another length or kind in the head, the body as it was.
        value = INTERESTING[int(random.random() * len(INTERESTING))] & 0xFFFFFFFF
        head = value.to_bytes(4, "little") if random.random() < 0.5 else frames[at][:4]
        frames[at] = head + bytes((random.getrandbits(7),)) + frames[at][5:]
    elif frames:
        frames[at] = mutate(frames[at], random)


_made: list[list[list[bytes]]] = []


def _transcripts() -> list[list[list[bytes]]]:
    """By mode: what a peer says from the first frame on, each frame encoded."""
    if not _made:
        messages = [encode(frame) for frame in MESSAGES]
        founded = encode(Founded(cluster_id_of(INCARNATIONS), tuple(INCARNATIONS.items())))
        ends: tuple[list[bytes], ...] = ([], messages[:3], [founded], [founded, *messages[3:6]])
        for mode in range(DECODED):
            here = identity_of(HERE, mode < FRESH)
            spoken = [_spoken(mode % FRESH, hello, SECRET, here) for hello in _hellos(mode % FRESH)]
            spoken.append(_spoken(mode % FRESH, _hellos(mode % FRESH)[0], WRONG_SECRET, here))
            _made.append([[*each, *end] for each in spoken for end in ends])
        hellos = [encode(hello) for hello in _hellos(ACCEPTED)]
        verdicts = [encode(frame) for frame in (Proof(b"p" * 32), Accepted(), Refused(4, "no"))]
        bulks = [encode(frame) for frame in BULKS]
        _made.extend([[one] for one in phase] for phase in ([*hellos, *verdicts], [*messages, founded], bulks))
    return _made


def _hellos(mode: int) -> list[Hello]:
    other = 1 if mode == ACCEPTED else 3
    nonce, process = b"m" * 32, "88" * 8
    right = hello_of(identity_of(other, True), Role.LINK, HERE, process, nonce)
    fresh = hello_of(identity_of(other, False), Role.LINK, HERE, process, nonce)
    return [
        right,
        right,
        fresh,
        right._replace(role=Role.BULK),
        right._replace(node_id=HERE),
        right._replace(node_id=9),
        right._replace(to=3),
        right._replace(shards=3),
        right._replace(incarnation="ab" * 16),
        right._replace(cluster_id="cd" * 16),
        fresh._replace(members=(1, 2)),
        fresh._replace(incarnation="ab" * 16),
    ]


def _spoken(mode: int, hello: Hello, secret: bytes, identity: Identity) -> list[bytes]:
    """What a peer with this hello says to a node with NONCE; a proof made with this secret."""
    here = hello_of(identity, Role.LINK, hello.node_id if mode == ACCEPTED else 3, PROCESS, NONCE)
    if mode == ACCEPTED:
        here = here._replace(role=hello.role)
    theirs = Handshake(hello, secret, mode == ACCEPTED, lambda seen: judge(identity_of(1, True), seen, None))
    theirs.theirs = here
    proof = theirs._proof(by_dialer=mode == ACCEPTED)
    return [encode(hello), encode(proof), encode(Accepted())]
