"""Values follow from type hints; where none do, the error says where and what to give. And each is written as code."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import pathlib
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import msgspec
import pytest
from annotated_types import Ge, Gt, Interval, Len, Lt, MultipleOf, Predicate
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from riverbus.fuzz import Unusable, assert_equivalent, hint, same
from riverbus.fuzz.derive import Derivation, Underivable
from riverbus.fuzz.source import Source

Item = TypeVar("Item")
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Point(NamedTuple):
    x: int
    y: float = 0.0


@dataclass(frozen=True)
class Named(Generic[Item]):
    name: str
    items: tuple[Item, ...]
    size: int = field(init=False, default=0)


@dataclass
class Tree:
    left: Tree | None
    value: Annotated[int, Ge(1)]


@dataclass
class Forest:
    trees: list[Forest]
    named: dict[str, Forest]
    pair: tuple[Forest, ...] = ()


class Options(TypedDict, total=False):
    colour: Colour
    size: int


def is_even(value: int) -> bool:
    return value % 2 == 0


CASES: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "bool": (bool, lambda v: isinstance(v, bool)),
    "optional": (int | None, lambda v: v is None or isinstance(v, int)),
    "literal": (Literal["a", 3], lambda v: v in ("a", 3)),
    "enum": (Colour, lambda v: isinstance(v, Colour)),
    "new type": (UserId, lambda v: isinstance(v, int)),
    "list": (list[bytes], lambda v: all(isinstance(each, bytes) for each in v)),
    "sequence": (Sequence[int], lambda v: isinstance(v, list)),
    "set": (set[str], lambda v: isinstance(v, set)),
    "frozen": (frozenset[Colour], lambda v: isinstance(v, frozenset)),
    "deque": (deque[int], lambda v: isinstance(v, deque)),
    "mapping": (Mapping[str, list[int]], lambda v: all(isinstance(each, list) for each in v.values())),
    "pair": (tuple[int, str], lambda v: len(v) == 2 and isinstance(v[1], str)),
    "tuple": (tuple[int, ...], lambda v: isinstance(v, tuple)),
    "named tuple": (Point, lambda v: isinstance(v, Point) and isinstance(v.y, float)),
    "generic dataclass": (Named[int], lambda v: isinstance(v, Named) and all(isinstance(i, int) for i in v.items)),
    "recursive": (Tree, lambda v: isinstance(v, Tree)),
    "recursive in containers": (Forest, lambda v: isinstance(v, Forest)),
    "typed dict": (Options, lambda v: set(v) <= {"colour", "size"}),
    "interval": (Annotated[int, Interval(gt=2, le=5)], lambda v: 2 < v <= 5),
    "fractional bounds": (Annotated[int, Gt(1.5), Lt(3.5)], lambda v: v in (2, 3)),
    "multiple": (Annotated[int, Ge(1), MultipleOf(7)], lambda v: v >= 7 and v % 7 == 0),
    "float": (Annotated[float, Gt(0), Lt(1)], lambda v: 0 < v < 1),
    "length": (Annotated[str, Len(2, 3)], lambda v: 2 <= len(v) <= 3),
    "bytes": (Annotated[bytes, Len(1)], lambda v: len(v) >= 1),
    "list length": (Annotated[list[int], Len(1, 2)], lambda v: 1 <= len(v) <= 2),
    "predicate": (Annotated[int, Predicate(is_even)], is_even),
    "msgspec": (Annotated[str, msgspec.Meta(pattern="^[ab]+$", max_length=4)], lambda v: set(v.strip()) <= set("ab")),
    "strategy": (Annotated[int, st.just(9)], lambda v: v == 9),
    "date": (datetime.date, lambda v: isinstance(v, datetime.date)),
    "decimal": (Annotated[decimal.Decimal, Ge(2)], lambda v: v >= 2),
    "path": (pathlib.Path, lambda v: isinstance(v, pathlib.Path)),
    "uuid": (uuid.UUID, lambda v: isinstance(v, uuid.UUID)),
    "any": (Any, lambda v: v is None or isinstance(v, int | str)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_of_their_type_and_can_be_written(name: str) -> None:
    kind, is_right = CASES[name]

    @settings(max_examples=25, database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(Derivation("here").strategy(kind))
    def check(value: Any) -> None:
        assert is_right(value)
        source = Source()
        text = source.expression(value, "it")
        assert not source.problems, source.problems
        scope: dict[str, Any] = {}
        exec("\n".join(source.imports()) + f"\nvalue = {text}", scope)  # noqa: S102 - our own text
        assert same(scope["value"], value)
        assert type(scope["value"]) is type(value)

    check()


def test_small_values_meet_each_other() -> None:
    pairs = st.tuples(*[Derivation("here").strategy(str)] * 2)
    assert find(pairs, lambda both: both[0] == both[1] != "", settings=settings(max_examples=200, database=None))


def test_a_type_that_contains_a_list_of_itself_has_full_and_nested_ones_as_often_as_empty_ones() -> None:
    seen: list[Forest] = []

    @settings(max_examples=50, database=None, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(Derivation("here").strategy(Forest))
    def look(value: Forest) -> None:
        seen.append(value)

    look()
    assert sum(len(each.trees) > 1 for each in seen) >= 10
    assert any(inner.trees for each in seen for inner in each.trees)


@pytest.mark.parametrize("kind", [pathlib.Path, pathlib.PurePosixPath])
def test_paths_are_more_than_the_current_directory(kind: type[pathlib.PurePath]) -> None:
    for wanted in (lambda path: path.is_absolute(), lambda path: len(path.parts) == 2, lambda path: ".." in path.parts):
        assert find(Derivation("here").strategy(kind), wanted, settings=settings(max_examples=300, database=None))


class _Handle:
    def __init__(self, number) -> None:  # type: ignore[no-untyped-def]
        self.number = number


@pytest.mark.parametrize("kind", [Callable[[int], int], Iterator[int], TypeVar("Free"), type[int], _Handle])
def test_where_no_values_follow_the_place_and_the_remedy_are_said(kind: Any) -> None:
    with pytest.raises(Underivable, match=r"^Store\.put, parameter 'x': .*: give hint\(arguments="):
        Derivation("Store.put, parameter 'x'").strategy(kind)


def test_a_parameter_without_a_hint_is_named() -> None:
    class Bare(Protocol):
        def put(self, x): ...  # type: ignore[no-untyped-def]

    class Puts:
        def put(self, x: int) -> int:
            return x

    with pytest.raises(Unusable, match=r"Bare\.put, parameter 'x' has no type hint"):
        assert_equivalent(Bare, reference=Puts, test=Puts)
    hints = {"put": hint(arguments={"x": st.integers()})}
    assert assert_equivalent(Bare, reference=Puts, test=Puts, hints=hints, examples=10).calls


def test_constraints_are_never_broken() -> None:
    with pytest.raises(NoSuchExample):
        find(Derivation("here").strategy(Annotated[int, Ge(3)]), lambda v: v < 3, settings=settings(database=None))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("inf"), 'float("inf")'),
        (["a", b'"'], '["a", b\'"\']'),
        ({"k": (1,)}, '{"k": (1,)}'),
        ({3, 1}, "{1, 3}"),
        (Point(1, 2.0), "Point(x=1, y=2.0)"),
        (Colour.BLUE, "Colour.BLUE"),
        (Path("a"), "PosixPath('a')"),
    ],
)
def test_values_are_written_as_a_person_would(value: Any, text: str) -> None:
    assert Source().expression(value, "it") == text
    assert math.isnan(eval(Source().expression(math.nan, "it")))  # noqa: S307 - our own text


def test_what_is_no_code_is_a_problem_in_words() -> None:
    source = Source()
    assert source.expression([object()], "an argument of put") == "[...]"
    assert source.problems[0].startswith("an argument of put is <object object at 0x")
    assert source.problems[0].endswith("whose repr is not code")
