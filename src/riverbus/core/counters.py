"""What the sessions of a node count, for /metrics, INFO and `riverbus status`. Plain numbers: whoever reads, reads.

Every way in which a message or a connection is given up is in `dropped`, by reason (promise 8).
"""

from __future__ import annotations

from collections import defaultdict

WINDOW_PASSED = "window_passed"  # a slow subscriber was passed by its channel's window: it got a gap marker
UNSUBSCRIBED_BEHIND = "unsubscribed_behind"  # a subscriber left a channel in which it still lagged
TOO_MANY_CURSORS = "too_many_cursors"  # a slow subscriber lagged in too many channels: disconnected
REPLIES_UNREAD = "replies_unread"  # a client didn't read its replies: disconnected
REASONS = (WINDOW_PASSED, UNSUBSCRIBED_BEHIND, TOO_MANY_CURSORS, REPLIES_UNREAD)


class Counters:
    """All totals since the start. `commands` counts pipelined publishes one by one."""

    __slots__ = (
        "commands",
        "connections_opened",
        "delivered_messages",
        "dropped",
        "error_replies",
        "published_messages",
    )

    def __init__(self) -> None:
        self.dropped: dict[str, int] = dict.fromkeys(REASONS, 0)
        self.commands: defaultdict[str, int] = defaultdict(int)
        self.published_messages = 0
        self.delivered_messages = 0
        self.error_replies = 0
        self.connections_opened = 0
