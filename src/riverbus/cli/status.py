"""`riverbus status`: what nodes say of themselves, their shards and their peers."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from riverbus.cli import output
from riverbus.cli.admin_client import ask
from riverbus.runtime.units import Address, format_bytes, parse_address

_COLUMNS = ("shard", "role", "leader", "term", "commit", "applied", "channels", "messages", "bytes")


def status(
    admin: Annotated[
        str,
        typer.Option(
            envvar="RIVERBUS_ADMIN_LISTEN", metavar="HOST:PORT,...", help="Admin addresses of the nodes to ask."
        ),
    ] = "127.0.0.1:9601",
    token: Annotated[
        str | None, typer.Option(envvar="RIVERBUS_ADMIN_TOKEN", help="The admin token.", show_default=False)
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(help="Authorities of the nodes' certificates, where [admin.tls] is on: ask over HTTPS."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON: an object, or a list for several nodes.")] = False,
) -> None:
    """Show a node's state as it sees it: is it ready, who leads which shard, how far is each replica.

    Of several nodes, those that answer are shown; the exit code is 1 if one doesn't.
    """
    try:
        addresses = [parse_address(part) for part in admin.split(",") if part.strip()]
    except ValueError as error:
        output.fail(f"--admin: {error}", code=output.USAGE)
    tls = None if tls_ca is None else _context(tls_ca)
    found = [_status_of(address, token, tls) for address in addresses]
    problems = [state["error"] for state in found if "error" in state]
    if json and not (problems and len(found) == 1):
        output.print_json(found[0] if len(found) == 1 else found)
    else:
        for address, state in zip(addresses, found, strict=True):
            if "error" in state:
                continue
            if output.is_terminal():
                output.console().print(_panel(address, state))
            else:
                _print_lines(state)
    if problems:
        output.fail(*problems)


def _context(authorities: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        output.fail(f"--tls-ca {authorities}: {error.strerror or error}", code=output.USAGE)


def _status_of(address: Address, token: str | None, tls: ssl.SSLContext | None) -> dict[str, Any]:
    """With `error`, and nothing else, where no node says anything: the others are asked all the same."""
    try:
        code, state = ask(address, "/status", token, tls)
        ready = ask(address, "/readyz", None, tls)[1]
    except OSError as error:
        return {"admin": str(address), "error": f"no node answers at {address}: {output.reason(error)}"}
    if code != 200 or not isinstance(state, dict) or not isinstance(ready, dict):
        return {"admin": str(address), "error": f"{address} answers {code}: {state}"}
    return {**state, "admin": str(address), "reasons": ready.get("reasons", [])}


def _panel(address: Address, state: dict[str, Any]) -> Panel:
    is_ready = bool(state.get("ready"))
    lines = [Text("ready", style="green") if is_ready else Text("not ready", style="bold red")]
    lines += [Text(f"  {reason}", style="red") for reason in state["reasons"]]
    sessions = state.get("sessions", {})
    up = [state.get("node"), *state.get("peers_up", [])]
    lines.append(
        Text(f"nodes up: {len(up)} of {len(state.get('voters', up))}; clients: {sessions.get('connected', 0)}")
    )
    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "role" else "right")
    for shard in state.get("shards", []):
        style = "bold" if shard["role"] == "leader" else None
        table.add_row(*(_cell(column, shard) for column in _COLUMNS), style=style)
    return Panel(Group(*lines, table), title=f"node {state.get('node', '?')} at {address}", title_align="left")


def _cell(column: str, shard: dict[str, Any]) -> str:
    value = shard.get(column, "")
    return format_bytes(value) if column == "bytes" and isinstance(value, int) else str(value)


def _print_lines(state: dict[str, Any]) -> None:
    """One line a shard, tab separated, behind its node's id; so that cut and awk can read it."""
    for shard in state.get("shards", []):
        fields = [state.get("node", ""), *(shard.get(column, "") for column in _COLUMNS)]
        output.write_line("\t".join(map(str, fields)).encode())
    if not state.get("ready"):
        output.errors.print(f"node {state.get('node', '?')} is not ready: {'; '.join(state['reasons'])}")
