"""Small interfaces, one for each thing that the fuzzer can do, with right and wrong implementations.

The wrong ones are wrong only in a state that takes several calls to reach, or in one corner of what is returned.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Annotated, Generic, NewType, Protocol, TypeVar

from annotated_types import Ge

from riverbus.fuzz import Approximately, hint, invariant, unordered

Ticket = NewType("Ticket", str)
Item = TypeVar("Item")


class Tickets(Protocol):
    """Ids are each implementation's own: only what it gave itself can be redeemed."""

    @hint(normalise=len)
    def issue(self) -> Ticket: ...
    def redeem(self, ticket: Ticket) -> bool: ...


class CountedTickets:
    prefix = "A"

    def __init__(self) -> None:
        self.open: list[str] = []
        self.count = 0

    def issue(self) -> Ticket:
        self.count += 1
        self.open.append(f"{self.prefix}{self.count}")
        return Ticket(self.open[-1])

    def redeem(self, ticket: Ticket) -> bool:
        if ticket in self.open:
            self.open.remove(ticket)
            return True
        return False


class ReusableTickets(CountedTickets):
    prefix = "B"

    def redeem(self, ticket: Ticket) -> bool:
        return ticket in self.open


class Account(Protocol):
    """A property that can be set, exceptions, keywords and invariants."""

    balance: int

    def pay(self, amount: Annotated[int, Ge(1)], *, twice: bool = False) -> int: ...

    @property
    def floor(self) -> int: ...

    @floor.setter
    def floor(self, value: Annotated[int, Ge(-10)]) -> None: ...

    @invariant
    def balance_is_at_or_above_the_floor(self) -> bool:
        return self.balance >= min(0, self.floor)


class Overdrawn(Exception):
    pass


class StrictAccount:
    def __init__(self) -> None:
        self.balance = 0
        self._floor = 0

    @property
    def floor(self) -> int:
        return self._floor

    @floor.setter
    def floor(self, value: int) -> None:
        self._floor = max(value, self._floor - 5) if value < self._floor else self._floor

    def pay(self, amount: int, *, twice: bool = False) -> int:
        amount *= 2 if twice else 1
        if self.balance - amount < self.floor:
            raise Overdrawn(f"{amount} is too much")
        self.balance -= amount
        return self.balance


class OtherError(StrictAccount):
    def pay(self, amount: int, *, twice: bool = False) -> int:
        try:
            return super().pay(amount, twice=twice)
        except Overdrawn as error:
            raise ValueError(str(error)) from error


class OtherMessage(StrictAccount):
    def pay(self, amount: int, *, twice: bool = False) -> int:
        try:
            return super().pay(amount, twice=twice)
        except Overdrawn as error:
            raise Overdrawn("no") from error


class LaxAccount(StrictAccount):
    def pay(self, amount: int, *, twice: bool = False) -> int:
        self.balance -= amount * (2 if twice else 1)
        return self.balance


class Sums(Protocol):
    """Comparisons: floats that are close, and results in any order."""

    @hint(compare=Approximately(relative=1e-6))
    def mean(self, values: list[Annotated[int, Ge(0)]]) -> dict[str, float]: ...

    @hint(compare=unordered)
    def distinct(self, values: list[int]) -> list[int]: ...

    def echo(self, value: float) -> list[float]: ...


class PlainSums:
    def mean(self, values: list[int]) -> dict[str, float]:
        return {"mean": sum(values) / len(values)} if values else {}

    def distinct(self, values: list[int]) -> list[int]:
        return sorted(set(values))

    def echo(self, value: float) -> list[float]:
        return [value]


class OtherSums(PlainSums):
    """As good, within the comparisons."""

    def mean(self, values: list[int]) -> dict[str, float]:
        return {name: value * (1 + 1e-9) for name, value in super().mean(values).items()}

    def distinct(self, values: list[int]) -> list[int]:
        return super().distinct(values)[::-1]

    def echo(self, value: float) -> list[float]:
        return [float(value + 0.0)]


class WorseSums(OtherSums):
    def mean(self, values: list[int]) -> dict[str, float]:
        return {name: value * 1.001 for name, value in super().mean(values).items()}


class Streams(Protocol):
    """Async members, iterators of both kinds, one that has no end, and contexts that are entered."""

    async def put(self, item: int) -> None: ...
    def each(self) -> Iterator[int]: ...
    def later(self) -> AsyncIterator[int]: ...

    @hint(limit=3)
    def forever(self) -> Iterator[int]: ...

    def held(self, name: str) -> AbstractContextManager[int]: ...


class ListStreams:
    def __init__(self) -> None:
        self.items: list[int] = []
        self.held_by: list[str] = []
        self.is_open = False

    async def __aenter__(self) -> ListStreams:
        self.is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.is_open = False

    async def put(self, item: int) -> None:
        if not self.is_open:
            raise RuntimeError("it was not entered")
        if not self.held_by:
            self.items.append(item)

    def each(self) -> Iterator[int]:
        for item in self.items:
            if item < 0:
                raise ValueError("a negative one")
            yield item

    async def later(self) -> AsyncIterator[int]:
        for item in self.items:
            yield item

    def forever(self) -> Iterator[int]:
        while True:
            yield len(self.items)

    @contextmanager
    def held(self, name: str) -> Iterator[int]:
        self.held_by.append(name)
        yield len(self.held_by)
        self.held_by.pop()


class LeakyStreams(ListStreams):
    """Two contexts, one in the other, are one."""

    @contextmanager
    def held(self, name: str) -> Iterator[int]:
        self.held_by.append(name)
        yield len(self.held_by)
        self.held_by.clear()


class BackwardStreams(ListStreams):
    async def later(self) -> AsyncIterator[int]:
        for item in self.items[::-1]:
            yield item


class Box(Protocol[Item]):
    def swap(self, item: Item) -> Item | None: ...
    def __contains__(self, item: Item) -> bool: ...
    def __len__(self) -> int: ...


class OneBox(Generic[Item]):
    def __init__(self) -> None:
        self.items: list[Item] = []

    def swap(self, item: Item) -> Item | None:
        before = self.items[-1] if self.items else None
        self.items = [item]
        return before

    def __contains__(self, item: Item) -> bool:
        return item in self.items

    def __len__(self) -> int:
        return len(self.items)


class GrowingBox(OneBox[Item]):
    def swap(self, item: Item) -> Item | None:
        before = self.items[-1] if self.items else None
        self.items.append(item)
        return before


class Light(enum.Enum):
    RED = 1
    GREEN = 2


class Lights:
    def light(self) -> Light:
        return Light.RED


class StuckLights(Lights):
    def light(self) -> Light:
        return Light.GREEN


class ExitingLights(Lights):
    def light(self) -> Light:
        sys.exit(0)
