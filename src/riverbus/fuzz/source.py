"""Writes Python: values as expressions that give them again, with the imports that these need.

What has no such expression (a lambda, a class made inside a function, an object whose repr is not code) becomes `...`,
and a problem that says so in words; a file with problems is not runnable until someone fills the place in.
"""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from riverbus.fuzz.comparisons import has_equality, same
from riverbus.fuzz.program import Earlier

LINE_MAX = 120
_PLAIN = (bool, int, bytearray, type(None), type(...))


class Source:
    """Collects imports while expressions are written. `names` are those of the results of earlier calls."""

    def __init__(self) -> None:
        self._imports: dict[tuple[str, str], str] = {}  # (module, name) to the name here
        self._modules: set[str] = set()
        self.problems: list[str] = []
        self.is_of_script = False  # something is imported from the program that runs now

    def imports(self) -> list[str]:
        lines = sorted(f"import {module}" for module in self._modules)
        by_module: dict[str, list[str]] = {}
        for (module, name), here in self._imports.items():
            by_module.setdefault(module, []).append(name if name == here else f"{name} as {here}")
        ours: list[str] = []
        for module in sorted(by_module):
            line = f"from {module} import {', '.join(sorted(by_module[module]))}"
            if len(line) > LINE_MAX:
                line = (
                    f"from {module} import (\n" + "".join(f"    {each},\n" for each in sorted(by_module[module])) + ")"
                )
            ours.append(line)
        return lines + ([""] if lines and ours else []) + ours

    def name(self, thing: Any, what: str) -> str:
        """A class or function by its import. `what` is it, for the problem."""
        module, path = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
        if module is None or not path or "<" in path or not _is_at(thing, module, path):
            place = getattr(getattr(thing, "__code__", None), "co_filename", None)
            where = f" (in {place})" if place else ""
            return self._problem(
                f"{what} is {getattr(thing, '__qualname__', thing)!s}{where}, which cannot be imported"
            )
        if module == "builtins":
            return str(path)
        first, _, rest = path.partition(".")
        here = self.import_name(_importable(module), first)
        self.is_of_script = self.is_of_script or module == "__main__"
        return f"{here}.{rest}" if rest else here

    def import_name(self, module: str, name: str) -> str:
        known = self._imports.get((module, name))
        if known is None:
            taken = set(self._imports.values()) | {"both", "pair"} - ({name} if module == "riverbus.fuzz" else set())
            known = name
            number = 2
            while known in taken:
                known = f"{name}_{number}"
                number += 1
            self._imports[module, name] = known
        return known

    def expression(self, value: Any, what: str, results: Mapping[int, str] | None = None) -> str:
        """Code for the value. Never raises: what cannot be written is a problem."""
        kind = type(value)
        if isinstance(value, Earlier):
            return (results or {})[value.call] + "".join(
                f"[{step}]" if isinstance(step, int) else f".{step}" for step in value.path
            )
        if isinstance(value, enum.Enum):
            if value.name is not None and "|" not in value.name:
                return f"{self.name(kind, what)}.{value.name}"
            return f"{self.name(kind, what)}({value.value!r})"
        if kind in (str, bytes):
            return quoted(value)
        if kind in _PLAIN:
            return repr(value)
        if kind is float:
            return repr(value) if math.isfinite(value) else f'float("{value!r}")'
        if kind in (list, tuple, set, frozenset, dict):
            return self._container(value, what, results)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._built(kind, {name: getattr(value, name) for name in value._fields}, what, results)
        if is_dataclass(kind):
            return self._built(kind, {f.name: getattr(value, f.name) for f in fields(value) if f.init}, what, results)
        if isinstance(value, type) or hasattr(value, "__code__"):
            return self.name(value, what)
        return self._by_repr(value, what)

    def _container(self, value: Any, what: str, results: Mapping[int, str] | None) -> str:
        kind = type(value)
        if kind is dict:
            items = [(self.expression(k, what, results), self.expression(v, what, results)) for k, v in value.items()]
            return "{" + ", ".join(f"{key}: {each}" for key, each in items) + "}"
        parts = [self.expression(each, what, results) for each in value]
        if kind is tuple:
            return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"
        if kind is list:
            return f"[{', '.join(parts)}]"
        # The order of a set is not that of its making.
        inner = "{" + ", ".join(sorted(parts)) + "}"
        if kind is set:
            return inner if parts else "set()"
        return f"frozenset({inner})" if parts else "frozenset()"

    def _built(self, kind: type, given: Mapping[str, Any], what: str, results: Mapping[int, str] | None) -> str:
        arguments = [f"{name}={self.expression(value, what, results)}" for name, value in given.items()]
        return f"{self.name(kind, what)}({', '.join(arguments)})"

    def _by_repr(self, value: Any, what: str) -> str:
        """Decimal('1'), datetime.date(2024, 1, 1), PosixPath('x'): code, if it gives an equal value."""
        text, kind = repr(value), type(value)
        module = sys.modules.get(kind.__module__)
        top = kind.__module__.partition(".")[0]
        for scope in ({kind.__name__: kind}, {top: sys.modules.get(top)}, dict(vars(module)) if module else {}):
            try:
                again = eval(text, dict(scope))  # noqa: S307 - the repr of a value that our own strategies made
                is_equal = same(value, again) and type(again) is kind
            except Exception:  # noqa: BLE001 - whatever the text is, it is not the value's code
                continue
            if not is_equal or not has_equality(value):
                continue
            if kind.__name__ in scope and text.startswith(kind.__name__ + "("):
                self.name(kind, what)
            else:
                self._modules.add(top)
            return text
        return self._problem(f"{what} is {' '.join(text.split())[:80]}, whose repr is not code")

    def _problem(self, text: str) -> str:
        if text not in self.problems:
            self.problems.append(text)
        return "..."


def _is_at(thing: Any, module: str, path: str) -> bool:
    found: Any = sys.modules.get(module)
    for step in path.split("."):
        found = getattr(found, step, None)
    return found is thing


def _importable(module: str) -> str:
    """The program that runs is imported by its file's name."""
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return cast(str, spec.name) if spec is not None else Path(getattr(main, "__file__", None) or "__main__").stem


def quoted(value: str | bytes) -> str:
    """As its repr, but in double quotes where that needs no escapes."""
    text = repr(value)
    prefix = "b" if isinstance(value, bytes) else ""
    inner = text[len(prefix) + 1 : -1]
    return text if '"' in inner or "'" in inner else f'{prefix}"{inner}"'


def call_lines(start: str, arguments: Sequence[str], end: str, indent: str) -> list[str]:
    """`start(arguments)end`, on one line if it fits."""
    line = f"{indent}{start}({', '.join(arguments)}){end}"
    if len(line) <= LINE_MAX or not arguments:
        return [line]
    return [f"{indent}{start}(", *(f"{indent}    {each}," for each in arguments), f"{indent}){end}"]
