"""`riverbus pub CHANNEL [MESSAGE]`: publish an argument, or each line of standard input."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from io import BufferedReader
from itertools import chain, islice, repeat
from typing import Annotated, cast

import typer

import riverbus
from riverbus.cli import output
from riverbus.cli.client_options import DEADLINE_S, URL_DEFAULT, Json, Url, run
from riverbus.messages import MessageId

IN_FLIGHT = 256  # published together, in order; input may be larger than memory
READ_BYTES = 65_536


def pub(
    channel: Annotated[str, typer.Argument(help="Where to.")],
    message: Annotated[str | None, typer.Argument(help="What; without it, each line of standard input.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Publish each message so many times.")] = 1,
    url: Url = URL_DEFAULT,
    json: Json = False,
) -> None:
    """Publish. Prints the id of each message once it is on the disks of a majority."""
    batches = _batches_of_input() if message is None else iter([[os.fsencode(message)]])
    run(_publish(url, channel, batches, count, json))


def _batches_of_input() -> Iterator[list[bytes]]:
    """Lines as they come: those of one read together, so that a slow pipe's are not held up."""
    rest = b""
    while chunk := cast(BufferedReader, sys.stdin.buffer).read1(READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield [line.removesuffix(b"\r") for line in lines]
    if rest:
        yield [rest]


async def _publish(url: str, channel: str, batches: Iterator[list[bytes]], count: int, json: bool) -> None:
    async with riverbus.connect(url, deadline=DEADLINE_S) as bus:
        while (lines := await asyncio.to_thread(next, batches, None)) is not None:
            payloads = chain.from_iterable(repeat(line, count) for line in lines)
            while group := list(islice(payloads, IN_FLIGHT)):
                results = await asyncio.gather(*(bus.publish(channel, each) for each in group), return_exceptions=True)
                for result in results:
                    if isinstance(result, BaseException):
                        raise result
                    _print(channel, result, json)


def _print(channel: str, id_: MessageId, json: bool) -> None:
    if json:
        output.print_json({**output.named("channel", channel), "id": str(id_)})
    else:
        output.write_line(str(id_).encode())
