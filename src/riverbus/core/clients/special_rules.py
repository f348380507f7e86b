"""What a channel's rule makes of a publish beyond its window: a limit for payloads, durability `none` and `memory`.

Only asked in a cluster that has such rules (`Backend.has_special_rules`): the hot path is pipeline.py's. In a channel
of durability none a publish is answered and delivered at once (fleeting.py); it takes no idempotency key, since nothing
remembers one. XADD makes a stream, which is always kept. In one of durability memory a PUBLISH or SPUBLISH is answered
early (core/clients/early.py); what answers with an id, is keyed, or is in a MULTI is answered once it is applied.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from riverbus.commands import Answered, Command, Publish
from riverbus.core.clients.early import PendingEarly
from riverbus.core.clients.inflight import Order
from riverbus.core.clients.names import name_of
from riverbus.core.clients.outbox import NOTHING, PendingPublish
from riverbus.core.state.rules import MEMORY, NONE
from riverbus.keyspace_commands import PublishOnce, PublishRun, XAdd
from riverbus.messages import ErrorReply, Kind, Repeated, Reply, Several

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session
    from riverbus.core.state.rules import ChannelRule

NO_KEYS = ErrorReply("NOKEYS this channel has durability none: it remembers no keys. Publish without one")
NO_HISTORY = ErrorReply(
    "ERR this channel has durability none: it has no history to begin from. Subscribe without SINCE"
)
_XADD = int(Kind.XADD)


def too_large(size: int, rule: ChannelRule) -> ErrorReply:
    return ErrorReply(f"ERR message of {size} bytes, the limit of this channel's rule is {rule.payload}")


def publish(session: Session, command: Publish) -> Reply:
    """The run in parts, each of messages that the rule admits, or of ones that it does not."""
    rule = session.backend.rule_of(command.channel)
    is_fleeting = rule.durability == NONE and command.kind != _XADD
    pipeline = session.pipeline
    is_early = rule.durability == MEMORY and command.style == "receivers" and pipeline.owner is pipeline
    for is_admitted, some in groupby(command.payloads, lambda payload: len(payload) <= rule.payload):
        payloads = list(some)
        if not is_admitted:
            refusals = tuple(too_large(len(payload), rule) for payload in payloads)
            session.pipeline.answer(refusals[0] if len(refusals) == 1 else Several(refusals))
        elif is_fleeting:
            _publish_fleeting(session, command, payloads)
        elif is_early:
            early = PendingEarly(pipeline, Order.WRITE, len(payloads), sum(map(len, payloads)), session=session)
            pipeline.expect(early)
            session.backend.publish_early(command.channel, command.kind, payloads, early)
        else:
            propose(session, command._replace(payloads=payloads))
    return NOTHING


def propose(session: Session, command: Publish) -> None:
    charge_bytes = sum(map(len, command.payloads))
    pending = PendingPublish(
        session.pipeline.owner, Order.WRITE, len(command.payloads), charge_bytes, with_ids=command.style == "id"
    )
    session.pipeline.expect(pending)
    session.backend.publish(command.channel, command.kind, command.payloads, pending)


def _publish_fleeting(session: Session, command: Publish, payloads: list[bytes]) -> None:
    """The reply comes first, as everywhere: a publisher that also subscribes sees its own message behind it."""
    channel, kind, _, style = command
    count = len(payloads)
    if style == "id":
        session.pipeline.answer(Several((b"0-0",) * count))
    else:
        receivers = session.registry.fanout.receivers(channel, kind)
        session.pipeline.answer(receivers if count == 1 else Repeated(receivers, count))
    session.counters.published_messages += count
    session.backend.publish_fleeting(channel, kind, payloads)


def refusal(session: Session, command: Command) -> ErrorReply | None:
    """Of a keyed publish or an XADD: it is one operation of the log, or none."""
    if not session.backend.has_special_rules:
        return None
    if isinstance(command, XAdd):
        rule = session.backend.rule_of(command.key)
        return None if len(command.body) <= rule.payload else too_large(len(command.body), rule)
    if not isinstance(command, PublishOnce | PublishRun):
        return None
    rule = session.backend.rule_of(command.channel)
    if rule.durability == NONE:
        return NO_KEYS
    payloads = command.payloads if isinstance(command, PublishRun) else (command.payload,)
    largest = max(map(len, payloads))
    return None if largest <= rule.payload else too_large(largest, rule)


def admitted(session: Session, commands: list[Command]) -> list[Command]:
    """The commands of a transaction, which may be one operation: what a rule refuses answers so, in its place."""
    if not session.backend.has_special_rules:
        return commands
    kept: list[Command] = []
    for command in commands:
        if not isinstance(command, Publish):
            no = refusal(session, command)
            kept.append(command if no is None else Answered(no, name_of(command)))
            continue
        rule = session.backend.rule_of(command.channel)
        for payload in command.payloads:
            if len(payload) > rule.payload:
                kept.append(Answered(too_large(len(payload), rule), name_of(command)))
            else:
                kept.append(command._replace(payloads=[payload]))
    return kept
