"""PUBLISH, the SUBSCRIBE family, BUS.SUBSCRIBE and PUBSUB.

PUBSUB counts the whole cluster: this node's part is taken when the command is carried out, the other nodes' parts are
asked for (core/clients/census.py). PUBSUB NUMPAT is the number of distinct patterns in the cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from riverbus.commands import (
    BusSubscribe,
    BusUnsubscribe,
    Publish,
    PubsubChannels,
    PubsubNumpat,
    PubsubNumsub,
    Subscribe,
    Unsubscribe,
)
from riverbus.core.clients import census, special_rules
from riverbus.core.clients.inflight import Order
from riverbus.core.clients.outbox import NOTHING, PendingReply
from riverbus.core.clients.refusals import (
    ANSWER_TOO_LARGE,
    SSUBSCRIBE_IN_EXEC,
    TOO_MANY_SUBSCRIPTIONS,
    TOO_MANY_TARGETS,
)
from riverbus.core.clients.special_rules import NO_HISTORY
from riverbus.core.state.rules import NONE
from riverbus.durable_commands import DurablePlace, DurableTarget
from riverbus.limits import DURABLE_TARGETS_MAX, SUBSCRIPTIONS_PER_SESSION_MAX
from riverbus.messages import Push, Reply, Several

if TYPE_CHECKING:
    from riverbus.core.clients.durable_session import Durable
    from riverbus.core.clients.session import Session

_SUBSCRIBED = {"channel": b"subscribe", "pattern": b"psubscribe", "shard": b"ssubscribe"}
_UNSUBSCRIBED = {"channel": b"unsubscribe", "pattern": b"punsubscribe", "shard": b"sunsubscribe"}


def publish(session: Session, command: Publish) -> Reply:
    if session.backend.has_special_rules:
        return special_rules.publish(session, command)
    special_rules.propose(session, command)
    return NOTHING


def subscribe(session: Session, command: Subscribe) -> Reply:
    space, names = command
    if space == "shard" and session.pipeline.execution is not None:
        return SSUBSCRIBE_IN_EXEC
    held = session.subscribed[space]
    if not _is_ready(session):
        return NOTHING
    if len(held) + len(names) > SUBSCRIPTIONS_PER_SESSION_MAX:
        return TOO_MANY_SUBSCRIPTIONS
    if session.durable is not None:
        return _subscribe_durably(session, session.durable, space, names)
    pushes = []
    for name in names:
        _hold(session, space, name)
        pushes.append(Push((_SUBSCRIBED[space], name, _count(session, space))))
    session.pipeline.update_plain()
    return Several(tuple(pushes))


def _subscribe_durably(session: Session, durable: Durable, space: str, names: tuple[bytes, ...]) -> Reply:
    """Confirmed once the name's cursors are this connection's; what it missed follows the confirmation."""
    targets = [DurableTarget(space, name) for name in dict.fromkeys(names) if name not in session.subscribed[space]]
    if len(durable.targets) + len(targets) > DURABLE_TARGETS_MAX:
        return TOO_MANY_TARGETS

    def opened(places: dict[DurableTarget, dict[int, DurablePlace]]) -> Reply:
        pushes = []
        for name in names:
            target = DurableTarget(space, name)
            if name not in session.subscribed[space]:
                _hold(session, space, name)
                durable.begin(target, places[target])
            pushes.append(Push((_SUBSCRIBED[space], name, _count(session, space))))
        session.pipeline.update_plain()
        return Several(tuple(pushes))

    if not targets:
        return opened({})
    pending = PendingReply(session.pipeline.owner, Order.FREE)
    durable.expect(pending)
    session.registry.durable.subscribe(durable, targets, pending, opened)
    return NOTHING


def _is_ready(session: Session) -> bool:
    """Deliver what came before the change; False if that was the end of this very session (it lagged too much)."""
    session.registry.fanout.spill()
    return not session.is_closed


def _hold(session: Session, space: str, name: bytes) -> None:
    held = session.subscribed[space]
    if name not in held:
        held[name] = None
        session.registry.fanout.subscribe(space, name, session.outbox)


def unsubscribe(session: Session, command: Unsubscribe) -> Reply:
    space, names = command
    held = session.subscribed[space]
    if not _is_ready(session):
        return NOTHING
    if not names:
        names = tuple(held)
    pushes = []
    for name in names:
        _let_go(session, space, name)
        pushes.append(Push((_UNSUBSCRIBED[space], name, _count(session, space))))
    if session.lag is not None:
        session.lag.forget(space, set(names))
    session.pipeline.update_plain()
    return Several(tuple(pushes) or (Push((_UNSUBSCRIBED[space], None, _count(session, space))),))


def _let_go(session: Session, space: str, name: bytes) -> None:
    if name in session.subscribed[space]:
        session.registry.fanout.unsubscribe(space, name, session.outbox)
        del session.subscribed[space][name]
        if session.durable is not None and not session.durable.is_ended:
            session.durable.forget(space, name)


def unsubscribe_all(session: Session) -> None:
    """RESET: without confirmations. A durable name's cursors stay, as if the client had gone."""
    if not _is_ready(session):
        return
    if session.durable is not None:
        session.durable.on_closed()
    for space, held in session.subscribed.items():
        names = set(held)
        for name in list(held):
            _let_go(session, space, name)
        if session.lag is not None:
            session.lag.forget(space, names)
    session.pipeline.update_plain()


