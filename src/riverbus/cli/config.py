"""`riverbus config default` and `riverbus config check FILE`. Modules are loaded as in serve.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from riverbus.cli import output

config_commands = typer.Typer(help="Check a configuration, or print the default one.", no_args_is_help=True)


@config_commands.command()
def default() -> None:
    """Print all settings with their defaults and what they are for, as TOML."""
    from riverbus.runtime.config_text import default_text

    print(default_text(), end="")


@config_commands.command()
def password() -> None:
    """Read a password from the terminal or standard input, and print what to write in its place: a slow hash of it."""
    from riverbus.runtime.passwords import hash_slowly

    text = typer.prompt("Password", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    text = text.rstrip("\r\n")
    if not text:
        output.fail("an empty password is none", code=output.USAGE)
    print(hash_slowly(text.encode()))


@config_commands.command()
def check(
    file: Annotated[Path, typer.Argument(help="A TOML file.")],
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say what is wrong in a configuration, the environment's settings and the files that it names included."""
    from riverbus.runtime.config import ConfigError, load
    from riverbus.runtime.security import read_secret, server_context, user_of

    problems: list[str] = []
    try:
        config = load(file)
        read_secret(config.node.secret_file)
        server_context(config.tls)
        server_context(config.peer.tls)
        server_context(config.admin.tls)
        for user in config.user:
            user_of(user)
    except ConfigError as error:
        problems = error.problems
    if json:
        output.print_json({"ok": not problems, "problems": problems})
        raise typer.Exit(output.USAGE if problems else 0)
    if problems:
        output.fail(*problems, code=output.USAGE)
    print(f"{file}: ok")
