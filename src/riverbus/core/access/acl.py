"""Users and their rights as Redis' ACL rules write them: reading rules, and printing them back.

A `User` is what the rules said, in a canonical form that doesn't depend on which commands this version has: `+get` and
`-@dangerous` are kept as they stand, in order. So every replica makes the same user of the same rules, whatever it
knows of commands. What they allow is compiled apart (acl_rights.py), and whether a rule names a command or category
that exists is asked where the rule comes in (`check_names`).

Rules and their texts are Redis 7.2's (https://redis.io/docs/management/security/acl/): selectors too; without the first
arguments of commands (`+select|0`). Passwords are SHA-256 digests from here on: who takes `>secret` from a client
hashes it first (`hashed`). Invariant: what `rules_of` prints, read into a new user, gives an equal user.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import starmap
from typing import Protocol

from riverbus.access_commands import ACL_CATEGORIES
from riverbus.core.access.redis_names import ABSENT
from riverbus.limits import ACL_NAME_BYTES_MAX, ACL_USER_BYTES_MAX

READ, WRITE = 1, 2
_HASH_DIGITS = 64
_HEXADECIMAL = frozenset("0123456789abcdef")


class RuleError(Exception):
    """A rule that can't be applied; the text is Redis' reason, `rule` what it is about (never a password)."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason

    def describe(self) -> str:
        """The text of ACL SETUSER's error: on one line, and cut."""
        about = f"Error in ACL SETUSER modifier '{one_line(self.rule)}': " if self.rule else ""
        return f"ERR {about}{one_line(self.reason, 512)}"


class Names(Protocol):
    """Which commands there are; for `check_names`."""

    def has_command(self, name: str) -> bool: ...

    def has_subcommands(self, name: str) -> bool: ...


@dataclass(slots=True)
class Selector:
    """One set of grants, in order: a command must be allowed whole by one of a user's selectors."""

    is_allkeys: bool = False
    keys: dict[bytes, int] = field(default_factory=dict)  # pattern -> READ, WRITE or both
    is_allchannels: bool = False
    channels: dict[bytes, None] = field(default_factory=dict)
    is_allcommands: bool = False  # what the command rules begin from: everything, or nothing
    commands: list[str] = field(default_factory=list)  # "+get", "-@read", "+client|list", in order

    def describe_commands(self) -> str:
        return " ".join(["+@all" if self.is_allcommands else "-@all", *self.commands])

    def describe_keys(self) -> str:
        return "~*" if self.is_allkeys else " ".join(starmap(_describe_key, self.keys.items()))

    def describe_channels(self) -> str:
        return "&*" if self.is_allchannels else " ".join("&" + text_of(each) for each in self.channels)

    def describe(self) -> str:
        channels = self.describe_channels()
        if not self.is_allchannels:
            channels = "resetchannels " + channels if channels else "resetchannels"
        return " ".join(part for part in (self.describe_keys(), channels, self.describe_commands()) if part)


@dataclass(slots=True)
class User:
    name: str
    is_on: bool = False
    is_nopass: bool = False
    hashes: dict[str, None] = field(default_factory=dict)  # SHA-256, hexadecimal
    root: Selector = field(default_factory=Selector)
    selectors: list[Selector] = field(default_factory=list)

    def flags(self) -> list[str]:
        return ["on" if self.is_on else "off"] + ["nopass"] * self.is_nopass

    def describe(self) -> str:
        """Its line of ACL LIST."""
        parts = ["user", self.name, *self.flags(), *("#" + each for each in self.hashes), self.root.describe()]
        return " ".join([*parts, *(f"({each.describe()})" for each in self.selectors)])

    def copy(self) -> User:
        return read_user(self.name, rules_of(self))


def _describe_key(pattern: bytes, access: int) -> str:
    if access == READ | WRITE and pattern == b"*":
        return "%RW~*"  # `~*` would be read as allkeys
    return {READ: "%R~", WRITE: "%W~", READ | WRITE: "~"}[access] + text_of(pattern)


def text_of(pattern: bytes) -> str:
    """Reversible, whatever the bytes."""
    return pattern.decode("utf-8", "surrogateescape")


def one_line(text: str, characters_max: int = 128) -> str:
    return text[:characters_max].translate({13: " ", 10: " ", 0: " "})


def bytes_of(pattern: str) -> bytes:
    return pattern.encode("utf-8", "surrogateescape")


def default_user() -> User:
    """The one user of a bus on which nobody has made any: everything, without a password."""
    return read_user("default", ["on", "nopass", "~*", "&*", "+@all"])


