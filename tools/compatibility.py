"""Writes docs/compatibility.md: the commands that there are, from the command table. `--check` says whether it is so.

Run it (python -m tools.compatibility) after a row of the table has changed; tests/wire/test_compatibility.py asks.
"""

from __future__ import annotations

import sys
from pathlib import Path

from riverbus.wire.command_row import CommandRow
from riverbus.wire.command_table import ROWS

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
_GROUPS = {
    "connection": "Connection",
    "server": "Server",
    "generic": "Keys",
    "string": "Strings",
    "stream": "Streams and consumer groups",
    "pubsub": "Pub/sub",
    "transactions": "Transactions",
    "scripting": "Scripting",
    "bus": "Riverbus' own",
}
_HEAD = """# Commands

<!-- Made by tools/compatibility.py from the command table (src/riverbus/wire/command_table.py): change that. -->

Riverbus answers these commands as Redis 7.2 does, in RESP2 and RESP3, with its error texts; newer ones, marked with the
version of Redis that brought them, as that version. What is different on purpose: [divergence.md](divergence.md).
What is not here does not exist: `ERR unknown command`. Out of scope are lists, sets, sorted sets, hashes, bitmaps,
HyperLogLogs, geo indexes and scripts.
"""


def page() -> str:
    parts = [_HEAD]
    for group, title in _GROUPS.items():
        rows = [one for row in ROWS.values() if row.group == group for one in _commands_of(row)]
        parts += [f"\n## {title}\n", "\n| command | since | what it does |\n|---|---|---|\n"]
        parts += [_line(row) for row in rows]
    missing = {row.group for row in ROWS.values()} - _GROUPS.keys()
    assert not missing, f"groups without a title: {missing}"
    return "".join(parts)


def _commands_of(row: CommandRow) -> list[CommandRow]:
    subcommands = [sub for sub in row.subcommands.values() if not sub.name.endswith("|help")]
    return subcommands if row.name != "command" and subcommands else [row, *subcommands]


def _line(row: CommandRow) -> str:
    name = row.name.upper().replace("|", " ")
    usage = f" {row.usage}".rstrip().replace("|", "\\|")
    return f"| `{name}{usage}` | {row.since} | {row.summary} |\n"


def main(arguments: list[str]) -> int:
    text = page()
    if "--check" in arguments:
        if PAGE.read_text() != text:
            print(f"{PAGE} is not what the command table says: run python -m tools.compatibility")
            return 1
        return 0
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
