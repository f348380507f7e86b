"""How `sub` and `log` print a message and a gap."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from riverbus.cli import output
from riverbus.client.nouns import Gap, Message


def print_message(message: Message, json: bool) -> None:
    """JSON; or, for people, channel, id and payload; or, in a pipe, the payload alone."""
    if json:
        output.print_json(_fields(message))
    elif output.is_terminal():
        channel = output.printable(message.channel.encode("utf-8", "surrogateescape"))
        place = channel if message.id is None else f"{channel} {message.id}"
        output.console().print(Text(place, style="dim"), output.printable(_payload(message)), soft_wrap=True)
    else:
        output.write_line(_payload(message))


def print_gap(gap: Gap, json: bool) -> None:
    """Never silence: in JSON a line among the others, else a line on standard error."""
    where = output.printable((gap.channel or gap.pattern or "").encode("utf-8", "surrogateescape"))
    if json:
        place = output.named("channel", gap.channel) | output.named("pattern", gap.pattern)
        output.print_json({"gap": True} | place | {"after": _text(gap.after), "until": _text(gap.until)})
    elif gap.until is None:
        output.errors.print(f"gap: {where}: the connection was lost, messages may have been missed", style="yellow")
    else:
        output.errors.print(f"gap: {where}: messages after {gap.after} until {gap.until} are gone", style="yellow")


def _fields(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {**output.named("channel", message.channel), "id": _text(message.id)}
    if message.pattern is not None:
        fields |= output.named("pattern", message.pattern)
    if message.fields is not None:
        fields["fields"] = {_lossy(name): _lossy(value) for name, value in message.fields.items()}
    else:
        fields |= output.payload_fields(message.payload)
    return fields


def _lossy(data: bytes) -> str:
    return data.decode(errors="replace")


def _payload(message: Message) -> bytes:
    if message.fields is None:
        return message.payload
    return b" ".join(b"%b=%b" % pair for pair in message.fields.items())


def _text(id_: object) -> str | None:
    return None if id_ is None else str(id_)
