"""ACL LOG: who was refused what on this node, the newest first, bounded; like refusals within a minute are one entry.

It holds names (of users, commands, keys, channels), never a password nor any other argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from riverbus.limits import ACL_LOG_ENTRIES_MAX, ACL_LOG_TEXT_BYTES_MAX
from riverbus.messages import Reply

GROUPED_S = 60.0


@dataclass(slots=True)
class Refused:
    number: int
    count: int
    reason: str  # auth | command | key | channel
    context: str  # toplevel | multi
    object: bytes
    user: str
    client: str  # its line of CLIENT LIST
    created_at: float
    updated_at: float
    created_ms: int
    updated_ms: int


class AclLog:
    def __init__(self) -> None:
        self._entries: deque[Refused] = deque(maxlen=ACL_LOG_ENTRIES_MAX)
        self._last_number = -1

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, reason: str, context: str, object_: bytes, user: str, client: str, now: float, wall_ms: int) -> None:
        """Times are the turn's: monotonic seconds, and Unix milliseconds."""
        object_, user = object_[:ACL_LOG_TEXT_BYTES_MAX], user[:ACL_LOG_TEXT_BYTES_MAX]
        for at, entry in enumerate(self._entries):
            if (
                (entry.reason, entry.context, entry.object, entry.user) == (reason, context, object_, user)
                and now - entry.updated_at <= GROUPED_S
            ):  # fmt: skip
                entry.count += 1
                entry.client, entry.updated_at, entry.updated_ms = client, now, wall_ms
                del self._entries[at]
                self._entries.appendleft(entry)
                return
        self._last_number += 1
        self._entries.appendleft(
            Refused(self._last_number, 1, reason, context, object_, user, client, now, now, wall_ms, wall_ms)
        )

    def clear(self) -> None:
        self._entries.clear()

    def reply(self, limit: int, now: float) -> Reply:
        """As ACL LOG answers."""
        return [_reply(entry, now) for _, entry in zip(range(limit), self._entries, strict=False)]


def _reply(entry: Refused, now: float) -> Reply:
    return {
        b"count": entry.count,
        b"reason": entry.reason,
        b"context": entry.context,
        b"object": entry.object,
        b"username": entry.user,
        b"age-seconds": round(now - entry.created_at, 3),
        b"client-info": entry.client,
        b"entry-id": entry.number,
        b"timestamp-created": entry.created_ms,
        b"timestamp-last-updated": entry.updated_ms,
    }
