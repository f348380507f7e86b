"""XREADGROUP: an operation of the log, since who is handed what is replicated; and how it waits (BLOCK).

A read that blocks asks at once; an empty answer makes it wait on this node (blocked.py). When something comes that
may be for it, it asks again, and an empty answer, as when a consumer on another node was first, makes it go on waiting
in its old place. A key or group that is gone, or of another type, is the state machine's error to say, as in Redis 7.2,
where a blocked command is carried out anew. A refusal (there is no leader) while it waits is no answer: it asks later.

Keys of several shards are asked for apart, each by an operation of its own. So that none hands out what an error of
another would hide, this node looks first whether every key has the group, behind a barrier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverbus.core.clients.inflight import Order
from riverbus.core.clients.key_commands import Gather, GatheredWrite, write_to
from riverbus.core.clients.outbox import NOTHING, PendingReply, error_reply
from riverbus.core.clients.reads import query
from riverbus.keyspace_commands import Pairs, XInfoGroups, XReadGroup
from riverbus.messages import NULL_ARRAY, BusError, ErrorReply, OutcomeUnknown, Reply

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session
    from riverbus.core.ports import Cancellable

_ASK_AGAIN_S = 0.1

Parts = list[tuple[int, XReadGroup]]


def xreadgroup(session: Session, command: XReadGroup) -> Reply:
    parts = _parts(session, command)
    if len(parts) == 1 and command.block_ms is None:
        return write_to(session, *parts[0])
    GroupRead(session, command, parts).begin()
    return NOTHING


def order_of(session: Session, command: XReadGroup) -> Order:
    """Over several shards it looks before it asks, and must see its connection's earlier writes."""
    return Order.WRITE if len(set(map(session.backend.shard_of, command.keys))) == 1 else Order.READ


def _parts(session: Session, command: XReadGroup) -> Parts:
    """One command a shard."""
    shard_of = session.backend.shard_of
    indexes: dict[int, list[int]] = {}
    for at, key in enumerate(command.keys):
        indexes.setdefault(shard_of(key), []).append(at)
    return [
        (
            shard,
            command._replace(
                keys=tuple(command.keys[at] for at in ats),
                after=tuple(command.after[at] for at in ats),
                block_ms=None,
            ),
        )
        for shard, ats in indexes.items()
    ]


def _joined(command: XReadGroup, parts: Parts, replies: list[Reply]) -> Reply:
    """The shards' answers in the order in which the command names the keys."""
    items = {
        shard: list(reply.items) if isinstance(reply, Pairs) else []
        for (shard, _), reply in zip(parts, replies, strict=True)
    }
    shard_of = {key: shard for shard, part in parts for key in part.keys}
    joined: list[tuple[Reply, Reply]] = []
    for key in command.keys:
        left = items[shard_of[key]]
        if left and left[0][0] == key:
            joined.append(left.pop(0))
    return Pairs(tuple(joined)) if joined else NULL_ARRAY


class GroupRead:
    """An XREADGROUP that may wait, or that is of several shards, from its first question to its answer.

    It is a `BlockedRead`, a `Waiting` and a `Written`. Never within EXEC.
    """

    __slots__ = (
        "_command",
        "_is_over",
        "_is_waiting",
        "_parts",
        "_pending",
        "_session",
        "_timer",
        "is_asking",
        "ordinal",
    )

    def __init__(self, session: Session, command: XReadGroup, parts: Parts) -> None:
        self._session = session
        self._command = command
        self._parts = parts
        self._pending = PendingReply(session.pipeline, Order.WRITE)
        self._timer: Cancellable | None = None
        self._is_waiting = False  # an empty answer came
        self._is_over: Reply | None = None  # what an empty answer becomes now: it is out of time, or was unblocked
        self.is_asking = False
        self.ordinal = 0

    @property
    def channels(self) -> tuple[bytes, ...]:
        return self._command.keys

    @property
    def group(self) -> bytes:
        return self._command.group

    def begin(self) -> None:
        session = self._session
        session.pipeline.expect_alone(self._pending)
        if self._command.block_ms:
            at = session.backend.time() + self._command.block_ms / 1000
            self._timer = session.backend.schedule(at, lambda: self.unblock(NULL_ARRAY))
        self.retry()

    def retry(self) -> None:
        is_answered = self._pending.owner is None  # while it waited to ask again
        if self.is_asking or is_answered or self._session.is_closed:
            return
        self.is_asking = True
        if len(self._parts) == 1:
            self._session.backend.write_shard(*self._parts[0], self)
        else:
            self._session.backend.fresh(self.channels, self._on_fresh)

    def _on_fresh(self, error: BusError | None) -> None:
        if error is not None:
            self.failed(error)
        elif (wrong := self._without_group()) is not None:
            self._session.backend.write(wrong.keys[0], wrong, self)  # whose answer says what is wrong
        else:
            self._ask_all()

    def _without_group(self) -> XReadGroup | None:
        """The command, of the first key alone that has no such group."""
        for key, after in zip(self._command.keys, self._command.after, strict=True):
            groups = query(self._session, key, XInfoGroups(key))
            if not isinstance(groups, list) or all(group[b"name"] != self.group for group in groups):
                return self._command._replace(keys=(key,), after=(after,), block_ms=None)
        return None

    def _ask_all(self) -> None:
        gather = Gather(self, len(self._parts), lambda replies: _joined(self._command, self._parts, replies))
        for at, part in enumerate(self._parts):
            self._session.backend.write_shard(*part, GatheredWrite(gather, at))

    # --- what the shard said (Written) --------------------------------------------------------------------------------

    def written(self, reply: Reply) -> None:
        self.is_asking = False
        session = self._session
        if session.is_closed:
            return
        if reply is not NULL_ARRAY:
            self._end(reply)
        elif self._is_over is not None or self._command.block_ms is None:
            self._end(self._is_over or reply)
        elif not self._is_waiting:
            self._is_waiting = True
            session.registry.blocked.add(self)
            session.blocked_read = self

    def failed(self, error: BusError) -> None:
        self.is_asking = False
        session = self._session
        if session.is_closed:
            self._pass_on()
        elif self._is_over is not None and not isinstance(error, OutcomeUnknown):
            self._end(self._is_over)
        elif self._is_waiting and not isinstance(error, OutcomeUnknown):
            session.backend.schedule(session.backend.time() + _ASK_AGAIN_S, self.retry)
        else:
            self._end(error_reply(error))

    def is_abandoned(self) -> bool:
        return self._session.is_closed

    # --- the end ------------------------------------------------------------------------------------------------------

    def unblock(self, reply: Reply) -> None:
        if self._session.is_closed:
            return
        self._is_over = reply
        if not self.is_asking:
            self._end(reply)

    def give_up(self) -> None:
        self._forget()
        if self.is_asking:
            self._pass_on()

    def _end(self, reply: Reply) -> None:
        self._forget()
        if type(reply) is ErrorReply or self._is_over is reply:
            self._pass_on()
        self._pending.resolve(reply)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_waiting:
            self._is_waiting = False
            self._session.blocked_read = None
            self._session.registry.blocked.remove(self)

    def _pass_on(self) -> None:
        """It may have been woken for a message that it will not take: the next in line shall look."""
        blocked = self._session.registry.blocked
        for key in self.channels:
            blocked.on_run(key)
        if blocked.has_woken:
            self._session.registry.ask_for_turn()
