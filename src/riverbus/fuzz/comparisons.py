"""When two results count as the same. A comparison is any function of (the reference's, the tested one's) to bool.

`same` is the default: Python's own `==`, but NaN equals NaN, also inside containers and dataclasses, and two objects
without an `__eq__` of their own (handles, cursors; members of an Enum are none) are not compared. `unordered` and
`Approximately` are written into a printed test as they stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from enum import Enum
from math import isclose
from typing import Any, Literal

Comparison = Callable[[Any, Any], bool]
Errors = Literal["type", "message", "any"] | Callable[[Any, Any], bool]  # of two exceptions


def same(reference: Any, test: Any) -> bool:
    return _compare(reference, test, _scalar)


def _scalar(reference: Any, test: Any) -> bool:
    if is_nan(reference) or is_nan(test):
        return is_nan(reference) and is_nan(test)
    if not has_equality(reference) and not has_equality(test):
        if isinstance(reference, BaseException) and isinstance(test, BaseException):
            return type(reference) is type(test) and same(reference.args, test.args)
        return True if reference is not None and test is not None else reference is test
    return bool(reference == test)


def is_nan(value: object) -> bool:
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, float | complex) and value != value


def has_equality(value: object) -> bool:
    """Whether its class says when two of it are equal. A member of an enumeration is equal to itself alone."""
    equality: object = type(value).__eq__
    return equality is not object.__eq__ or isinstance(value, Enum)


def _compare(reference: Any, test: Any, leaf: Comparison) -> bool:
    """Through lists, tuples, dicts and dataclasses, whose kinds must be the same, down to the leaves."""
    for kind in (list, tuple):
        if isinstance(reference, kind) and isinstance(test, kind):
            return len(reference) == len(test) and all(
                _compare(ours, theirs, leaf) for ours, theirs in zip(reference, test, strict=True)
            )
    if isinstance(reference, Mapping) and isinstance(test, Mapping):
        return len(reference) == len(test) and all(
            key in test and _compare(value, test[key], leaf) for key, value in reference.items()
        )
    if is_dataclass(reference) and type(reference) is type(test) and has_equality(reference):
        names = [each.name for each in fields(reference) if each.compare]
        return all(_compare(getattr(reference, name), getattr(test, name), leaf) for name in names)
    return leaf(reference, test)


def unordered(reference: Iterable[Any], test: Iterable[Any]) -> bool:
    """The same items, each as often, in any order. Items need not be hashable."""
    if reference is None or test is None:
        return reference is test
    left = list(test)
    for item in reference:
        for place, other in enumerate(left):
            if same(item, other):
                del left[place]
                break
        else:
            return False
    return not left


@dataclass(frozen=True)
class Approximately:
    """Numbers as `math.isclose` does, at any depth of lists, tuples, dicts and dataclasses; all else as `same`."""

    relative: float = 1e-9
    absolute: float = 0.0

    def __call__(self, reference: Any, test: Any) -> bool:
        return _compare(reference, test, self._leaf)

    def _leaf(self, reference: Any, test: Any) -> bool:
        numbers = (int, float)
        if isinstance(reference, numbers) and isinstance(test, numbers) and not isinstance(reference, bool):
            is_close = isclose(reference, test, rel_tol=self.relative, abs_tol=self.absolute)
            return is_close or (is_nan(reference) and is_nan(test))
        return same(reference, test)


def same_error(errors: Errors, reference: Exception | SystemExit, test: Exception | SystemExit) -> bool:
    if callable(errors):
        return errors(reference, test)
    if errors == "any":
        return True
    return type(reference) is type(test) and (errors == "type" or str(reference) == str(test))
