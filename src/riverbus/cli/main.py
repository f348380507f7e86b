"""`riverbus`: all commands, and what is common to them: --version, and how an error ends."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import riverbus
from riverbus.cli import output
from riverbus.cli.bench import bench
from riverbus.cli.config import config_commands
from riverbus.cli.dev import dev
from riverbus.cli.fuzz import fuzz
from riverbus.cli.log import log
from riverbus.cli.pub import pub
from riverbus.cli.serve import serve
from riverbus.cli.sim import sim
from riverbus.cli.status import status
from riverbus.cli.sub import sub
from riverbus.messages import BusError

app = typer.Typer(
    help="A message bus on Raft consensus that Redis clients already speak to.",
    epilog="Start one with `riverbus serve` (or three with `riverbus dev --nodes 3`), then `riverbus sub chat` and "
    "`riverbus pub chat hi`, or the same with redis-cli -p 6380.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (serve, dev, pub, sub, log, status, bench, sim, fuzz):
    app.command()(command)
app.add_typer(config_commands, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"riverbus {riverbus.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The console script. What a command lets through is worded here."""
    try:
        app()
    except BusError as error:
        _end(str(error))
    except (OSError, ValueError) as error:
        _end(output.reason(error))


def _end(problem: str) -> None:
    print(f"riverbus: {problem}", file=sys.stderr)
    sys.exit(output.FAILED)
