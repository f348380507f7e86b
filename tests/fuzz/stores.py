"""One channel's window as an interface: an obviously correct store, the fast one of core, three bugs planted in that.

Ids are those of a channel: the milliseconds of the put, and a number within them. Time only moves by `later_ms`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple, Protocol

from annotated_types import Interval
from hypothesis import strategies as st

from riverbus.core.state.bus import Bus
from riverbus.core.state.entries import BatchBuilder, encode_entry
from riverbus.core.state.rules import UNLIMITED, ChannelRule, Rules
from riverbus.fuzz import earlier, hint
from riverbus.messages import ID_MAX, ID_MIN, SEQ_MAX, Kind, MessageId

CHANNEL = b"window"
Milliseconds = Annotated[int, Interval(ge=0, le=3)]
ANY_ID = st.builds(MessageId, st.integers(0, 5), st.sampled_from([0, 1, 2, 3, SEQ_MAX]))
KNOWN_OR_NOT = earlier("put", "put_all", "most_recent_id", otherwise=ANY_ID)


class Entry(NamedTuple):
    id: MessageId
    payload: bytes


class Store(Protocol):
    """The newest `limit` of all payloads that were put."""

    def __init__(self, limit: Annotated[int, Interval(ge=0, le=6)]) -> None: ...

    def put(self, payload: bytes, later_ms: Milliseconds = 0) -> MessageId: ...

    def put_all(self, payloads: list[bytes]) -> MessageId | None:
        """At once; the id of the first."""

    @hint(arguments={"after": KNOWN_OR_NOT})
    def entries_since(self, after: MessageId, count: Annotated[int, Interval(ge=1, le=3)] | None = None) -> list[Entry]:
        """Those above `after`, the oldest first, `count` at most."""

    @hint(arguments={"after": KNOWN_OR_NOT})
    def lost_since(self, after: MessageId) -> MessageId | None:
        """The newest id above `after` of which the entry is gone, if there is one."""

    def most_recent_id(self) -> MessageId | None: ...

    def count(self) -> int: ...

    def as_list(self, reverse: bool = False) -> list[Entry]: ...

    def __iter__(self) -> Iterator[Entry]: ...

    @property
    def limit(self) -> int: ...


def count_is_within_the_limit(store: Store) -> bool:
    """An invariant of each."""
    return store.count() == len(store.as_list()) <= store.limit


class ListStore:
    """Obviously correct: everything that was ever put is in one list."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._all: list[Entry] = []
        self._now_ms = 1

    def put(self, payload: bytes, later_ms: int = 0) -> MessageId:
        self._now_ms += later_ms
        last = self.most_recent_id()
        seq = last.seq + 1 if last is not None and last.ms == self._now_ms else 0
        self._all.append(Entry(MessageId(self._now_ms, seq), payload))
        return self._all[-1].id

    def put_all(self, payloads: list[bytes]) -> MessageId | None:
        ids = [self.put(payload) for payload in payloads]
        return ids[0] if ids else None

    def entries_since(self, after: MessageId, count: int | None = None) -> list[Entry]:
        return [entry for entry in self.as_list() if entry.id > after][:count]

    def lost_since(self, after: MessageId) -> MessageId | None:
        lost = [entry.id for entry in self._all if entry not in self.as_list()]
        return lost[-1] if lost and lost[-1] > after else None

    def most_recent_id(self) -> MessageId | None:
        return self._all[-1].id if self._all else None

    def count(self) -> int:
        return len(self.as_list())

    def as_list(self, reverse: bool = False) -> list[Entry]:
        kept = self._all[max(0, len(self._all) - self.limit) :]
        return kept[::-1] if reverse else kept

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.as_list())


class FastStore:
    """The window of a channel in a shard's state machine: what a node keeps."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        rule = ChannelRule(count=self._kept(limit), age_ms=UNLIMITED, bytes=UNLIMITED)
        self._bus = Bus(Rules(default=rule, shard_bytes_max=UNLIMITED))
        self._now_ms = 1

    def _kept(self, limit: int) -> int:
        return limit

    def put(self, payload: bytes, later_ms: int = 0) -> MessageId:
        self._now_ms += later_ms
        first = self.put_all([payload])
        assert first is not None
        return first

    def put_all(self, payloads: list[bytes]) -> MessageId | None:
        builder = BatchBuilder(1)
        if not payloads:
            return None
        builder.add_run(CHANNEL, int(Kind.PUBLISH), payloads)
        applied = self._bus.apply(self._bus.applied_index + 1, encode_entry(self._now_ms, [builder.finish(1)]))
        return applied.results[0].runs[0].first

    def entries_since(self, after: MessageId, count: int | None = None) -> list[Entry]:
        read = self._bus.read_after(CHANNEL, after, count, None, None)
        return [Entry(first.plus(at), each) for _, first, run in read.runs for at, each in enumerate(run)]

    def lost_since(self, after: MessageId) -> MessageId | None:
        return self._bus.read_after(CHANNEL, after, 1, None, None).gap_until

    def most_recent_id(self) -> MessageId | None:
        last = self._bus.last_id(CHANNEL)
        return None if last == ID_MIN else last

    def count(self) -> int:
        return self._bus.length(CHANNEL)

    def as_list(self, reverse: bool = False) -> list[Entry]:
        return [Entry(each.id, each.body) for each in self._bus.range(CHANNEL, ID_MIN, ID_MAX, None, reverse)]

    def __iter__(self) -> Iterator[Entry]:
        yield from self.as_list()


class OneOverTheLimit(FastStore):
    """Planted: the window is one entry too long."""

    def _kept(self, limit: int) -> int:
        return limit + 1


class EqualIdAccepted(FastStore):
    """Planted: `>=` where `>` should stand."""

    def entries_since(self, after: MessageId, count: int | None = None) -> list[Entry]:
        before = MessageId(after.ms, after.seq - 1) if after.seq else MessageId(max(0, after.ms - 1), SEQ_MAX)
        return super().entries_since(before, count)


class NewestSinceNewest(FastStore):
    """Planted: since the newest id there is nothing, but the newest entry is given."""

    def entries_since(self, after: MessageId, count: int | None = None) -> list[Entry]:
        found = super().entries_since(after, count)
        return self.as_list()[-1:] if not found and after == self.most_recent_id() else found
