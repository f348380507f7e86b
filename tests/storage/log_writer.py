"""A process that lives by the log as a node does, and notes on the disk what it will write and what is durable.

    python -m tests.storage.log_writer DISK SEED BATCHES

Four groups: two of this node alone, which propose, and two of three nodes, of which this is a follower fed by a made-up
leader: appends, overwritten tails, jumps to a snapshot. All compact, record snapshots in their meta data, and purge.
Files are small, so that the log rotates and rewrites all the time.

Notes, in order with the disk's operations: `plan N {group: state}` before batch N is handed over, with the whole state
of the groups it changes; `done N` once it is reported durable; `start N {...}` at the start, with what was found.
What an entry holds follows from its group, index and term (`data_of`): a reader needs no notes to know it is clean.
Ends by killing itself, with batches on their way; or with code 3 and the error's text when the log refuses to go on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from riverbus._native import Log, LogError, Raft
from tests.native.cluster import make_raft
from tests.native.test_messages import APPEND, HEARTBEAT, SNAPSHOT, entry, message, snapshot

ALONE, FOLLOWING = (1, 2), (3, 4)
GROUPS = ALONE + FOLLOWING
FILE_BYTES = 16 << 10
META_KEYS = (b"snapshot", b"meta", b"other")
CODE_FAILED = 3
BATCHES_IN_FLIGHT_MAX = 3


class State(NamedTuple):
    """What must be found again of a group. `terms` are of the entries from `first` - 1 on."""

    first: int
    term: int
    vote: int
    terms: list[int]
    metas: dict[str, str]


def data_of(group: int, index: int, term: int) -> bytes:
    draw = random.Random(f"{group} {index} {term}")
    return b"%d %d %d " % (group, index, term) + draw.randbytes(draw.choice([0, 10, 200, 700, 3000]))


def metas_of(log: Log, group: int) -> dict[str, str]:
    values = {key.decode(): log.get_meta(group, key) for key in META_KEYS}
    return {key: value.hex() for key, value in values.items() if value is not None}


class Group:
    """One group of the node, and what is known of it."""

    def __init__(self, log: Log, number: int, draw: random.Random) -> None:
        self.log, self.number, self.draw = log, number, draw
        if not Raft.is_bootstrapped(log, number):
            Raft.bootstrap(log, number, [1] if number in ALONE else [1, 2, 3])
        self.applied = log.first_index(number) - 1
        self.raft = make_raft(log, 1, group=number, seed=draw.randrange(1000), applied=self.applied)
        self.term = int(str(self.raft.status()["term"])) + (number in FOLLOWING)

    def state(self) -> State:
        status = self.raft.status()
        first, last = self.log.first_index(self.number), self.log.last_index(self.number)
        terms = [self.raft.term_of(index) or 0 for index in range(first - 1, last + 1)]
        return State(first, int(str(status["term"])), int(str(status["vote"])), terms, metas_of(self.log, self.number))

    def work(self) -> None:
        """What the loop of a node does with a ready, but for sending."""
        while (ready := self.raft.ready()) is not None:
            if ready.snapshot is not None:
                self.applied = ready.snapshot[0]
            if ready.committed:
                self.applied = ready.committed[-1][0]
            self.raft.applied(self.applied)

    def act(self) -> None:
        choice = self.draw.random()
        if choice < 0.6:
            self.propose() if self.number in ALONE else self.follow()
        elif choice < 0.8:
            self.log.put_meta(self.number, b"meta", self.draw.randbytes(self.draw.choice([5, 500])))
        elif choice < 0.85:
            self.log.put_meta(self.number, b"other", None if self.draw.random() < 0.5 else b"other value")
        else:
            # As a node does: the record of its snapshot first, then the log goes up to it, but for a tail.
            applied = int(str(self.raft.status()["applied"]))  # an installed snapshot's index counts once it is durable
            self.log.put_meta(self.number, b"snapshot", b"%d" % applied)
            self.raft.compact(self.draw.randint(min(self.log.first_index(self.number) - 1, applied), applied))
        self.work()

    def propose(self) -> None:
        if self.raft.status()["role"] != 2:
            self.raft.campaign()
            return
        for _ in range(self.draw.randint(1, 4)):
            index = self.log.last_index(self.number) + 1
            term = int(str(self.raft.status()["term"]))
            assert self.raft.propose(data_of(self.number, index, term)) == (index, term)
            self.work()

    def follow(self) -> None:
        status = self.raft.status()
        commit, last = int(str(status["commit"])), int(str(status["last"]))
        choice = self.draw.random()
        if choice < 0.5:
            self._append(last)
        elif choice < 0.65:
            self.term += 1
            self._append(self.draw.randint(commit, last))
        elif choice < 0.95:
            self._hear(type=HEARTBEAT, commit=self.draw.randint(commit, last))
        else:
            index = self.draw.randint(commit + 1, last + 5)
            self._hear(type=SNAPSHOT, snapshot=snapshot(index, self.term, b"\x01\x02\x03"))

    def _append(self, after: int) -> None:
        term = self.raft.term_of(after)
        assert term is not None
        indexes = range(after + 1, after + 1 + self.draw.randint(1, 6))
        entries = [entry(index, self.term, data=data_of(self.number, index, self.term)) for index in indexes]
        self._hear(type=APPEND, index=after, log_term=term, entries=entries)

    def _hear(self, **fields: int | bytes | list[bytes]) -> None:
        self.raft.step(message(**({"term": self.term} | fields)), 2)
        self.work()


class Writer:
    def __init__(self, disk: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self._notes = os.open(disk / ".notes", os.O_WRONLY | os.O_CLOEXEC)
        self.log = Log.open(str(disk / "log"), file_bytes=FILE_BYTES)
        self.groups = [Group(self.log, number, self.draw) for number in GROUPS]
        self.handed = self.done = self.log.completed()
        self._known = {group.number: group.state() for group in self.groups}
        self._note("start", self.done, {} if self.done == 0 else self._known)

    def _note(self, word: str, number: int, states: dict[int, State] | None = None) -> None:
        text = f"{word} {number} {json.dumps(states or {})}".encode()
        assert os.pwrite(self._notes, text, 0) == len(text)  # at 0: the kernel splits what begins within a page

    def batch(self, may_wait: bool = True) -> None:
        """Some groups change, all of it is handed over, and what is durable by now is said."""
        for group in self.draw.choices(self.groups, [4, 2, 4, 1], k=self.draw.randint(1, 4)):
            group.act()
        changed = {}
        for group in self.groups:
            state = group.state()
            if state != self._known.get(group.number) or self.handed == 0:
                changed[group.number] = self._known[group.number] = state
        self._note("plan", self.handed + 1, changed)
        handed = self.log.flush()
        assert handed in (self.handed, self.handed + 1), (handed, self.handed)
        self.handed = handed
        if self.draw.random() < 0.5:
            self.log.purge()
        if may_wait and self.handed - self.done >= self.draw.randint(1, BATCHES_IN_FLIGHT_MAX):
            self.log.sync()
        self.look()

    def look(self) -> None:
        done = self.log.completed()
        if done != self.done:
            self.done = done
            self._note("done", done)
            for group in self.groups:
                group.raft.persisted(done)
                group.work()


def live(disk: Path, seed: int, batches: int) -> str | None:
    """None, or the error's text when the log refuses to go on."""
    try:
        writer = Writer(disk, seed)
        for _ in range(batches):
            writer.batch()
    except LogError as error:
        return str(error)
    return None


def main() -> None:
    failure = live(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    if failure is not None:
        print(failure, file=sys.stderr, flush=True)
        os._exit(CODE_FAILED)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
