"""`pair`: both implementations as one object, for tests that are written by hand, or printed by the search.

    with pair(Store, reference=ListStore, test=FastStore, arguments={"limit": 2}) as both:
        put_1 = both.put(b"a")
        both.entries_since(put_1)

Each call is made on both, and raises Disagreement where they differ. An exception that both raise is a result like any
other. Async members are called like all others. This needs no Hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from riverbus.fuzz.comparisons import Comparison, Errors
from riverbus.fuzz.contract import make_contract
from riverbus.fuzz.hints import Hint
from riverbus.fuzz.program import Call
from riverbus.fuzz.session import Difference, Paired, Session


class Disagreement(AssertionError):
    """The two implementations differ. From a search, `source` is the test that shows it, of `calls` calls.

    `is_runnable`: the test was run, by itself, and failed as it should.
    """

    def __init__(self, text: str, source: str = "", calls: int = 0, is_runnable: bool = False) -> None:
        super().__init__(text)
        self.source = source
        self.calls = calls
        self.is_runnable = is_runnable


def raise_difference(difference: Difference | None) -> None:
    if difference is not None:
        raise Disagreement(str(difference))


class Both:
    """Has the members of the interface, and nothing else of its own that could be in their way."""

    def __init__(self, session: Session, members: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_members", members)
        object.__setattr__(self, "_count", 0)

    def __getattr__(self, name: str) -> Any:
        members = object.__getattribute__(self, "_members")
        if name not in members:
            raise AttributeError(f"the interface has no {name!r}")
        member = members[name]
        if member.action == "get":
            return _perform(self, Call(name, "get"))

        def call(*arguments: object, **keywords: object) -> Any:
            result = _perform(self, Call(name, "call", arguments, keywords))
            return Entered(self, name, result) if member.is_entered else result

        return call

    def __setattr__(self, name: str, value: object) -> None:
        _perform(self, Call(name, "set", (value,)))


class Entered:
    """What a member that returns a context manager gives: it has been entered by then."""

    def __init__(self, both: Both, member: str, result: Paired | None) -> None:
        self._both = both
        self._member = member
        self._result = result

    def __enter__(self) -> Paired | None:
        return self._result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and self._result is not None:
            _perform(self._both, Call(self._member, "leave"))


def _perform(both: Both, call: Call) -> Paired | None:
    __tracebackhide__ = True
    session: Session = object.__getattribute__(both, "_session")
    number = object.__getattribute__(both, "_count")
    object.__setattr__(both, "_count", number + 1)
    raise_difference(session.perform(call))
    return session.result(number)


@contextmanager
def pair(
    interface: Any,
    *,
    reference: Callable[..., Any],
    test: Callable[..., Any],
    arguments: Mapping[str, object] | None = None,
    hints: Mapping[str, Hint] | None = None,
    compare: Comparison | None = None,
    errors: Errors = "type",
    invariants: Sequence[Callable[..., Any]] = (),
) -> Iterator[Any]:
    """Both built with `arguments`, then as in the header; the rest is as for `assert_equivalent`."""
    contract = make_contract(interface, reference, test, hints, compare, errors, invariants)
    session = Session(contract)
    is_at_end = False
    try:
        raise_difference(session.open(arguments or {}))
        yield Both(session, contract.interface.members)
        is_at_end = True
    finally:
        difference = session.close()
        if is_at_end:
            raise_difference(difference)
