"""What an ack under durability `memory` does not survive: that a majority loses its memory before the flush.

Such publishes are judged as of unknown outcome; all others as any. Pure, as checkers.py is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from riverbus.sim.checkers import Event

FLUSHED_S = 1.0  # after an early acknowledgement, on the slowest of the disks that such a world has


def without_excused(events: Sequence[Event], losses: Sequence[float]) -> tuple[Sequence[Event], list[Event]]:
    """The events to judge, and the publishes that are excused. `losses`: when a majority lost its memory."""
    if not losses:
        return events, []
    excused = [
        event
        for event in events
        if event.is_early and any(event.invoked <= at <= event.done + FLUSHED_S for at in losses)
    ]
    values = {(event.channel, event.value) for event in excused}
    kept = [
        event._replace(result="info") if event.is_early and (event.channel, event.value) in values else event
        for event in events
    ]
    return kept, excused


def count_unread(publishes: Iterable[Event], events: Iterable[Event]) -> int:
    """How many of these nobody has ever read."""
    read = {(event.channel, event.value) for event in events if event.operation == "read"}
    return sum((event.channel, event.value) not in read for event in publishes)
