"""How a command that reads is answered: behind a read barrier, from the local replica, when there is room for it.

A long range (XRANGE, XREAD) is read in steps, one a turn, so that it does not hold up the node. In a transaction it is
read at once, as are XPENDING, XINFO and KEYS everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from riverbus.commands import Command
from riverbus.core.clients.inflight import Order
from riverbus.core.clients.outbox import NOTHING, PendingReply, error_reply
from riverbus.limits import OUTBOX_REPLIES_BYTES_MAX
from riverbus.messages import BusError, Reply, Status

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session
    from riverbus.core.ports import Done


NO_KEY = Status("none")
STREAM = Status("stream")
STRING = Status("string")


Steps = Generator[None, None, Reply]


def in_steps(make: Callable[[], Steps]) -> Callable[[], Reply]:
    """A `produce` that takes a step each time it is called: NOTHING, until the reply is known."""
    steps: Steps | None = None

    def produce() -> Reply:
        nonlocal steps
        steps = steps or make()
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        return NOTHING

    return produce


def whole(produce: Callable[[], Reply]) -> Reply:
    """The reply, now."""
    while (reply := produce()) is NOTHING:
        pass
    return reply


def answer_in_steps(session: Session, pending: PendingReply, produce: Callable[[], Reply]) -> None:
    """Resolve the place in line, now if one step is enough."""
    reply = produce()
    if reply is NOTHING:
        session.pipeline.park(pending, produce)
    else:
        pending.resolve(reply)


def read_fresh(session: Session, keys: Sequence[bytes], produce: Callable[[], Reply]) -> Reply:
    """Answer with `produce()` once the local replicas of these keys' shards are fresh."""
    done = _expect(session, produce)
    session.backend.fresh(keys, done)
    return NOTHING


def read_shards(session: Session, shards: Sequence[int], produce: Callable[[], Reply]) -> Reply:
    """As `read_fresh`, of whole shards."""
    done = _expect(session, produce)
    session.backend.fresh_shards(shards, done)
    return NOTHING


def _expect(session: Session, produce: Callable[[], Reply]) -> Done:
    pending = PendingReply(session.pipeline.owner, Order.READ)
    session.pipeline.expect(pending)

    def done(error: BusError | None) -> None:
        if session.is_closed:
            return
        if error is not None:
            pending.resolve(error_reply(error))
        elif pending.owner is not session.pipeline:
            pending.resolve(whole(produce))
        elif session.pipeline.is_congested:
            session.pipeline.park(pending, produce)
        else:
            answer_in_steps(session, pending, produce)

    return done


def query(session: Session, key: bytes, noun: Command) -> Reply:
    """What the local replica of the key's shard knows."""
    backend = session.backend
    return backend.bus(key).query(noun, backend.wall_ms())


def room_bytes(session: Session) -> int:
    """What a reply may take."""
    return OUTBOX_REPLIES_BYTES_MAX if session.pipeline.execution is None else session.pipeline.execution.room_bytes
