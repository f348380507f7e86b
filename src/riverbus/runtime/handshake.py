"""The handshake of two nodes: who is there, do both know the cluster's secret, and may they talk. No I/O, no clock.

    dialer                          acceptor
    HELLO            ------------>
                     <------------  HELLO
    PROOF            ------------>                     the dialer first: a stranger gets no proof to work on
                     <------------  PROOF, ACCEPTED    or PROOF, REFUSED
    ACCEPTED         ------------>                     or REFUSED

A proof is HMAC-SHA256 by the secret over the prover's part and both HELLOs, so over both nonces, ids, roles and all
else that was said: a proof of one conversation, or of the other side, is worth nothing elsewhere. Each side judges the
other only after its proof, and says why it refuses only then; before that, REFUSED says no more than version or secret.
Versions to come may change all frames but REFUSED and the start of HELLO (magic, version): two can always say so.

Leaves to others: deadlines and sockets (connection.py), what a link is for (peers.py, bulk.py). Without TLS what
follows the handshake is neither encrypted nor authenticated; on a network with strangers on it, use TLS.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from riverbus.runtime.identity import Identity
from riverbus.wire.frame_nouns import Accepted, Frame, Hello, OtherVersion, Proof, Refusal, Refused, Role
from riverbus.wire.frames import PROTOCOL_VERSION, FrameError, encode

FATAL = frozenset((Refusal.WIPED,))  # a fresh node that is told so will never be let in: it stops


class State(Enum):
    """What this side waits for."""

    HELLO = auto()
    PROOF = auto()
    VERDICT = auto()
    DONE = auto()
    REFUSED = auto()


class Verdict(NamedTuple):
    """Why a handshake failed. `is_proven`: the one who refuses (`by_us` or not) has proved to know the secret."""

    code: Refusal
    reason: str
    by_us: bool
    is_proven: bool


Judge = Callable[[Hello], Refused | None]


class Handshake:
    """One connection's handshake. `receive` returns what to send; `state` says how it stands."""

    def __init__(self, mine: Hello, secret: bytes, dials: bool, judge: Judge) -> None:
        self.mine = mine
        self.theirs: Hello | None = None
        self.verdict: Verdict | None = None
        self.state = State.HELLO
        self._secret = secret
        self._dials = dials
        self._judge = judge

    @property
    def is_over(self) -> bool:
        return self.state in (State.DONE, State.REFUSED)

    @property
    def other(self) -> int:
        """The node that was dialed, or that has proved who it is; else 0."""
        if self._dials:
            return self.mine.to
        is_proven = self.state in (State.VERDICT, State.DONE) or (self.verdict is not None and self.verdict.is_proven)
        return self.theirs.node_id if self.theirs is not None and is_proven else 0

    def start(self) -> list[Frame]:
        return [self.mine] if self._dials else []

    def receive(self, frame: Frame) -> list[Frame]:
        """Raises FrameError for what has no place in this state."""
        handler = _TRANSITIONS.get((self.state, self._dials, type(frame)))
        if handler is None:
            raise FrameError(f"a {type(frame).__name__} while waiting for {self.state.name}")
        return handler(self, frame)

    def _on_hello(self, frame: Frame) -> list[Frame]:
        assert isinstance(frame, Hello)
        self.theirs = frame
        if self._dials:
            self.state = State.PROOF
            return [self._proof(by_dialer=True)]
        self.mine = self.mine._replace(role=frame.role, to=frame.node_id)
        self.state = State.PROOF
        return [self.mine]

    def _on_other_version(self, frame: Frame) -> list[Frame]:
        assert isinstance(frame, OtherVersion)
        reason = f"it speaks protocol version {frame.version}, this node {PROTOCOL_VERSION}"
        return self._refuse(Refused(Refusal.VERSION, reason))

    def _on_proof(self, frame: Frame) -> list[Frame]:
        assert isinstance(frame, Proof)
        assert self.theirs is not None
        if not hmac.compare_digest(frame.digest, self._proof(by_dialer=not self._dials).digest):
            return self._refuse(Refused(Refusal.SECRET, "it has another cluster secret"))
        self.state = State.VERDICT
        if self._dials:
            return []
        refused = self._judge(self.theirs)
        proof = self._proof(by_dialer=False)
        return [proof, Accepted()] if refused is None else [proof, *self._refuse(refused)]

    def _on_accepted(self, _: Frame) -> list[Frame]:
        assert self.theirs is not None
        if self.theirs.role != self.mine.role:
            raise FrameError(f"it answers a {Role(self.mine.role).name} with a {Role(self.theirs.role).name}")
        refused = self._judge(self.theirs) if self._dials else None
        if refused is not None:
            return self._refuse(refused)
        self.state = State.DONE
        return [Accepted()] if self._dials else []

    def _on_refused(self, frame: Frame) -> list[Frame]:
        assert isinstance(frame, Refused)
        is_proven = self.state is State.VERDICT
        self.state = State.REFUSED
        self.verdict = Verdict(Refusal(frame.code), frame.reason, by_us=False, is_proven=is_proven)
        return []

    def _refuse(self, refused: Refused) -> list[Frame]:
        is_proven = self.state is State.VERDICT
        self.state = State.REFUSED
        self.verdict = Verdict(Refusal(refused.code), refused.reason, by_us=True, is_proven=is_proven)
        return [refused]

    def _proof(self, by_dialer: bool) -> Proof:
        assert self.theirs is not None
        dialer, acceptor = (self.mine, self.theirs) if self._dials else (self.theirs, self.mine)
        part = b"riverbus peer: dialer\n" if by_dialer else b"riverbus peer: acceptor\n"
        return Proof(hmac.digest(self._secret, part + encode(dialer) + encode(acceptor), hashlib.sha256))


