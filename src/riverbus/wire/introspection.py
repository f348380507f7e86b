"""COMMAND and the HELP subcommands, answered from the table alone, in the shapes of Redis 7.2."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from riverbus.commands import Answered, Command
from riverbus.messages import Members, Reply, Status
from riverbus.wire.command_row import CommandRow
from riverbus.wire.parsing import SYNTAX_ERROR, CommandError

NAMES_MAX = 64  # of one COMMAND INFO or DOCS
PATTERN_CHARACTERS_MAX = 64  # of COMMAND LIST: no name is longer, and compiled patterns stay cached

Rows = Mapping[bytes, CommandRow]


def find(rows: Rows, name: bytes) -> CommandRow | None:
    """The row of `name` or `container|subcommand`, in any case."""
    container, bar, sub = name.lower().partition(b"|")
    row = rows.get(container)
    return row.subcommands.get(sub) if row is not None and bar else row


def find_for(rows: Rows, args: list[bytes]) -> CommandRow | None:
    """The row that a whole command runs."""
    row = rows.get(args[0].lower())
    if row is not None and row.subcommands and len(args) > 1:
        return row.subcommands.get(args[1].lower())
    return row


# --- COMMAND ----------------------------------------------------------------------------------------------------------


def parse_command(rows: Rows, args: list[bytes]) -> Command:
    return Answered([info_of(row) for row in rows.values()], "command")


def parse_count(rows: Rows, args: list[bytes]) -> Command:
    return Answered(len(rows), "command|count")


def parse_info(rows: Rows, args: list[bytes]) -> Command:
    """COMMAND INFO [name ...]: null for an unknown name"""
    if len(args) == 2:
        return Answered([info_of(row) for row in rows.values()], "command|info")
    found = [find(rows, name) for name in _bounded(args[2:])]
    return Answered([None if row is None else info_of(row) for row in found], "command|info")


def parse_docs(rows: Rows, args: list[bytes]) -> Command:
    """COMMAND DOCS [name ...]: unknown names are left out"""
    found = rows.values() if len(args) == 2 else [find(rows, name) for name in _bounded(args[2:])]
    return Answered({row.name: docs_of(row) for row in found if row is not None}, "command|docs")


def parse_list(rows: Rows, args: list[bytes]) -> Command:
    """COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]"""
    if len(args) not in (2, 5) or (len(args) == 5 and args[2].upper() != b"FILTERBY"):
        raise CommandError(SYNTAX_ERROR)
    everything = [one for row in rows.values() for one in (row, *row.subcommands.values())]
    if len(args) == 2:
        return Answered([row.name for row in everything], "command|list")
    wanted = args[4].decode("utf-8", "replace").lower()
    match args[3].upper():
        case b"MODULE":
            names = []
        case b"ACLCAT":
            names = [row.name for row in everything if f"@{wanted}" in row.acl_categories]
        case b"PATTERN":
            names = [row.name for row in everything if fnmatchcase(row.name, wanted[:PATTERN_CHARACTERS_MAX])]
        case _:
            raise CommandError(SYNTAX_ERROR)
    return Answered(names, "command|list")


def parse_getkeys(rows: Rows, args: list[bytes]) -> Command:
    """COMMAND GETKEYS command [arg ...]"""
    _, keys = _keys_asked(rows, args[2:])
    return Answered(keys, "command|getkeys")


def parse_getkeysandflags(rows: Rows, args: list[bytes]) -> Command:
    row, keys = _keys_asked(rows, args[2:])
    flags = _statuses(row.key_flags)
    return Answered([[key, flags] for key in keys], "command|getkeysandflags")


def _keys_asked(rows: Rows, args: list[bytes]) -> tuple[CommandRow, list[bytes]]:
    row = find_for(rows, args)
    if row is None:
        raise CommandError("ERR Invalid command specified")
    if "not_key" in row.key_flags or not (row.keys[0] or row.key_keyword):
        raise CommandError("ERR The command has no key arguments")
    if not row.takes(len(args)):
        raise CommandError("ERR Invalid number of arguments specified for command")
    keys = row.keys_of(args)
    if not keys:
        raise CommandError("ERR Invalid arguments specified for command")
    return row, keys


def _bounded(names: list[bytes]) -> list[bytes]:
    """Each name costs a large reply: without a bound one command could stop the loop for seconds."""
    if len(names) > NAMES_MAX:
        raise CommandError(f"ERR {len(names)} names, the limit is {NAMES_MAX}")
    return names


def info_of(row: CommandRow) -> Reply:
    """The ten fields of COMMAND INFO."""
    return [
        row.name,
        row.arity,
        _statuses(row.flags),
        *row.keys,
        _statuses(row.acl_categories),
        Members(row.tips),
        _key_specifications(row),
        [info_of(sub) for sub in row.subcommands.values()],
    ]


def docs_of(row: CommandRow) -> Reply:
    docs: dict[str, Reply] = {"summary": row.summary, "since": row.since, "group": row.group}
    if row.complexity:
        docs["complexity"] = row.complexity
    if row.subcommands:
        docs["subcommands"] = {sub.name: docs_of(sub) for sub in row.subcommands.values()}
    return docs


def _statuses(names: tuple[str, ...]) -> frozenset[Status]:
    return frozenset(map(Status, names))


def _key_specifications(row: CommandRow) -> Members:
    first, last, step = row.keys
    if row.key_keyword:
        search = {"type": "keyword", "spec": {"keyword": row.key_keyword, "startfrom": row.key_keyword_from}}
        place = {"lastkey": -1, "keystep": 1, "limit": 2}
    elif first:
        search = {"type": "index", "spec": {"index": first}}
        place = {"lastkey": last if last < 0 else last - first, "keystep": step, "limit": 0}
    else:
        return Members(())
    flags = _statuses(row.key_flags)
    return Members(({"flags": flags, "begin_search": search, "find_keys": {"type": "range", "spec": place}},))


# --- HELP -------------------------------------------------------------------------------------------------------------


def help_of(container: str, subcommands: Mapping[bytes, CommandRow]) -> Reply:
    """The lines of `<container> HELP`."""
    lines = [f"{container.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for name, row in subcommands.items():
        lines.append(f"{name.decode().upper()} {row.usage}".rstrip())
        lines.append(f"    {row.summary}")
    return [Status(line) for line in lines]
