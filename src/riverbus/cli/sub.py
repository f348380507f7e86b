"""`riverbus sub CHANNEL...`: print what is published, from a given id on, through failovers."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

import riverbus
from riverbus.cli import output
from riverbus.cli.client_options import DEADLINE_S, URL_DEFAULT, Json, Url, run
from riverbus.cli.messages import print_gap, print_message
from riverbus.client.nouns import Gap, Message
from riverbus.client.subscription import Subscription

LOSS_S = 1.0  # longer than it takes to go to another node


def sub(
    channels: Annotated[list[str], typer.Argument(metavar="CHANNEL...", help="What to; patterns with --pattern.")],
    since: Annotated[
        str | None, typer.Option(metavar="ID", help="Begin after this message; 0-0 for all that is retained.")
    ] = None,
    pattern: Annotated[bool, typer.Option("--pattern", help="The names are patterns, as PSUBSCRIBE's.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many messages.")] = None,
    url: Url = URL_DEFAULT,
    json: Json = False,
) -> None:
    """Subscribe, and print each message. A node that dies is replaced by another, without a gap; Ctrl-C ends it."""
    if pattern and since is not None:
        output.fail("a pattern is live only: --since needs channels", code=output.USAGE)
    # Ctrl-C is how one ends it: no failure.
    run(_subscribe(url, channels, since, pattern, count, json), interrupted_code=0)


async def _subscribe(
    url: str, names: list[str], since: str | None, is_pattern: bool, count: int | None, json: bool
) -> None:
    items: asyncio.Queue[Message | Gap] = asyncio.Queue(maxsize=1)

    async def pump(subscription: Subscription[Message | Gap]) -> None:
        async with subscription:
            async for item in subscription:
                await items.put(item)

    async def show() -> None:
        left = count
        while left is None or left > 0:
            item = await items.get()
            if isinstance(item, Gap):
                print_gap(item, json)
                continue
            print_message(item, json)
            left = None if left is None else left - 1

    async with riverbus.connect(url, deadline=DEADLINE_S) as bus:
        if is_pattern:
            subscriptions = [bus.subscribe(pattern=name) for name in names]
        else:
            subscriptions = [bus.subscribe(*names, since=since)]
        tasks = [asyncio.create_task(pump(subscription)) for subscription in subscriptions]
        tasks += [asyncio.create_task(show()), asyncio.create_task(_tell_of_losses(subscriptions))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _tell_of_losses(subscriptions: list[Subscription[Message | Gap]]) -> None:
    """On standard error, when no node has been found for a moment, and when one is. For ever."""
    is_lost = False
    while True:
        await asyncio.sleep(LOSS_S)
        was_lost, is_lost = is_lost, not all(each.is_connected for each in subscriptions)
        if is_lost and not was_lost:
            output.errors.print("no node is in reach: trying again", style="yellow")
        elif was_lost and not is_lost:
            output.errors.print("a node is in reach again", style="yellow")
