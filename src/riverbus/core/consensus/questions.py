"""Questions to all other nodes about what only they know (their sessions), with a deadline: scatter, gather.

An unreachable node is not waited for; a node that does not answer in time is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from riverbus.core.ports import Links
from riverbus.core.timers import Timer, Timers
from riverbus.peer_messages import Answer, Ask


class _Asked:
    __slots__ = ("answers", "done", "timer", "waiting")

    def __init__(self, done: Callable[[list[bytes]], None], waiting: set[int]) -> None:
        self.done = done
        self.waiting = waiting
        self.answers: list[bytes] = []
        self.timer: Timer | None = None


class Questions:
    def __init__(self, links: Links, timers: Timers) -> None:
        self._links = links
        self._timers = timers
        self._asked: dict[int, _Asked] = {}
        self._last_id = 0

    def ask(self, peers: Iterable[int], question: bytes, deadline: float, done: Callable[[list[bytes]], None]) -> None:
        reachable = [peer for peer in peers if self._links.is_up(peer)]
        if not reachable:
            done([])
            return
        self._last_id += 1
        asked_id = self._last_id
        asked = self._asked[asked_id] = _Asked(done, set(reachable))
        asked.timer = self._timers.schedule(deadline, lambda: self._finish(asked_id))
        for peer in reachable:
            self._links.send(peer, Ask(asked_id, question))

    def on_answer(self, peer: int, answer: Answer) -> None:
        asked = self._asked.get(answer.id)
        if asked is not None and peer in asked.waiting:
            asked.waiting.discard(peer)
            asked.answers.append(answer.answer)
            if not asked.waiting:
                self._finish(answer.id)

    def on_peer_down(self, peer: int) -> None:
        for asked_id, asked in list(self._asked.items()):
            if peer in asked.waiting:
                asked.waiting.discard(peer)
                if not asked.waiting:
                    self._finish(asked_id)

    def _finish(self, asked_id: int) -> None:
        asked = self._asked.pop(asked_id, None)
        if asked is not None:
            if asked.timer is not None:
                asked.timer.cancel()
            asked.done(asked.answers)
