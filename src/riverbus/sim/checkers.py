"""Checkers over one history of events: what the bus promised, against what its clients saw.

Pure, and the same for the simulator and for real processes. `check(events)` runs C1 to C10 and returns what is broken;
`check_hashes` is C12. The rules are numbered as in the project's table of faults; each is one function here, and each
has tests that plant a violation and see it found.

A value is unique in its channel, so that a message is known wherever it turns up; an event without an id (a PUBLISH's
reply, a plain Redis subscriber) gets it from where the value was seen with one. Time is any clock that all of a
history's events share. Everything is one pass over the events, or over one channel's sorted ids.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

from riverbus.messages import ID_MIN, MessageId

Operation = Literal[
    "publish",  # one publish: value, result, and its id if the reply told
    "read_all",  # a full-range read of the channel began (invoked) and ended (done); `client` names this one read
    "read",  # one message of that read, in the order read
    "subscribe",  # a session's position: what is delivered next is the first message after `id`
    "deliver",  # one message to a session, in the order received
    "gap",  # the session was told that messages in (after, id] are gone
]
Result = Literal["ok", "fail", "info"]  # fail: surely without effect; info: not known

_CERTAINTY = {"fail": 0, "info": 1, "ok": 2}  # of an effect
REPORTED_MAX = 10  # violations of one rule that are spelled out; the rest is counted


class Event(NamedTuple):
    invoked: float
    done: float
    client: str
    operation: Operation
    channel: str
    value: Hashable = None
    result: Result = "ok"
    id: MessageId | None = None
    node: int = 0
    after: MessageId | None = None  # of a gap; of a read_all: history up to here was trimmed by rule
    key: str | None = None  # idempotency key of a publish
    is_early: bool = False  # acknowledged under durability memory, maybe before it was committed


class Violation(NamedTuple):
    rule: str
    channel: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule} {self.channel}: {self.text}"


# A delivery that is not the next after the session's position: (session, position, event, is_first, missing).
Skip = tuple[str, MessageId, Event, bool, int]


@dataclass
class ChannelHistory:
    """The events of one channel, indexed. `order` is the channel as the world saw it: all ids, sorted."""

    name: str
    publishes: list[Event] = field(default_factory=list)
    reads: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))  # by the read's client
    full_reads: list[Event] = field(default_factory=list)
    sessions: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    values: dict[MessageId, list[Hashable]] = field(default_factory=lambda: defaultdict(list))  # distinct ones
    ids: dict[Hashable, list[MessageId]] = field(default_factory=lambda: defaultdict(list))  # distinct ones
    attempts: dict[Hashable, int] = field(default_factory=lambda: defaultdict(int))  # publishes that may have an effect
    order: list[MessageId] = field(default_factory=list)
    keyed: dict[str, int] = field(default_factory=dict)  # where in `publishes` what has a key is
    retried: set[Hashable] = field(default_factory=set)  # under their key
    skips: list[Skip] = field(default_factory=list)  # of sessions

    def add(self, event: Event) -> None:
        _, _, client, operation, _, value, result, id_, _, _, key, _ = event
        if operation == "read":
            self.reads[client].append(event)
        elif operation == "publish":
            if key is not None and key in self.keyed:
                self._add_attempt(event, self.keyed[key])
            else:
                if key is not None:
                    self.keyed[key] = len(self.publishes)
                self.publishes.append(event)
                self.attempts[value] += result != "fail"
        elif operation == "read_all":
            self.full_reads.append(event)
        else:
            self.sessions[client].append(event)
        if id_ is None or operation not in ("publish", "read", "deliver"):
            return
        if value not in (values := self.values[id_]):
            values.append(value)
            self.ids[value].append(id_)  # the same pairs the other way round: it is not there either

    def _add_attempt(self, event: Event, at: int) -> None:
        """All attempts under one key are one publish: from the first one's start to the first answer that has it."""
        known = self.publishes[at]
        self.retried.add(event.value)
        self.attempts[event.value] |= event.result != "fail"
        better = known if _CERTAINTY[known.result] >= _CERTAINTY[event.result] else event
        self.publishes[at] = better._replace(invoked=min(known.invoked, event.invoked))

    def id_of(self, event: Event) -> MessageId | None:
        """The event's own id, or the one under which its value was seen elsewhere: a retry's may have been another."""
        if event.id is not None:
            return event.id
        ids = self.ids.get(event.value)
        return ids[0] if ids else None

    def sure_id_of(self, event: Event) -> MessageId | None:
        """None also where the value may have been published twice, so that no id is surely this event's."""
        if (id_ := event.id) is not None:
            return id_
        return None if self.attempts[event.value] > 1 else self.id_of(event)

    def read_values(self, full_read: Event) -> set[Hashable]:
        return {event.value for event in self.reads.get(full_read.client, ())}


Checker = Callable[[ChannelHistory], Iterator[str]]


