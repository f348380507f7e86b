"""Strategies from type hints. Small values first, since two calls that never meet the same key find nothing.

Hypothesis' own `from_type` is asked for what is not in the tables here (dates, decimals, paths, classes with annotated
constructors). A type for which there is no strategy is `Underivable`, which says where it stands and what to give.
Where a type is in `earlier` (a NewType or a class that members of the interface return), results of earlier calls are
drawn as well as new values; inside dataclasses, which check their fields, new values only.
"""

from __future__ import annotations

import collections
import collections.abc as abc
import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil, floor
from pathlib import PurePath
from typing import Any, Literal, NewType, TypeVar, Union, cast

from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from riverbus.fuzz.interface import NoHint, Unusable, substituted

Strategy = st.SearchStrategy[Any]
SIZE_MAX = 6
INT_SMALL = 7
TEXT_MAX = 20
RECURSION_MAX = 2  # levels of a recursive type below the outermost one

_LISTS = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable, abc.Reversible)
_SETS = {set: set, abc.MutableSet: set, frozenset: frozenset, abc.Set: frozenset}
_DICTS = (dict, abc.Mapping, abc.MutableMapping, collections.OrderedDict)
_NEVER = (abc.Callable, abc.Iterator, abc.Generator, abc.Awaitable, abc.Coroutine, abc.AsyncIterator, type)
_LOWEST = ("ge", "gt")
_LENGTHS = ("min_length", "max_length")
_BOUNDS = (*_LOWEST, "le", "lt", "multiple_of", *_LENGTHS, "pattern")


class Underivable(Unusable):
    """No strategy follows from the type hint."""