def rules_of(user: User) -> list[str]:
    """Canonical rules that make this user of a new one."""
    root = user.root.describe().split(" ")
    return [*user.flags(), *("#" + each for each in user.hashes), *root, *(f"({s.describe()})" for s in user.selectors)]


def read_user(name: str, rules: Iterable[str]) -> User:
    """A new user of these rules. Raises RuleError."""
    user = User(name)
    for rule in rules:
        apply_rule(user, rule)
    return user


def changed(user: User, rules: Iterable[str]) -> User:
    """The user after more rules, whole or not at all. Raises RuleError."""
    new = user.copy()
    for rule in rules:
        apply_rule(new, rule)
    check_size(len(new.describe()))
    return new


def check_size(size: int) -> None:
    """Of a user, or of the rules of one command. Raises RuleError."""
    if size > ACL_USER_BYTES_MAX:
        raise RuleError("", f"the user's rules would take more than {ACL_USER_BYTES_MAX} bytes")


def checked_name(name: bytes) -> str:
    """A user's name as text. Raises RuleError: it stands in the lines of ACL LIST and CLIENT LIST."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise RuleError("", "Usernames must be UTF-8") from None
    if any(each.isspace() or each == "\0" for each in text):
        raise RuleError("", "Usernames can't contain spaces or null characters")
    if not text or not text.isprintable() or len(name) > ACL_NAME_BYTES_MAX:
        raise RuleError("", f"Usernames are printable, and of 1 to {ACL_NAME_BYTES_MAX} bytes")
    return text


# --- rules that come from a client ------------------------------------------------------------------------------------


def merged(rules: Iterable[bytes]) -> list[bytes]:
    """Selectors that came as several arguments, `(~a` and `+get)`, made one rule. Raises RuleError."""
    whole: list[bytes] = []
    open_rule: bytes | None = None
    for rule in rules:
        if open_rule is not None:
            open_rule += b" " + rule
        elif rule.startswith(b"(") and not rule.endswith(b")"):
            open_rule = rule
        else:
            whole.append(rule)
            continue
        if rule.endswith(b")"):
            whole.append(open_rule)
            open_rule = None
    if open_rule is not None:
        raise RuleError("", f"Unmatched parenthesis in acl selector starting at '{text_of(open_rule)}'.")
    return whole


def hashed(rule: bytes) -> str:
    """The rule as text; a password that it adds or removes is replaced by its digest."""
    if rule[:1] in (b">", b"<"):
        digest = hashlib.sha256(rule[1:]).hexdigest()
        return ("#" if rule[:1] == b">" else "!") + digest
    return text_of(rule)


def check_names(rules: Iterable[str], names: Names) -> None:
    """Raises RuleError for a command or category that doesn't exist here."""
    for rule in rules:
        if rule.startswith("(") and rule.endswith(")"):
            try:
                check_names(_inner(rule), names)
            except RuleError as error:
                raise RuleError(rule, error.reason) from None
        elif rule[:1] in ("+", "-"):
            _check_name(rule, names)


def check_names_in_turn(user: User, rules: Iterable[str], names: Names) -> None:
    """As `check_names`; but where another rule was wrong before that, as the user is here, RuleError is of that one.

    Redis stops at the first. What is wrong with no name is judged where the rules are applied.
    """
    rules = list(rules)
    try:
        check_names(rules, names)
    except RuleError:
        copy = user.copy()
        for rule in rules:
            if rule.startswith("(") and rule.endswith(")"):
                _check_selector(rule, names)
            else:
                check_names([rule], names)
                apply_rule(copy, rule)
        raise


def _check_selector(rule: str, names: Names) -> None:
    selector = Selector()
    for each in _inner(rule):
        try:
            check_names([each], names)
            _apply_grant(selector, each)
        except RuleError as error:
            raise RuleError(rule, error.reason) from None


def _check_name(rule: str, names: Names) -> None:
    name = rule[1:].lower()
    if name.startswith("@"):
        if name[1:] not in (*ACL_CATEGORIES, "all"):
            raise RuleError(rule, "Unknown command or category name in ACL")
        return
    if names.has_command(name) or name in ABSENT:
        return
    container, _, rest = name.partition("|")
    if rule[0] == "+" and rest and names.has_command(container):
        if "|" in rest:
            raise RuleError(rule, "Allowing first-arg of a subcommand is not supported")
        if not names.has_subcommands(container):
            raise RuleError(rule, "Allowing a command by its first argument is not supported")
    raise RuleError(rule, "Unknown command or category name in ACL")


