"""Malformed input at each edge, the short form; `make malformed` feeds a million inputs to each. And: it can fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

import pytest

from tests.malformed import driver, raft_edge
from tests.malformed.driver import Edge, Found, MemoryGrows, replay, run
from tests.malformed.edges import EDGES

INPUTS = {"resp": 30_000, "peer": 25_000, "http": 20_000, "raft": 60_000, "entry": 20_000}
SEED = 20_261_121
# What shows that the inputs reach what they are meant to reach.
REACHED = {
    "resp": {"Publish", "XRange", "XRead", "BusSubscribe", "Exec", "Hello", "refused: invalid bulk length"},
    "peer": {"open in DONE: , heard", "open in PROOF: ", "refused: a frame of kind  has no place here", "BulkChunk"},
    "http": {"answered 200, 1", "refused: 400", "refused: 401", "refused: 404", "refused: 405"},
    "raft": {"stepped 3", "stepped 7", "refused: entries that are not contiguous", "refused: term far ahead"},
    "entry": {"entry", "batch", "slice", "refused slice: the end is missing"},
}  # fmt: skip


def test_every_edge_has_its_short_form() -> None:
    assert set(INPUTS) == set(REACHED) == set(EDGES)


@pytest.mark.parametrize("name", EDGES)
def test_malformed_input_is_refused_and_harms_nobody(name: str) -> None:
    figures = run(EDGES[name], INPUTS[name], SEED)
    assert figures.inputs == INPUTS[name]
    assert figures.refused > figures.inputs // 10
    assert REACHED[name] <= set(figures.outcomes), REACHED[name] - set(figures.outcomes)


def test_replicas_that_get_messages_are_in_all_kinds_of_states() -> None:
    roles, kinds = set(), set()
    for state in raft_edge.STATES:
        status = raft_edge.story(state, 0).nodes[raft_edge.HERE].raft.status()
        roles.add(status["role"])
        kinds.add((status["has_pending_snapshot"], status["first"] == 6, status["last"] == status["commit"]))
    assert roles == {0, 1, 2, 3}
    assert len(kinds) >= 4
    assert len(raft_edge.samples()) > 300


# --- the driver finds what it is to find ------------------------------------------------------------------------------


class Planted:
    """Breaks when it has been fed a 7 and later a 9; what it keeps of the rest, it keeps for ever."""

    kept: list[bytes] = []

    def __init__(self, seed: int) -> None:
        self.has_seven = False

    def feed(self, data: bytes) -> str:
        if data == b"\x09" and self.has_seven:
            raise KeyError("planted")
        self.has_seven |= data == b"\x07"
        return "fed"

    def finish(self) -> None: ...


class Slow(Planted):
    def feed(self, data: bytes) -> str:
        while data == b"\x07":
            pass
        return "fed"


class Greedy(Planted):
    def feed(self, data: bytes) -> str:
        self.kept.append(bytes(200_000) + data)
        return "fed"


def bytes_of(random: Random) -> Callable[[], bytes]:
    return lambda: bytes((random.randrange(64),))


def test_an_exception_is_found_made_short_and_can_be_replayed() -> None:
    edge = Edge("planted", Planted, bytes_of, 200)
    with pytest.raises(Found, match="planted") as found:
        run(edge, 10_000, 1)
    assert found.value.inputs == [b"\x07", b"\x09"]
    assert "def test_planted_" in found.value.path.read_text()
    with pytest.raises(KeyError):
        replay(edge, found.value.seed, found.value.inputs)


def test_an_endless_loop_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "EPISODE_CPU_S", 0.1)
    began = time.process_time()
    with pytest.raises(Found, match="Hang") as found:
        run(Edge("slow", Slow, bytes_of, 200), 10_000, 1)
    assert found.value.inputs == [b"\x07"]
    assert time.process_time() - began < 10


def test_memory_that_grows_is_found() -> None:
    with pytest.raises(MemoryGrows):
        run(Edge("greedy", Greedy, bytes_of, 10), 2_000, 1)
    Greedy.kept.clear()
