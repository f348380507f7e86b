"""Each checker on a clean history, and on the same history with one violation planted: found, under its own rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from riverbus.messages import ID_MIN, MessageId
from riverbus.sim.checkers import CHECKERS, Event, HashAt, check, check_hashes

COUNT = 20


def id_at(at: int) -> MessageId:
    return MessageId(1000 + at // 4, at % 4)


def clean_history() -> list[Event]:
    """Two clients publish in turn; two nodes are read in full; one session follows from the beginning."""
    events = [
        Event(at, at + 0.5, f"p{at % 2}", "publish", "c", value=at, id=id_at(at) if at % 3 else None, node=at % 2)
        for at in range(COUNT)
    ]
    events.append(Event(5, 6, "session", "subscribe", "c", id=ID_MIN))
    events += [Event(6, 6, "session", "deliver", "c", value=at, id=id_at(at)) for at in range(COUNT)]
    for node in range(2):
        events.append(Event(100, 101, f"reader{node}", "read_all", "c", node=node))
        events += [Event(100, 101, f"reader{node}", "read", "c", value=at, id=id_at(at)) for at in range(COUNT)]
    return events


def rules_broken(events: list[Event]) -> set[str]:
    return {violation.rule for violation in check(events)}


def without(operation: str, values: set[int], client: str | None = None) -> Callable[[list[Event]], list[Event]]:
    def plant(events: list[Event]) -> list[Event]:
        return [
            event
            for event in events
            if not (event.operation == operation and event.value in values and client in (None, event.client))
        ]

    return plant


def with_changed(operation: str, value: int, **changes: object) -> Callable[[list[Event]], list[Event]]:
    def plant(events: list[Event]) -> list[Event]:
        return [
            event._replace(**changes) if (event.operation, event.value) == (operation, value) else event  # type: ignore[arg-type]
            for event in events
        ]

    return plant


def swapped_deliveries(events: list[Event]) -> list[Event]:
    at = next(i for i, event in enumerate(events) if event.operation == "deliver" and event.value == 7)
    events[at], events[at + 1] = events[at + 1], events[at]
    return events


def with_other_value_in_one_reader(events: list[Event]) -> list[Event]:
    return [
        event._replace(value=8) if (event.client, event.operation, event.value) == ("reader1", "read", 7) else event
        for event in events
    ]


def with_second_id(events: list[Event]) -> list[Event]:
    return [*events, Event(100, 101, "reader0", "read", "c", value=7, id=MessageId(9000, 0))]


def with_stale_read(events: list[Event]) -> list[Event]:
    return [*events, Event(10, 10.1, "early", "read_all", "c"), Event(10, 10.1, "early", "read", "c", 0, id=id_at(0))]


def with_late_publish_below(events: list[Event]) -> list[Event]:
    """A publish invoked after all the others were acknowledged, which lands before the last of them."""
    moved = [event._replace(id=MessageId(5000, 0)) if event.value == COUNT - 1 else event for event in events]
    id_ = MessageId(4000, 0)
    late = [Event(50, 51, "p9", "publish", "c", value=99, id=id_)]
    seen = [Event(100, 101, f"reader{node}", "read", "c", value=99, id=id_) for node in range(2)]
    return sorted([*moved, *late, *seen], key=lambda event: (event.operation == "read", event.id or ID_MIN))


PLANTED: list[tuple[str, str, Callable[[list[Event]], list[Event]]]] = [
    ("C1", "an acknowledged message no reader has", without("read", {7})),
    ("C1", "an acknowledged message one node has lost", without("read", {7}, "reader1")),
    ("C1", "no full read at all", lambda events: [e for e in events if e.operation != "read_all"]),
    ("C2", "a message nobody published", without("publish", {7})),
    ("C2", "a message whose publish failed", with_changed("publish", 7, result="fail", id=None)),
    ("C3", "a message twice in the channel", with_second_id),
    ("C4", "an id with two values", with_other_value_in_one_reader),
    ("C5", "two deliveries swapped", swapped_deliveries),
    ("C6", "a delivery skipped", without("deliver", {7})),
    ("C7", "a resume that starts too late", without("deliver", {0})),
    ("C8", "a later publish with a lower id", with_late_publish_below),
    (
        "C9",
        "one client's publishes reordered",
        lambda events: [e._replace(client="p0") if e.operation == "publish" else e for e in reversed(events)],
    ),
    ("C10", "a read that misses what was acknowledged before", with_stale_read),
]


def test_a_clean_history_has_no_violation() -> None:
    assert check(clean_history()) == []


@pytest.mark.parametrize(("rule", "plant"), [(r, p) for r, _, p in PLANTED], ids=[f"{r} {n}" for r, n, _ in PLANTED])
def test_a_planted_violation_is_found(rule: str, plant: Callable[[list[Event]], list[Event]]) -> None:
    assert rule in rules_broken(plant(clean_history()))


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule for rule, _, _ in PLANTED} == set(CHECKERS)


@pytest.mark.parametrize(
    ("values", "words"),
    [({0, 1}, "a prefix"), ({18, 19}, "a postfix"), ({3, 9}, "in the middle"), (set(range(COUNT)), "everything")],
)
def test_a_loss_is_described_by_its_place(values: set[int], words: str) -> None:
    (first, *_) = [each for each in check(without("read", values)(clean_history())) if each.rule == "C1"]
    assert words in first.text


def test_a_named_gap_is_no_violation() -> None:
    events = without("deliver", {7, 8})(clean_history())
    at = next(i for i, event in enumerate(events) if event.operation == "deliver" and event.value == 9)
    events.insert(at, Event(6, 6, "session", "gap", "c", id=id_at(8), after=id_at(6)))
    assert check(events) == []
    del events[at]
    assert rules_broken(events) == {"C6"}


def test_a_gap_that_names_too_little_is_a_violation() -> None:
    events = without("deliver", {7, 8})(clean_history())
    at = next(i for i, event in enumerate(events) if event.operation == "deliver" and event.value == 9)
    events.insert(at, Event(6, 6, "session", "gap", "c", id=id_at(7), after=id_at(6)))
    assert rules_broken(events) == {"C6"}


def test_a_publish_of_unknown_outcome_may_or_may_not_be_there() -> None:
    unknown = with_changed("publish", 7, result="info", id=None)(clean_history())
    assert check(unknown) == []
    assert check(without("deliver", {7})(without("read", {7})(unknown))) == []


def test_retries_without_a_key_may_have_two_effects_and_with_one_key_one() -> None:
    again = Event(7.1, 7.2, "p1", "publish", "c", value=7, result="info")
    twice = [*with_second_id(clean_history()), again]
    assert "C3" not in rules_broken(twice)
    keyed = [e._replace(key="k") if e.operation == "publish" and e.value == 7 else e for e in twice]
    assert "C3" in rules_broken(keyed)


def test_what_was_trimmed_by_rule_is_not_lost() -> None:
    events = without("read", {0, 1, 2})(clean_history())
    assert "C1" in rules_broken(events)
    trimmed = [event._replace(after=id_at(2)) if event.operation == "read_all" else event for event in events]
    assert check(trimmed) == []


def test_a_subscriber_without_ids_is_checked_by_its_values() -> None:
    events = [event._replace(id=None) if event.operation == "deliver" else event for event in clean_history()]
    assert check(events) == []
    assert rules_broken(without("deliver", {7})(events)) == {"C6"}
    assert "C5" in rules_broken(swapped_deliveries(events))


def test_many_violations_are_counted_not_listed() -> None:
    events = without("publish", set(range(COUNT)))(clean_history())
    phantoms = [each for each in check(events) if each.rule == "C2"]
    assert phantoms[-1].text == "... and 10 more"


def test_a_replica_that_differs_is_found() -> None:
    same = [HashAt(node, shard, entry, f"h{entry}") for node in range(3) for shard in range(2) for entry in range(9)]
    assert check_hashes(same) == []
    (violation,) = check_hashes([*same, HashAt(2, 1, 5, "other")])
    assert violation.rule == "C12"
    assert "node 2" in violation.text
