"""What one run does, as data: the constructor's arguments and a list of calls. It can be replayed, cut, and printed.

An argument that is the result of an earlier call stands as `Earlier`, not as a value: each side gets its own, so that
two implementations whose ids differ can be compared, and the printed test says `get(put_1)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

Action = Literal["call", "get", "set", "leave"]
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Earlier:
    """What call number `call` (from 0) returned, or a part of it: attributes by name, items by index."""

    call: int
    path: Path = ()


@dataclass(frozen=True)
class Call:
    """`leave` ends the innermost context that an earlier call entered; its member is that call's."""

    member: str
    action: Action = "call"
    arguments: tuple[object, ...] = ()
    keywords: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Of the member in `Interface.members`."""
        return f"{self.member}=" if self.action == "set" else self.member


@dataclass(frozen=True)
class Program:
    constructor: Mapping[str, object]
    calls: tuple[Call, ...]

    def without(self, removed: Sequence[int], entering: Callable[[Call], bool]) -> Program:
        """Less these calls, those that need their results, and what would leave a context that is not entered."""
        gone = set(removed)
        for number, call in enumerate(self.calls):
            if any(earlier.call in gone for earlier in earlier_in((call.arguments, dict(call.keywords)))):
                gone.add(number)
        depth = 0
        for number, call in enumerate(self.calls):
            if number not in gone and call.action == "leave":
                if not depth:
                    gone.add(number)
                depth = max(0, depth - 1)
            elif number not in gone and entering(call):
                depth += 1
        places = {old: new for new, old in enumerate(n for n in range(len(self.calls)) if n not in gone)}

        def renumber(value: object) -> object:
            return Earlier(places[value.call], value.path) if isinstance(value, Earlier) else value

        kept = []
        for number, call in enumerate(self.calls):
            if number in places:
                arguments = cast(tuple[object, ...], rebuilt(call.arguments, renumber))
                keywords = cast(dict[str, object], rebuilt(dict(call.keywords), renumber))
                kept.append(replace(call, arguments=arguments, keywords=keywords))
        return Program(self.constructor, tuple(kept))


def earlier_in(value: object) -> Iterator[Earlier]:
    found: list[Earlier] = []

    def note(leaf: object) -> object:
        if isinstance(leaf, Earlier):
            found.append(leaf)
        return leaf

    rebuilt(value, note)
    return iter(found)


def rebuilt(value: object, change: Callable[[object], object]) -> object:
    """A copy of nested lists, tuples, sets and dicts, each leaf changed."""
    kind = type(value)
    if kind is list:
        return [rebuilt(each, change) for each in cast(list[object], value)]
    if kind is tuple:
        return tuple(rebuilt(each, change) for each in cast(tuple[object, ...], value))
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(rebuilt(each, change) for each in value)
    if kind is set or kind is frozenset:
        members = [rebuilt(each, change) for each in cast(set[object], value)]
        return set(members) if kind is set else frozenset(members)
    if kind is dict:
        items = cast(dict[object, object], value).items()
        return {rebuilt(key, change): rebuilt(each, change) for key, each in items}
    return change(value)