def check(events: Iterable[Event]) -> list[Violation]:
    """Every violation of C1 to C10, at most `REPORTED_MAX` a rule and channel and a count of the others."""
    channels: dict[str, ChannelHistory] = {}
    for event in events:
        if (history := channels.get(event.channel)) is None:
            history = channels[event.channel] = ChannelHistory(event.channel)
        history.add(event)
    found: list[Violation] = []
    for history in channels.values():
        history.order = sorted(history.values)
        history.skips = list(_skips(history))
        for rule, checker in CHECKERS.items():
            texts = list(checker(history))
            found += [Violation(rule, history.name, text) for text in texts[:REPORTED_MAX]]
            if len(texts) > REPORTED_MAX:
                found.append(Violation(rule, history.name, f"... and {len(texts) - REPORTED_MAX} more"))
    return found


# --- publishes against reads ------------------------------------------------------------------------------------------


def lost(history: ChannelHistory) -> Iterator[str]:
    """C1: every acknowledged publish is read by every full-range read that began after the last publish ended."""
    acked = [event for event in history.publishes if event.result == "ok"]
    values = [event.value for event in acked]
    if not acked:
        return
    ended = max(event.done for event in history.publishes)
    final_reads = [read for read in history.full_reads if read.result == "ok" and read.invoked >= ended]
    if not final_reads:
        yield "no full-range read was made after the last publish: nothing is proven"
    for read in final_reads:
        seen = history.read_values(read)
        missing = [
            at
            for at, value in enumerate(values)
            if value not in seen and not _is_trimmed(history.id_of(acked[at]), read)
        ]
        if missing:
            first, last = missing[0], missing[-1]
            yield (
                f"{len(missing)} of {len(acked)} acknowledged not read by {read.client}, "
                f"{_where(missing, len(acked))}: from {_publish(acked[first])} to {_publish(acked[last])}"
            )


def phantom(history: ChannelHistory) -> Iterator[str]:
    """C2: every value read or delivered was published, and not only by publishes that failed."""
    possible = {event.value for event in history.publishes if event.result != "fail"}
    failed = {event.value for event in history.publishes} - possible
    reported: set[Hashable] = set()
    for event in _seen(history):
        if event.value not in possible and event.value not in reported:
            reported.add(event.value)
            why = "whose publish failed" if event.value in failed else "that nobody published"
            yield f"{event.client} got {event.value!r} at {event.id}, {why}"


def duplicate(history: ChannelHistory) -> Iterator[str]:
    """C3: a value has at most one id for each publish of it, publishes under one key counting as one."""
    effects: dict[Hashable, set[object]] = defaultdict(set)
    for at, event in enumerate(history.publishes):
        if event.result != "fail":
            effects[event.value].add(at if event.key is None else event.key)
    for value, ids in history.ids.items():
        if len(ids) > max(1, len(effects[value])):
            yield f"{value!r} has {len(ids)} ids: {', '.join(map(str, sorted(ids)[:4]))}"
    for reader, events in history.reads.items():
        yield from _repeated(reader, events, effects)


def agreement(history: ChannelHistory) -> Iterator[str]:
    """C4: an id stands for one value, over all acknowledgements, readers, nodes and time."""
    for id_, values in history.values.items():
        if len(values) > 1:
            yield f"{id_} is " + " and ".join(repr(value) for value in values[:4])


def order(history: ChannelHistory) -> Iterator[str]:
    """C5: each reader's ids rise. An id has one value (C4) and a value its id (C3), so no two readers then disagree."""
    for reader, events in (*history.reads.items(), *history.sessions.items()):
        last: tuple[MessageId, Hashable] | None = None
        for event in events:
            if event.operation not in ("read", "deliver"):
                continue
            id_ = event.id or history.sure_id_of(event)
            if id_ is None:
                continue
            if last is not None and id_ <= last[0]:
                yield f"{reader} got {event.value!r} at {id_} after {last[1]!r} at {last[0]}"
            last = (id_, event.value)


# --- sessions ---------------------------------------------------------------------------------------------------------


def gap(history: ChannelHistory) -> Iterator[str]:
    """C6: consecutive deliveries of a session are consecutive in the channel, unless a marker names the gap."""
    for session, position, event, is_first, missing in history.skips:
        if not is_first:
            yield f"{session} got {event.id} after {position} and missed {missing} between, without a marker"


def resume(history: ChannelHistory) -> Iterator[str]:
    """C7: after a subscription from k the first delivery is the channel's next after k, or a marker says why not."""
    for session, position, event, is_first, missing in history.skips:
        if is_first:
            yield f"{session} subscribed from {position} and got {event.id} first: {missing} were skipped"


# --- time -------------------------------------------------------------------------------------------------------------


def real_time(history: ChannelHistory) -> Iterator[str]:
    """C8: what was acknowledged before another publish was invoked has the lower id."""
    by_invoked = sorted((event for event in history.publishes if event.result != "fail"), key=lambda e: e.invoked)
    by_done = sorted((event for event in by_invoked if event.result == "ok"), key=lambda e: e.done)
    highest: tuple[MessageId, Event] | None = None
    at = 0
    for event in by_invoked:
        while at < len(by_done) and by_done[at].done < event.invoked:
            acked_id = history.sure_id_of(by_done[at])
            if acked_id is not None and (highest is None or acked_id > highest[0]):
                highest = (acked_id, by_done[at])
            at += 1
        id_ = history.sure_id_of(event)
        if highest is not None and id_ is not None and id_ <= highest[0]:
            earlier = f"{_publish(highest[1])} was acknowledged at {highest[0]}"
            yield f"{_publish(event)} has {id_}, but began after {earlier}"