def _inner(selector_rule: str) -> list[str]:
    return [each for each in selector_rule[1:-1].split(" ") if each]


# --- applying rules ---------------------------------------------------------------------------------------------------


def apply_rule(user: User, rule: str) -> None:
    """One rule. Raises RuleError and may then have changed part of the user: see `changed`."""
    match rule.lower():
        case "on" | "off":
            user.is_on = rule.lower() == "on"
        case "nopass":
            user.is_nopass = True
            user.hashes.clear()
        case "resetpass":
            user.is_nopass = False
            user.hashes.clear()
        case "clearselectors":
            user.selectors.clear()
        case "reset":
            user.is_on = user.is_nopass = False
            user.hashes.clear()
            user.root = Selector()
            user.selectors.clear()
        case "sanitize-payload" | "skip-sanitize-payload":
            pass  # about RESTORE, which there is not
        case _ if rule[:1] in ("#", "!"):
            _apply_hash(user, rule)
        case _ if rule.startswith("(") and rule.endswith(")"):
            selector = Selector()
            for each in _inner(rule):
                try:
                    _apply_grant(selector, each)
                except RuleError as error:
                    raise RuleError(rule, error.reason) from None
            user.selectors.append(selector)
        case _:
            _apply_grant(user.root, rule)


def _apply_hash(user: User, rule: str) -> None:
    digits = rule[1:]
    if len(digits) != _HASH_DIGITS or not _HEXADECIMAL.issuperset(digits):
        reason = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
        raise RuleError(rule, reason)
    if rule[0] == "#":
        user.is_nopass = False
        user.hashes.setdefault(digits)
    elif digits in user.hashes:
        del user.hashes[digits]
    else:
        raise RuleError(rule, "The password you are trying to remove from the user does not exist")


def _apply_grant(selector: Selector, rule: str) -> None:
    match rule.lower():
        case "allkeys" | "~*":
            selector.is_allkeys = True
            selector.keys.clear()
        case "resetkeys":
            selector.is_allkeys = False
            selector.keys.clear()
        case "allchannels" | "&*":
            selector.is_allchannels = True
            selector.channels.clear()
        case "resetchannels":
            selector.is_allchannels = False
            selector.channels.clear()
        case "allcommands" | "+@all":
            selector.is_allcommands = True
            selector.commands.clear()
        case "nocommands" | "-@all":
            selector.is_allcommands = False
            selector.commands.clear()
        case _ if rule[:1] in ("~", "%"):
            _apply_key_pattern(selector, rule)
        case _ if rule[:1] == "&":
            _apply_channel_pattern(selector, rule)
        case _ if rule[:1] in ("+", "-") and len(rule) > 1:
            _apply_command(selector, rule.lower())
        case _:
            raise RuleError(rule, "Syntax error")


def _apply_key_pattern(selector: Selector, rule: str) -> None:
    if selector.is_allkeys:
        reason = (
            "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. "
            "Try 'resetkeys' to start with an empty list of patterns"
        )
        raise RuleError(rule, reason)
    flags, tilde, pattern = rule.partition("~")
    letters = flags[1:].upper()
    access = READ * ("R" in letters) | WRITE * ("W" in letters) if flags else READ | WRITE
    if not tilde or not access or (flags and sorted(set(letters)) != sorted(letters)) or set(letters) - {"R", "W"}:
        raise RuleError(rule, "Syntax error")
    new = bytes_of(_without_spaces(rule, pattern))
    selector.keys[new] = selector.keys.get(new, 0) | access


def _apply_channel_pattern(selector: Selector, rule: str) -> None:
    if selector.is_allchannels:
        reason = (
            "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any "
            "effect. Try 'resetchannels' to start with an empty list of channels"
        )
        raise RuleError(rule, reason)
    selector.channels.setdefault(bytes_of(_without_spaces(rule, rule[1:])))


def _without_spaces(rule: str, pattern: str) -> str:
    if any(each in " \t\n\v\f\r\0" for each in pattern):
        raise RuleError(rule, "Syntax error")
    return pattern


def _apply_command(selector: Selector, rule: str) -> None:
    """The later rule holds: what an earlier one said of the same command or its subcommands is forgotten."""
    if _without_spaces(rule, rule).count("|") > 1:
        raise RuleError(rule, "Allowing first-arg of a subcommand is not supported")
    if rule.endswith("|"):
        raise RuleError(rule, "Syntax error")
    name = rule[1:]
    inner = name + "|"
    selector.commands = [each for each in selector.commands if each[1:] != name and not each[1:].startswith(inner)]
    selector.commands.append(rule)
