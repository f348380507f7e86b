"""Random lives of a follower's log: appends, conflicts, commits, compactions, snapshots, purges, restarts.

After each restart the log must tell the same as before it; small files keep raft-engine rotating and rewriting, whose
recovery must neither lose nor bring back anything. The messages are those of a made-up leader (node 2).
"""

import random
import shutil
from pathlib import Path

import pytest

from riverbus._native import Log, Raft
from tests.native.cluster import log_content, make_raft, until_purged
from tests.native.test_messages import APPEND, HEARTBEAT, SNAPSHOT, entry, message, snapshot

GROUPS = (1, 2, 3)


class Follower:
    def __init__(self, log: Log, group: int, draw: random.Random, applied: int, term: int) -> None:
        self.log, self.group, self.draw, self.term = log, group, draw, term
        self.applied = applied
        self.raft = make_raft(log, 1, group=group, applied=applied)

    def settle(self) -> None:
        while (ready := self.raft.ready()) is not None:
            if ready.snapshot is not None:
                self.applied = ready.snapshot[0]
            if ready.committed:
                self.applied = ready.committed[-1][0]
            self.raft.applied(self.applied)
        self.log.flush()
        self.raft.persisted(self.log.sync())

    def tell(self, **fields: int | bytes | list[bytes]) -> None:
        self.raft.step(message(**({"term": self.term} | fields)), 2)
        self.settle()

    def append(self, after: int) -> None:
        """Entries behind index `after`, in place of what may be there."""
        term = self.raft.term_of(after)
        assert term is not None
        data = [self.draw.randbytes(self.draw.choice([0, 10, 3000])) for _ in range(self.draw.randint(1, 8))]
        entries = [entry(after + 1 + at, self.term, data=item) for at, item in enumerate(data)]
        self.tell(type=APPEND, index=after, log_term=term, entries=entries)

    def act(self) -> None:
        status = self.raft.status()
        commit, last = int(str(status["commit"])), int(str(status["last"]))
        choice = self.draw.random()
        if choice < 0.5:
            self.append(last)
        elif choice < 0.6:
            self.term += 1
            self.append(self.draw.randint(commit, last))
        elif choice < 0.8:
            self.tell(type=HEARTBEAT, commit=self.draw.randint(commit, last))
        elif choice < 0.9:
            self.raft.compact(self.draw.randint(self.log.first_index(self.group) - 1, self.applied))
        elif choice < 0.93:
            index = self.draw.randint(commit + 1, last + 5)
            self.tell(type=SNAPSHOT, snapshot=snapshot(index, self.term, b"\x01\x02\x03"))
        else:
            self.log.put_meta(self.group, b"meta", self.draw.randbytes(self.draw.choice([5, 500])))


@pytest.mark.parametrize("kind", ["memory", "closed", "killed"])
@pytest.mark.parametrize("seed", range(4))
def test_a_log_tells_the_same_after_every_restart(tmp_path: Path, kind: str, seed: int) -> None:
    live(tmp_path, kind, seed, 400 if kind == "memory" else 150)


def live(path: Path, kind: str, seed: int, steps: int) -> None:
    draw = random.Random(seed)
    generation = 0
    log = Log.in_memory(seed) if kind == "memory" else Log.open(str(path / "log0"), file_bytes=16 << 10)
    for group in GROUPS:
        Raft.bootstrap(log, group, [1, 2, 3])
    log.flush()
    log.sync()
    followers = [Follower(log, group, draw, 5, 6) for group in GROUPS]
    for _ in range(steps):
        draw.choices(followers, [1, 5, 20])[0].act()
        if draw.random() < 0.1:
            log.flush()
            log.purge()
        if draw.random() > 0.06:
            continue
        for follower in followers:
            follower.log.put_meta(follower.group, b"snapshot", b"%d" % follower.applied)
        log.flush()
        log.sync()
        before = log_content(log, GROUPS)
        if kind == "memory":
            log = log.crash(draw.randrange(1000))
        elif kind == "closed":
            log.close()
            log = Log.open(str(path / "log0"), file_bytes=16 << 10)
        else:
            until_purged(log)
            shutil.copytree(path / f"log{generation}", path / f"log{generation + 1}")
            log.close()
            shutil.rmtree(path / f"log{generation}")
            generation += 1
            log = Log.open(str(path / f"log{generation}"), file_bytes=16 << 10)
        assert log_content(log, GROUPS) == before
        followers = [Follower(log, each.group, draw, each.applied, each.term) for each in followers]
    log.close()
