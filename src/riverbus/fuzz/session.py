"""One run: two implementations side by side, each call made on both, its outcomes compared at once.

The reference goes first. Arguments are copied for each side, so that what one does to them the other does not see. What
is awaitable is awaited, in one task a side (so that a task group may be entered in one call and left in another);
iterators become lists, up to a limit; context managers are entered, and left by a `leave` or at the end.

Both search and printed tests run through here, so that a printed test finds what the search found.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import reprlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, ValuesView
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from riverbus.fuzz.comparisons import same_error
from riverbus.fuzz.contract import ITERATOR_LIMIT, Contract
from riverbus.fuzz.hints import Done, State, part_of
from riverbus.fuzz.interface import OPERATORS, Member, Unusable
from riverbus.fuzz.program import Call, Earlier, rebuilt

_ATOMS = (int, float, complex, str, bytes, bool, type(None))
REPR_LENGTH_MAX = 300


class Paired:
    """A result, the reference's and the tested one's. Its attributes and items are pairs of theirs."""

    __slots__ = ("_reference", "_test")

    def __init__(self, reference: Any, test: Any) -> None:
        self._reference = reference
        self._test = test

    def __getattr__(self, name: str) -> Paired:
        return Paired(getattr(self._reference, name), getattr(self._test, name))

    def __getitem__(self, at: Any) -> Paired:
        return Paired(self._reference[at], self._test[at])

    def __repr__(self) -> str:
        return f"Paired(reference={self._reference!r}, test={self._test!r})"

    def of(self, side: Side) -> Any:
        return self._reference if side.is_reference else self._test


@dataclass(frozen=True)
class Difference:
    """Where they disagree. `said` is what each did, for people."""

    what: str
    said: str

    def __str__(self) -> str:
        return f"{self.what}: {self.said}" if self.what else self.said


@dataclass(frozen=True)
class Outcome:
    """What a side did: it returned, or it raised, after `items` if it was an iterator."""

    value: Any = None
    error: Exception | SystemExit | None = None
    items: list[Any] | None = None

    def text(self) -> str:
        if self.error is None:
            return f"returned {shortened(self.value)}"
        after = f" after the items {shortened(self.items)}" if self.items else ""
        return f"raised {shortened(self.error)}{after}"


@dataclass
class Side:
    name: str
    is_reference: bool
    implementation: Any = None
    contexts: list[Any] = field(default_factory=list)  # entered by calls, innermost last
    own_context: Any = None  # the implementation itself, where it is a context manager
    worker: Worker | None = None


class _Itself:
    def __repr__(self) -> str:
        return "itself"


ITSELF = _Itself()  # in the place of a result that is the implementation: `return self`


def shortened(value: object) -> str:
    writer = reprlib.Repr()
    writer.maxstring = writer.maxother = writer.maxlong = 120
    writer.maxlist = writer.maxtuple = writer.maxdict = writer.maxset = 12
    text = value if isinstance(value, str) and value == "itself" else writer.repr(value)
    return " ".join(text.split())[:REPR_LENGTH_MAX]


def _checked(check: Callable[..., Any], implementations: list[Any], _: Side) -> Any:
    return check(*implementations)


class Worker:
    """One task that awaits what it is given, one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: asyncio.Queue[tuple[Awaitable[Any], asyncio.Future[Any]]] = asyncio.Queue()
        self._task = loop.create_task(self._work())

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        future = self._loop.create_future()
        self._queue.put_nowait((awaitable, future))
        return self._loop.run_until_complete(future)

    async def _work(self) -> None:
        while True:
            awaitable, future = await self._queue.get()
            try:
                future.set_result(await awaitable)
            except asyncio.CancelledError:
                future.cancel()
                raise
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where it is waited for
                future.set_exception(error)


