"""How all commands speak: tables and colours on a terminal, raw lines in a pipe, JSON lines with --json.

Results go to standard output, everything else to standard error. Exit codes: 0 it worked, 1 it failed, 2 the command
line or the configuration is wrong. An error is one line (or one a problem), never a traceback.
"""

from __future__ import annotations

import base64
import os
import sys
from typing import Any, NoReturn

import msgspec
import typer
from rich.console import Console

FAILED = 1
USAGE = 2

errors = Console(stderr=True, highlight=False, soft_wrap=True)
_encoder = msgspec.json.Encoder()


def is_terminal() -> bool:
    return sys.stdout.isatty()


def console() -> Console:
    """Made when it is used: standard output may have been replaced."""
    return Console(highlight=False)


def fail(*problems: str, code: int = FAILED) -> NoReturn:
    for problem in problems:
        print(f"riverbus: {problem}", file=sys.stderr)
    raise typer.Exit(code)


def reason(error: BaseException) -> str:
    """One line, never empty: some of uvloop's errors have no text of their own. A file's error names it."""
    text = (error.strerror if isinstance(error, OSError) else "") or str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {text}"
    if not text and isinstance(error, OSError) and error.errno is not None:
        text = os.strerror(error.errno)
    return text or type(error).__name__


def print_json(value: Any) -> None:
    write_line(_encoder.encode(value))


def write_line(line: bytes) -> None:
    """At once: whoever reads the pipe wants the message, not the buffer. When they have enough, the command ends."""
    try:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python flushes once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def payload_fields(payload: bytes) -> dict[str, str]:
    return _text_or_base64("payload", payload)


def named(field: str, name: str | None) -> dict[str, str | None]:
    """A channel's name in JSON. One that is not UTF-8 has surrogates in Python (client/nouns.py `name_from_bytes`)."""
    return {field: None} if name is None else {**_text_or_base64(field, name.encode("utf-8", "surrogateescape"))}


def _text_or_base64(field: str, data: bytes) -> dict[str, str]:
    """In JSON: as text if it is text."""
    try:
        return {field: data.decode()}
    except UnicodeDecodeError:
        return {f"{field}_base64": base64.b64encode(data).decode()}


def printable(payload: bytes) -> str:
    """A payload for people: control characters, which could drive their terminal, are escaped."""
    text = payload.decode(errors="backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
