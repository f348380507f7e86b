"""Comeback: who may have forgotten something has no part in elections until it has it again, or nobody can tell it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from riverbus.core.consensus.comeback import Comeback
from riverbus.limits import COMEBACK_TICKS
from riverbus.peer_messages import PeerMessage, Recall, Recalled

VOTING = (5, 14, 17)
OTHERS = (3, 4, 6, 8, 9, 15, 16, 18)  # appends, heartbeats, answers to votes, reads


class Node:
    """Node 1 of `size`, of a log up to 10 in term 7, that has just started."""

    def __init__(self, size: int = 3, is_needed: bool = True) -> None:
        self.last = 10
        self.sent: list[tuple[int, PeerMessage]] = []
        self.replica: Any = SimpleNamespace(
            shard=2, term=7, leader=0, is_leader=False, raft=SimpleNamespace(term_of=lambda _: self.replica.term)
        )
        log: Any = SimpleNamespace(last_index=lambda _: self.last)
        links: Any = SimpleNamespace(send=lambda peer, message: self.sent.append((peer, message)))
        self.comeback = Comeback(cast(Any, self.replica), log, links, tuple(range(2, size + 1)), is_needed)


def test_it_drops_what_asks_for_its_vote_and_nothing_else() -> None:
    comeback = Node().comeback
    assert not any(comeback.admits(kind) for kind in VOTING)
    assert all(comeback.admits(kind) for kind in OTHERS)


def test_a_node_that_was_never_counted_or_is_alone_begins_as_ever() -> None:
    for node in (Node(is_needed=False), Node(size=1)):
        assert not node.comeback.is_under_way
        assert node.comeback.admits(5)
        node.comeback.on_tick()
        assert node.sent == []


def test_it_is_over_once_the_log_has_what_the_leader_named() -> None:
    node = Node()
    node.comeback.on_tick()
    assert node.sent == [(2, Recall(2)), (3, Recall(2))]
    node.replica.leader = 3
    node.comeback.on_recalled(3, Recalled(2, 7, 12))
    node.comeback.on_turn()
    assert node.comeback.is_under_way
    node.last = 12
    node.comeback.on_turn()
    assert not node.comeback.is_under_way


def test_an_answer_of_another_term_or_node_is_none() -> None:
    node = Node()
    node.replica.leader = 3
    node.comeback.on_recalled(2, Recalled(2, 7, 5))
    node.comeback.on_recalled(3, Recalled(2, 6, 5))
    node.comeback.on_turn()
    assert node.comeback.is_under_way
    node.comeback.on_recalled(3, Recalled(2, 7, 5))
    node.replica.term = 8  # another leader since
    node.comeback.on_turn()
    assert node.comeback.is_under_way


def test_a_leader_answers_where_its_log_ends() -> None:
    node = Node(is_needed=False)
    node.replica.is_leader = True
    node.comeback.on_recall(2)
    assert node.sent == [(2, Recalled(2, 7, 10))]


def test_it_is_over_when_a_majority_comes_back_and_the_other_hears_of_it() -> None:
    node = Node(size=5)
    node.comeback.on_recall(2)
    assert node.comeback.is_under_way
    node.comeback.on_recall(2)
    assert node.sent == [(2, Recall(2))]  # said once: it would go to and fro for ever
    node.comeback.on_recall(3)
    assert not node.comeback.is_under_way
    assert node.sent == [(2, Recall(2)), (3, Recall(2))]


def test_a_peer_that_has_stopped_saying_so_is_back() -> None:
    node = Node(size=5)
    node.comeback.on_recall(2)
    for _ in range(5):
        node.comeback.on_tick()
    node.comeback.on_recall(3)
    assert node.comeback.is_under_way


def test_it_is_over_after_a_time_in_which_others_would_have_elected_a_leader() -> None:
    node = Node()
    for _ in range(COMEBACK_TICKS - 1):
        node.comeback.on_tick()
    assert node.comeback.is_under_way
    node.comeback.on_tick()
    assert not node.comeback.is_under_way