class Session:
    """Opened once, then `perform` until it returns a Difference, then closed."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._sides = (Side(contract.reference_name, True), Side(contract.test_name, False))
        self._runner: asyncio.Runner | None = None
        self._results: dict[int, Paired] = {}
        self._count = 0
        self.state = State(None)
        self.is_usable = False  # both constructors raised alike
        self.entered: list[str] = []  # members whose contexts are open, the innermost last

    # --- from the first call to the last ------------------------------------------------------------------------------

    def open(self, arguments: Mapping[str, object]) -> Difference | None:
        """Both built, and entered if they are context managers."""
        makers = {True: self._contract.reference, False: self._contract.test}
        outcomes = [self._outcome(side, lambda side: self._build(side, makers, arguments), 0) for side in self._sides]
        self.is_usable = all(outcome.error is None for outcome in outcomes)
        difference = self._compare_errors("the constructor", outcomes, self._contract.errors)
        if difference is None and self.is_usable:
            self.state.reference = self._sides[0].implementation
            difference = self._broken_invariant()
        return difference

    def perform(self, call: Call) -> Difference | None:
        """Results are in `result` by the number of the call, from 0."""
        number = self._count
        self._count += 1
        if call.action == "leave":
            return self._leave()
        member = self._contract.interface.members[call.key]
        limit = ITERATOR_LIMIT if member.hint.limit is None else member.hint.limit
        outcomes = [self._outcome(side, lambda side: self._make(side, member, call), limit) for side in self._sides]
        if member.is_entered and all(outcome.error is None for outcome in outcomes):
            self.entered.append(member.name)
        difference = self._compare(member, outcomes) or self._broken_invariant()
        if outcomes[0].error is None and outcomes[1].error is None:
            self._results[number] = Paired(outcomes[0].value, outcomes[1].value)
            self.state.done.append(Done(number, call, outcomes[0].value, outcomes[1].value))
        return difference

    def result(self, number: int) -> Paired | None:
        """None after a call that raised, on both sides alike."""
        return self._results.get(number)

    def close(self) -> Difference | None:
        """What was entered is left. Call it whatever happened."""
        difference = None
        try:
            while self.entered and difference is None:
                difference = self._leave()
            outcomes = [self._outcome(side, self._leave_own, 0) for side in self._sides]
            difference = difference or self._compare_errors("leaving it at the end", outcomes, self._contract.errors)
        finally:
            if self._runner is not None:
                self._runner.close()
        return difference

    # --- one side -----------------------------------------------------------------------------------------------------

    def _build(self, side: Side, makers: Mapping[bool, Callable[..., Any]], arguments: Mapping[str, object]) -> Any:
        made = self._awaited(side, makers[side.is_reference](**{k: self._own(side, v) for k, v in arguments.items()}))
        if any(hasattr(type(made), name) for name in ("__enter__", "__aenter__")):
            entered = self._enter(side, made)
            side.own_context = made
            made = entered
        side.implementation = made
        return None

    def _make(self, side: Side, member: Member, call: Call) -> Any:
        arguments = [self._own(side, each) for each in call.arguments]
        keywords = {name: self._own(side, each) for name, each in call.keywords.items()}
        if call.action == "get":
            return getattr(side.implementation, member.name)
        if call.action == "set":
            setattr(side.implementation, member.name, *arguments)
            return None
        operation = OPERATORS.get(member.name)
        if operation is not None:
            return operation(side.implementation, *arguments, **keywords)
        result = getattr(side.implementation, member.name)(*arguments, **keywords)
        if member.is_entered:
            result = self._awaited(side, result)
            entered = self._enter(side, result)
            side.contexts.append(result)
            return entered
        return result

    def _own(self, side: Side, value: object) -> object:
        """An argument as this side gets it."""

        def change(leaf: object) -> object:
            if isinstance(leaf, Earlier):
                paired = self._results.get(leaf.call)
                assert paired is not None, "a call whose result is needed raised"
                return part_of(paired.of(side), leaf.path)
            if isinstance(leaf, Paired):
                return leaf.of(side)
            if isinstance(leaf, _ATOMS):
                return leaf
            try:
                return copy.deepcopy(leaf)
            except (TypeError, ValueError, AttributeError, RecursionError, copy.Error):
                return leaf  # a handle: it has no copy

        return rebuilt(value, change)

    def _outcome(self, side: Side, action: Callable[[Side], Any], limit: int) -> Outcome:
        items: list[Any] | None = None
        try:
            value = self._awaited(side, action(side))
            if isinstance(value, Iterator | AsyncIterator | ValuesView):
                items = []
                self._collect(side, value, items, limit)
                value = items
        except Unusable:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - what they raise is what is compared
            return Outcome(error=error, items=items)
        return Outcome(ITSELF if value is side.implementation and value is not None else value)

    def _collect(self, side: Side, values: Any, items: list[Any], limit: int) -> None:
        """Adds to `items` as they come: those before an exception count."""
        if isinstance(values, AsyncIterator):

            async def collect() -> None:
                while len(items) < limit:
                    try:
                        items.append(await anext(values))
                    except StopAsyncIteration:
                        return
                if inspect.isasyncgen(values):
                    await values.aclose()

            self._awaited(side, collect())
        else:
            items.extend(islice(values, limit))
            if inspect.isgenerator(values):
                values.close()

    def _awaited(self, side: Side, value: Any) -> Any:
        if not inspect.isawaitable(value):
            return value
        if self._runner is None:
            if asyncio._get_running_loop() is not None:
                if inspect.iscoroutine(value):
                    value.close()
                raise Unusable("async members need a loop of their own: compare from a function that is not async")
            self._runner = asyncio.Runner()
        if side.worker is None:
            side.worker = Worker(self._runner.get_loop())
        return side.worker.wait(value)

    def _enter(self, side: Side, context: Any) -> Any:
        if hasattr(type(context), "__aenter__"):
            return self._awaited(side, type(context).__aenter__(context))
        return type(context).__enter__(context)

    def _exit(self, side: Side, context: Any) -> None:
        if hasattr(type(context), "__aexit__"):
            self._awaited(side, type(context).__aexit__(context, None, None, None))
        else:
            type(context).__exit__(context, None, None, None)

    def _leave_own(self, side: Side) -> None:
        if side.own_context is not None:
            self._exit(side, side.own_context)

    def _leave(self) -> Difference | None:
        member = self.entered.pop()
        outcomes = [self._outcome(side, lambda side: self._exit(side, side.contexts.pop()), 0) for side in self._sides]
        difference = self._compare_errors(f"leaving {member}()", outcomes, self._contract.errors)
        return difference or self._broken_invariant()

    # --- comparing ----------------------------------------------------------------------------------------------------

    def _compare(self, member: Member, outcomes: list[Outcome]) -> Difference | None:
        reference, test = outcomes
        what = member.signature() if member.action == "call" else member.name
        if reference.error is not None or test.error is not None:
            return self._compare_errors(what, outcomes, self._contract.errors_of(member))
        values = [outcome.value for outcome in outcomes]
        if member.hint.normalise is not None:
            values = [member.hint.normalise(value) for value in values]
        try:
            is_same = bool(self._contract.comparison_of(member)(*values))
        except (TypeError, ValueError) as error:
            raise Unusable(f"the results of {what} cannot be compared, give compare= or normalise=: {error}") from error
        return None if is_same else self._difference(what, outcomes)

    def _compare_errors(self, what: str, outcomes: list[Outcome], errors: Any) -> Difference | None:
        reference, test = outcomes
        if reference.error is None and test.error is None:
            return None
        if reference.error is None or test.error is None:
            return self._difference(what, outcomes)
        is_same = same_error(errors, reference.error, test.error)
        is_same = is_same and (reference.items or []) == (test.items or [])
        return None if is_same else self._difference(what, outcomes)

    def _difference(self, what: str, outcomes: list[Outcome]) -> Difference:
        said = [f"{side.name} {outcome.text()}" for side, outcome in zip(self._sides, outcomes, strict=True)]
        return Difference(what, "; ".join(said))

    def _broken_invariant(self) -> Difference | None:
        for check, is_of_both in self._contract.checks:
            for sides in [self._sides] if is_of_both else [(side,) for side in self._sides]:
                implementations = [side.implementation for side in sides]
                outcome = self._outcome(sides[0], partial(_checked, check, implementations), 0)
                if outcome.error is not None or outcome.value is False:
                    names = " and ".join(side.name for side in sides)
                    return Difference("", f"{names} broke the invariant {check.__name__}, which {outcome.text()}")
        return None
