"""Reads an interface (a Protocol, an ABC, or any class): its members, their parameters and hints, its invariants.

Members are its public methods, properties, attributes that are only annotated, and the operators of OPERATORS. Those of
base classes come first. What has no type hint is found out only when a value for it is needed.
"""

from __future__ import annotations

import inspect
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from riverbus.fuzz.hints import HINT, INVARIANT, Hint

OPERATORS: dict[str, Callable[..., Any]] = {
    "__len__": len,
    "__bool__": bool,
    "__iter__": iter,
    "__reversed__": reversed,
    "__contains__": operator.contains,
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__delitem__": operator.delitem,
}
_NOT_INTERFACES = (object, typing.Protocol, typing.Generic)
_LIBRARY = ("typing", "abc", "_collections_abc", "collections.abc", "contextlib")


class Unusable(ValueError):
    """The interface, or what was said about it, cannot be fuzzed: the text says where and what would help."""


class NoHint:
    """In the place of a type hint that is not there."""


@dataclass(frozen=True)
class Parameter:
    name: str
    hint: object  # NoHint where there is none
    kind: Literal["positional", "either", "keyword", "many"]
    has_default: bool


@dataclass(frozen=True)
class Member:
    name: str
    action: Literal["call", "get", "set"]
    parameters: tuple[Parameter, ...]
    returns: object
    hint: Hint
    is_entered: bool = False  # it returns a context manager, which is entered

    def signature(self) -> str:
        if self.action == "get":
            return self.name
        names = [f"*{each.name}" if each.kind == "many" else each.name for each in self.parameters]
        return f"{self.name} = ..." if self.action == "set" else f"{self.name}({', '.join(names)})"


@dataclass(frozen=True)
class Interface:
    name: str
    members: Mapping[str, Member]  # `name`, or `name=` for what sets a property
    constructor: tuple[Parameter, ...] | None  # None when it has none of its own
    constructor_hint: Hint
    invariants: tuple[Callable[[Any], Any], ...]


def read_interface(interface: Any, more: Mapping[str, Hint]) -> Interface:
    """`interface` may be generic with its arguments given, as Store[int]. Raises Unusable."""
    origin = typing.get_origin(interface) or interface
    if not isinstance(origin, type):
        raise Unusable(f"{interface!r} is not a class")
    variables = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(interface), strict=False))
    members: dict[str, Member] = {}
    invariants: dict[str, Callable[[Any], Any]] = {}
    constructor: tuple[Parameter, ...] | None = None
    constructor_hint = Hint()
    for base in reversed(origin.__mro__):
        if base in _NOT_INTERFACES or base.__module__ in _LIBRARY:
            continue
        for name, value in vars(base).items():
            if getattr(value, INVARIANT, False):
                invariants[name] = value
            elif name == "__init__" and inspect.isfunction(value) and value.__module__ != "typing":
                constructor = parameters_of(value, variables, skip_self=True)
                constructor_hint = getattr(value, HINT, Hint())
            elif not name.startswith("_") or name in OPERATORS:
                members.update(_members(origin, name, value, variables))
        for name in vars(base).get("__annotations__", {}):
            if not name.startswith("_") and name not in members:
                hint = _hints_of(origin, origin.__name__).get(name, NoHint)
                members[name] = Member(name, "get", (), substituted(hint, variables), Hint())
    for key, hint in more.items():
        if key == "__init__":
            constructor_hint = hint.over(constructor_hint)
        elif key not in members:
            raise Unusable(f"{origin.__name__} has no member {key!r}; it has: {', '.join(members) or 'none'}")
        else:
            weaker = members[key]
            members[key] = Member(**{**vars(weaker), "hint": hint.over(weaker.hint)})
    for member in members.values():
        _check(origin.__name__, member)
    kept = {key: member for key, member in members.items() if not member.hint.skip}
    if not kept:
        raise Unusable(f"{origin.__name__} has no public member to call")
    return Interface(origin.__name__, kept, constructor, constructor_hint, tuple(invariants.values()))


def _check(interface: str, member: Member) -> None:
    names = {parameter.name for parameter in member.parameters}
    for name in member.hint.arguments:
        if name not in names:
            raise Unusable(f"{interface}.{member.name} has no parameter {name!r}")


def _members(owner: type, name: str, value: Any, variables: Mapping[Any, object]) -> Iterator[tuple[str, Member]]:
    if isinstance(value, staticmethod | classmethod):
        skip_self = isinstance(value, classmethod)
        yield name, _method(name, value.__func__, variables, skip_self)
    elif isinstance(value, property):
        getter, setter = value.fget, value.fset
        if getter is not None:
            returns = substituted(_hints_of(getter, name).get("return", NoHint), variables)
            yield name, Member(name, "get", (), returns, getattr(getter, HINT, Hint()))
        if setter is not None:
            parameters = parameters_of(setter, variables, skip_self=True)
            yield f"{name}=", Member(name, "set", parameters, None, getattr(setter, HINT, Hint()))
    elif inspect.isfunction(value) and not getattr(value, "__module__", "").startswith(_LIBRARY):
        yield name, _method(name, value, variables, skip_self=True)


def _method(name: str, function: Any, variables: Mapping[Any, object], skip_self: bool) -> Member:
    returns = substituted(_hints_of(function, name).get("return", NoHint), variables)
    origin = typing.get_origin(returns) or returns
    is_entered = origin in (AbstractContextManager, AbstractAsyncContextManager)
    parameters = parameters_of(function, variables, skip_self)
    return Member(name, "call", parameters, returns, getattr(function, HINT, Hint()), is_entered)


def parameters_of(function: Any, variables: Mapping[Any, object], skip_self: bool) -> tuple[Parameter, ...]:
    """Those that values can be given for: not **keywords."""
    name = getattr(function, "__qualname__", repr(function))
    hints = _hints_of(function, name)
    try:
        given = list(inspect.signature(function).parameters.values())[int(skip_self) :]
    except (TypeError, ValueError) as error:
        raise Unusable(f"the parameters of {name} cannot be read: {error}") from error
    kinds: dict[Any, Literal["positional", "either", "keyword", "many"]] = {
        inspect.Parameter.POSITIONAL_ONLY: "positional",
        inspect.Parameter.POSITIONAL_OR_KEYWORD: "either",
        inspect.Parameter.KEYWORD_ONLY: "keyword",
        inspect.Parameter.VAR_POSITIONAL: "many",
    }
    return tuple(
        Parameter(
            each.name,
            _given(substituted(hints.get(each.name, NoHint), variables), each.default),
            kinds[each.kind],
            each.default is not inspect.Parameter.empty,
        )
        for each in given
        if each.kind in kinds
    )


def _given(hint: Any, default: object) -> object:
    """The hint of an argument that is not left out: None, where it is the default, would only be that again."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if default is not None or not is_union:
        return hint
    return typing.Union[tuple(each for each in typing.get_args(hint) if each is not type(None))]  # noqa: UP007


def _hints_of(subject: Any, name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(subject, include_extras=True)
    except (NameError, TypeError) as error:
        raise Unusable(f"the type hints of {name} cannot be resolved: {error}") from error


def substituted(hint: Any, variables: Mapping[Any, object]) -> object:
    """The hint with type variables replaced, at any depth."""
    if not variables:
        return hint
    if isinstance(hint, TypeVar):
        return variables.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if parameters and typing.get_origin(hint) is not None:
        return hint[tuple(variables.get(each, each) for each in parameters)]
    return hint
