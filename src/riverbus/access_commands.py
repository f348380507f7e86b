"""What a client may ask of users and their rights (ACL ...): one noun a command, as in `commands.py`.

AclSetUser and AclDelUser are replicated, on shard 0, as the writing nouns of `keyspace_commands.py` are: their fields
are plain, only ever added at the end, with a default, and their order never changes.
"""

from __future__ import annotations

from typing import NamedTuple

from riverbus.commands import Command
from riverbus.messages import Reply

ACL_CATEGORIES = (
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
)  # in the order of ACL CAT


class AclWhoAmI(NamedTuple): ...


class AclUsers(NamedTuple): ...


class AclList(NamedTuple): ...


class AclGetUser(NamedTuple):
    name: bytes


class AclGenPass(NamedTuple):
    digits: int  # hexadecimal


class AclLog(NamedTuple):
    limit: int | None  # None: RESET


class AclDryRun(NamedTuple):
    """May `user` run `command`? `wrong`: what is wrong with the command itself, if there is such a user."""

    user: bytes
    command: Command
    wrong: Reply | None


# --- replicated -------------------------------------------------------------------------------------------------------


class AclSetUser(NamedTuple):
    """ACL SETUSER, on shard 0. Rules in order, without passwords: `#` and `!` with digests (acl.py `hashed`)."""

    name: bytes
    rules: tuple[bytes, ...]


class AclDelUser(NamedTuple):
    """ACL DELUSER, on shard 0. Reply: how many of them there were."""

    names: tuple[bytes, ...]
