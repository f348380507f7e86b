"""The users that ACL SETUSER made: part of shard 0's replicated state, so that every node knows them.

Deterministic: rules are applied to texts, in the order of the log, and nothing here asks which commands exist (that was
asked where the rules came in), what this node's configuration says, or the clock. `changes` counts the operations that
changed something, so that a node sees that it has to look again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from riverbus.access_commands import AclDelUser, AclSetUser
from riverbus.core.access.acl import RuleError, User, apply_rule, bytes_of, changed, default_user, rules_of, text_of
from riverbus.limits import ACL_STATE_BYTES_MAX, ACL_USERS_MAX
from riverbus.messages import ErrorReply, Reply, Status

DEFAULT = "default"


class AclState:
    def __init__(self) -> None:
        self.users: dict[str, User] = {}  # in order of their making; without `default` until it is changed
        self.changes = 0
        self._sizes: dict[str, int] = {}
        self._bytes = 0

    def set_user(self, noun: AclSetUser) -> Reply:
        """Make or change a user; whole, or not at all."""
        name = text_of(noun.name)
        base = self.users.get(name)
        if base is None:
            if len(self.users) >= ACL_USERS_MAX:
                return ErrorReply(f"ERR there are {ACL_USERS_MAX} users already")
            base = default_user() if name == DEFAULT else User(name)
        try:
            user = changed(base, map(text_of, noun.rules))
        except RuleError as error:
            return ErrorReply(error.describe())
        size = len(user.describe())
        if self._bytes - self._sizes.get(name, 0) + size > ACL_STATE_BYTES_MAX:
            return ErrorReply(f"ERR all users' rules together would take more than {ACL_STATE_BYTES_MAX} bytes")
        self._keep(user, size)
        self.changes += 1
        return Status("OK")

    def delete_users(self, noun: AclDelUser) -> Reply:
        """How many of them there were."""
        gone = 0
        for name in map(text_of, noun.names):
            if name != DEFAULT and self.users.pop(name, None) is not None:
                self._bytes -= self._sizes.pop(name)
                gone += 1
        self.changes += gone > 0
        return gone

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def restore(self, data: bytes) -> None:
        """Users of a snapshot, as `encode_users` wrote them. Raises ValueError."""
        try:
            for name, rules in _decode_users(data):
                user = User(name)
                for rule in rules:
                    apply_rule(user, text_of(rule))
                if user.name in self.users:
                    raise ValueError(f"user {user.name!r} is there twice")
                self._keep(user, len(user.describe()))
        except (msgspec.MsgspecError, RuleError) as error:
            raise ValueError(f"users that can't be read: {error}") from error

    def _keep(self, user: User, size: int) -> None:
        self.users[user.name] = user
        self._bytes += size - self._sizes.get(user.name, 0)
        self._sizes[user.name] = size

    def invariants(self) -> None:
        assert self._sizes == {name: len(user.describe()) for name, user in self.users.items()}
        assert self._bytes == sum(self._sizes.values()) <= ACL_STATE_BYTES_MAX
        assert len(self.users) <= ACL_USERS_MAX
        assert all(name == user.name for name, user in self.users.items())


def encode_users(users: Sequence[User]) -> bytes:
    return msgspec.msgpack.encode([(user.name, list(map(bytes_of, rules_of(user)))) for user in users])


_decode_users = msgspec.msgpack.Decoder(list[tuple[str, list[bytes]]]).decode
