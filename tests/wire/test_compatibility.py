"""docs/compatibility.md is what the command table says."""

from __future__ import annotations

from riverbus.wire.command_table import ROWS
from tools.compatibility import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run python -m tools.compatibility"


def test_every_command_is_on_the_page() -> None:
    text = page()
    for row in ROWS.values():
        for one in (row, *row.subcommands.values()):
            name = one.name.upper().replace("|", " ")
            is_listed = f"| `{name}" in text
            assert is_listed or one.subcommands or name.endswith(" HELP"), name