def _count(session: Session, space: str) -> int:
    return len(session.subscribed["shard"]) if space == "shard" else session.subscription_count


def bus_subscribe(session: Session, command: BusSubscribe) -> Reply:
    """From just after `since`, or from what this replica has now. The confirmation says after which id it begins."""
    channel, since = command
    held = session.subscribed["bus"]
    if not _is_ready(session):
        return NOTHING
    if len(held) >= SUBSCRIPTIONS_PER_SESSION_MAX:
        return TOO_MANY_SUBSCRIPTIONS
    if session.backend.has_special_rules and session.backend.rule_of(channel).durability == NONE:
        return NO_HISTORY if since is not None else _bus_subscribe_fleeting(session, channel)
    start = session.backend.bus(channel).last_id(channel) if since is None else since
    _hold(session, "bus", channel)
    session.need_lag().restart(("bus", channel, None), start)
    session.want_turn()
    session.pipeline.update_plain()
    return Several((Push((b"bus.subscribe", channel, start.to_bytes())),))


def _bus_subscribe_fleeting(session: Session, channel: bytes) -> Reply:
    """To a channel of durability none: there is no place in its history to begin from, and messages have no ids."""
    _hold(session, "bus", channel)
    session.pipeline.update_plain()
    return Several((Push((b"bus.subscribe", channel, None)),))


def bus_unsubscribe(session: Session, command: BusUnsubscribe) -> Reply:
    if not _is_ready(session):
        return NOTHING
    _let_go(session, "bus", command.channel)
    if session.lag is not None:
        session.lag.forget("bus", {command.channel})
    session.pipeline.update_plain()
    return Several((Push((b"bus.unsubscribe", command.channel, session.subscription_count)),))


# --- the whole cluster's subscriptions --------------------------------------------------------------------------------


def pubsub_channels(session: Session, command: PubsubChannels) -> Reply:
    question = census.Channels(command.pattern, command.shard)

    def reply(answers: list[census.Names]) -> Reply:
        if not all(answer.is_complete for answer in answers):
            return ANSWER_TOO_LARGE
        return sorted({name for answer in answers for name in answer.names})

    return _ask(session, question, census.Names, reply)


def pubsub_numpat(session: Session, _: PubsubNumpat) -> Reply:
    def reply(answers: list[census.Names]) -> Reply:
        if not all(answer.is_complete for answer in answers):
            return ANSWER_TOO_LARGE
        return len({name for answer in answers for name in answer.names})

    return _ask(session, census.Patterns(), census.Names, reply)


def pubsub_numsub(session: Session, command: PubsubNumsub) -> Reply:
    channels = command.channels

    def reply(answers: list[census.Counts]) -> Reply:
        fit = [answer.counts for answer in answers if len(answer.counts) == len(channels)]
        items: list[Reply] = []
        for channel, *counts in zip(channels, *fit, strict=True):
            items += (channel, sum(counts))
        return items

    if not channels:
        return []
    return _ask(session, census.Numsub(list(channels), command.shard), census.Counts, reply)


def _ask(
    session: Session,
    question: census.Question,
    kind: type[census.AnswerT],
    reply: Callable[[list[census.AnswerT]], Reply],
) -> Reply:
    pending = PendingReply(session.pipeline.owner, Order.FREE)
    session.pipeline.expect(pending)
    own = census.answer(session.registry, question)
    assert isinstance(own, kind)
    first: census.AnswerT = own

    def done(answers: list[bytes]) -> None:
        if not session.is_closed:
            every: list[census.AnswerT] = [first]
            every += census.decode_answers(answers, kind)
            pending.resolve(reply(every))

    session.backend.ask_peers(census.encode(question), done)
    return NOTHING