class Derivation:
    """`earlier` gives the strategy for results of earlier calls of a type, or None. `is_stateful` once it was asked."""

    def __init__(self, where: str, returned: abc.Container[object] = (), earlier: Earlier | None = None) -> None:
        self._where = where
        self._returned = returned
        self._earlier = earlier
        self._resolving: list[object] = []
        self.is_stateful = False

    def strategy(self, hint: Any) -> Strategy:
        """Raises Underivable."""
        if hint is NoHint:
            raise Underivable(f"{self._where} has no type hint: annotate it, or give hint(arguments={{...}}) for it")
        plain = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        if _is_in(plain, self._returned) and not self._resolving:
            return self._new_or_earlier(hint, plain)
        return self._new(hint)

    def _new_or_earlier(self, hint: Any, plain: Any) -> Strategy:
        self.is_stateful = True
        found = self._earlier(plain) if self._earlier is not None else None
        try:
            new = self._new(hint)
        except Underivable:
            return st.nothing() if found is None else found
        return new if found is None else st.one_of(found, new)

    def _new(self, hint: Any) -> Strategy:
        if isinstance(hint, NewType):
            return self.strategy(hint.__supertype__)
        if type(hint).__name__ == "TypeAliasType":  # since Python 3.12
            return self.strategy(hint.__value__)
        if isinstance(hint, TypeVar):
            raise self._underivable(hint, "a type variable: give its argument, as in Interface[int]")
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            with self._new_only():
                return self._annotated(arguments[0], arguments[1:])
        if origin is Union or isinstance(hint, types.UnionType):
            # None first: it is what a failing call shrinks to.
            ordered = sorted(arguments, key=lambda each: each is not type(None))
            return st.one_of([self.strategy(each) for each in ordered])
        if origin is Literal:
            return st.sampled_from(arguments)
        if hint in (None, type(None)):
            return st.none()
        if hint in (Any, object):
            return st.one_of(st.none(), integers(), texts())
        if _is_in(hint, _SIMPLE):
            return _SIMPLE[hint]()
        kind = origin or hint
        if _is_in(kind, _NEVER):
            raise self._underivable(hint, "no value of it can be printed")
        if isinstance(kind, type):
            return self._class(kind, arguments, hint)
        return self._by_hypothesis(hint)

    def _depth(self) -> int:
        """How often a recursive type is inside itself here. What is deeper is smaller, so that it ends."""
        return max((self._resolving.count(kind) - 1 for kind in self._resolving if kind is not None), default=0)

    @contextmanager
    def _new_only(self, kind: object = None) -> Iterator[None]:
        """What is inside cannot be the result of a call."""
        self._resolving.append(kind)
        try:
            yield
        finally:
            self._resolving.pop()

    def _class(self, kind: type, arguments: tuple[Any, ...], hint: Any) -> Strategy:
        if kind is tuple:
            return self._tuple(arguments)
        if _is_in(kind, _LISTS) or _is_in(kind, _SETS) or _is_in(kind, _DICTS) or kind is collections.deque:
            return self._container(kind, arguments, {})
        if issubclass(kind, enum.Enum) and not issubclass(kind, enum.Flag):
            return st.sampled_from(list(kind))
        if issubclass(kind, PurePath):  # of which Hypothesis knows but one value, the current directory
            return paths().map(lambda parts: kind(*parts))
        if self._resolving.count(kind) > RECURSION_MAX:
            # A recursive type ends here: containers of it are empty, an Optional is None. Hypothesis' own knot, a
            # deferred strategy, makes so much of a list of itself that nearly all but the empty ones is thrown away.
            return st.nothing()
        with self._new_only(kind):
            return self._with_fields(kind, arguments, hint)

    def _with_fields(self, kind: type, arguments: tuple[Any, ...], hint: Any) -> Strategy:
        variables = dict(zip(getattr(kind, "__parameters__", ()), arguments, strict=False))
        if dataclasses.is_dataclass(kind):
            names = [each.name for each in dataclasses.fields(kind) if each.init]
        elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
            names = list(kind._fields)
        elif typing.is_typeddict(kind):
            hints = self._hints(kind)
            keys = cast(Any, kind)
            required = {name: self.strategy(hints[name]) for name in sorted(keys.__required_keys__)}
            optional = {name: self.strategy(hints[name]) for name in sorted(keys.__optional_keys__)}
            return st.fixed_dictionaries(required, optional=optional)
        else:
            return self._by_hypothesis(hint)
        hints = self._hints(kind)
        given = {name: self.strategy(substituted(hints.get(name, NoHint), variables)) for name in names}
        return st.builds(kind, **given)

    def _hints(self, kind: type) -> dict[str, Any]:
        try:
            found = typing.get_type_hints(kind, include_extras=True)
        except NameError as error:
            raise self._underivable(kind, str(error)) from error
        unwrapped = {}
        for name, hint in found.items():
            is_marked = typing.get_origin(hint) in (typing.Required, typing.NotRequired)
            unwrapped[name] = typing.get_args(hint)[0] if is_marked else hint
        return unwrapped

    def _tuple(self, arguments: tuple[Any, ...]) -> Strategy:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return self._container(list, arguments[:1], {}).map(tuple)
        if not arguments:
            return st.just(())
        return st.tuples(*(self.strategy(each) for each in arguments))

    def _container(self, kind: Any, arguments: tuple[Any, ...], bounds: Mapping[str, Any]) -> Strategy:
        least = bounds.get("min_length") or 0
        most = bounds.get("max_length")
        more = SIZE_MAX // (1 + 2 * self._depth())
        sizes: Any = {"min_size": least, "max_size": least + more if most is None else min(most, least + more)}
        parts = [self.strategy(each) for each in arguments]
        if not parts:
            parts = [self.strategy(Any)] * 2
        if any(each.is_empty for each in parts):  # where a recursive type ends
            if least:
                return st.nothing()
            sizes["max_size"] = 0
        if _is_in(kind, _DICTS):
            return st.dictionaries(parts[0], parts[1], **sizes)
        if _is_in(kind, _SETS):
            return st.lists(parts[0], unique=True, **sizes).map(_SETS[kind])
        found: Strategy = st.lists(parts[0], **sizes)
        return found.map(collections.deque) if kind is collections.deque else found

    def _annotated(self, inner: Any, metadata: Iterable[Any]) -> Strategy:
        """Constraints are read by their names, so that annotated_types', msgspec's and pydantic's all do."""
        flat = list(_flattened(metadata))
        for each in flat:
            if isinstance(each, st.SearchStrategy):
                return each
        bounds: dict[str, Any] = {}
        for each in flat:
            for name in _BOUNDS:
                if (value := getattr(each, name, None)) is not None and not callable(value):
                    bounds[name] = value
        found = self._bounded(inner, bounds)
        for each in flat:
            test = getattr(each, "func", None)
            if callable(test):
                found = found.filter(test)
        return found

    def _bounded(self, inner: Any, bounds: Mapping[str, Any]) -> Strategy:
        if not bounds:
            return self.strategy(inner)
        kind = typing.get_origin(inner) or inner
        if inner is int:
            return bounded_integers(bounds)
        if inner is float:
            return _bounded_floats(bounds)
        if inner in (str, bytes):
            return _bounded_text(inner, bounds)
        if _is_in(kind, _LISTS) or _is_in(kind, _SETS) or _is_in(kind, _DICTS):
            return self._container(kind, typing.get_args(inner), bounds)
        return self.strategy(inner).filter(lambda value: _is_within(value, bounds))

    def _by_hypothesis(self, hint: Any) -> Strategy:
        try:
            found: Strategy = st.from_type(hint)
            found.validate()
        except (HypothesisException, TypeError, NameError, ValueError) as error:
            raise self._underivable(hint, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
        return found

    def _underivable(self, hint: object, why: str) -> Underivable:
        name = hint.__qualname__ if isinstance(hint, type) else str(hint)
        return Underivable(
            f"{self._where}: no values follow from the type {name} ({why}): give hint(arguments={{...}}) for it"
        )


Earlier = Callable[[object], Strategy | None]


# --- simple types -----------------------------------------------------------------------------------------------------


def integers() -> Strategy:
    return st.one_of(st.integers(0, INT_SMALL), st.integers(-3, 100), st.integers())


def texts() -> Strategy:
    return st.one_of(st.sampled_from(["", "a", "b", "ab"]), st.text(max_size=TEXT_MAX))


def bytestrings() -> Strategy:
    return st.one_of(st.sampled_from([b"", b"a", b"b", b"ab"]), st.binary(max_size=TEXT_MAX))


def paths() -> Strategy:
    """Their parts. An absolute one makes those before it void, as it does where paths are joined."""
    return st.lists(st.sampled_from(["a", "b", "a.b", "..", " ", "\u00e9", "/", "/a"]), max_size=3)


def floats() -> Strategy:
    return st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.5]), st.floats())


