"""Consumer groups against plain lists and dicts: who has what, in any order of commands.

The model knows nothing of Redis' code: a group has a place in the list of entries, and a dict of what is pending.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from riverbus.keyspace_commands import (
    Trim,
    XAck,
    XAckDel,
    XAutoClaim,
    XClaim,
    XDel,
    XDelEx,
    XGroupCreate,
    XGroupDelConsumer,
    XGroupSetId,
    XInfoConsumers,
    XInfoGroups,
    XPending,
    XReadGroup,
    XTrim,
)
from riverbus.messages import ID_MIN, MessageId
from tests.core.keyspace.shard import Shard, entry

KEY = b"s"
GROUPS = st.sampled_from([b"g", b"h"])
CONSUMERS = st.sampled_from([b"ann", b"bob"])
SOME = st.lists(st.integers(1, 30), min_size=1, max_size=6)
LIMITS = st.sampled_from([None, 1, 3])


class Pending:
    def __init__(self, owner: bytes, at_ms: int, deliveries: int) -> None:
        self.owner = owner
        self.at_ms = at_ms
        self.deliveries = deliveries


class ModelGroup:
    def __init__(self, last: int) -> None:
        self.last = last
        self.pending: dict[int, Pending] = {}
        self.consumers: set[bytes] = set()


class Groups(RuleBasedStateMachine):
    """Entries are 1-0, 2-0, 3-0 ...: a number is an id."""

    def __init__(self) -> None:
        super().__init__()
        self.shard = Shard()
        self.there: list[int] = []
        self.top = 0
        self.groups: dict[bytes, ModelGroup] = {}
        for name in (b"g", b"h"):
            self.shard.do(XGroupCreate(KEY, name, ID_MIN, mkstream=True))
            self.groups[name] = ModelGroup(0)

    @staticmethod
    def _ids(numbers: list[int]) -> tuple[MessageId, ...]:
        return tuple(MessageId(number, 0) for number in numbers)

    @rule(count=st.integers(1, 6))
    def add(self, count: int) -> None:
        for _ in range(count):
            self.top += 1
            self.shard.add(KEY, str(self.top))
            self.there.append(self.top)

    @rule(later_ms=st.sampled_from([1, 50, 1000]))
    def wait(self, later_ms: int) -> None:
        self.shard.tick(later_ms)

    @rule(name=GROUPS, consumer=CONSUMERS, limit=LIMITS, no_ack=st.booleans())
    def read_new(self, name: bytes, consumer: bytes, limit: int | None, no_ack: bool) -> None:
        group = self.groups[name]
        new = [number for number in self.there if number > group.last][:limit]
        reply = self.shard.do(XReadGroup(name, consumer, (KEY,), (None,), limit, 0, no_ack))
        assert reply == ([[KEY, [entry(str(number)) for number in new]]] if new else None)
        group.consumers.add(consumer)
        for number in new:
            group.last = number
            if not no_ack:
                group.pending[number] = Pending(consumer, self.shard.at_ms, 1)

    @rule(name=GROUPS, consumer=CONSUMERS, after=st.integers(0, 20), limit=LIMITS)
    def read_own(self, name: bytes, consumer: bytes, after: int, limit: int | None) -> None:
        group = self.groups[name]
        own = [n for n in sorted(group.pending) if n > after and group.pending[n].owner == consumer][:limit]
        reply = self.shard.do(XReadGroup(name, consumer, (KEY,), (MessageId(after, 2**64 - 1),), limit))
        assert reply == [[KEY, [entry(str(n)) if n in self.there else [b"%d-0" % n, None] for n in own]]]
        group.consumers.add(consumer)
        for number in own:
            if number in self.there:
                group.pending[number].at_ms = self.shard.at_ms
                group.pending[number].deliveries += 1

    @rule(name=GROUPS, numbers=SOME)
    def acknowledge(self, name: bytes, numbers: list[int]) -> None:
        gone = [number for number in dict.fromkeys(numbers) if self.groups[name].pending.pop(number, None)]
        assert self.shard.do(XAck(KEY, name, self._ids(numbers))) == len(gone)

    @rule(name=GROUPS, numbers=SOME, references=st.sampled_from(["keepref", "delref", "acked"]))
    def acknowledge_and_delete(self, name: bytes, numbers: list[int], references: str) -> None:
        expected = []
        for number in numbers:
            if self.groups[name].pending.pop(number, None) is None:
                expected.append(-1)
            elif references == "acked" and number in self.there and self._is_needed(number):
                expected.append(2)
            else:
                self._delete(number, references)
                expected.append(1)
        assert self.shard.do(XAckDel(KEY, name, references, self._ids(numbers))) == expected

    def _is_needed(self, number: int) -> bool:
        return any(number > group.last or number in group.pending for group in self.groups.values())

    def _delete(self, number: int, references: str) -> None:
        if number in self.there:
            self.there.remove(number)
        if references == "delref":
            for group in self.groups.values():
                group.pending.pop(number, None)

    @rule(numbers=SOME)
    def delete(self, numbers: list[int]) -> None:
        gone = {number for number in numbers if number in self.there}
        assert self.shard.do(XDel(KEY, self._ids(numbers))) == len(gone)
        self.there = [number for number in self.there if number not in gone]

    @rule(numbers=SOME.map(dict.fromkeys).map(list), references=st.sampled_from(["delref", "acked"]))
    def delete_by_references(self, numbers: list[int], references: str) -> None:
        expected = []
        for number in numbers:
            is_there = number in self.there
            if references == "acked" and self._is_needed(number):
                expected.append(2 if is_there else -1)
                continue
            expected.append(1 if is_there else -1)
            self._delete(number, references)
        assert self.shard.do(XDelEx(KEY, references, self._ids(numbers))) == expected

    @rule(keep=st.integers(0, 10))
    def trim(self, keep: int) -> None:
        gone = max(0, len(self.there) - keep)
        assert self.shard.do(XTrim(KEY, Trim(maxlen=keep))) == gone
        self.there = self.there[gone:]

    @rule(name=GROUPS, consumer=CONSUMERS, numbers=SOME, idle_ms=st.sampled_from([0, 50, 1000]), force=st.booleans())
    def claim(self, name: bytes, consumer: bytes, numbers: list[int], idle_ms: int, force: bool) -> None:
        group = self.groups[name]
        claimed = []
        for number in numbers:
            held = group.pending.get(number)
            if number not in self.there:
                group.pending.pop(number, None)
            elif held is None and force:
                group.pending[number] = Pending(consumer, self.shard.at_ms, 2)
                claimed.append(number)
            elif held is not None and self.shard.at_ms - held.at_ms >= idle_ms:
                self._take(held, consumer)
                claimed.append(number)
        reply = self.shard.do(XClaim(KEY, name, consumer, idle_ms, self._ids(numbers), force=force))
        assert reply == [entry(str(number)) for number in claimed]
        group.consumers.add(consumer)

    def _take(self, held: Pending, consumer: bytes) -> None:
        held.owner = consumer
        held.at_ms = self.shard.at_ms
        held.deliveries += 1

    @rule(name=GROUPS, consumer=CONSUMERS, idle_ms=st.sampled_from([0, 50, 1000]), limit=st.sampled_from([1, 3, 100]))
    def claim_what_is_idle(self, name: bytes, consumer: bytes, idle_ms: int, limit: int) -> None:
        group = self.groups[name]
        claimed: list[int] = []
        deleted: list[int] = []
        cursor = 0
        for looked_at, number in enumerate(sorted(group.pending)):
            if len(claimed) + len(deleted) == limit or looked_at == 10 * limit:
                cursor = number
                break
            held = group.pending[number]
            if number not in self.there:
                del group.pending[number]
                deleted.append(number)
            elif self.shard.at_ms - held.at_ms >= idle_ms:
                self._take(held, consumer)
                claimed.append(number)
        reply = self.shard.do(XAutoClaim(KEY, name, consumer, idle_ms, ID_MIN, limit))
        assert reply == [b"%d-0" % cursor, [entry(str(n)) for n in claimed], [b"%d-0" % n for n in deleted]]
        group.consumers.add(consumer)

    @rule(name=GROUPS, consumer=CONSUMERS, idle_ms=st.sampled_from([0, 50, 1000]), limit=LIMITS)
    def read_with_claim(self, name: bytes, consumer: bytes, idle_ms: int, limit: int | None) -> None:
        group = self.groups[name]
        now_ms = self.shard.at_ms
        idle = [n for n in group.pending if now_ms - group.pending[n].at_ms >= idle_ms]
        idle.sort(key=lambda n: (group.pending[n].at_ms, n))
        expected: list[object] = []
        for number in idle[:limit]:
            held = group.pending[number]
            if number not in self.there:
                del group.pending[number]
                continue
            expected.append([*entry(str(number)), now_ms - held.at_ms, held.deliveries])
            self._take(held, consumer)
        left = None if limit is None else limit - len(expected)
        for number in [n for n in self.there if n > group.last][:left]:
            expected.append([*entry(str(number)), 0, 0])
            group.last = number
            group.pending[number] = Pending(consumer, now_ms, 1)
        reply = self.shard.do(XReadGroup(name, consumer, (KEY,), (None,), limit, claim_ms=idle_ms))
        assert reply == ([[KEY, expected]] if expected else None)
        group.consumers.add(consumer)

    @rule(name=GROUPS, consumer=CONSUMERS)
    def delete_consumer(self, name: bytes, consumer: bytes) -> None:
        group = self.groups[name]
        held = [number for number, each in group.pending.items() if each.owner == consumer]
        assert self.shard.do(XGroupDelConsumer(KEY, name, consumer)) == len(held)
        for number in held:
            del group.pending[number]
        group.consumers.discard(consumer)

    @precondition(lambda self: self.top)
    @rule(name=GROUPS, last=st.integers(0, 10))
    def set_id(self, name: bytes, last: int) -> None:
        assert self.shard.do(XGroupSetId(KEY, name, MessageId(last, 0))) == "OK"
        self.groups[name].last = last

    @invariant()
    def pending_is_as_the_model_says(self) -> None:
        now_ms = self.shard.at_ms
        info = self.shard.ask(XInfoGroups(KEY))
        assert isinstance(info, list)
        for each in info:
            group = self.groups[each[b"name"]]
            rows = [
                [b"%d-0" % n, group.pending[n].owner, now_ms - group.pending[n].at_ms, group.pending[n].deliveries]
                for n in sorted(group.pending)
            ]
            found = self.shard.ask(XPending(KEY, each[b"name"], limit=1000))
            assert found == rows
            assert (
                self.shard.ask(XPending(KEY, each[b"name"], limit=2, consumer=b"ann", min_idle_ms=50))
                == [
                    row
                    for row in rows
                    if row[1] == b"ann" and row[2] >= 50  # type: ignore[operator]
                ][:2]
            )
            assert each[b"pending"] == len(rows)
            assert each[b"last-delivered-id"] == b"%d-0" % group.last
            names = [each[b"name"] for each in self.shard.ask(XInfoConsumers(KEY, each[b"name"]))]  # type: ignore[attr-defined]
            assert names == sorted(group.consumers)


TestGroups = Groups.TestCase
TestGroups.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