_DIALER, _ACCEPTOR = True, False
_TRANSITIONS: dict[tuple[State, bool, type[Frame]], Callable[[Handshake, Frame], list[Frame]]] = {
    (State.HELLO, _DIALER, Hello): Handshake._on_hello,
    (State.HELLO, _ACCEPTOR, Hello): Handshake._on_hello,
    (State.HELLO, _DIALER, OtherVersion): Handshake._on_other_version,
    (State.HELLO, _ACCEPTOR, OtherVersion): Handshake._on_other_version,
    (State.PROOF, _DIALER, Proof): Handshake._on_proof,
    (State.PROOF, _ACCEPTOR, Proof): Handshake._on_proof,
    (State.VERDICT, _DIALER, Accepted): Handshake._on_accepted,
    (State.VERDICT, _ACCEPTOR, Accepted): Handshake._on_accepted,
    (State.HELLO, _DIALER, Refused): Handshake._on_refused,
    (State.PROOF, _DIALER, Refused): Handshake._on_refused,
    (State.PROOF, _ACCEPTOR, Refused): Handshake._on_refused,
    (State.VERDICT, _DIALER, Refused): Handshake._on_refused,
    (State.VERDICT, _ACCEPTOR, Refused): Handshake._on_refused,
}


def hello_of(identity: Identity, role: Role, to: int, process: str, nonce: bytes) -> Hello:
    return Hello(
        role=role,
        node_id=identity.node_id,
        to=to,
        shards=identity.shards,
        incarnation=identity.incarnation,
        process=process,
        nonce=nonce,
        cluster_id=identity.cluster_id,
        members=identity.members,
        known=tuple(identity.incarnations.items()),
    )


def judge(identity: Identity, theirs: Hello, expected: int | None) -> Refused | None:
    """May this node talk to one that proved it knows the secret? `expected` is whom the dialer dialed."""
    node, here = theirs.node_id, identity.node_id
    if node == here:
        return Refused(Refusal.DUPLICATE, f"node id {here} is used twice, or a node's address leads back to itself")
    if node not in identity.members:
        return Refused(Refusal.UNKNOWN_NODE, f"node {node} is not one of this cluster's ({_ids(identity.members)})")
    if theirs.to != here or (expected is not None and node != expected):
        called, answered = (theirs.to, here) if expected is None else (expected, node)
        return Refused(
            Refusal.WRONG_NODE, f"node {called} was called and node {answered} answered: check the addresses"
        )
    if theirs.shards != identity.shards:
        return Refused(Refusal.SHARDS, f"node {node} has {theirs.shards} shards, node {here} has {identity.shards}")
    if theirs.role == Role.BULK and not (identity.is_bootstrapped and theirs.is_bootstrapped):
        return Refused(Refusal.NOT_READY, "there are no snapshots before the cluster is founded")
    return _judge_record(identity, theirs) if identity.is_bootstrapped else _judge_fresh(identity, theirs)


def _judge_record(identity: Identity, theirs: Hello) -> Refused | None:
    """This node has the cluster's record: the other must be the very one on it."""
    node, recorded = theirs.node_id, identity.incarnations[theirs.node_id]
    if theirs.incarnation != recorded:
        if theirs.is_bootstrapped:
            return Refused(Refusal.OTHER_CLUSTER, f"node {node} belongs to another cluster ({theirs.cluster_id})")
        reason = (
            f"node {node} was known as incarnation {recorded}; this data directory is new ({theirs.incarnation}): "
            "a wiped node cannot come back under its old id"
        )
        return Refused(Refusal.WIPED, reason)
    if theirs.is_bootstrapped and theirs.cluster_id != identity.cluster_id:
        return Refused(Refusal.OTHER_CLUSTER, f"node {node} belongs to another cluster ({theirs.cluster_id})")
    if not theirs.is_bootstrapped and node == identity.founder:
        # It wrote the record before anyone else could: without one, its directory is a copy from before that.
        reason = f"node {node} founded this cluster and does not know it: its data directory is an old copy"
        return Refused(Refusal.WIPED, reason)
    return None


def _judge_fresh(identity: Identity, theirs: Hello) -> Refused | None:
    """This node has no record. Whether a node that has one lets it in, is for that node to say."""
    members = tuple(node for node, _ in theirs.known) if theirs.is_bootstrapped else theirs.members
    if members != identity.members:
        theirs_and_ours = (
            f"node {theirs.node_id} has {_ids(members)}, node {identity.node_id} has {_ids(identity.members)}"
        )
        return Refused(Refusal.MEMBERS, f"two configurations name different nodes: {theirs_and_ours}")
    return None


def _ids(nodes: tuple[int, ...]) -> str:
    return ", ".join(map(str, nodes))
