"""`riverbus fuzz module:Interface --reference module:Class --test module:Class`: two implementations, compared.

It writes a pytest file that compares them, and with --run compares them at once. Exit code 0: they agree, or the file
was written; 1: they differ, and the test that shows it is printed; 2: it could not be tried. Modules are found from the
current directory. Needs the extra `riverbus[fuzz]`, and no bus.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from riverbus.cli import output

EXAMPLES = 200
CALLS_MAX = 40


def fuzz(
    interface: Annotated[str, typer.Argument(metavar="MODULE:INTERFACE", help="A Protocol, an ABC, or a class.")],
    reference: Annotated[
        str, typer.Option(metavar="MODULE:CLASS", help="Does it right; or a function that makes one.")
    ],
    test: Annotated[str, typer.Option(metavar="MODULE:CLASS", help="To be compared with it.")],
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where the test file goes, if not to the output."),
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Compare at once.")] = False,
    examples: Annotated[int, typer.Option(min=1, help="How many runs.")] = EXAMPLES,
    calls: Annotated[int, typer.Option(min=1, help="Calls in a run, at most.")] = CALLS_MAX,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same calls.")] = 0,
    messages: Annotated[bool, typer.Option("--messages", help="Compare the texts of exceptions too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --run: what was found as one JSON object.")] = False,
) -> None:
    """Compare two implementations of an interface, call by call; write or run the test."""
    try:
        import hypothesis  # noqa: F401 - an optional extra
    except ModuleNotFoundError:
        output.fail("fuzzing needs Hypothesis, which is not installed: pip install 'riverbus[fuzz]'", code=output.USAGE)
    from riverbus.fuzz.contract import make_contract
    from riverbus.fuzz.equivalence import SHRINKS_MAX, disagreement
    from riverbus.fuzz.interface import Unusable
    from riverbus.fuzz.printing import TestFile
    from riverbus.fuzz.search import Search

    sys.path.insert(0, os.getcwd())
    declared, right, other = (_loaded(each) for each in (interface, reference, test))
    try:
        contract = make_contract(declared, right, other, errors="message" if messages else "type")
        search = Search(contract, calls, SHRINKS_MAX)
        file = TestFile(contract)
        file.add_search({"examples": examples, "calls_max": calls, "seed": seed})
        found = search.find(examples, seed) if run else None
    except Unusable as error:
        output.fail(str(error), code=output.USAGE)
    except Exception as error:  # noqa: BLE001 - a generator, a comparison or an invariant of the user's
        traceback.print_exc()
        output.fail(f"the comparison could not go on: {type(error).__name__}: {error}", code=output.USAGE)
    if found is not None:
        file.add_found(found)
    if to is not None:
        _write(to, file.text())
    elif not run:
        output.write_line(file.text().rstrip("\n").encode())
    if not run:
        return
    shown = None if found is None else disagreement(contract, search, found)
    figures = search.figures
    if json:
        counts = {"runs": figures.runs, "calls": figures.calls, "raised": figures.raised}
        difference = None if found is None else str(found.difference)
        output.print_json({**counts, "difference": difference, "test": None if shown is None else shown.source})
    elif shown is None:
        counted = f"{figures.runs} runs, {figures.calls} calls, of which {figures.raised} raised: no difference"
        output.write_line(counted.encode())
    else:
        output.write_line(shown.source.rstrip("\n").encode())
    if shown is not None and found is not None:
        output.fail(f"{test} differs from {reference} after {shown.calls} calls: {found.difference}")


def _loaded(target: str) -> Any:
    """`package.module:Name`, or `:Outer.Inner`. Ends the command when there is none."""
    module, _, path = target.partition(":")
    if not module or not path:
        output.fail(f"{target}: write it as module:Name", code=output.USAGE)
    try:
        found = import_module(module)
    except Exception as error:  # noqa: BLE001 - a user's module may fail by anything, and it is said which one did
        output.fail(f"{target}: the module cannot be imported: {type(error).__name__}: {error}", code=output.USAGE)
    for step in path.split("."):
        if not hasattr(found, step):
            output.fail(f"{target}: there is no {step!r} in {module}", code=output.USAGE)
        found = getattr(found, step)
    return found


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        output.fail(f"--output {path}: {error.strerror}", code=output.USAGE)
