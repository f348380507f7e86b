"""C11, consumer groups: what members were given and acknowledged, against what the stream holds.

Pure, and the same for the simulator and for real processes. `check_groups` takes the members' events and the history of
the streams (checkers.py), which are never trimmed. A member is a consumer by name. An entry comes to a group once as a
new one; after that only to the member that has it, or to one that claims it; and never after its acknowledgement was
answered.

Idle times are measured by the time of the log's entries, so an event says what that time was when it began and when it
ended: a claim that came too early even by those two is wrong, whatever clocks did meanwhile. Where a lost reply leaves
it open who has what, nothing is said.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal, NamedTuple

from riverbus.messages import MessageId
from riverbus.sim.checkers import REPORTED_MAX, Event, Result, Violation

GroupOperation = Literal[
    "new",  # XREADGROUP >
    "again",  # XREADGROUP from an id: the member's own pending entries
    "claim",  # XCLAIM, XAUTOCLAIM: entries that were idle for `idle_ms`
    "ack",  # XACK: `entries` are those named
]
Entries = tuple[tuple[MessageId, Hashable], ...]  # with their values; of an ack without


class GroupEvent(NamedTuple):
    """`began_ms`, `ended_ms`: time of the log when it was invoked, and when it was done; or any clock without jumps."""

    invoked: float
    done: float
    member: str
    operation: GroupOperation
    stream: str
    group: str
    entries: Entries = ()
    result: Result = "ok"
    node: int = 0
    began_ms: int = 0
    ended_ms: int = 0
    idle_ms: int = 0
    counted: int = 0  # of an ack: how many the reply says


@dataclass
class GroupHistory:
    """What one group did with one stream. `given` and `acks`: by id, in the order in which they ended."""

    name: str
    values: Mapping[MessageId, Hashable]  # of the stream
    is_drained: bool
    given: dict[MessageId, list[GroupEvent]] = field(default_factory=lambda: defaultdict(list))
    acks: dict[MessageId, list[GroupEvent]] = field(default_factory=lambda: defaultdict(list))
    answered: list[GroupEvent] = field(default_factory=list)  # acks with a reply
    lost_claims: dict[str, list[GroupEvent]] = field(default_factory=lambda: defaultdict(list))  # by member
    wrong: list[str] = field(default_factory=list)  # entries that the stream does not have

    def add(self, event: GroupEvent) -> None:
        if event.result == "fail":
            return
        if event.operation == "ack":
            for id_, _ in event.entries:
                self.acks[id_].append(event)
            if event.result == "ok":
                self.answered.append(event)
        elif event.result == "info":
            if event.operation == "claim":
                self.lost_claims[event.member].append(event)
        else:
            for id_, value in event.entries:
                self.given[id_].append(event)
                if self.values.get(id_) != value:
                    self.wrong.append(f"{_what(event, id_)} as {value!r}, which is {self.values.get(id_)!r}")


GroupChecker = Callable[[GroupHistory], Iterator[str]]


def check_groups(events: Iterable[GroupEvent], history: Iterable[Event], *, is_drained: bool) -> list[Violation]:
    """Every violation of C11. `is_drained`: in the end the group had all of the stream, and acknowledged it."""
    in_order = sorted(events, key=lambda event: event.done)
    values: dict[str, dict[MessageId, Hashable]] = {event.stream: {} for event in in_order}
    for known in history:
        if known.channel in values and known.operation in ("read", "publish") and known.id is not None:
            values[known.channel].setdefault(known.id, known.value)
    groups: dict[tuple[str, str], GroupHistory] = {}
    for event in in_order:
        key = (event.stream, event.group)
        if key not in groups:
            groups[key] = GroupHistory("/".join(key), values[event.stream], is_drained)
        groups[key].add(event)
    found: list[Violation] = []
    for group in groups.values():
        for checker in GROUP_CHECKERS:
            texts = list(checker(group))
            found += [Violation("C11", group.name, text) for text in texts[:REPORTED_MAX]]
            if len(texts) > REPORTED_MAX:
                found.append(Violation("C11", group.name, f"... and {len(texts) - REPORTED_MAX} more"))
    return found


def at_least_once(group: GroupHistory) -> Iterator[str]:
    """Every entry of the stream was given to a member, and acknowledged."""
    if not group.is_drained:
        return
    for what, known in (("given to anyone", group.given), ("acknowledged", group.acks)):
        missing = sorted(id_ for id_ in group.values if id_ not in known)
        if missing:
            yield f"{len(missing)} of {len(group.values)} were never {what}: from {missing[0]} to {missing[-1]}"


def of_the_stream(group: GroupHistory) -> Iterator[str]:
    """What is given is in the stream, with that value."""
    yield from group.wrong


def new_once(group: GroupHistory) -> Iterator[str]:
    """An entry is new once: whoever asked, and whenever."""
    for id_, events in group.given.items():
        new = [event for event in events if event.operation == "new"]
        if len(new) > 1:
            first, second = new[:2]
            again = f"and again to {second.member} on node {second.node}"
            yield f"{id_} was new to {first.member} on node {first.node}, {again}"


def not_after_its_acknowledgement(group: GroupHistory) -> Iterator[str]:
    """Nothing is given again once its acknowledgement was answered."""
    for id_, events in group.given.items():
        acked = next((ack for ack in group.acks.get(id_, ()) if ack.result == "ok"), None)
        if acked is None:
            continue
        for event in events:
            if event.invoked > acked.done:
                at = f"{acked.member} had acknowledged it at {acked.done:.3f} on node {acked.node}"
                yield f"{_what(event, id_)} at {event.invoked:.3f}, but {at}"


def counted_once(group: GroupHistory) -> Iterator[str]:
    """An acknowledgement counts what was pending: all that nobody else named, nothing that was acknowledged before."""
    for ack in group.answered:
        least = most = len(ack.entries)
        for id_, _ in ack.entries:
            others = [other for other in group.acks[id_] if other is not ack]
            least -= any(other.invoked < ack.done for other in others)
            most -= any(other.result == "ok" and other.done < ack.invoked for other in others)
        if not least <= ack.counted <= most:
            first = ack.entries[0][0]
            text = f"acknowledged {len(ack.entries)} from {first} on, and {ack.counted} were pending"
            yield f"{ack.member} {text}: it must be {least} to {most}"


def idle_before_a_claim(group: GroupHistory) -> Iterator[str]:
    """Nobody is given by a claim what another was given less than `idle_ms` before."""
    for id_, events in group.given.items():
        if len(events) < 2:
            continue
        ended = [event.done for event in events]
        latest = list(accumulate((event.began_ms for event in events), max))
        for event in events:
            if event.operation != "claim" or not event.idle_ms:
                continue
            before = bisect_left(ended, event.invoked)
            if before and event.ended_ms - latest[before - 1] < event.idle_ms:
                idle = event.ended_ms - latest[before - 1]
                yield f"{_what(event, id_)} after {event.idle_ms} ms, but it was idle for {idle} ms at most"


def held_by_one(group: GroupHistory) -> Iterator[str]:
    """A member that lost an entry to another's claim does not have it, unless it may have claimed it back."""
    for id_, events in group.given.items():
        claims = [event for event in events if event.operation == "claim"]
        for event in events if claims else ():
            if event.operation != "again":
                continue
            own = [claim for claim in claims if claim.member == event.member] + group.lost_claims[event.member]
            if any(claim.result == "info" and claim.invoked < event.done for claim in own):
                continue
            for claim in claims:
                if claim.member == event.member or claim.done >= event.invoked:
                    continue
                if all(back.done < claim.invoked for back in own if back.invoked < event.done):
                    yield f"{_what(event, id_)} at {event.invoked:.3f}, but {claim.member} had claimed it"
                    break


GROUP_CHECKERS: tuple[GroupChecker, ...] = (
    at_least_once,
    of_the_stream,
    new_once,
    not_after_its_acknowledgement,
    counted_once,
    idle_before_a_claim,
    held_by_one,
)


def _what(event: GroupEvent, id_: MessageId) -> str:
    verb = {"new": "was given", "again": "still had", "claim": "claimed", "ack": "acknowledged"}[event.operation]
    return f"{event.member} on node {event.node} {verb} {id_}"
