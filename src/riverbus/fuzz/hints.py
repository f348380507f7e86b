"""What a user says about an interface's members beyond their types: `hint` and `invariant`, to decorate or to pass.

    class Store(Protocol):
        @hint(arguments={"id": earlier("put")}, compare=unordered)
        def entries_since(self, id: int) -> list[Entry]: ...

The same object goes into `assert_equivalent(..., hints={"entries_since": hint(...)})`, where the interface is not one's
own; what is said there comes before what the decorator says. Nothing here needs Hypothesis until it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from riverbus.fuzz.comparisons import Comparison, Errors
from riverbus.fuzz.program import Call, Earlier, Path

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Function = TypeVar("Function", bound=Callable[..., Any])
HINT = "__fuzz_hint__"
INVARIANT = "__fuzz_invariant__"


@dataclass(frozen=True)
class Done:
    """A call that was made: what each side returned. No call is done that raised."""

    number: int
    call: Call
    reference: Any
    test: Any


@dataclass
class State:
    """What a stateful generator may look at: the reference, as the model, and the calls made so far."""

    reference: Any
    done: list[Done] = field(default_factory=list)

    def earlier(self, *members: str, path: Path = ()) -> list[Earlier]:
        """Results of the members' earlier calls that are not None, the newest first."""
        found = []
        for done in reversed(self.done):
            if done.call.member in members and done.call.action in ("call", "get"):
                at = Earlier(done.number, path)
                if all(part_of(value, path) is not None for value in (done.reference, done.test)):
                    found.append(at)
        return found


def part_of(value: Any, path: Path) -> Any:
    """None where there is no such part."""
    for step in path:
        try:
            value = value[step] if isinstance(step, int) else getattr(value, step)
        except (LookupError, AttributeError, TypeError):
            return None
    return value


# A strategy, or a function of the state to one, or to None: then the member cannot be called in this state.
Generator = Any
Condition = Callable[[State], bool]


@dataclass(frozen=True)
class Hint:
    """See `hint`. Calling it decorates a function."""

    arguments: Mapping[str, Generator] = field(default_factory=dict)
    compare: Comparison | None = None
    normalise: Callable[[Any], Any] | None = None
    errors: Errors | None = None
    when: Condition | None = None
    weight: int | None = None
    skip: bool | None = None
    limit: int | None = None

    def __call__(self, function: Function) -> Function:
        setattr(function, HINT, self)
        return function

    def over(self, weaker: Hint) -> Hint:
        """What this one leaves open is as `weaker` says."""
        said: dict[str, Any] = {}
        for each in fields(self):
            ours, theirs = getattr(self, each.name), getattr(weaker, each.name)
            said[each.name] = {**theirs, **ours} if each.name == "arguments" else theirs if ours is None else ours
        return Hint(**said)


def hint(
    *,
    arguments: Mapping[str, Generator] | None = None,
    compare: Comparison | None = None,
    normalise: Callable[[Any], Any] | None = None,
    errors: Errors | None = None,
    when: Condition | None = None,
    weight: int | None = None,
    skip: bool | None = None,
    limit: int | None = None,
) -> Hint:
    """About one member of an interface.

    `arguments`: a Hypothesis strategy by parameter, or a function of `State` to one (None: not callable now).
    `compare` and `normalise`: results are equal when compare(normalise(reference's), normalise(test's)).
    `errors`: exceptions are equal by "type" (the default), "message" (type and text), "any", or a function of both.
    `when`: call it only in states for which this is true. `weight`: how often, against 1. `skip`: never.
    `limit`: how many items of an iterator that it returns are compared.
    """
    return Hint(arguments or {}, compare, normalise, errors, when, weight, skip, limit)


def invariant(function: Function) -> Function:
    """Marks a method with a body, in the interface, as what must hold of each implementation after each call.

    It is called with the implementation as `self`. It fails by returning False or by raising.
    """
    setattr(function, INVARIANT, True)
    return function


@dataclass(frozen=True)
class EarlierResult:
    """See `earlier`."""

    members: Sequence[str]
    path: Path
    otherwise: SearchStrategy[Any] | None

    def __call__(self, state: State) -> SearchStrategy[Any] | None:
        from hypothesis import strategies as st

        found = state.earlier(*self.members, path=self.path)
        if not found:
            return self.otherwise
        chosen = st.sampled_from(found)
        return chosen if self.otherwise is None else st.one_of(chosen, self.otherwise)


def earlier(*members: str, path: Path = (), otherwise: SearchStrategy[Any] | None = None) -> EarlierResult:
    """A generator of results that calls of these members returned before: each side is given its own.

    `path` leads to a part of the result, as in ("id",) or (0, "id"). With `otherwise`, a strategy, new values come too.
    """
    return EarlierResult(members, path, otherwise)
