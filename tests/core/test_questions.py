"""Questions: every reachable node is asked, and the asker is told once, with what came in time."""

from __future__ import annotations

from riverbus.core.consensus.questions import Questions
from riverbus.core.timers import Timers
from riverbus.peer_messages import Answer, Ask, PeerMessage


class Links:
    def __init__(self, up: set[int]) -> None:
        self.up = up
        self.sent: list[tuple[int, PeerMessage]] = []

    def send(self, peer: int, message: PeerMessage) -> None:
        self.sent.append((peer, message))

    def flush(self) -> None:
        return None

    def is_up(self, peer: int) -> bool:
        return peer in self.up

    def backlog_bytes(self, peer: int) -> int:
        return 0


def asked_id(links: Links) -> int:
    message = links.sent[0][1]
    assert isinstance(message, Ask)
    return message.id


def test_all_reachable_nodes_are_asked_and_their_answers_gathered() -> None:
    links, timers, told = Links({2, 3}), Timers(), list[list[bytes]]()
    questions = Questions(links, timers)
    questions.ask((2, 3, 4), b"?", 1.0, told.append)
    assert [peer for peer, _ in links.sent] == [2, 3]
    questions.on_answer(2, Answer(asked_id(links), b"two"))
    assert told == []
    questions.on_answer(3, Answer(asked_id(links), b"three"))
    assert told == [[b"two", b"three"]]
    assert timers.next_at() is None


def test_nobody_in_reach_is_an_answer_at_once() -> None:
    told: list[list[bytes]] = []
    Questions(Links(set()), Timers()).ask((2, 3), b"?", 1.0, told.append)
    assert told == [[]]


def test_who_is_late_or_goes_away_is_left_out() -> None:
    links, timers, told = Links({2, 3, 4}), Timers(), list[list[bytes]]()
    questions = Questions(links, timers)
    questions.ask((2, 3, 4), b"?", 1.0, told.append)
    questions.on_answer(2, Answer(asked_id(links), b"two"))
    questions.on_peer_down(3)
    assert told == []
    timers.fire(1.0)
    assert told == [[b"two"]]
    questions.on_answer(4, Answer(asked_id(links), b"too late"))
    assert len(told) == 1


def test_an_answer_that_nobody_asked_for_or_that_comes_twice_changes_nothing() -> None:
    links, told = Links({2, 3}), list[list[bytes]]()
    questions = Questions(links, Timers())
    questions.ask((2, 3), b"?", 1.0, told.append)
    questions.on_answer(2, Answer(asked_id(links) + 1, b"stray"))
    questions.on_answer(2, Answer(asked_id(links), b"two"))
    questions.on_answer(2, Answer(asked_id(links), b"two again"))
    assert told == []
    questions.on_peer_down(3)
    assert told == [[b"two"]]
