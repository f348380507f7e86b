"""One command as a row of the table: what it is called, what it takes, who may use it, how it becomes a noun.

Everything that Redis' clients ask about commands is derived from these fields (introspection.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from riverbus.commands import Command

Parse = Callable[[list[bytes]], Command]


@dataclass(frozen=True, slots=True)
class CommandRow:
    """`keys` are (first, last, step) as COMMAND INFO has them: last counts from the end if negative; zeros: no key."""

    name: str  # lower case; a subcommand's with its container: "client|list"
    arity: int  # with the name itself; negative: at least so many
    flags: tuple[str, ...]
    parse: Parse
    group: str
    since: str  # the version of Redis that brought it; of Riverbus for its own
    complexity: str
    summary: str
    usage: str = ""  # the arguments, for HELP
    categories: tuple[str, ...] = ()  # of ACLs, besides those that follow from the flags
    keys: tuple[int, int, int] = (0, 0, 0)
    key_flags: tuple[str, ...] = ()  # how the keys are used; "not_key": they only choose the shard, as channels do
    key_keyword: str = ""  # keys are the first half of what follows this argument (XREAD's STREAMS)
    key_keyword_from: int = 1  # where it is looked for from
    tips: tuple[str, ...] = ()
    subcommands: dict[bytes, CommandRow] = field(default_factory=dict)  # by lower-case last part of their names

    def takes(self, count: int) -> bool:
        return count == self.arity if self.arity > 0 else count >= -self.arity

    @property
    def acl_categories(self) -> tuple[str, ...]:
        flags = self.flags
        implied = [name for flag, name in (("readonly", "read"), ("write", "write")) if flag in flags]
        implied += self.categories
        implied += [name for name in ("pubsub", "admin", "blocking") if name in flags]
        implied.append("fast" if "fast" in flags else "slow")
        if "admin" in flags:
            implied.append("dangerous")
        return tuple(f"@{name}" for name in implied)

    def keys_of(self, args: list[bytes]) -> list[bytes]:
        """The keys among a command's arguments of right arity; empty if they can't be found."""
        if self.key_keyword:
            words = [arg.upper() for arg in args]
            keyword = self.key_keyword.encode()
            start = self.key_keyword_from
            rest = args[words.index(keyword, start) + 1 :] if keyword in words[start:] else []
            return rest[: len(rest) // 2]
        first, last, step = self.keys
        if not first or "not_key" in self.key_flags:
            return []
        return args[first : (last if last >= 0 else len(args) + last) + 1 : step]