def session_order(history: ChannelHistory) -> Iterator[str]:
    """C9: one client's acknowledged publishes have rising ids in the order in which it sent them; not those retried."""
    last: dict[str, tuple[MessageId, Event]] = {}
    for event in history.publishes:
        id_ = history.sure_id_of(event)
        if event.result != "ok" or id_ is None or event.value in history.retried:
            continue
        before = last.get(event.client)
        if before is not None and id_ <= before[0]:
            yield f"{_publish(event)} has {id_}, below {_publish(before[1])} at {before[0]} which was sent earlier"
        last[event.client] = (id_, event)


def freshness(history: ChannelHistory) -> Iterator[str]:
    """C10: a full-range read that began after an acknowledgement sees that message, unless that came early."""
    certain = [event for event in history.publishes if event.result == "ok" and not event.is_early]
    by_done = sorted(certain, key=lambda e: e.done)
    done, values = [event.done for event in by_done], [event.value for event in by_done]
    for read in history.full_reads:
        if read.result != "ok":
            continue
        seen = history.read_values(read)
        acked = bisect_left(done, read.invoked)  # so many of them before it began
        for event in [by_done[at] for at in range(acked) if values[at] not in seen]:
            if not _is_trimmed(history.id_of(event), read):
                yield f"{read.client} on node {read.node} did not see {_publish(event)}, acknowledged before it began"


CHECKERS: dict[str, Checker] = {
    "C1": lost,
    "C2": phantom,
    "C3": duplicate,
    "C4": agreement,
    "C5": order,
    "C6": gap,
    "C7": resume,
    "C8": real_time,
    "C9": session_order,
    "C10": freshness,
}


# --- replicas ---------------------------------------------------------------------------------------------------------


class HashAt(NamedTuple):
    """A replica's running hash after it applied the entry with the index `entry`."""

    node: int
    shard: int
    entry: int
    digest: str


def check_hashes(observed: Iterable[HashAt]) -> list[Violation]:
    """C12: per shard and index, one running hash on all replicas and at all times."""
    first: dict[tuple[int, int], HashAt] = {}
    found = []
    for each in observed:
        known = first.setdefault((each.shard, each.entry), each)
        if known.digest != each.digest:
            text = f"after entry {each.entry} node {known.node} has {known.digest}, node {each.node} has {each.digest}"
            found.append(Violation("C12", f"shard {each.shard}", text))
    return found


# --- helpers ----------------------------------------------------------------------------------------------------------


def _seen(history: ChannelHistory) -> Iterator[Event]:
    for events in (*history.reads.values(), *history.sessions.values()):
        yield from (event for event in events if event.operation in ("read", "deliver"))


def _skips(history: ChannelHistory) -> Iterator[Skip]:
    ranks = {id_: rank for rank, id_ in enumerate(history.order)}
    for session, events in history.sessions.items():
        position: MessageId | None = None
        is_first = True
        for event in events:
            operation, id_ = event.operation, event.id
            if id_ is None and operation == "deliver":
                id_ = history.sure_id_of(event)
            if operation == "subscribe":
                position, is_first = id_ or ID_MIN, True
            elif operation == "gap":
                position = max(position or ID_MIN, id_ or ID_MIN)
            elif id_ is not None:
                if position is not None and id_ > position:
                    missing = ranks[id_] - bisect_right(history.order, position)
                    if missing:
                        yield session, position, event._replace(id=id_), is_first, missing
                position, is_first = id_, False
            elif history.attempts[event.value] > 1:
                position = None  # it may be any of several


def _repeated(reader: str, events: list[Event], effects: dict[Hashable, set[object]]) -> Iterator[str]:
    """The same value twice in one read, where ids are not known to tell them apart."""
    counts: dict[Hashable, int] = defaultdict(int)
    for event in events:
        if event.id is None:
            counts[event.value] += 1
    for value, count in counts.items():
        if count > max(1, len(effects[value])):
            yield f"{reader} read {value!r} {count} times"


def _is_trimmed(id_: MessageId | None, read: Event) -> bool:
    return read.after is not None and id_ is not None and id_ <= read.after


def _where(missing: list[int], total: int) -> str:
    """Which part of what was acknowledged is missing: the shape of a loss names its cause."""
    is_run = all(b == a + 1 for a, b in pairwise(missing))
    if len(missing) == total:
        return "everything"
    if is_run and missing[0] == 0:
        return "a prefix"
    if is_run and missing[-1] == total - 1:
        return "a postfix"
    return "in the middle"


def _publish(event: Event) -> str:
    return f"{event.value!r} (client {event.client}, node {event.node})"
