"""Parsers of the ACL commands: arguments in, a noun of access_commands.py out. https://redis.io/commands/acl/

A password never gets further than this: SETUSER's are digests in the noun. What a command is asked about is taken from
the command table, which is handed in (`Rows`), as COMMAND does it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from riverbus import access_commands
from riverbus.commands import Answered, Command, Unwatch
from riverbus.messages import ErrorReply
from riverbus.wire.introspection import Rows, find_for
from riverbus.wire.parsing import CommandError, integer, text_of, wrong_arity, wrong_subcommand_use

NO_ACL_FILE = ErrorReply(
    "ERR This Riverbus instance is not configured to use an ACL file: there is none. Users that ACL SETUSER makes are "
    "kept by the cluster itself, and those of the configuration file are read when a node starts."
)
GENPASS_BITS, GENPASS_BITS_MAX = 256, 4096
LOG_COUNT = 10


def parse_setuser(args: list[bytes]) -> Command:
    """ACL SETUSER name [rule ...]"""
    return access_commands.AclSetUser(args[2], tuple(_without_password(rule) for rule in args[3:]))


def _without_password(rule: bytes) -> bytes:
    """`>secret` and `<secret` by the digest that is added or removed; core/access/acl.py reads these."""
    if rule[:1] in (b">", b"<"):
        return (b"#" if rule[:1] == b">" else b"!") + hashlib.sha256(rule[1:]).hexdigest().encode()
    return rule


def parse_deluser(args: list[bytes]) -> Command:
    return access_commands.AclDelUser(tuple(args[2:]))


def parse_getuser(args: list[bytes]) -> Command:
    return access_commands.AclGetUser(args[2])


def parse_log(args: list[bytes]) -> Command:
    """ACL LOG [count | RESET]"""
    if len(args) > 3:
        raise wrong_subcommand_use("acl", args[1])
    if len(args) == 2:
        return access_commands.AclLog(LOG_COUNT)
    if args[2].upper() == b"RESET":
        return access_commands.AclLog(None)
    return access_commands.AclLog(max(0, integer(args[2])))


def parse_genpass(args: list[bytes]) -> Command:
    """ACL GENPASS [bits]"""
    if len(args) > 3:
        raise wrong_subcommand_use("acl", args[1])
    bits = GENPASS_BITS if len(args) == 2 else integer(args[2])
    if not 0 < bits <= GENPASS_BITS_MAX:
        raise CommandError(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to "
            f"{GENPASS_BITS_MAX}"
        )
    return access_commands.AclGenPass((bits + 3) // 4)


def parse_cat(rows: Rows, args: list[bytes]) -> Command:
    """ACL CAT [category]"""
    if len(args) > 3:
        raise wrong_subcommand_use("acl", args[1])
    if len(args) == 2:
        return Answered(list(access_commands.ACL_CATEGORIES), "acl|cat")
    category = text_of(args[2]).lower()
    if category not in access_commands.ACL_CATEGORIES:
        raise CommandError(f"ERR Unknown category '{text_of(args[2])}'")
    everything = [one for row in rows.values() for one in (row, *row.subcommands.values())]
    return Answered([one.name for one in everything if f"@{category}" in one.acl_categories], "acl|cat")


def parse_dryrun(rows: Rows, noun_of: Callable[[list[bytes]], Command], args: list[bytes]) -> Command:
    """ACL DRYRUN user command [arg ...]"""
    asked = args[3:]
    row = find_for(rows, asked)
    if row is None:
        wrong: ErrorReply | None = ErrorReply(f"ERR Command '{text_of(asked[0])}' not found")
    elif not row.takes(len(asked)):
        wrong = ErrorReply(str(wrong_arity(row.name)))
    else:
        wrong = None
    return access_commands.AclDryRun(args[2], Unwatch() if wrong else noun_of(asked), wrong)


def categories_of(rows: Rows) -> dict[str, frozenset[str]]:
    """The categories of each command by its full name, for the core, which doesn't know this table."""
    everything = [one for row in rows.values() for one in (row, *row.subcommands.values())]
    return {one.name: frozenset(category[1:] for category in one.acl_categories) for one in everything}