_SIMPLE: dict[Any, Callable[[], Strategy]] = {
    bool: st.booleans,
    int: integers,
    float: floats,
    str: texts,
    bytes: bytestrings,
    typing.LiteralString: texts,
}


def bounded_integers(bounds: Mapping[str, Any]) -> Strategy:
    lowest = highest = None
    if (bound := bounds.get("ge")) is not None:
        lowest = ceil(bound)
    if (bound := bounds.get("gt")) is not None:
        lowest = max(floor(bound) + 1, floor(bound) + 1 if lowest is None else lowest)
    if (bound := bounds.get("le")) is not None:
        highest = floor(bound)
    if (bound := bounds.get("lt")) is not None:
        highest = min(ceil(bound) - 1, ceil(bound) - 1 if highest is None else highest)
    step = bounds.get("multiple_of")
    if step is not None:
        lowest = None if lowest is None else -(-lowest // step)
        highest = None if highest is None else highest // step
    everything = st.integers(lowest, highest)
    near = 0 if lowest is None else lowest
    if highest is not None and near + INT_SMALL > highest:
        found: Strategy = everything
    else:
        found = st.one_of(st.integers(near, near + INT_SMALL), everything)
    return found if step is None else found.map(lambda value: value * step)


def _bounded_floats(bounds: Mapping[str, Any]) -> Strategy:
    lowest, highest = (
        max((bounds[each] for each in ("ge", "gt") if each in bounds), default=None),
        min((bounds[each] for each in ("le", "lt") if each in bounds), default=None),
    )
    found: Strategy = st.floats(
        min_value=None if lowest is None else float(lowest),
        max_value=None if highest is None else float(highest),
        allow_nan=not {"ge", "gt", "le", "lt"} & bounds.keys(),
    )
    return found.filter(lambda value: _is_within(value, bounds))


def _bounded_text(kind: type, bounds: Mapping[str, Any]) -> Strategy:
    if "pattern" in bounds and kind is str:
        return st.from_regex(bounds["pattern"]).filter(lambda value: _is_within(value, bounds))
    least, most = bounds.get("min_length") or 0, bounds.get("max_length")
    most = least + TEXT_MAX if most is None else min(most, least + TEXT_MAX)
    full: Strategy = st.text(max_size=most, min_size=least) if kind is str else st.binary(max_size=most, min_size=least)
    few: Strategy = (
        st.text("ab", max_size=min(most, least + 2), min_size=least)
        if kind is str
        else st.lists(st.sampled_from(b"ab"), max_size=min(most, least + 2), min_size=least).map(bytes)
    )
    return st.one_of(few, full)


def _is_within(value: Any, bounds: Mapping[str, Any]) -> bool:
    checks: dict[str, Callable[[Any], bool]] = {
        "ge": lambda bound: value >= bound,
        "gt": lambda bound: value > bound,
        "le": lambda bound: value <= bound,
        "lt": lambda bound: value < bound,
        "multiple_of": lambda bound: value % bound == 0,
        "min_length": lambda bound: len(value) >= bound,
        "max_length": lambda bound: len(value) <= bound,
    }
    try:
        return all(checks[name](bound) for name, bound in bounds.items() if name in checks)
    except ArithmeticError:  # a Decimal that is not a number
        return False


def _flattened(metadata: Iterable[Any]) -> Iterable[Any]:
    for each in metadata:
        inner = getattr(each, "metadata", None)  # pydantic's Field
        if isinstance(inner, Sequence):
            yield from _flattened(inner)
        yield each


def _is_in(hint: object, container: Any) -> bool:
    """Some hints cannot be hashed (Annotated of a list)."""
    try:
        return hint in container
    except TypeError:
        return False


def returned_types(returns: Mapping[str, object]) -> dict[object, list[str]]:
    """NewTypes and classes that members return, to the members that return them (also as `X | None`)."""
    found: dict[object, list[str]] = {}
    for member, hint in returns.items():
        parts = typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is Union else ()
        for each in parts or (hint,):
            is_class = isinstance(each, type) and typing.get_origin(each) is None
            if isinstance(each, NewType) or (is_class and _is_handle(cast(type, each))):
                found.setdefault(each, []).append(member)
    return found


def _is_handle(kind: type) -> bool:
    is_plain = kind.__module__ in ("builtins", "types", "typing", "riverbus.fuzz.interface")
    return not is_plain and not issubclass(kind, enum.Enum) and kind not in (abc.Iterator, abc.Iterable)
