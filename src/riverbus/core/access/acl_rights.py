"""What a user may do, compiled from its rules for the commands that this node has: `Rights.denial` judges a command.

A command is allowed if one selector allows all of it: its name, every key with what is done to it, every channel; a
pattern only if it is granted letter for letter. What it touches is taken from its noun (acl_subjects.py), so that a
command in a transaction, or one that waits, is judged like any other. Who may do everything has no `Rights` at all:
nothing is asked of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from riverbus.commands import Command, Publish
from riverbus.core.access.acl import READ, WRITE, Selector, User
from riverbus.core.access.acl_subjects import Subjects, subjects_of
from riverbus.core.clients.glob import Glob
from riverbus.core.clients.names import PUBLISH_NAMES, name_of
from riverbus.limits import ACL_MEMO_MAX
from riverbus.messages import ErrorReply, Kind

ALWAYS = frozenset(("auth", "hello", "quit", "reset", "malformed"))  # Redis' CMD_NO_AUTH, and what is no command
COMMAND, KEY, CHANNEL = "command", "key", "channel"  # the reasons of ACL LOG
_RANK = {COMMAND: 0, KEY: 1, CHANNEL: 2}
_XADD = int(Kind.XADD)

Categories = Mapping[
    str, frozenset[str]
]  # of each command by its full lower-case name: "client|list" -> {"admin", ...}


class Denial(NamedTuple):
    reason: str  # COMMAND, KEY or CHANNEL
    object: bytes  # the command's name, the key or the channel

    def reply(self, user: str) -> ErrorReply:
        if self.reason == COMMAND:
            name = self.object.decode()
            return ErrorReply(f"NOPERM User {user} has no permissions to run the '{name}' command")
        return ErrorReply(f"NOPERM No permissions to access a {self.reason}")

    def reply_in_exec(self) -> ErrorReply:
        why = {
            COMMAND: "no permission to execute the command or subcommand",
            KEY: "no permission to touch the specified keys",
            CHANNEL: "no permission to access one of the channels used as arguments to the command",
        }[self.reason]
        return ErrorReply(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. "
            f"This command is no longer allowed for the following reason: {why}"
        )

    def describe(self, user: str) -> str:
        """For ACL DRYRUN."""
        what = "run" if self.reason == COMMAND else "access"
        name = self.object.decode("utf-8", "replace")
        return f"User {user} has no permissions to {what} the '{name}' {self.reason}"


class _Grants:
    """A compiled selector."""

    __slots__ = ("_all_channels", "_all_keys", "_channels", "_commands", "_keys", "_literals")

    def __init__(self, selector: Selector, categories: Categories) -> None:
        self._commands = allowed_commands(selector, categories)
        self._all_keys = selector.is_allkeys
        self._keys = [(access, Glob(pattern)) for pattern, access in selector.keys.items()]
        self._all_channels = selector.is_allchannels
        self._channels = [Glob(pattern) for pattern in selector.channels]
        self._literals = frozenset(selector.channels)

    def denial(self, name: str, subjects: Subjects) -> Denial | None:
        if name not in self._commands and name not in ALWAYS:
            return Denial(COMMAND, name.encode())
        if not self._all_keys:
            for key, access in subjects.keys:
                if not self.has_key(key, access):
                    return Denial(KEY, key)
        if not self._all_channels:
            for channel in subjects.channels:
                if not self.has_channel(channel):
                    return Denial(CHANNEL, channel)
            for pattern in subjects.patterns:
                if pattern not in self._literals:
                    return Denial(CHANNEL, pattern)
        return None

    def has_key(self, key: bytes, access: int) -> bool:
        return any(held & access == access and glob.matches(key) for held, glob in self._keys)

    def has_channel(self, channel: bytes) -> bool:
        return any(glob.matches(channel) for glob in self._channels)

    def may_hear(self, space: str, name: bytes) -> bool:
        if self._all_channels:
            return True
        return name in self._literals if space == "pattern" else self.has_channel(name)


class Rights:
    """Of one user, restricted in some way. `user` is its name."""

    __slots__ = ("_grants", "_publishes", "user")

    def __init__(self, user: User, categories: Categories) -> None:
        self.user = user.name
        self._grants = [_Grants(each, categories) for each in (user.root, *user.selectors)]
        self._publishes: dict[tuple[bytes, int, str], Denial | None] = {}  # the hot path's answers, while they hold

    def denial(self, command: Command) -> Denial | None:
        """Why the command is refused; of several selectors the one that came nearest says it, as in Redis."""
        if type(command) is Publish:
            return self.publish_denial(command)
        return self._judge(name_of(command), subjects_of(command))

    def publish_denial(self, command: Publish) -> Denial | None:
        key = (command.channel, command.kind, command.style)
        try:
            return self._publishes[key]
        except KeyError:
            if len(self._publishes) >= ACL_MEMO_MAX:
                self._publishes.clear()
            denial = self._publishes[key] = self._judge(
                PUBLISH_NAMES[command.kind, command.style], subjects_of(command)
            )
            return denial

    def may_hear(self, space: str, name: bytes) -> bool:
        """May a subscription of `space` ("channel", "pattern", "shard", "bus") to `name` go on?"""
        return any(each.may_hear(space, name) for each in self._grants)

    def _judge(self, name: str, subjects: Subjects) -> Denial | None:
        nearest: Denial | None = None
        for grants in self._grants:
            denial = grants.denial(name, subjects)
            if denial is None:
                return None
            if nearest is None or _RANK[denial.reason] >= _RANK[nearest.reason]:
                nearest = denial
        return nearest


def rights_of(user: User, categories: Categories) -> Rights | None:
    """None: the user may do everything."""
    root = user.root
    if root.is_allkeys and root.is_allchannels and root.is_allcommands and not root.commands:
        return None
    return Rights(user, categories)


def allowed_commands(selector: Selector, categories: Categories) -> frozenset[str]:
    """The commands that exist here and that the selector's rules allow, in the order in which they were given."""
    allowed = set(categories) if selector.is_allcommands else set()
    for rule in selector.commands:
        meant = _meant(rule[1:], categories)
        if rule[0] == "+":
            allowed |= meant
        else:
            allowed -= meant
    return frozenset(allowed)


def _meant(name: str, categories: Categories) -> set[str]:
    """What a rule is about. One that names what this version doesn't know is about nothing."""
    if name.startswith("@"):
        category = name[1:]
        return {each for each, held in categories.items() if category in held}
    inner = name + "|"
    return {each for each in categories if each == name or each.startswith(inner)}


__all__ = ["READ", "WRITE", "Categories", "Denial", "Rights", "allowed_commands", "rights_of"]
