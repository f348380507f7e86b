"""C11: a clean history of a group passes, and each planted violation is found."""

from __future__ import annotations

import pytest

from riverbus.messages import MessageId
from riverbus.sim.checkers import Event
from riverbus.sim.group_checkers import Entries, GroupEvent, GroupOperation, check_groups

COUNT = 4


def id_at(number: int) -> MessageId:
    return MessageId(1000 + number, 0)


def entries(*numbers: int) -> Entries:
    return tuple((id_at(number), number) for number in numbers)


def event(at: float, member: str, operation: GroupOperation, *numbers: int, **changes: object) -> GroupEvent:
    """Begins at `at` and lasts for half a second, in the log's time too."""
    counted = len(numbers) if operation == "ack" else 0
    ms = int(at * 1000)
    made = GroupEvent(at, at + 0.5, member, operation, "s", "g", entries(*numbers), began_ms=ms, ended_ms=ms + 500)
    return made._replace(counted=counted)._replace(**changes)  # type: ignore[arg-type]


STREAM = [Event(0, 1, "r", "read", "s", number, "ok", id_at(number)) for number in range(COUNT)]

# a has 0 and 1, and acknowledges 0; b claims 1 when it was idle for long enough.
CLEAN = [
    event(1, "a", "new", 0, 1),
    event(2, "b", "new", 2, 3),
    event(3, "a", "ack", 0),
    event(4, "a", "again", 1),
    event(5, "b", "ack", 2, 3),
    event(9, "b", "claim", 1, idle_ms=3000),
    event(10, "b", "ack", 1),
]


def problems(events: list[GroupEvent], *, is_drained: bool = True) -> list[str]:
    return [violation.text for violation in check_groups(events, STREAM, is_drained=is_drained)]


def test_a_clean_history_passes() -> None:
    assert problems(CLEAN) == []


PLANTED: list[tuple[str, list[GroupEvent]]] = [
    ("never given to anyone", [each for each in CLEAN if each.member != "b"]),
    ("never acknowledged", CLEAN[:-1]),
    ("was new to a on node 0, and again to b", [*CLEAN, event(2.1, "b", "new", 0)]),
    ("but a had acknowledged it", [*CLEAN, event(8, "b", "claim", 0)]),
    ("but a had acknowledged it", [*CLEAN, event(4, "a", "again", 0)]),
    ("it must be 1 to 1", [*CLEAN[:-1], event(10, "b", "ack", 1, counted=0)]),
    ("it must be 0 to 0", [*CLEAN, event(11, "a", "ack", 1, counted=1)]),
    ("after 3000 ms, but it was idle for 2500 ms", [*CLEAN, event(6, "b", "claim", 1, idle_ms=3000)]),
    ("but b had claimed it", [*CLEAN[:-1], event(9.8, "a", "again", 1), event(11, "b", "ack", 1)]),
    ("as 9, which is None", [*CLEAN, event(3, "a", "new", 9)]),
]


@pytest.mark.parametrize(("text", "events"), PLANTED, ids=[f"{at} {text}" for at, (text, _) in enumerate(PLANTED)])
def test_a_planted_violation_is_found(text: str, events: list[GroupEvent]) -> None:
    found = problems(events)
    assert any(text in problem for problem in found), found


def test_where_a_reply_was_lost_nothing_is_said() -> None:
    lost_ack = CLEAN[-1]._replace(result="info", counted=0)
    assert problems([*CLEAN[:-1], lost_ack, event(12, "a", "claim", 1, idle_ms=2000), event(13, "a", "ack", 1)]) == []
    lost_claim = event(9.6, "a", "claim", result="info")
    held_again = event(10.2, "a", "again", 1)
    assert problems([*CLEAN[:-1], lost_claim, held_again, event(11, "a", "ack", 1)]) == []


def test_what_is_not_drained_may_have_entries_left() -> None:
    assert problems(CLEAN[:2], is_drained=False) == []
