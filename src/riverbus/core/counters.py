"""What the sessions of a node count, for /metrics, INFO and `riverbus status`. Plain numbers: whoever reads, reads.

Every way in which a message or a connection is given up is in `dropped`, by reason (promise 8).
"""

from __future__ import annotations

from collections import defaultdict

WINDOW_PASSED = "window_passed"  # a slow subscriber was passed by its channel's window: it got a gap marker
UNSUBSCRIBED_BEHIND = "unsubscribed_behind"  # a subscriber left a channel in which it still lagged
TOO_MANY_CURSORS = "too_many_cursors"  # a slow subscriber lagged in too many channels of its patterns: disconnected
REPLIES_UNREAD = "replies_unread"  # a client didn't read its replies: disconnected
USER_REVOKED = "user_revoked"  # its user was deleted, or lost the right to what it is subscribed to: disconnected
MONITOR_SLOW = "monitor_slow"  # a MONITOR's socket was full: disconnected
EVENTS_UNREAD = "events_unread"  # a keyspace event for a subscriber whose socket was full: it is in no log
RELAY_DROPPED = "relay_dropped"  # a message of durability none for a node without a link, or that does not keep up
FLEETING_UNREAD = "fleeting_unread"  # a message of durability none for a subscriber whose socket was full
CURSORS_UNSAVED = "cursors_unsaved"  # last words of durable subscribers that no leader took: a longer overlap
DURABLE_UNAVAILABLE = "durable_unavailable"  # a durable SUBSCRIBE found no leader: disconnected, to try elsewhere
MEMORY_UNCONFIRMED = "memory_unconfirmed"  # a message of durability memory, answered, then not seen committed in time
REASONS = (
    WINDOW_PASSED,
    UNSUBSCRIBED_BEHIND,
    TOO_MANY_CURSORS,
    REPLIES_UNREAD,
    USER_REVOKED,
    MONITOR_SLOW,
    EVENTS_UNREAD,
    RELAY_DROPPED,
    FLEETING_UNREAD,
    CURSORS_UNSAVED,
    DURABLE_UNAVAILABLE,
    MEMORY_UNCONFIRMED,
)


class Counters:
    """All totals since the start. `commands` counts pipelined publishes one by one."""

    __slots__ = (
        "before_reset",
        "commands",
        "connections_opened",
        "delivered_messages",
        "dropped",
        "early_answers",
        "error_replies",
        "expired_keys",
        "published_messages",
    )

    def __init__(self) -> None:
        self.dropped: dict[str, int] = dict.fromkeys(REASONS, 0)
        self.commands: defaultdict[str, int] = defaultdict(int)
        self.published_messages = 0
        self.delivered_messages = 0
        self.error_replies = 0
        self.early_answers = 0  # publishes of durability memory, before they were committed
        self.connections_opened = 0
        self.expired_keys = 0
        self.before_reset = (0, 0, 0, dict[str, int]())  # connections, errors, keys, commands: what INFO leaves out

    def reset(self) -> None:
        """CONFIG RESETSTAT: for INFO alone, since totals that monitoring reads never go back."""
        self.before_reset = (self.connections_opened, self.error_replies, self.expired_keys, dict(self.commands))

    @property
    def commands_since_reset(self) -> dict[str, int]:
        before = self.before_reset[3]
        return {
            name: count - before.get(name, 0) for name, count in self.commands.items() if count > before.get(name, 0)
        }
