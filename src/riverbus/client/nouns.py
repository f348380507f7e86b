"""What the client hands to a program: messages, gaps, and the errors that are the client's own.

The bus' refusals (`NotAccepted`, `OutcomeUnknown`, ...) are those of `riverbus.messages`; a reply's error text becomes
one of them in `error_from_reply`, the only place that knows the codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from riverbus.messages import (
    SEQ_MAX,
    BusError,
    DiskFull,
    MessageId,
    NotAccepted,
    OutcomeUnknown,
    OutOfMemory,
    Overloaded,
)


class Message(NamedTuple):
    """One message of a channel.

    `id` is None for a pattern subscription, whose messages carry none, and in a channel of durability none. `fields` is
    None for a published message, and the entry's fields for one that XADD appended (its `payload` is then empty).
    """

    channel: str
    id: MessageId | None
    payload: bytes
    pattern: str | None = None
    fields: Mapping[bytes, bytes] | None = None


class Gap(NamedTuple):
    """Messages that this subscription will never get: some of those in (after, until] of `channel` are gone.

    A pattern subscription has no positions: its gap names the `pattern`, and says only that its connection was lost. So
    does that of a channel of durability none, by `channel` alone.
    """

    channel: str | None
    after: MessageId | None
    until: MessageId | None
    pattern: str | None = None


class HistoryLost(Exception):
    """Raised by a subscription with `on_gap="raise"`; iteration may go on after it, behind the gap."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(f"messages of {gap.channel or gap.pattern} in ({gap.after}, {gap.until}] are gone")
        self.gap = gap


class Unreachable(NotAccepted):
    """No node could be reached, or none would take the command, before the deadline: it was not accepted."""


class Ended(Unreachable):
    """The only node has ended for good (an embedded one that failed): there is nothing to wait for."""


class Refused(BusError):
    """Any other error of the server (NOAUTH, WRONGPASS, ERR ...): the same command would fail again."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class ConnectionLost(Exception):
    """Inside the client only: a connection ended before a command's reply. `is_sent`: it may have been carried out."""

    def __init__(self, reason: str, is_sent: bool) -> None:
        super().__init__(reason)
        self.is_sent = is_sent


ERRORS: dict[str, type[BusError]] = {
    kind.code: kind for kind in (NotAccepted, OutcomeUnknown, OutOfMemory, DiskFull, Overloaded)
}
ERRORS["LOADING"] = NotAccepted  # a node that starts, or a Redis


def error_from_reply(text: str) -> BusError:
    """`CLUSTERDOWN no leader` -> NotAccepted("no leader")."""
    code, _, rest = text.partition(" ")
    kind = ERRORS.get(code)
    return Refused(code, rest) if kind is None else kind(rest)


def id_from_bytes(data: bytes) -> MessageId:
    """b"12-3" or b"12" -> MessageId. Raises ValueError, also for numbers beyond 64 bits."""
    ms, _, seq = data.partition(b"-")
    if not ms.isdigit() or not (seq.isdigit() or b"-" not in data):
        raise ValueError(f"not a message id: {data!r}")
    found = MessageId(int(ms), int(seq or 0))
    if max(found) > SEQ_MAX:
        raise ValueError(f"not a message id: {data!r}")
    return found


def id_from(value: MessageId | str | bytes) -> MessageId:
    """What a program may give as a position. Raises ValueError, or TypeError."""
    if isinstance(value, MessageId):
        return value
    if not isinstance(value, str | bytes):
        raise TypeError(f"a position is a MessageId, str or bytes, not {type(value).__name__}")
    return id_from_bytes(value.encode() if isinstance(value, str) else value)


def name_to_bytes(name: str | bytes) -> bytes:
    """Raises TypeError, here and not where it is sent: with it goes what others publish in the same turn."""
    if isinstance(name, str):
        return name.encode("utf-8", "surrogateescape")
    if not isinstance(name, bytes):
        raise TypeError(f"a name is str or bytes, not {type(name).__name__}")
    return name


def payload_to_bytes(payload: str | bytes | bytearray | memoryview) -> bytes:
    """A copy of what can be changed meanwhile. Raises TypeError, likewise."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        return payload.encode()
    if not isinstance(payload, bytearray | memoryview):
        raise TypeError(f"a payload is str or bytes, not {type(payload).__name__}")
    return bytes(payload)


def name_from_bytes(name: bytes) -> str:
    """Names that are not UTF-8 survive the way there and back."""
    return name.decode("utf-8", "surrogateescape")
