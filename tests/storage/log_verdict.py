"""What a log promised, read from a trace's notes, and whether an image of its disk keeps it (C14).

After a power cut the log must open at a batch no earlier than the last that was reported durable, and hold exactly what
it held after that batch: each group's first and last index, every term, term and vote, meta records, and every byte of
every entry. Opening may also be refused, with LogDamaged: then nothing is served. Anything else is `Lost`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from riverbus._native import LEADER, Log, LogDamaged, Raft
from tests.native.cluster import make_raft
from tests.native.test_messages import HEARTBEAT, message
from tests.storage.disk_model import Op
from tests.storage.log_writer import ALONE, FILE_BYTES, State, data_of, metas_of


class Lost(AssertionError):
    """Something that was reported durable is gone, or is not what it was."""


@dataclass
class Promise:
    """What must be found, and what may be: the states after batch `done` and after each later one that was planned."""

    done: int = 0
    states: dict[int, State] = field(default_factory=dict)
    planned: dict[int, dict[int, State]] = field(default_factory=dict)

    def read(self, ops: Iterable[Op]) -> None:
        """Takes in the notes of a trace, or of its next part."""
        for op in ops:
            if op[0] != "note":
                continue
            assert isinstance(op[1], bytes)
            word, number, text = op[1].decode().split(" ", 2)
            states = {int(group): State(*fields) for group, fields in json.loads(text).items()}
            if word == "plan":
                self.planned[int(number)] = states
            elif word == "done":
                self.advance(int(number))
            elif states:
                self.done, self.states, self.planned = int(number), states, {}

    def advance(self, number: int) -> None:
        for batch in [batch for batch in sorted(self.planned) if batch <= number]:
            self.states = self.states | self.planned.pop(batch)
        self.done = number

    def at(self, number: int) -> dict[int, State]:
        """The states after batch `number`. Raises Lost if no such batch was ever on its way."""
        if number < self.done or (number > self.done and number not in self.planned):
            raise Lost(f"the log ends at batch {number}; {self.done} was reported durable")
        states = self.states
        for batch in sorted(self.planned):
            if batch <= number:
                states = states | self.planned[batch]
        return states


def judge(path: Path, promise: Promise, file_bytes: int = FILE_BYTES) -> str | None:
    """Opens the log in `path`, which changes it. None if all is there, else why it was refused. Raises Lost."""
    try:
        log = Log.open(str(path), file_bytes=file_bytes)
        try:
            found = log.completed()
            expected = promise.at(found)
            if set(log.groups()) - {0} != set(expected):
                raise Lost(f"groups {log.groups()} after batch {found}, where {sorted(expected)} were")
            for group, state in expected.items():
                _compare(log, group, state)
        finally:
            log.close()
    except LogDamaged as error:
        return str(error)
    return None


def _compare(log: Log, group: int, expected: State) -> None:
    first, last = log.first_index(group), log.last_index(group)
    raft = make_raft(log, 1, group=group, applied=first - 1)
    status = raft.status()
    terms = [raft.term_of(index) or 0 for index in range(first - 1, last + 1)]
    found = State(first, int(str(status["term"])), int(str(status["vote"])), terms, metas_of(log, group))
    if found != expected:
        raise Lost(f"group {group}: {found}, where {expected} was")
    _read_entries(log, group, raft, found)


def _read_entries(log: Log, group: int, raft: Raft, state: State) -> None:
    """Commits all that is there, to read it; what comes out must be what was put in."""
    last = state.first + len(state.terms) - 2
    if group in ALONE:
        raft.campaign()
    else:
        raft.step(message(type=HEARTBEAT, term=state.term, commit=last), 2)
    entries = {}
    while True:
        while (ready := raft.ready()) is not None:
            for index, term, _, data in ready.committed:
                entries[index] = (term, data)
                raft.applied(index)
        if last < state.first or last in entries:
            break
        log.flush()
        raft.persisted(log.sync())
    previous = state.terms[0]
    for at, term in enumerate(state.terms[1:]):
        index = state.first + at
        is_election = group in ALONE and term != previous
        wanted = b"" if is_election else data_of(group, index, term)
        if entries.get(index) != (term, wanted):
            raise Lost(f"group {group}: entry {index} of term {term} is {entries.get(index)!r}, not {wanted!r}")
        previous = term
    assert group not in ALONE or raft.status()["role"] == LEADER
