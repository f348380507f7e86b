"""Commands on keys: those of one shard are handed to it as they are; the others are split by shard and put together.

A write becomes an operation of the shard's log (`Backend.write`), and its reply is what the state machine said. A read
asks the local replica behind a barrier. What touches several shards is not atomic: DEL of keys of two shards is two
operations, KEYS reads one shard after the other. SCAN's cursor names the shard that it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_64_intdigest

from riverbus.commands import Command
from riverbus.core.clients.inflight import Order
from riverbus.core.clients.outbox import NOTHING, PendingWrite
from riverbus.core.clients.reads import query, read_fresh, read_shards, room_bytes
from riverbus.core.clients.refusals import CROSS_SHARD, REPLY_TOO_LARGE
from riverbus.core.clients.special_rules import refusal
from riverbus.keyspace_commands import (
    DbSize,
    Del,
    Exists,
    FlushAll,
    Keys,
    PublishOnce,
    PublishRun,
    RandomKey,
    Rename,
    Scan,
)
from riverbus.limits import STREAM_NODE_ENTRIES_MAX
from riverbus.messages import BusError, ErrorReply, Reply, Status

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session
    from riverbus.core.ports import Written

_KEY_BYTES = 8  # of framing around a key in a reply, about


# --- of one shard -----------------------------------------------------------------------------------------------------


def write(session: Session, command: Any) -> Reply:
    """Any noun that changes the one key it names."""
    return write_to(session, session.backend.shard_of(command.key), command)


def trimming_write(session: Session, command: Any) -> Reply:
    """XADD and XTRIM: `~` keeps whole nodes, of the size that is configured where the client is."""
    if (no := refusal(session, command)) is not None:
        return no
    return write(session, with_node_entries(session, command))


def with_node_entries(session: Session, command: Any) -> Any:
    if command.trim is None or not command.trim.is_approximate:
        return command
    size = min(session.registry.settings.stream_node_entries or STREAM_NODE_ENTRIES_MAX, STREAM_NODE_ENTRIES_MAX)
    return command._replace(trim=command.trim._replace(node_entries=size))


def publish_once(session: Session, command: PublishOnce) -> Reply:
    if (no := refusal(session, command)) is not None:
        return no
    return write_to(session, session.backend.shard_of(command.channel), command)


def publish_run(session: Session, command: PublishRun) -> Reply:
    if (no := refusal(session, command)) is not None:
        return no
    pending = PendingWrite(
        session.pipeline.owner,
        Order.WRITE,
        charge_bytes=64 + sum(map(len, command.payloads)),
        messages=len(command.payloads),
    )
    session.pipeline.expect(pending)
    session.backend.write_shard(session.backend.shard_of(command.channel), command, pending)
    return NOTHING


def rename(session: Session, command: Rename) -> Reply:
    backend = session.backend
    if backend.shard_of(command.key) != backend.shard_of(command.new_key):
        return CROSS_SHARD
    return write(session, command)


def write_to(session: Session, shard: int, noun: Command) -> Reply:
    pending = PendingWrite(session.pipeline.owner, Order.WRITE, charge_bytes=held_bytes(noun))
    session.pipeline.expect(pending)
    session.backend.write_shard(shard, noun, pending)
    return NOTHING


def held_bytes(noun: Command) -> int:
    """About what a command in flight holds."""
    return 64 + sum(len(field) for field in noun if type(field) is bytes)


def read(session: Session, command: Any) -> Reply:
    """Any noun that asks about the one key it names."""
    key = command.key
    return read_fresh(session, (key,), lambda: query(session, key, command))


def read_channel(session: Session, command: Any) -> Reply:
    channel = command.channel
    return read_fresh(session, (channel,), lambda: query(session, channel, command))


# --- of several -------------------------------------------------------------------------------------------------------


class Gather:
    """The parts of a command that goes to several shards: `whole` is told once, when all are; an error goes first."""

    def __init__(self, whole: Written, count: int, combine: Callable[[list[Reply]], Reply]) -> None:
        self.whole = whole
        self._outcomes: list[Reply | BusError] = [None] * count
        self._left = count
        self._combine = combine

    def on_part(self, at: int, outcome: Reply | BusError) -> None:
        self._outcomes[at] = outcome
        self._left -= 1
        if self._left:
            return
        for one in self._outcomes:
            if isinstance(one, BusError):
                self.whole.failed(one)
                return
        refused = [one for one in self._outcomes if type(one) is ErrorReply]
        self.whole.written(refused[0] if refused else self._combine(self._outcomes))


class GatheredWrite:
    """One part (`Written`)."""

    __slots__ = ("_at", "_gather")

    def __init__(self, gather: Gather, at: int) -> None:
        self._gather = gather
        self._at = at

    def written(self, reply: Reply) -> None:
        self._gather.on_part(self._at, reply)

    def failed(self, error: BusError) -> None:
        self._gather.on_part(self._at, error)

    def is_abandoned(self) -> bool:
        return self._gather.whole.is_abandoned()


def gather_writes(
    session: Session, parts: Sequence[tuple[int, Command]], combine: Callable[[list[Reply]], Reply]
) -> Reply:
    """Each of the nouns to its shard. They commit apart: none waits for another."""
    pending = PendingWrite(session.pipeline.owner, Order.WRITE, charge_bytes=sum(held_bytes(noun) for _, noun in parts))
    session.pipeline.expect(pending)
    gather = Gather(pending, len(parts), combine)
    for at, (shard, noun) in enumerate(parts):
        session.backend.write_shard(shard, noun, GatheredWrite(gather, at))
    return NOTHING


def by_shard(session: Session, keys: Iterable[bytes]) -> dict[int, tuple[bytes, ...]]:
    """The keys of each shard, in their order."""
    found: dict[int, list[bytes]] = {}
    for key in keys:
        found.setdefault(session.backend.shard_of(key), []).append(key)
    return {shard: tuple(some) for shard, some in found.items()}


def _sum(replies: list[Reply]) -> Reply:
    return sum(reply for reply in replies if isinstance(reply, int))


def delete(session: Session, command: Del) -> Reply:
    parts = by_shard(session, command.keys)
    if len(parts) == 1:
        return write_to(session, next(iter(parts)), command)
    return gather_writes(session, [(shard, command._replace(keys=keys)) for shard, keys in parts.items()], _sum)


def exists(session: Session, command: Exists) -> Reply:
    parts = by_shard(session, command.keys)

    def produce() -> Reply:
        buses = session.backend.shard_buses
        return _sum(
            [
                buses[shard].query(command._replace(keys=keys), session.backend.wall_ms())
                for shard, keys in parts.items()
            ]
        )

    return read_fresh(session, command.keys, produce)


def flush_all(session: Session, command: FlushAll) -> Reply:
    shards = _every_shard(session)
    return gather_writes(session, [(shard, command) for shard in shards], lambda _: Status("OK"))


def _every_shard(session: Session) -> range:
    return range(len(session.backend.shard_buses))


def keys(session: Session, command: Keys) -> Reply:
    def produce() -> Reply:
        found: list[Reply] = []
        room = room_bytes(session)
        for bus in session.backend.shard_buses:
            some = bus.query(command, session.backend.wall_ms())
            assert isinstance(some, list)
            room -= sum(map(len, some)) + _KEY_BYTES * len(some)
            if room < 0:
                return REPLY_TOO_LARGE
            found += some
        return found

    return read_shards(session, _every_shard(session), produce)


def db_size(session: Session, command: DbSize) -> Reply:
    return read_shards(
        session,
        _every_shard(session),
        lambda: _sum([bus.query(command, session.backend.wall_ms()) for bus in session.backend.shard_buses]),
    )


def random_key(session: Session, _: RandomKey) -> Reply:
    """Each key is as likely as any other; the number that chooses comes from the clock and the count of commands."""

    def produce() -> Reply:
        buses = session.backend.shard_buses
        sizes = [bus.query(DbSize(), session.backend.wall_ms()) for bus in buses]
        total = _sum(list(sizes))
        assert isinstance(total, int)
        if not total:
            return None
        seed = b"%d %d" % (session.backend.wall_ms(), session.counters.commands["randomkey"])
        choice = xxh3_64_intdigest(seed) % total
        for bus, size in zip(buses, sizes, strict=True):
            assert isinstance(size, int)
            if choice < size:
                return bus.query(RandomKey(choice), session.backend.wall_ms())
            choice -= size
        return None

    return read_shards(session, _every_shard(session), produce)


def scan(session: Session, command: Scan) -> Reply:
    """A cursor is a shard's own times the number of shards, plus the shard's number; 0 begins and ends. A call goes on
    into the next shards while it has looked at fewer keys than it may, so that few keys are one call, as on Redis."""
    shards = len(session.backend.shard_buses)
    first_inner, first = divmod(command.cursor, shards)

    def produce() -> Reply:
        now_ms = session.backend.wall_ms()
        found: list[Reply] = []
        inner, room = first_inner, command.limit
        for shard in range(first, shards):
            bus = session.backend.shard_buses[shard]
            size = bus.query(DbSize(), now_ms)
            reply = bus.query(command._replace(cursor=inner, limit=room), now_ms)
            assert isinstance(reply, list)
            assert isinstance(size, int)
            next_inner, some = reply
            found += some
            if next_inner:
                return [b"%d" % (next_inner * shards + shard), found]
            room = 0 if inner else room - size
            if room <= 0:
                return [b"%d" % ((shard + 1) % shards), found]
            inner = 0
        return [b"0", found]

    return read_shards(session, range(first, shards), produce)
