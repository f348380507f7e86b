"""Members of a consumer group, simulated: they read, work, acknowledge, die, come back and claim what others left.

A member is a consumer by name. It asks for one thing at a time: new entries (waiting for them, at times), after each
connection its own pending ones first, now and then what others have held for too long (XAUTOCLAIM, or XPENDING and
XCLAIM). It acknowledges what it got, all or some of it, after a while; at times it forgets to, or dies with it.
In the end `Drainer` takes all that is left, so that nothing may be missing. Checked by group_checkers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import hiredis

from riverbus.messages import ID_MIN, MessageId
from riverbus.sim.checkers import Result
from riverbus.sim.clients import command
from riverbus.sim.group_checkers import Entries, GroupEvent, GroupOperation
from riverbus.sim.workload import PATIENCE_S, Client, parse_id, value_of

if TYPE_CHECKING:
    from riverbus.sim.world import World

GROUP = "workers"
_HELD_MAX = 64  # entries that a member works on at once
_DEATH_S = (2.0, 12.0)


class Asking(Client):
    """One question at a time: `ask`, and what `_then` does with the answer. Events are recorded here."""

    def __init__(self, world: World, name: str, stream: str) -> None:
        self.stream = stream
        self.member = name
        self._asked = 0
        self._then: Callable[[object], None] | None = None
        self._event: GroupEvent | None = None
        self._invoked = self._blocks_s = 0.0
        self._verb = b""
        super().__init__(world, name)

    def ask(self, then: Callable[[object], None], *words: bytes, blocks_s: float = 0.0) -> None:
        """Without an answer in time it hangs up, and goes elsewhere."""
        if self.connection is None:
            return
        self._asked += 1
        asked = self._asked
        self._then = then
        self._verb = words[0]
        self._blocks_s = blocks_s
        self._invoked = self.world.clock.now
        self.connection.send(command(*words))

        def lose_patience() -> None:
            if self._asked == asked and self._then is not None:
                self.leave()

        self.world.clock.after(PATIENCE_S + blocks_s, lose_patience)

    def ask_group(
        self,
        operation: GroupOperation,
        then: Callable[[GroupEvent], None],
        *words: bytes,
        entries: Entries = (),
        idle_ms: int = 0,
        blocks_s: float = 0.0,
    ) -> None:
        """A question whose answer is an event. `then` is told of it, also when it was refused."""
        now = self.world.clock.now
        began_ms = self.world.log_ms(self.stream)
        self._event = GroupEvent(
            now, now, self.member, operation, self.stream, GROUP, entries, "info", self.node_id, began_ms, 0, idle_ms
        )
        self.ask(lambda reply: then(self._answered(reply)), *words, blocks_s=blocks_s)

    def on_reply(self, reply: object) -> None:
        then, self._then = self._then, None
        assert then is not None, f"an answer that nobody asked for: {reply!r}"
        now = self.world.clock.now
        self.world.on_answered(self.connection, max(self._invoked, min(now, self._invoked + self._blocks_s)))
        then(reply)

    def on_closed(self) -> None:
        if self._event is not None:
            self._record("info", (), 0)
        self._then = None

    def _answered(self, reply: object) -> GroupEvent:
        assert self._event is not None
        match self._verb, reply:
            case _, hiredis.ReplyError():
                text = str(reply)
                self.world.refused += 1
                return self._record("info" if text.startswith("UNKNOWN") else "fail", (), 0)
            case b"XACK", int():
                return self._record("ok", self._event.entries, reply)
            case b"XREADGROUP", None:
                return self._record("ok", (), 0)
            case b"XREADGROUP", [[bytes(), list(entries)]]:
                return self._record("ok", _entries_of(entries), 0)
            case b"XAUTOCLAIM", [bytes(), list(entries), []]:
                return self._record("ok", _entries_of(entries), 0)
            case b"XCLAIM", list(entries):
                return self._record("ok", _entries_of(entries), 0)
        raise AssertionError(f"a member was answered with {reply!r}")

    def _record(self, result: Result, entries: Entries, counted: int) -> GroupEvent:
        event, self._event = self._event, None
        assert event is not None
        if result == "ok":
            event = event._replace(entries=entries, counted=counted)
        ended_ms = self.world.log_ms(self.stream)
        event = event._replace(done=self.world.clock.now, result=result, ended_ms=ended_ms)
        self.world.record_group(event)
        return event


def _entries_of(reply: list[list[bytes | list[bytes]]]) -> Entries:
    found = []
    for id_, fields in reply:
        assert isinstance(id_, bytes)
        assert isinstance(fields, list), f"nothing is deleted, and {id_!r} is gone"
        found.append((parse_id(id_), value_of(fields[1])))
    return tuple(found)


class Member(Asking):
    """`held`: what it was given and has not acknowledged yet, as far as it knows."""

    def __init__(self, world: World, name: str, stream: str) -> None:
        self._has_group = False
        self._dead_until = 0.0
        self._is_looking_back = True
        self._seen = ID_MIN  # of its own pending ones
        self.held: dict[MessageId, None] = {}
        super().__init__(world, name, stream)
        world.clock.after(self.random.uniform(3.0, 20.0), self._die)

    def connect(self) -> None:
        if (left := self._dead_until - self.world.clock.now) > 0:
            self.world.clock.after(left, self.connect)
        elif not self.is_stopped:
            super().connect()

    def _die(self) -> None:
        """With or without a word, for a while; others claim what it held."""
        if self.is_stopped:
            return
        self._dead_until = self.world.clock.now + self.random.uniform(*_DEATH_S) * self.random.choice((0.0, 1.0))
        if self.connection is not None:
            if self.random.random() < 0.5:
                self.connection.vanish()
            self.leave()
        self.world.clock.after(self.random.uniform(3.0, 20.0), self._die)

    def on_connected(self) -> None:
        self._is_looking_back, self._seen = True, ID_MIN
        self.held.clear()
        if not self._has_group:
            words = (b"XGROUP", b"CREATE", self.stream.encode(), GROUP.encode(), b"0", b"MKSTREAM")
            self.ask(self._on_group, *words)
        else:
            self._go_on()

    def _on_group(self, reply: object) -> None:
        self._has_group = reply == b"OK" or str(reply).startswith("BUSYGROUP")
        self._go_on()

    def _go_on(self, pause_s: tuple[float, float] = (0.0, 0.1)) -> None:
        asked = self._asked
        self.world.clock.after(self.random.uniform(*pause_s), lambda: self._next(asked))

    def _next(self, asked: int) -> None:
        if self.is_stopped or self.connection is None or self._then is not None or self._asked != asked:
            return
        if not self._has_group:
            self.on_connected()
        elif self._is_looking_back:
            self._read(self._seen.to_bytes(), "again")
        elif self.held and self.random.random() < 0.7:
            self._acknowledge()
        elif len(self.held) < _HELD_MAX and self.random.random() < 0.8:
            self._read(b">", "new", self.random.choice((0, 0, 200, 3000)))
        elif self.random.random() < 0.5:
            self._claim_all()
        else:
            words = (b"XPENDING", self.stream.encode(), GROUP.encode(), b"-", b"+", b"20")
            self.ask(self._claim_some, *words)

    # --- what it asks -------------------------------------------------------------------------------------------------

    def _read(self, after: bytes, operation: GroupOperation, block_ms: int = 0) -> None:
        words = [b"XREADGROUP", b"GROUP", GROUP.encode(), self.member.encode()]
        words += [b"COUNT", b"%d" % self.random.choice((1, 5, 20))]
        if block_ms:
            words += [b"BLOCK", b"%d" % block_ms]
        words += [b"STREAMS", self.stream.encode(), after]
        self.ask_group(operation, self._on_given, *words, blocks_s=block_ms / 1000)

    def _on_given(self, event: GroupEvent) -> None:
        if event.result == "ok":
            self.held.update((id_, None) for id_, _ in event.entries)
            self.world.handed_out += len(event.entries)
            if event.operation == "again":
                self._is_looking_back = bool(event.entries)
                self._seen = event.entries[-1][0] if event.entries else ID_MIN
        if self.random.random() < 0.03:
            self.held.clear()  # forgotten: only a claim, or its own next look back, finds them
        self._go_on((0.0, 0.3) if event.result == "ok" else (0.1, 1.0))

    def _acknowledge(self) -> None:
        ids = list(self.held)
        if self.random.random() < 0.4:
            ids = ids[: self.random.randint(1, len(ids))]
        self.acknowledge(ids, self._on_acknowledged)

    def acknowledge(self, ids: list[MessageId], then: Callable[[GroupEvent], None]) -> None:
        words = [b"XACK", self.stream.encode(), GROUP.encode(), *(id_.to_bytes() for id_ in ids)]
        self.ask_group("ack", then, *words, entries=tuple((id_, None) for id_ in ids))

    def _on_acknowledged(self, event: GroupEvent) -> None:
        if event.result == "ok":  # else it asks again: once more is as good
            self.world.group_acked += event.counted
            for id_, _ in event.entries:
                self.held.pop(id_, None)
        self._go_on()

    def _claim_all(self) -> None:
        idle_ms = self.world.swarm.claim_ms
        words = [b"XAUTOCLAIM", self.stream.encode(), GROUP.encode(), self.member.encode()]
        words += [b"%d" % idle_ms, b"0-0", b"COUNT", b"20"]
        self.ask_group("claim", self._on_given, *words, idle_ms=idle_ms)

    def _claim_some(self, reply: object) -> None:
        """Of what XPENDING lists: whatever it says of idleness, XCLAIM decides."""
        listed = reply if isinstance(reply, list) else []
        ids = [id_ for id_, member, *_ in listed if member != self.member.encode() and self.random.random() < 0.5]
        if not ids:
            self._go_on()
            return
        idle_ms = self.world.swarm.claim_ms
        words = [b"XCLAIM", self.stream.encode(), GROUP.encode(), self.member.encode(), b"%d" % idle_ms, *ids]
        self.ask_group("claim", self._on_given, *words, idle_ms=idle_ms)


class Drainer(Member):
    """In peace: reads what is new, claims what is pending, acknowledges all; until nothing of either is left."""

    def __init__(self, world: World, name: str, stream: str) -> None:
        self.is_done = False
        super().__init__(world, name, stream)

    def _die(self) -> None: ...

    def _next(self, asked: int) -> None:
        if self.connection is None or self._then is not None or self._asked != asked or self.is_done:
            return
        key, group, me = self.stream.encode(), GROUP.encode(), self.member.encode()
        if not self._has_group:
            self.on_connected()
        elif self.held:
            self.acknowledge(list(self.held), self._on_acknowledged)
        elif self._is_looking_back:  # new ones first
            read = (b"XREADGROUP", b"GROUP", group, me, b"COUNT", b"500", b"STREAMS", key, b">")
            self.ask_group("new", self._on_taken, *read)
        else:
            claim = (b"XAUTOCLAIM", key, group, me, b"0", b"0-0", b"COUNT", b"500")
            self.ask_group("claim", self._on_taken, *claim)

    def _on_taken(self, event: GroupEvent) -> None:
        if event.result == "ok":
            self.held.update((id_, None) for id_, _ in event.entries)
            self.world.handed_out += len(event.entries)
            if not event.entries:
                self.is_done = event.operation == "claim"
                self._is_looking_back = False
        self._go_on()
