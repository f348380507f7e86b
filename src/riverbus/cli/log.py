"""`riverbus log CHANNEL`: what a channel retains."""

from __future__ import annotations

from typing import Annotated

import typer

import riverbus
from riverbus.cli.client_options import DEADLINE_S, URL_DEFAULT, Json, Url, run
from riverbus.cli.messages import print_message


def log(
    channel: Annotated[str, typer.Argument(help="Whose history.")],
    first: Annotated[str, typer.Option(metavar="ID", help="From this id on; `(ID` for after it.")] = "-",
    last: Annotated[str, typer.Option(metavar="ID", help="Up to this id.")] = "+",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many messages.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="Newest first.")] = False,
    url: Url = URL_DEFAULT,
    json: Json = False,
) -> None:
    """Print a channel's retained messages, oldest first. Any node has them all."""
    run(_print(url, channel, first, last, limit, reverse, json))


async def _print(url: str, channel: str, first: str, last: str, limit: int | None, reverse: bool, json: bool) -> None:
    async with riverbus.connect(url, deadline=DEADLINE_S) as bus:
        for message in await bus.history(channel, first, last, limit, reverse):
            print_message(message, json)
