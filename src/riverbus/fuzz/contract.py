"""Who is compared with whom, by what interface and what rules: all that a session and a printed test need to know."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from riverbus.fuzz.comparisons import Comparison, Errors, same
from riverbus.fuzz.hints import Hint
from riverbus.fuzz.interface import Interface, Member, Parameter, Unusable, parameters_of, read_interface

ITERATOR_LIMIT = 100


@dataclass(frozen=True)
class Contract:
    interface: Interface
    interface_object: Any
    reference: Callable[..., Any]
    test: Callable[..., Any]
    hints: Mapping[str, Hint]
    compare: Comparison
    errors: Errors
    invariants: tuple[Callable[..., Any], ...]  # those given as arguments
    checks: tuple[tuple[Callable[..., Any], bool], ...]  # all invariants, and whether each takes both implementations
    reference_name: str
    test_name: str

    def comparison_of(self, member: Member) -> Comparison:
        return member.hint.compare or self.compare

    def errors_of(self, member: Member) -> Errors:
        return member.hint.errors or self.errors

    def constructor(self) -> tuple[Parameter, ...]:
        """What both can be built with: the interface's own __init__, else what their constructors have in common."""
        if self.interface.constructor is not None:
            return self.interface.constructor
        reference, test = (_parameters(each) for each in (self.reference, self.test))
        in_test = {parameter.name for parameter in test}
        common = {parameter.name for parameter in reference} & in_test
        for name, parameters in ((self.reference_name, reference), (self.test_name, test)):
            for each in parameters:
                if each.name not in common and not each.has_default:
                    raise Unusable(f"{name} needs the argument {each.name!r}, which the other one does not take")
        return tuple(each for each in reference if each.name in common)


def make_contract(
    interface: Any,
    reference: Callable[..., Any],
    test: Callable[..., Any],
    hints: Mapping[str, Hint] | None = None,
    compare: Comparison | None = None,
    errors: Errors = "type",
    invariants: Sequence[Callable[..., Any]] = (),
) -> Contract:
    """Raises Unusable."""
    for each in (reference, test):
        if not callable(each):
            raise Unusable(f"{each!r} cannot be called: give a class, or a function that makes an implementation")
        if inspect.isabstract(each) or getattr(each, "_is_protocol", False):
            raise Unusable(f"{each.__qualname__} is abstract: give an implementation")
    names = [getattr(each, "__name__", "") for each in (reference, test)]
    if names[0] == names[1] or not all(name.isidentifier() for name in names):
        names = ["reference", "test"]
    found = read_interface(interface, hints or {})
    for made, name in ((reference, names[0]), (test, names[1])):
        if inspect.isclass(made):
            _check_members(made, name, found)
    checks = tuple((check, len(inspect.signature(check).parameters) > 1) for check in (*found.invariants, *invariants))
    return Contract(
        interface=found,
        interface_object=interface,
        reference=reference,
        test=test,
        hints=hints or {},
        compare=compare or same,
        errors=errors,
        invariants=tuple(invariants),
        checks=checks,
        reference_name=names[0],
        test_name=names[1],
    )


def _check_members(implementation: type, name: str, interface: Interface) -> None:
    """Methods that are missing; a mere attribute may come with __init__, an operator by another way."""
    for member in interface.members.values():
        is_method = member.action == "call" and not member.name.startswith("__")
        if is_method and not hasattr(implementation, member.name) and not hasattr(implementation, "__getattr__"):
            raise Unusable(f"{name} has no {member.name}(), which {interface.name} asks for")


def _parameters(made: Callable[..., Any]) -> tuple[Parameter, ...]:
    if inspect.isclass(made):
        own = made.__init__
        return parameters_of(own, {}, skip_self=True) if inspect.isfunction(own) else ()
    found = parameters_of(made, {}, skip_self=False) if inspect.isroutine(made) else ()
    return tuple(each for each in found if each.kind != "many")
