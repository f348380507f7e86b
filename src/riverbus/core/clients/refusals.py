"""Redis' own words for what a session refuses. Clients and their tests compare them."""

from __future__ import annotations

from riverbus.limits import DURABLE_TARGETS_MAX
from riverbus.messages import ErrorReply

NO_AUTH = ErrorReply("NOAUTH Authentication required.")
WRONG_PASS = ErrorReply("WRONGPASS invalid username-password pair or user is disabled.")
AUTH_WITHOUT_USERS = ErrorReply(
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
HELLO_NO_AUTH = ErrorReply(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> "
    "option can be used to authenticate the client and select the RESP protocol version at the same time"
)
NO_SUCH_CLIENT = ErrorReply("ERR No such client")
NO_SUCH_KEY = ErrorReply("ERR no such key")

WRONG_TYPE = ErrorReply("WRONGTYPE Operation against a key holding the wrong kind of value")
UNBLOCKED = ErrorReply("UNBLOCKED client unblocked via CLIENT UNBLOCK")
CROSS_SHARD = ErrorReply(
    "CROSSSLOT Keys in request don't hash to the same slot, or to slots of one shard: give them a common {hash tag}"
)

MULTI_NESTED = ErrorReply("ERR MULTI calls can not be nested")
WATCH_IN_MULTI = ErrorReply("ERR WATCH inside MULTI is not allowed")
MONITOR_IN_EXEC = ErrorReply("ERR MONITOR isn't allowed for DENY BLOCKING client")
SSUBSCRIBE_IN_EXEC = ErrorReply("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client")
EXEC_WITHOUT_MULTI = ErrorReply("ERR EXEC without MULTI")
DISCARD_WITHOUT_MULTI = ErrorReply("ERR DISCARD without MULTI")
EXEC_ABORTED = ErrorReply("EXECABORT Transaction discarded because of previous errors.")
TRANSACTION_TOO_LARGE = ErrorReply("ERR transaction is too large: see TRANSACTION_COMMANDS_MAX in limits")

TOO_MANY_TARGETS = ErrorReply(f"ERR a durable name has at most {DURABLE_TARGETS_MAX} subscriptions")
TOO_MANY_SUBSCRIPTIONS = ErrorReply("ERR too many subscriptions of one connection")
REPLY_TOO_LARGE = ErrorReply("ERR the reply would be too large: ask for less with COUNT")
ANSWER_TOO_LARGE = ErrorReply("ERR a node has too many names to list: ask with a pattern")


def subscriber_refusal(name: str) -> ErrorReply:
    """For a RESP2 connection with subscriptions; `name` is the command's full name, in lower case."""
    return ErrorReply(
        f"ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this "
        "context"
    )
