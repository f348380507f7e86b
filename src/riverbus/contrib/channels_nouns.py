"""The channel layer's nouns: its settings, what was lost, and what is told of that."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from riverbus import MessageId
from riverbus.messages import SEQ_MAX

log = logging.getLogger("riverbus.contrib.channels")


class Loss(NamedTuple):
    """Messages of a source in (after, until] that this consumer will not get."""

    source: str
    after: MessageId
    until: MessageId
    reason: Literal["trimmed", "expired", "unknown"]


class LayerGap(NamedTuple):
    """What these channels will not get: some messages of the group (None: sent to the channels themselves) in
    (after, until], because history was trimmed past them, nobody took them before they expired, or it is not known who
    took them (a named channel's, in a failover)."""

    group: str | None
    channels: tuple[str, ...]
    after: MessageId | None
    until: MessageId | None
    reason: Literal["trimmed", "expired", "unknown"]


OnGap = Callable[[LayerGap], Awaitable[None] | None]


def log_gap(gap: LayerGap) -> None:
    source = "their own messages" if gap.group is None else f"group {gap.group}"
    log.warning("%d channels lost messages of %s in (%s, %s]: %s", len(gap.channels), source, *gap[2:])


@dataclass(frozen=True)
class Settings:
    prefix: str
    expiry_s: float
    capacity: Callable[[str], int]
    on_gap: OnGap

    def alive_ms(self) -> int:
        """What was sent before this has expired."""
        return now_ms() - int(self.expiry_s * 1000)


def before(id_: MessageId) -> MessageId:
    """The greatest id that is less. `id_` is above 0-0."""
    return MessageId(id_.ms, id_.seq - 1) if id_.seq else MessageId(id_.ms - 1, SEQ_MAX)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
