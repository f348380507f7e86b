"""How the command table's files write a row in two lines: defaults, words for tuples, containers with their HELP.

Leaves to others: the rows (command_table.py, keyspace_rows.py), and what a row is (command_row.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from riverbus.commands import Answered, Command
from riverbus.wire import introspection
from riverbus.wire.command_row import CommandRow, Parse


def always(noun: Command) -> Parse:
    return lambda args: noun


def row(
    name: str,
    arity: int,
    flags: str,
    parse: Parse,
    since: str,
    complexity: str,
    summary: str,
    usage: str = "",
    *,
    group: str,
    categories: str = "",
    keys: tuple[int, int, int] = (0, 0, 0),
    key_flags: str = "",
    key_keyword: str = "",
    key_keyword_from: int = 1,
    tips: str = "",
) -> CommandRow:
    return CommandRow(
        name=name,
        arity=arity,
        flags=tuple(flags.split()),
        parse=parse,
        group=group,
        since=since,
        complexity=complexity,
        summary=summary,
        usage=usage,
        categories=tuple(categories.split()),
        keys=keys,
        key_flags=tuple(key_flags.split()),
        key_keyword=key_keyword,
        key_keyword_from=key_keyword_from,
        tips=tuple(tips.split()),
    )


def container(one: CommandRow, help_categories: str, subcommands: Iterable[CommandRow]) -> CommandRow:
    """The row with its subcommands, and a HELP made of them."""
    name = one.name
    help_row = row(
        f"{name}|help", 2, "loading stale", always(Answered(None)), "5.0.0", "O(1)", "Print this help.",
        group=one.group, categories=help_categories,
    )  # fmt: skip
    by_name = {each.name.partition("|")[2].encode(): each for each in (*subcommands, help_row)}
    answer = Answered(introspection.help_of(name, by_name), help_row.name)
    by_name[b"help"] = replace(help_row, parse=always(answer))
    return replace(one, subcommands=by_name)


NO_CONTAINER = always(Answered(None))  # never called: the arity of a container asks for a subcommand
