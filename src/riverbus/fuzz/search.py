"""Looks for a program that the two implementations run differently: Hypothesis draws it call by call and shrinks it.

A call is drawn when those before it have run, so that generators see the state. Each step, with its stop flag, is one
span of choices, which is what Hypothesis can delete. As in its own stateful tests, every run leaves some members out
(swarm testing): a `clear()` in every third call would keep all runs shallow. What Hypothesis leaves is then cut once
more (`reduced`): no call, and no two, can be left out of the result. All is decided by the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, cast

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from riverbus.fuzz.contract import Contract
from riverbus.fuzz.derive import Derivation, Strategy, returned_types
from riverbus.fuzz.hints import Hint, State
from riverbus.fuzz.interface import NoHint, Parameter
from riverbus.fuzz.program import Call, Program, earlier_in
from riverbus.fuzz.session import Difference, Session

PAIRS_MAX = 10  # of calls, up to which all pairs of them are tried to leave out
_OMITTED = object()


@dataclass(frozen=True)
class Found:
    program: Program
    difference: Difference

    @property
    def size(self) -> tuple[int, int]:
        return (len(self.program.calls), len(repr(self.program)))


@dataclass
class Figures:
    """What a search did."""

    runs: int = 0
    calls: int = 0
    raised: int = 0  # of the calls, those that raised, on both sides alike: if nearly all do, little was compared
    runs_shrinking: int = 0
    calls_by_member: dict[str, int] = field(default_factory=dict)


class _Differs(Exception):
    """Raised from one place, so that to Hypothesis all differences are one bug, to be made as small as can be."""


Draw = Callable[[Strategy], Any]
_GO_ON = st.integers(0, 29).map(bool)
_BOOLEANS = st.booleans()


@st.composite
def _step(draw: st.DrawFn, search: Search, session: Session, left_out: set[str]) -> Call | None:
    """One span, and one draw as Hypothesis counts them, each of which costs it a quarter of a millisecond."""
    return search.drawn_call(draw, session, left_out)


class Search:
    def __init__(self, contract: Contract, calls_max: int, shrinks_max: int) -> None:
        """Raises Unusable: each parameter's strategy is made, once, before any call."""
        self._contract = contract
        self._calls_max = calls_max
        self._shrinks_max = shrinks_max
        members = contract.interface.members
        self._returned = returned_types({member.name: member.returns for member in members.values()})
        self._keys = [key for key, member in members.items() for _ in range(member.hint.weight or 1)]
        self._constant: dict[tuple[str, str], Strategy] = {}
        for key, member in members.items():
            for parameter in member.parameters:
                self._prepare(key, parameter, member.hint)
        self._constructor = contract.constructor()
        for parameter in self._constructor:
            self._prepare("", parameter, contract.interface.constructor_hint)
        self._best: Found | None = None
        self.figures = Figures()

    def find(self, examples: int, seed: int) -> Found | None:
        """The smallest difference of `examples` runs, or None. Raises what is not an Exception, and Unusable."""

        @hypothesis.seed(seed)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            derandomize=False,
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(st.data())
        def runs(data: st.DataObject) -> None:
            if self._run(data) is not None:
                raise _Differs

        try:
            runs()
        except _Differs:
            pass
        except BaseExceptionGroup:
            if self._best is None:
                raise
        except HypothesisException:
            # Flaky, for Hypothesis: it differs from run to run, or the shrinks were used up. The best one is kept.
            if self._best is None:
                raise
        return None if self._best is None else self.reduced(self._best)

    # --- drawing ------------------------------------------------------------------------------------------------------

    def _prepare(self, key: str, parameter: Parameter, hint: Hint) -> None:
        given = hint.arguments.get(parameter.name)
        if isinstance(given, st.SearchStrategy):
            self._constant[key, parameter.name] = given
        elif given is not None and not callable(given):
            self._constant[key, parameter.name] = st.just(given)
        elif given is None and parameter.kind == "many" and parameter.hint is NoHint:
            self._constant[key, parameter.name] = st.nothing()
        elif given is None:
            derivation = Derivation(self._where(key, parameter), self._returned)
            strategy = derivation.strategy(parameter.hint)
            if not derivation.is_stateful:
                self._constant[key, parameter.name] = strategy

    def _where(self, key: str, parameter: Parameter) -> str:
        return f"{self._contract.interface.name}.{key or '__init__'}, parameter {parameter.name!r}"

    def _strategies(self, key: str, parameters: Sequence[Parameter], state: State) -> dict[str, Strategy] | None:
        """By parameter; None when there is no value for a needed one in this state."""
        interface = self._contract.interface
        hint = interface.members[key].hint if key else interface.constructor_hint
        found: dict[str, Strategy] = {}
        for parameter in parameters:
            strategy = self._constant.get((key, parameter.name))
            if strategy is None:
                given = hint.arguments.get(parameter.name)
                strategy = given(state) if given is not None else self._stateful(key, parameter, state)
            if strategy is not None and not isinstance(strategy, st.SearchStrategy):
                strategy = st.just(strategy)
            if strategy is not None and not strategy.is_empty:
                is_many = parameter.kind == "many"
                found[parameter.name] = st.lists(strategy, max_size=3) if is_many else strategy
            elif not parameter.has_default and parameter.kind != "many":
                return None
        return found

    def _stateful(self, key: str, parameter: Parameter, state: State) -> Strategy:
        def earlier(hint: object) -> Strategy | None:
            results = state.earlier(*self._returned[hint])
            return st.sampled_from(results) if results else None

        return Derivation(self._where(key, parameter), self._returned, earlier).strategy(parameter.hint)

    def _drawn_arguments(
        self, draw: Draw, parameters: Sequence[Parameter], strategies: Mapping[str, Strategy]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        """Positional as long as nothing before was omitted, as a person would write it."""
        positional: list[object] = []
        keywords: dict[str, object] = {}
        is_gap = False
        for parameter in parameters:
            value: object = _OMITTED
            if parameter.name in strategies and not (parameter.has_default and not draw(_BOOLEANS)):
                value = draw(strategies[parameter.name])
            if parameter.kind == "many":
                positional += cast(list[object], value) if value is not _OMITTED and not is_gap else []
            elif value is _OMITTED:
                is_gap = True
            elif parameter.kind == "keyword" or is_gap:
                if parameter.kind != "positional":
                    keywords[parameter.name] = value
            else:
                positional.append(value)
        return tuple(positional), keywords

    def drawn_call(self, draw: Draw, session: Session, left_out: set[str]) -> Call | None:
        """None at the end of the run."""
        if not draw(_GO_ON):
            return None
        choices = [key for key in self._keys if key not in left_out]
        if session.entered:
            choices = ["leave", *choices]
        members = self._contract.interface.members
        known: dict[str, dict[str, Strategy] | None] = {}

        def is_possible(key: str) -> bool:
            if key == "leave":
                return True
            if key not in known:
                when = members[key].hint.when
                is_wanted = when is None or when(session.state)
                known[key] = self._strategies(key, members[key].parameters, session.state) if is_wanted else None
            return known[key] is not None

        if not any(is_possible(key) for key in choices):
            return None
        key = draw(st.sampled_from(choices).filter(is_possible))
        if key == "leave":
            return Call(session.entered[-1], "leave")
        member = members[key]
        strategies = known[key]
        assert strategies is not None
        arguments, keywords = self._drawn_arguments(draw, member.parameters, strategies)
        return Call(member.name, member.action, arguments, keywords)

    # --- running ------------------------------------------------------------------------------------------------------

    def _run(self, data: st.DataObject) -> Found | None:
        figures = self.figures
        if self._best is not None:
            figures.runs_shrinking += 1
            if figures.runs_shrinking > self._shrinks_max:
                return None
        else:
            figures.runs += 1
        keys = list(self._contract.interface.members)
        left_out = set(data.draw(st.lists(st.sampled_from(keys), unique=True, max_size=(len(keys) - 1) // 2)))
        parameters = self._constructor
        strategies = self._strategies("", parameters, State(None)) or {}
        positional, keywords = self._drawn_arguments(data.draw, parameters, strategies)
        names = [parameter.name for parameter in parameters]
        constructor = {**dict(zip(names, positional, strict=False)), **keywords}
        calls: list[Call] = []
        session = Session(self._contract)
        difference = None
        is_done = False
        try:
            difference = session.open(constructor)
            while difference is None and session.is_usable and len(calls) < self._calls_max:
                call = data.draw(_step(self, session, left_out))
                if call is None:
                    break
                calls.append(call)
                difference = session.perform(call)
                self._count(call, is_raised=call.action == "call" and session.result(len(calls) - 1) is None)
            is_done = True
        finally:
            at_end = session.close()
            if is_done:
                difference = difference or at_end
        if difference is None:
            return None
        found = Found(Program(constructor, tuple(calls)), difference)
        # Of those of one size the last: Hypothesis runs its simplest one at the end.
        if self._best is None or found.size <= self._best.size:
            self._best = found
        return found

    def _count(self, call: Call, is_raised: bool) -> None:
        if self._best is None:
            self.figures.calls += 1
            self.figures.raised += is_raised
            counts = self.figures.calls_by_member
            counts[call.key] = counts.get(call.key, 0) + 1

    def replayed(self, program: Program) -> Found | None:
        """The program up to where it differs. None if it does not, or an argument is not there any more."""
        session = Session(self._contract)
        difference = None
        made: list[Call] = []
        try:
            difference = session.open(program.constructor)
            if difference is None and session.is_usable:
                for call in program.calls:
                    needed = earlier_in((call.arguments, dict(call.keywords)))
                    if any(session.result(each.call) is None for each in needed):
                        return None
                    made.append(call)
                    difference = session.perform(call)
                    if difference is not None:
                        break
        finally:
            at_end = session.close()
        difference = difference or at_end
        return None if difference is None else Found(Program(program.constructor, tuple(made)), difference)

    def reduced(self, found: Found) -> Found:
        """Calls are left out, alone and in twos, as long as what is left still differs."""
        is_smaller = True
        while is_smaller:
            is_smaller = False
            count = len(found.program.calls)
            groups: list[tuple[int, ...]] = [(number,) for number in reversed(range(count))]
            if count <= PAIRS_MAX:
                groups += list(combinations(range(count), 2))
            for group in groups:
                shorter = found.program.without(group, self._is_entering)
                if (again := self.replayed(shorter)) is not None and again.size < found.size:
                    found, is_smaller = again, True
                    break
        return found

    def _is_entering(self, call: Call) -> bool:
        member = self._contract.interface.members.get(call.key)
        return call.action == "call" and member is not None and member.is_entered
