"""The options that pub, sub and log share, and the client that they make of them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Annotated, Any

import typer
import uvloop

from riverbus.cli import output
from riverbus.messages import NotAccepted

Url = Annotated[
    str,
    typer.Option(
        "--url", envvar="RIVERBUS_URL", help="redis://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...], or rediss:// for TLS."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON for each result.")]
URL_DEFAULT = "redis://127.0.0.1:6380"
DEADLINE_S = 10.0  # how long a command tries to reach a node that takes it


def run(work: Coroutine[Any, Any, None], *, interrupted_code: int = 130) -> None:
    """Ends the process with `interrupted_code` on Ctrl-C."""
    try:
        uvloop.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(interrupted_code) from None
    except NotAccepted as error:
        output.fail(str(error.args[0] if error.args else error))
