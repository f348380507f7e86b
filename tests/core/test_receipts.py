"""Receipts: what a majority has in memory, of the leader's term and no other, said by nodes that may be counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from riverbus._native import BadMessage
from riverbus.core.consensus.receipts import MARK_KEY, Receipts
from riverbus.peer_messages import Held, PeerMessage, Received


class Log:
    """The end of the shard's log, and its records."""

    def __init__(self) -> None:
        self.last = 10
        self.metas: dict[bytes, bytes | None] = {}

    def last_index(self, _: int) -> int:
        return self.last

    def put_meta(self, _: int, key: bytes, value: bytes | None) -> None:
        self.metas[key] = value

    def get_meta(self, _: int, key: bytes) -> bytes | None:
        return self.metas.get(key)


class Node:
    """Node 1 of `size`. `held` are the places that its route was told."""

    def __init__(self, size: int = 3, metas: dict[bytes, bytes | None] | None = None, has_rule: bool = True) -> None:
        self.log = Log()
        self.log.metas = metas if metas is not None else {}
        self.terms: dict[int, int] = {}  # of entries; else the replica's
        self.flushed_batch = self.completed_batch = 4
        self.held: list[tuple[int, int]] = []
        self.sent: list[tuple[int, PeerMessage]] = []
        self.replica: Any = SimpleNamespace(
            shard=0, term=7, leader=1, is_leader=True, awaits_batch=0, applied_index=10, proposed_for={},
            bus=SimpleNamespace(has_memory_rules=has_rule),
            raft=SimpleNamespace(term_of=lambda index: self.terms.get(index, self.replica.term)),
        )  # fmt: skip
        route: Any = SimpleNamespace(on_held=lambda term, index, _: self.held.append((term, index)))
        links: Any = SimpleNamespace(send=lambda peer, message: self.sent.append((peer, message)))
        log: Any = self.log
        peers = tuple(range(2, size + 1))
        self.receipts = Receipts(cast(Any, self.replica), route, log, links, self, peers, lambda *_: 0)
        self.receipts.on_rules()
        self.completed_batch = self.flushed_batch = 5  # the mark is on disk

    def follow(self, leader: int, term: int) -> None:
        self.replica.is_leader, self.replica.leader, self.replica.term = False, leader, term

    def append(self, count: int = 1) -> None:
        self.log.last += count
        self.receipts.on_turn()


def test_a_leader_counts_itself_and_the_majority_index_is_held() -> None:
    node = Node(size=5)
    node.append(3)
    node.receipts.on_received(2, 7, 13)
    node.receipts.on_turn()
    assert node.held == []  # two of five
    node.receipts.on_received(3, 7, 12)
    node.receipts.on_turn()
    assert node.held == [(7, 12)]
    node.receipts.on_received(4, 7, 13)
    node.receipts.on_turn()
    assert node.held == [(7, 12), (7, 13)]
    node.receipts.on_received(5, 7, 13)
    node.receipts.on_turn()
    assert node.held == [(7, 12), (7, 13)]  # told once


def test_a_node_alone_is_a_majority() -> None:
    node = Node(size=1)
    node.append()
    assert node.held == [(7, 11)]


def test_receipts_of_another_term_do_not_count() -> None:
    node = Node()
    node.append()
    for term in (6, 8):
        node.receipts.on_received(2, term, 11)
    node.receipts.on_turn()
    assert node.held == []
    node.receipts.on_received(2, 7, 11)
    node.replica.term = 8  # it led again before the turn's end
    node.receipts.on_turn()
    assert node.held == []


def test_a_receipt_of_what_was_never_sent_is_refused() -> None:
    with pytest.raises(BadMessage):
        Node().receipts.on_received(2, 7, 11)


def test_a_receipt_is_forgotten_with_its_link() -> None:
    node = Node()
    node.log.last = 12
    node.receipts.on_received(2, 7, 12)
    node.receipts.on_link(2)
    node.receipts.on_turn()
    assert node.held == []


def test_a_follower_says_once_what_it_has_of_its_leaders_term() -> None:
    node = Node()
    node.follow(leader=2, term=7)
    node.append()
    node.append(0)
    node.append()
    assert node.sent == [(2, Received(0, 7, 11)), (2, Received(0, 7, 12))]
    node.receipts.on_link(2)
    node.receipts.on_turn()
    assert node.sent[2:] == [(2, Received(0, 7, 12))]


def test_a_follower_says_nothing_while_its_last_entry_is_of_an_earlier_term() -> None:
    node = Node()
    node.follow(leader=2, term=8)
    node.terms[11] = 7
    node.append()
    assert node.sent == []
    node.append()
    assert node.sent == [(2, Received(0, 8, 12))]


def test_nobody_is_counted_before_its_term_is_on_disk() -> None:
    node = Node()
    node.follow(leader=2, term=9)
    node.replica.awaits_batch = 6
    node.append()
    assert node.sent == []
    node.completed_batch = 6
    node.append(0)
    assert node.sent == [(2, Received(0, 9, 11))]


def test_nobody_is_counted_before_the_mark_is_on_disk() -> None:
    node = Node()
    node.completed_batch = 4
    assert node.log.metas == {MARK_KEY: b"1"}
    node.append()
    node.receipts.on_received(2, 7, 11)
    node.receipts.on_turn()
    assert node.held == []
    node.completed_batch = 5
    node.receipts.on_turn()
    assert node.held == [(7, 11)]


def test_the_mark_goes_once_no_rule_asks_for_it_and_all_that_was_counted_is_applied() -> None:
    node = Node()
    node.append()
    node.replica.bus.has_memory_rules = False
    node.receipts.on_rules()
    node.receipts.on_turn()
    assert node.log.metas == {MARK_KEY: b"1"}
    node.replica.applied_index = 11
    node.receipts.on_turn()
    assert node.log.metas == {MARK_KEY: None}
    assert not node.receipts.has_turn


def test_a_start_with_the_mark_tells_that_it_was_counted() -> None:
    assert Node(metas={MARK_KEY: b"1"}).receipts.was_counted
    assert not Node(metas={}).log.metas.get(b"other")


def test_who_forwarded_is_told_up_to_where_a_majority_has_it() -> None:
    node = Node()
    node.replica.proposed_for = {2: 11, 3: 12}
    node.append(2)
    node.receipts.on_received(3, 7, 11)
    node.receipts.on_turn()
    assert node.sent == [(2, Held(0, 7, 11)), (3, Held(0, 7, 11))]
    node.receipts.on_received(3, 7, 12)
    node.receipts.on_turn()
    assert node.sent[2:] == [(3, Held(0, 7, 12))]


def test_only_the_present_leader_is_believed() -> None:
    node = Node()
    node.follow(leader=2, term=7)
    node.receipts.on_held(3, 7, 11)
    node.receipts.on_held(2, 6, 11)
    assert node.held == []
    node.receipts.on_held(2, 7, 11)
    assert node.held == [(7, 11)]


def test_without_a_rule_nothing_is_sent_counted_or_marked() -> None:
    node = Node(has_rule=False)
    node.append()
    node.receipts.on_received(2, 7, 11)
    assert not node.receipts.has_turn
    node.receipts.on_turn()
    assert (node.log.metas, node.sent, node.held) == ({}, [], [])
