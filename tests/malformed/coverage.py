"""Which lines of the parsers ran: a trace function over a few modules, and no more than that.

Generators are worth what they reach. The share is of the lines that a module's functions have code for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import riverbus

MODULES = (
    "wire/resp.py", "wire/redis.py", "wire/command_table.py", "wire/parse_bus.py", "wire/parse_connection.py",
    "wire/parsing.py", "wire/frames.py", "runtime/handshake.py", "runtime/connection.py", "runtime/admin.py",
    "core/state/entries.py", "core/state/snapshot.py", "core/clients/session.py", "core/clients/pipeline.py",
)  # fmt: skip


class Coverage:
    """Traces while its `with` lasts, if it is on."""

    def __init__(self, is_on: bool) -> None:
        self._is_on = is_on
        root = Path(riverbus.__file__).parent
        self._ran: dict[str, set[int]] = {str(root / name): set() for name in MODULES if (root / name).exists()}

    def __enter__(self) -> Coverage:
        if self._is_on:
            sys.settrace(self._on_call)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_on:
            sys.settrace(None)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        ran = self._ran.get(frame.f_code.co_filename)
        if ran is None:
            return None

        def on_line(frame: FrameType, event: str, argument: Any) -> Any:
            ran.add(frame.f_lineno)
            return on_line

        return on_line

    def lines(self) -> list[str]:
        """Of each module of which anything ran: its share, and the lines that did not."""
        told = []
        for path, ran in self._ran.items():
            if self._is_on and ran:
                lines = set(_lines_of(compile(Path(path).read_text(), path, "exec"), is_module=True))
                missed = sorted(lines - ran)
                name = "/".join(Path(path).parts[-2:])
                told.append(f"{name}: {len(lines) - len(missed)} of {len(lines)} lines, not {missed}")
        return told


def _lines_of(code: CodeType, is_module: bool = False) -> Iterator[int]:
    """Lines of all functions inside; of a module's and a class' own code, which runs at import, none."""
    is_function = not is_module and code.co_flags & 0x2  # CO_NEWLOCALS: a class body has none
    if is_function:
        yield from (line for _, _, line in code.co_lines() if line is not None and line != code.co_firstlineno)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _lines_of(constant)
