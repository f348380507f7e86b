"""The handshake without sockets: who may talk, and that proofs are worth nothing but where they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from riverbus.runtime.handshake import Handshake, State, hello_of, judge
from riverbus.runtime.identity import Identity
from riverbus.wire.frame_nouns import Accepted, Frame, Hello, OtherVersion, Ping, Proof, Refusal, Refused, Role
from riverbus.wire.frames import FrameError

SECRET = b"s3cret"
INCARNATIONS = {1: "11" * 16, 2: "22" * 16, 3: "33" * 16}


def identity_of(
    node: int, bootstrapped: bool = True, incarnation: str = "", members: tuple[int, ...] = (1, 2, 3)
) -> Identity:
    made = Identity(Path("/nowhere"), -1, node, 8, members, incarnation or INCARNATIONS.get(node, "99" * 16))
    if bootstrapped:
        made.incarnations = dict(INCARNATIONS)
        made.cluster_id = "cc" * 16
    return made


def side(identity: Identity, to: int, nonce: int, dials: bool, secret: bytes = SECRET) -> Handshake:
    hello = hello_of(identity, Role.LINK, to if dials else 0, f"{identity.node_id:016x}", bytes([nonce]) * 32)
    return Handshake(hello, secret, dials, lambda theirs: judge(identity, theirs, to if dials else None))


def converse(dialer: Handshake, acceptor: Handshake) -> list[Frame]:
    """Carry frames to and fro until nobody says more; everything that was said."""
    said: list[Frame] = []
    mine, others = dialer.start(), acceptor.start()
    assert others == []
    sender, receiver = dialer, acceptor
    while mine:
        said += mine
        answers = [answer for frame in mine for answer in receiver.receive(frame)]
        mine, sender, receiver = answers, receiver, sender
    return said


def meet(first: Identity, second: Identity) -> tuple[Handshake, Handshake]:
    dialer, acceptor = side(first, second.node_id, 1, True), side(second, first.node_id, 2, False)
    converse(dialer, acceptor)
    assert dialer.is_over
    assert acceptor.is_over
    return dialer, acceptor


def test_two_members_accept_each_other() -> None:
    dialer, acceptor = meet(identity_of(1), identity_of(2))
    assert dialer.state is acceptor.state is State.DONE
    assert (dialer.other, acceptor.other) == (2, 1)


def test_another_secret_is_refused_and_nothing_more_is_said() -> None:
    dialer = side(identity_of(1), 2, 1, True, b"other")
    acceptor = side(identity_of(2), 1, 2, False)
    said = converse(dialer, acceptor)
    assert [type(frame) for frame in said] == [Hello, Hello, Proof, Refused]
    assert dialer.verdict is not None
    assert acceptor.verdict is not None
    assert dialer.verdict.code == acceptor.verdict.code == Refusal.SECRET
    assert (dialer.verdict.by_us, dialer.verdict.is_proven) == (False, False)
    assert acceptor.other == 0


def test_a_proof_of_another_conversation_or_of_the_other_side_is_refused() -> None:
    dialer, acceptor = side(identity_of(1), 2, 1, True), side(identity_of(2), 1, 2, False)
    said = converse(dialer, acceptor)
    first_proof, second_proof = (frame for frame in said if isinstance(frame, Proof))
    for proof, nonce in ((first_proof, 3), (second_proof, 2)):  # replayed; reflected into an equal conversation
        fooled = side(identity_of(2), 1, nonce, False)
        fooled.receive(said[0])
        answers = fooled.receive(proof)
        assert fooled.state is State.REFUSED
        assert not any(isinstance(answer, Proof) for answer in answers)


@pytest.mark.parametrize("field", ["incarnation", "process", "members", "cluster_id", "nonce", "role"])
def test_a_hello_changed_on_its_way_fails_the_proof(field: str) -> None:
    other: dict[str, Any] = {
        "incarnation": "44" * 16, "process": "5" * 16, "members": (1, 2), "cluster_id": "dd" * 16,
        "nonce": bytes(32), "role": Role.BULK,
    }  # fmt: skip
    dialer, acceptor = side(identity_of(1), 2, 1, True), side(identity_of(2), 1, 2, False)
    (hello,) = dialer.start()
    assert isinstance(hello, Hello)
    (answer,) = acceptor.receive(hello._replace(**{field: other[field]}))
    (proof,) = dialer.receive(answer)
    acceptor.receive(proof)
    assert acceptor.verdict is not None
    assert acceptor.verdict.code == Refusal.SECRET


def test_an_answer_for_another_role_ends_the_handshake() -> None:
    """Found by tests/malformed: a link that was dialed was served as bulk."""
    dialer, acceptor = side(identity_of(1), 2, 1, True), side(identity_of(2), 1, 2, False)
    (hello,) = dialer.start()
    acceptor.receive(hello)
    acceptor.mine = acceptor.mine._replace(role=Role.BULK)
    (proof,) = dialer.receive(acceptor.mine)
    theirs, accepted = acceptor._proof(by_dialer=False), Accepted()
    assert isinstance(proof, Proof)
    assert dialer.receive(theirs) == []
    with pytest.raises(FrameError, match="answers a LINK with a BULK"):
        dialer.receive(accepted)


@pytest.mark.parametrize("wiped_dials", [True, False])
def test_a_wiped_member_is_refused_for_good_by_whoever_knows_it(wiped_dials: bool) -> None:
    member, wiped = identity_of(2 if wiped_dials else 1), identity_of(1 if wiped_dials else 2, False, "ff" * 16)
    dialer, acceptor = meet(wiped, member) if wiped_dials else meet(member, wiped)
    told = (dialer if wiped_dials else acceptor).verdict
    assert told is not None
    assert told.code == Refusal.WIPED
    assert (told.by_us, told.is_proven) == (False, True)
    assert "a wiped node cannot come back under its old id" in told.reason
    assert INCARNATIONS[wiped.node_id] in told.reason


def test_a_fresh_member_that_is_on_record_is_accepted_but_not_a_fresh_founder() -> None:
    dialer, _ = meet(identity_of(1), identity_of(2, False))
    assert dialer.state is State.DONE
    _, acceptor = meet(identity_of(1, False), identity_of(2))
    assert acceptor.verdict is not None
    assert acceptor.verdict.code == Refusal.WIPED
    assert "old copy" in acceptor.verdict.reason


def test_what_does_not_fit_is_refused_by_name() -> None:
    another_cluster = identity_of(2)
    another_cluster.cluster_id = "dd" * 16
    reborn = identity_of(2, incarnation="77" * 16)
    reborn.incarnations[2] = "77" * 16
    other_shards = identity_of(2)
    other_shards.shards = 4
    cases = [
        (identity_of(1), another_cluster, Refusal.OTHER_CLUSTER),
        (identity_of(1), reborn, Refusal.OTHER_CLUSTER),
        (identity_of(1), other_shards, Refusal.SHARDS),
        (identity_of(9, False, members=(1, 2, 3, 9)), identity_of(1), Refusal.UNKNOWN_NODE),
        (identity_of(1, False), identity_of(2, False, members=(1, 2)), Refusal.MEMBERS),
        (identity_of(1), identity_of(1), Refusal.DUPLICATE),
    ]
    for first, second, code in cases:
        for verdict in (handshake.verdict for handshake in meet(first, second)):
            assert verdict is not None
            assert verdict.code == code
            assert verdict.is_proven


def test_a_node_that_answers_for_another_is_told_apart() -> None:
    dialer, acceptor = side(identity_of(1), 2, 1, True), side(identity_of(3), 1, 2, False)
    converse(dialer, acceptor)
    assert dialer.verdict is not None
    assert dialer.verdict.code == Refusal.WRONG_NODE
    assert dialer.verdict.reason == "node 2 was called and node 3 answered: check the addresses"


def test_another_version_is_refused_by_name() -> None:
    acceptor = side(identity_of(2), 1, 2, False)
    (refused,) = acceptor.receive(OtherVersion(9))
    assert refused == Refused(Refusal.VERSION, "it speaks protocol version 9, this node 1")


@pytest.mark.parametrize("frame", [Ping(1), Accepted(), Proof(bytes(32)), Refused(Refusal.SECRET, "no")])
def test_what_is_out_of_turn_is_a_bad_frame(frame: Frame) -> None:
    with pytest.raises(FrameError, match="while waiting for HELLO"):
        side(identity_of(2), 1, 2, False).receive(frame)
