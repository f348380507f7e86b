"""Keys, strings and expiry against a dict of values and times."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from riverbus.commands import XLen
from riverbus.core.state.keyspace import expiries, keyspace
from riverbus.keyspace_commands import (
    DbSize,
    Del,
    Exists,
    Expire,
    FlushAll,
    GetDel,
    GetEx,
    GetString,
    Keys,
    Persist,
    Rename,
    Scan,
    SetString,
    Ttl,
    Type,
    XAdd,
)
from tests.core.keyspace.shard import Shard, body

NAMES = [b"a", b"b", b"c"]
KEYS = st.sampled_from(NAMES)
TIMES = st.sampled_from([1, 50, 1000])
CONDITIONS = st.sampled_from(["", "nx", "xx", "gt", "lt", "xxgt"])
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class Value:
    """A string, or a stream of so many entries; `expire_ms` None: for ever."""

    def __init__(self, value: bytes | int) -> None:
        self.value = value
        self.expire_ms: int | None = None


class Keyspace(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.shard = Shard()
        self.model: dict[bytes, Value] = {}
        self.versions: dict[bytes, tuple[int, int]] = {}
        self.changes = dict.fromkeys(NAMES, 0)
        self.published = dict.fromkeys(NAMES, 0)  # to a name without a stream: what a stream of it begins with

    def _changed(self, *names: bytes) -> None:
        for name in names:
            self.changes[name] += 1

    def _string(self, key: bytes) -> bytes | None:
        held = self.model.get(key)
        return held.value if held is not None and isinstance(held.value, bytes) else None

    def _is_stream(self, key: bytes) -> bool:
        return key in self.model and isinstance(self.model[key].value, int)

    @rule(later_ms=TIMES)
    def wait(self, later_ms: int) -> None:
        now_ms = self.shard.at_ms + later_ms
        due = {name for name, held in self.model.items() if held.expire_ms is not None and held.expire_ms <= now_ms}
        self.shard.tick(later_ms)
        assert self.shard.applied is not None
        assert sorted(self.shard.applied.events) == sorted(("x", "expired", name) for name in due)
        for name in due:
            del self.model[name]
        self._changed(*due)

    @rule(
        key=KEYS,
        value=st.binary(max_size=3),
        expire_ms=st.one_of(st.none(), TIMES),
        condition=st.sampled_from(["", "nx", "xx"]),
        keep_ttl=st.booleans(),
        get=st.booleans(),
    )
    def set(self, key: bytes, value: bytes, expire_ms: int | None, condition: str, keep_ttl: bool, get: bool) -> None:
        keep_ttl = keep_ttl and expire_ms is None
        noun = SetString(key, value, expire_ms, False, keep_ttl, condition == "nx", condition == "xx", get)
        reply = self.shard.do(noun)
        if get and self._is_stream(key):
            assert reply == WRONG_TYPE
            return
        before = self._string(key)
        if (condition == "nx" and key in self.model) or (condition == "xx" and key not in self.model):
            assert reply == (before if get else None)
            return
        assert reply == (before if get else "OK")
        kept = self.model[key].expire_ms if keep_ttl and key in self.model else None
        self.model[key] = Value(value)
        self.model[key].expire_ms = kept if expire_ms is None else self.shard.at_ms + expire_ms
        self._changed(key)

    @rule(key=KEYS)
    def add(self, key: bytes) -> None:
        reply = self.shard.do(XAdd(key, body(b"x")))
        if self._string(key) is not None:
            assert reply == WRONG_TYPE
            return
        held = self.model.setdefault(key, Value(self.published[key]))
        assert isinstance(held.value, int)
        held.value += 1
        self.published[key] = 0
        self._changed(key)

    @rule(key=KEYS)
    def publish(self, key: bytes) -> None:
        """Makes no key; but an entry of a stream."""
        self.shard.publish(key, b"hello")
        held = self.model.get(key)
        if held is not None and isinstance(held.value, int):
            held.value += 1
            self._changed(key)
        else:
            self.published[key] += 1

    @rule(keys=st.lists(KEYS, min_size=1, max_size=3))
    def delete(self, keys: list[bytes]) -> None:
        gone = {key for key in keys if key in self.model}
        assert self.shard.do(Del(tuple(keys))) == len(gone)
        for key in gone:
            del self.model[key]
        self._changed(*gone)

    @rule(key=KEYS, new_key=KEYS, nx=st.booleans())
    def rename(self, key: bytes, new_key: bytes, nx: bool) -> None:
        reply = self.shard.do(Rename(key, new_key, nx))
        if key not in self.model:
            assert reply == "ERR no such key"
        elif nx and new_key in self.model:
            assert reply == 0
        else:
            assert reply == (1 if nx else "OK")
            if key != new_key:
                if self._is_stream(key):
                    self.published[new_key] = 0
                self.model[new_key] = self.model.pop(key)
                self._changed(key, new_key)

    @rule(
        key=KEYS,
        ms=st.sampled_from([-1, 0, 1, 50, 1000]),
        condition=st.sampled_from(["", "nx", "xx", "gt", "lt", "xxgt"]),
    )
    def expire(self, key: bytes, ms: int, condition: str) -> None:
        reply = self.shard.do(Expire(key, ms, False, condition))
        held = self.model.get(key)
        at_ms = self.shard.at_ms + ms
        if (
            held is None
            or not {
                "": True,
                "nx": held.expire_ms is None,
                "xx": held.expire_ms is not None,
                "gt": held.expire_ms is not None and at_ms > held.expire_ms,
                "xxgt": held.expire_ms is not None and at_ms > held.expire_ms,
                "lt": held.expire_ms is None or at_ms < held.expire_ms,
            }[condition]
        ):
            assert reply == 0
            return
        assert reply == 1
        if ms <= 0:
            del self.model[key]
        else:
            held.expire_ms = at_ms
        self._changed(key)

    @rule(key=KEYS)
    def persist(self, key: bytes) -> None:
        held = self.model.get(key)
        expected = int(held is not None and held.expire_ms is not None)
        assert self.shard.do(Persist(key)) == expected
        if held is not None and expected:
            held.expire_ms = None
            self._changed(key)

    @rule(key=KEYS, expire_ms=st.one_of(st.none(), TIMES))
    def get_and_expire(self, key: bytes, expire_ms: int | None) -> None:
        reply = self.shard.do(GetEx(key, expire_ms, False, persist=expire_ms is None))
        assert reply == (WRONG_TYPE if self._is_stream(key) else self._string(key))
        if self._string(key) is not None:
            before = self.model[key].expire_ms
            self.model[key].expire_ms = None if expire_ms is None else self.shard.at_ms + expire_ms
            if expire_ms is not None or before is not None:
                self._changed(key)

    @rule(key=KEYS)
    def get_and_delete(self, key: bytes) -> None:
        assert self.shard.do(GetDel(key)) == (WRONG_TYPE if self._is_stream(key) else self._string(key))
        if self._string(key) is not None:
            del self.model[key]
            self._changed(key)

    @rule()
    def flush(self) -> None:
        assert self.shard.do(FlushAll()) == "OK"
        self._changed(*self.model)
        self.model = {}

    @invariant()
    def all_questions_are_answered_as_by_the_model(self) -> None:
        ask = self.shard.ask
        assert ask(Exists((*NAMES, b"a"))) == sum(name in self.model for name in (*NAMES, b"a"))
        assert ask(DbSize()) == len(self.model)
        found = ask(Keys(b"*"))
        assert isinstance(found, list)
        assert sorted(found) == sorted(self.model)
        assert self._scanned() == sorted(self.model)
        for name in NAMES:
            held = self.model.get(name)
            kind = "none" if held is None else "string" if isinstance(held.value, bytes) else "stream"
            assert ask(Type(name)) == kind
            assert ask(GetString(name)) == (WRONG_TYPE if kind == "stream" else self._string(name))
            left = -2 if held is None else -1 if held.expire_ms is None else held.expire_ms - self.shard.at_ms
            assert ask(Ttl(name, in_seconds=False)) == left
            length = self.published[name] if held is None else held.value
            assert ask(XLen(name)) == (length if isinstance(length, int) else WRONG_TYPE)

    def _scanned(self) -> list[bytes]:
        found: list[bytes] = []
        cursor = 0
        while True:
            reply = self.shard.ask(Scan(cursor, limit=1))
            assert isinstance(reply, list)
            cursor = reply[0]
            found += reply[1]
            if not cursor:
                return sorted(found)

    @invariant()
    def a_version_changes_with_its_key(self) -> None:
        for name in NAMES:
            version = self.shard.bus.version(name, self.shard.at_ms)
            before, changes = self.versions.get(name, (version, self.changes[name]))
            if self.changes[name] != changes:
                assert version != before
            elif name in self.model:
                assert version == before
            self.versions[name] = (version, self.changes[name])


TestKeyspace = Keyspace.TestCase
TestKeyspace.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 30), st.sampled_from([None, 5, 20, 100])), min_size=10, max_size=120),
    steps=st.integers(1, 3),
)
def test_many_keys_expire_in_order_of_time_whatever_became_stale(
    changes: list[tuple[int, int | None]], steps: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expiries, "SLACK", 0)
        patch.setattr(expiries, "TIDY_STEPS", 2)
        patch.setattr(keyspace, "EXPIRE_STEPS", steps)
        shard, due = Shard(), dict[bytes, int]()
        for number, expire_ms in changes:
            name = b"%d" % number
            shard.do(SetString(name, b"v", expire_ms))
            assert shard.last is not None
            assert shard.applied is not None
            for kind, _, key in (*shard.last.events, *shard.applied.events):
                if kind == "x":
                    assert due.pop(key) <= shard.at_ms
            due.pop(name, None)
            if expire_ms is not None:
                due[name] = shard.at_ms + expire_ms
            shard.at_ms += 1
            for key, at_ms in due.items():
                assert shard.ask(Exists((key,))) == (at_ms > shard.at_ms)
        told: list[bytes] = []
        shard.at_ms += 1000
        for _ in range(len(due) + 1):
            shard.tick(0)
            assert shard.applied is not None
            assert len(shard.applied.events) <= steps
            told += [key for _, _, key in shard.applied.events]
        assert told == sorted(due, key=lambda key: (due[key], key))
        assert shard.bus.next_key_expiry_ms is None


def test_a_key_that_was_put_off_expires_although_the_heap_is_made_anew_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(expiries, "SLACK", 0)
    shard = Shard()
    shard.do(SetString(b"a", b"v", 10))
    for expire_ms in (300, 200, 12, 500):
        shard.do(SetString(b"b", b"v", expire_ms))
    shard.tick(15)
    assert shard.ask(Exists((b"a", b"b"))) == 1
    shard.tick(485)
    assert shard.ask(DbSize()) == 0
