"""`assert_equivalent`: search, print, raise. And `equivalence_test`, the same as a function that pytest collects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from riverbus.fuzz.comparisons import Comparison, Errors
from riverbus.fuzz.contract import Contract, make_contract
from riverbus.fuzz.hints import Hint
from riverbus.fuzz.pairing import Disagreement
from riverbus.fuzz.printing import TestFile, why_not_reproduced
from riverbus.fuzz.search import Figures, Found, Search

EXAMPLES = 200
CALLS_MAX = 40
SHRINKS_MAX = 2000


def assert_equivalent(
    interface: Any,
    *,
    reference: Callable[..., Any],
    test: Callable[..., Any],
    hints: Mapping[str, Hint] | None = None,
    compare: Comparison | None = None,
    errors: Errors = "type",
    invariants: Sequence[Callable[..., Any]] = (),
    examples: int = EXAMPLES,
    calls_max: int = CALLS_MAX,
    shrinks_max: int = SHRINKS_MAX,
    seed: int = 0,
) -> Figures:
    """That `test` does what `reference` does, whatever is called of the interface, in any order.

    `reference` and `test` are classes, or functions that make an implementation (a context manager is entered; what
    they make may be awaited). `hints` are by member, and "__init__" for the constructor's arguments. `compare` and
    `errors` are for all members without their own. `invariants` get an implementation after each call, or, those of two
    parameters, the reference and the tested one; they fail by False or by raising.

    `examples` runs of up to `calls_max` calls are made; the same seed makes the same ones. A difference is made smaller
    in at most `shrinks_max` runs. Raises Disagreement, whose text is a runnable test; Unusable when the interface gives
    no values to call with.
    """
    __tracebackhide__ = True
    contract = make_contract(interface, reference, test, hints, compare, errors, invariants)
    search = Search(contract, calls_max, shrinks_max)
    found = search.find(examples, seed)
    if found is not None:
        raise disagreement(contract, search, found)
    return search.figures


def disagreement(contract: Contract, search: Search, found: Found) -> Disagreement:
    """With the test printed, and tried."""
    file = TestFile(contract)
    file.add_found(found)
    warning = ""
    is_runnable = False
    if file.is_of_script:
        warning = "Not tried: it imports the program that found it. Keep it beside that file."
    elif search.replayed(found.program) is None:
        warning = "NOT REPRODUCED: the same calls did not differ again. Something beyond these calls decides."
    elif file.is_runnable:
        warning = why_not_reproduced(file.text())
        is_runnable = not warning
    source = file.text(warning)
    text = f"{found.difference}\n\n{source}"
    return Disagreement(text, source, len(found.program.calls), is_runnable)


def equivalence_test(
    interface: Any, *, reference: Callable[..., Any], test: Callable[..., Any], **options: Any
) -> Callable[[], None]:
    """`test_store = equivalence_test(Store, reference=ListStore, test=FastStore)` is a test. Options as above.

    A test that needs fixtures calls `assert_equivalent` itself.
    """

    def test_equivalence() -> None:
        __tracebackhide__ = True
        assert_equivalent(interface, reference=reference, test=test, **options)

    test_equivalence.__doc__ = f"{contract_name(test)} does what {contract_name(reference)} does."
    return test_equivalence


def contract_name(made: Callable[..., Any]) -> str:
    return getattr(made, "__name__", repr(made))
