"""The tests that are written: the shortest program that differs, and the test that searches for one.

A found test is a `with pair(...)` and one line a call; the last one's comment says what each side did. Before it is
handed out it is run, as the file that it is; one that does not fail so is marked, in its text and in its figures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from textwrap import wrap
from typing import Any

from riverbus.fuzz.comparisons import same
from riverbus.fuzz.contract import Contract
from riverbus.fuzz.hints import Hint
from riverbus.fuzz.pairing import Disagreement
from riverbus.fuzz.program import Call, Program, earlier_in
from riverbus.fuzz.search import Found
from riverbus.fuzz.source import LINE_MAX, Source, call_lines

_COMPARING = ("compare", "normalise", "errors", "limit")  # of a hint: all that a replay needs


class TestFile:
    """Functions, one after the other, that share their imports."""

    __test__ = False  # pytest: it is not one

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._functions: list[str] = []
        self._title = ""
        self._source = Source()

    @property
    def is_runnable(self) -> bool:
        return not self._source.problems

    @property
    def is_of_script(self) -> bool:
        return self._source.is_of_script

    def text(self, warning: str = "") -> str:
        notes = [line for each in self._source.problems for line in _comment(f"NOT RUNNABLE AS IT IS: {each}.", "")]
        notes += _comment(warning, "")
        imports = self._source.imports()
        parts = [f'"""{self._title}"""', *(["\n".join(notes)] if notes else []), "\n".join(imports)]
        return "\n\n".join(parts) + "\n\n\n" + "\n\n\n".join(self._functions) + "\n"

    # --- what was found -----------------------------------------------------------------------------------------------

    def add_found(self, found: Found) -> None:
        contract = self._contract
        reference, test = contract.reference_name, contract.test_name
        self._title = self._title or f"{test} and {reference} differ: the shortest calls that show it."
        lines = [f"def test_{_snake(test)}_differs_from_{_snake(reference)}() -> None:"]
        arguments = self._subjects(is_search=False)
        if found.program.constructor:
            given = self._source.expression(dict(found.program.constructor), "an argument of the constructor")
            arguments.append(f"arguments={given}")
        pair = self._source.import_name("riverbus.fuzz", "pair")
        lines += call_lines(f"with {pair}", arguments, " as both:", "    ")
        self._functions.append("\n".join(lines + self._body(found)))

    def _body(self, found: Found) -> list[str]:
        program = found.program
        names = _names_of_results(program)
        lines: list[str] = []
        depth = 2
        told = str(found.difference)
        for number, call in enumerate(program.calls):
            indent = "    " * depth
            is_last = number == len(program.calls) - 1
            if call.action == "leave":
                depth -= 1
                if lines[-1].endswith(":") and not lines[-1].lstrip().startswith("#"):
                    lines.append(f"{indent}pass")
                if is_last:
                    lines += _comment(told, "    " * depth)
                continue
            text = self._call(call, names)
            member = self._contract.interface.members[call.key]
            if member.is_entered and not is_last:
                text = f"with {text}" + (f" as {names[number]}:" if number in names else ":")
                depth += 1
            elif number in names:
                text = f"{names[number]} = {text}"
            if is_last:
                line = f"{indent}{text}  # {found.difference.said}"
                lines += [line] if len(line) <= LINE_MAX else [*_comment(found.difference.said, indent), indent + text]
            else:
                lines.append(indent + text)
        if lines and lines[-1].startswith("    " * (depth - 1) + "with"):
            lines.append("    " * depth + "pass")
        return lines or [*_comment(told, "    " * depth), "    " * depth + "pass"]

    def _call(self, call: Call, names: Mapping[int, str]) -> str:
        what = f"an argument of {call.member}"
        given = [self._source.expression(each, what, names) for each in call.arguments]
        given += [f"{name}={self._source.expression(each, what, names)}" for name, each in call.keywords.items()]
        if call.action == "get":
            return f"both.{call.member}"
        if call.action == "set":
            return f"both.{call.member} = {given[0]}"
        return f"both.{call.member}({', '.join(given)})"

    # --- what searches ------------------------------------------------------------------------------------------------

    def add_search(self, options: Mapping[str, int]) -> None:
        contract = self._contract
        reference, test = contract.reference_name, contract.test_name
        self._title = f"{test} does what {reference} does, whatever is called of {contract.interface.name}."
        arguments = self._subjects(is_search=True) + [f"{name}={value}" for name, value in options.items()]
        call = self._source.import_name("riverbus.fuzz", "assert_equivalent")
        members = [member.signature() for member in contract.interface.members.values()]
        lines = [f"def test_{_snake(test)}_does_what_{_snake(reference)}_does() -> None:", "    # Calls, in any order:"]
        lines += [f"    #   {member}" for member in members]
        self._functions.append("\n".join([*lines, *call_lines(call, arguments, "", "    ")]))

    def _subjects(self, is_search: bool) -> list[str]:
        """The arguments that `pair` and `assert_equivalent` share."""
        contract, source = self._contract, self._source
        interface = contract.interface_object
        name = source.name(interface, "the interface") if isinstance(interface, type) else self._generic(interface)
        arguments = [name]
        for role in ("reference", "test"):
            arguments.append(f"{role}={source.name(getattr(contract, role), role)}")
        hints = [f'"{key}": {text}' for key, hint in contract.hints.items() if (text := self._hint(hint, is_search))]
        if hints:
            arguments.append("hints={" + ", ".join(hints) + "}")
        if contract.compare is not same:
            arguments.append(f"compare={source.expression(contract.compare, 'compare')}")
        if contract.errors != "type":
            arguments.append(f"errors={source.expression(contract.errors, 'errors')}")
        if contract.invariants:
            each = [source.expression(check, "an invariant") for check in contract.invariants]
            arguments.append(f"invariants=[{', '.join(each)}]")
        return arguments

    def _generic(self, interface: Any) -> str:
        origin = self._source.name(interface.__origin__, "the interface")
        return f"{origin}[{', '.join(self._source.name(each, 'its argument') for each in interface.__args__)}]"

    def _hint(self, hint: Hint, is_search: bool) -> str:
        empty = Hint()
        wanted = [each.name for each in fields(Hint) if is_search or each.name in _COMPARING]
        said = [
            f"{name}={self._source.expression(getattr(hint, name), f'the {name} of a hint')}"
            for name in wanted
            if getattr(hint, name) != getattr(empty, name)
        ]
        return f"{self._source.import_name('riverbus.fuzz', 'hint')}({', '.join(said)})" if said else ""


def _comment(text: str, indent: str) -> list[str]:
    return wrap(text, LINE_MAX, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _names_of_results(program: Program) -> dict[int, str]:
    """Those that are used later: put_1, put_2, in order."""
    used = {each.call for call in program.calls for each in earlier_in((call.arguments, dict(call.keywords)))}
    names: dict[int, str] = {}
    counts: dict[str, int] = {}
    for number in sorted(used):
        member = program.calls[number].member.strip("_")
        counts[member] = counts.get(member, 0) + 1
        names[number] = f"{member}_{counts[member]}"
    return names


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def why_not_reproduced(text: str) -> str:
    """Runs the file by itself. "" when it fails by a disagreement, as it should."""
    scope: dict[str, Any] = {"__name__": "riverbus_fuzz_found"}
    try:
        exec(compile(text, "<found by riverbus.fuzz>", "exec"), scope)  # noqa: S102 - it is our own text
        for name, function in list(scope.items()):
            if name.startswith("test_"):
                function()
    except Disagreement:
        return ""
    except Exception as error:  # noqa: BLE001 - whatever keeps it from running is told
        return f"NOT RUNNABLE AS IT IS: run by itself, it ended with {type(error).__name__}: {error}"
    return "NOT REPRODUCED: run as a file of its own, this does not differ."
