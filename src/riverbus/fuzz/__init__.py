"""The interface fuzzer: two implementations of one interface, compared call by call, until a short test shows a bug.

    from riverbus.fuzz import assert_equivalent
    assert_equivalent(Store, reference=ListStore, test=FastStore)

See docs/fuzzing.md. It needs nothing of a running bus. Searching needs the extra `riverbus[fuzz]` (Hypothesis); the
hints on an interface, and the tests that a search printed, do not. The names below are loaded at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riverbus.fuzz.comparisons import Approximately, same, unordered
    from riverbus.fuzz.equivalence import assert_equivalent, equivalence_test
    from riverbus.fuzz.hints import Hint, State, earlier, hint, invariant
    from riverbus.fuzz.interface import Unusable
    from riverbus.fuzz.pairing import Disagreement, pair
    from riverbus.fuzz.program import Earlier

__all__ = [
    "Approximately",
    "Disagreement",
    "Earlier",
    "Hint",
    "State",
    "Unusable",
    "assert_equivalent",
    "earlier",
    "equivalence_test",
    "hint",
    "invariant",
    "pair",
    "same",
    "unordered",
]

_HOMES = {
    "comparisons": ("Approximately", "same", "unordered"),
    "equivalence": ("assert_equivalent", "equivalence_test"),
    "hints": ("Hint", "State", "earlier", "hint", "invariant"),
    "interface": ("Unusable",),
    "pairing": ("Disagreement", "pair"),
    "program": ("Earlier",),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            try:
                return getattr(import_module(f"riverbus.fuzz.{home}"), name)
            except ModuleNotFoundError as error:
                if error.name != "hypothesis":
                    raise
                message = "searching needs Hypothesis, which is not installed: pip install 'riverbus[fuzz]'"
                raise ImportError(message, name="hypothesis") from error
    raise AttributeError(f"module 'riverbus.fuzz' has no attribute {name!r}")
