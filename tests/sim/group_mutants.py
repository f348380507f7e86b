"""Seeded bugs of consumer groups and keyed publishes, beside those of mutants.py; found by the same test.

What they change is the same on all replicas where it can be, so that it is not the replicas' hashes that tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from riverbus.core.consensus.router import Route, _WaitingWrite
from riverbus.core.state.keyspace import deliveries, execute
from riverbus.core.state.keyspace.codes import decode_noun
from riverbus.core.state.keyspace.groups import Place, advance
from riverbus.core.state.keyspace.keys import StreamKey
from riverbus.core.state.keyspace.keyspace import Keyspace
from riverbus.core.state.keyspace.producers import Used
from riverbus.core.state.keyspace.publish_keys import PublishKeys
from riverbus.core.state.keyspace.replies import Outcome, Part
from riverbus.core.state.keyspace.trimming import acknowledge
from riverbus.keyspace_commands import XAck, XAutoClaim
from riverbus.messages import BusError, MessageId, Reply
from riverbus.sim.swarm import Window
from tests.sim.mutants import Mutant


class _Nobody:
    """Waits in place of who has been answered."""

    def written(self, reply: Reply) -> None: ...

    def failed(self, error: BusError) -> None: ...

    def is_abandoned(self) -> bool:
        return False


@contextmanager
def acknowledgement_forgotten_at_failover() -> Iterator[None]:
    """XACK is answered when it is in the leader's log: a leader that dies takes it along."""
    on_proposed = Route.on_proposed

    def hasty(route: Route, seq: int, index: int, applied_index: int) -> None:
        batch = route._flying.get(seq)
        on_proposed(route, seq, index, applied_index)
        if batch is None or seq not in route._flying:
            return
        for at, item in enumerate(batch.items):
            if not isinstance(item, _WaitingWrite) or len(batch.waiters) != len(batch.items):
                continue
            noun = decode_noun(item.code, item.fields)
            if isinstance(noun, XAck):
                waiter = item.waiter
                item.waiter = batch.waiters[at] = _Nobody()
                waiter.written(len(noun.ids))

    with patch.object(Route, "on_proposed", hasty):
        yield


@contextmanager
def acknowledgement_not_carried_out() -> Iterator[None]:
    """One entry in twenty stays pending, though its acknowledgement is answered."""

    def forgetful(space: Keyspace, key: StreamKey, group: bytes, ids: Sequence[tuple[int, int]]) -> int:
        kept = [id_ for id_ in ids if id_[0] % 20]
        return acknowledge(space, key, group, kept) + len(ids) - len(kept)

    with patch.object(deliveries, "acknowledge", forgetful):
        yield


@contextmanager
def entry_handed_out_twice() -> Iterator[None]:
    """A group does not always move on with what it handed out."""

    def lazy(place: Place, parts: Sequence[Part]) -> None:
        before = place.group.last_id
        advance(place, parts)
        if place.group.last_id.ms % 20 == 0:
            place.group.last_id = before

    with patch.object(deliveries, "advance", lazy):
        yield


@contextmanager
def entry_skipped() -> Iterator[None]:
    """A group moves on past an entry that nobody was given."""

    def eager(place: Place, parts: Sequence[Part]) -> None:
        advance(place, parts)
        if place.group.last_id.ms % 20 == 0:
            place.group.last_id = place.channel.last_id

    with patch.object(deliveries, "advance", eager):
        yield


@contextmanager
def claimed_too_early() -> Iterator[None]:
    """XAUTOCLAIM takes what its consumer still works on."""

    def greedy(space: Keyspace, noun: XAutoClaim) -> Outcome:
        return deliveries.xautoclaim(space, noun._replace(min_idle_ms=noun.min_idle_ms // 4))

    with patch.dict(execute._WRITES, {XAutoClaim: greedy}):
        yield


@contextmanager
def keys_lost_in_a_snapshot() -> Iterator[None]:
    """A state that was restored knows none of the keys that publishes had."""
    restore = PublishKeys.restore

    def garbled(keys: PublishKeys, digest: bytes, used: Used) -> None:
        restore(keys, digest[:1] + digest[:0:-1], used)

    with patch.object(PublishKeys, "restore", garbled):
        yield


@contextmanager
def keys_forgotten() -> Iterator[None]:
    """One key in four is not known again."""
    find = PublishKeys.find

    def forgetful(keys: PublishKeys, digest: bytes, *args: Any) -> MessageId | None:
        return find(keys, digest, *args) if digest[1] % 4 else None

    with patch.object(PublishKeys, "find", forgetful):
        yield


_GROUPS = {"members": 3, "claim_ms": 1000, "window": Window(), "nodes": 3}
_FAILOVERS = {"fault_kinds": ("crash", "isolate", "halves"), "fault_pace_s": 0.7}
_KEYS = {"retries": True, "has_keys": True, "window": Window(), "nodes": 3}

GROUP_MUTANTS: dict[str, Mutant] = {
    "acknowledgement forgotten at failover": Mutant(
        acknowledgement_forgotten_at_failover, ("C11",), {**_GROUPS, **_FAILOVERS}
    ),
    "acknowledgement not carried out": Mutant(acknowledgement_not_carried_out, ("C11",), _GROUPS),
    "entry handed out twice": Mutant(entry_handed_out_twice, ("C11",), _GROUPS),
    "entry skipped": Mutant(entry_skipped, ("C11",), _GROUPS),
    "claimed too early": Mutant(claimed_too_early, ("C11",), {**_GROUPS, "claim_ms": 4000}),
    "keys lost in a snapshot": Mutant(
        keys_lost_in_a_snapshot, ("C3", "C12"), {**_KEYS, "snapshot_log_bytes": 2000, **_FAILOVERS}
    ),
    "keys forgotten": Mutant(keys_forgotten, ("C3",), {**_KEYS, **_FAILOVERS}),
}
