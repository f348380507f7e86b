"""Stories of a cluster, as text: commands, `----`, what came of them. `run` gives the text with what comes of them now.

tests/scenarios has them; after a change of behaviour they are rewritten and read as a diff. Blocks are separated by
blank lines; lines that begin with # are the story's own words; a command that only succeeds says nothing. The commands:

    cluster nodes=3 [shards=1] [window=COUNT] [snapshot_bytes=N] [snapshot_s=S] [seed=N]
    ann @1                   a client connects to node 1; what it saw last is kept from its last connection
    ann: PUBLISH c x         sends, waits for the reply; `last` stands for the last id that this client saw
    ann< PUBLISH c x         sends, does not wait
    ann?                     what has come since
    ann hangs up | vanishes | stops reading | reads on
    crash 1 | start 1 | wipe 1 | pause 1 | resume 1 | flip 1 | clock 1 -3600
    disk 1 well|full|stuck|slow|failing
    cut 1 2 | one-way 1 2 | isolate 1 | heal | loss 0.3 | drop snapshots|nothing
    wait 2 | leaders | nodes

Ids are shown as seconds since the world began. Time passes only while a command waits; a second at least is given to
`leaders`, `wait` takes what it says.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import hiredis

from riverbus._native import CANDIDATE, FOLLOWER, LEADER, PRE_CANDIDATE, Raft
from riverbus.peer_messages import PeerMessage, RaftMessage
from riverbus.sim.clients import SimConnection, command
from riverbus.sim.clock import EPOCH_MS
from riverbus.sim.network import Way
from riverbus.sim.node import SimNode
from riverbus.sim.swarm import Weather, Window
from riverbus.sim.world import Options, World

ANSWER_S = 5.0
LEADERS_S = 15.0
_MSG_SNAPSHOT = 7
_ROLES = {FOLLOWER: "follower", CANDIDATE: "candidate", LEADER: "leader", PRE_CANDIDATE: "candidate"}
_ID = re.compile(r"\b(1\d{12})-(\d+)\b")
_SHOWN_BYTES = 60
_END = "----"


class ScenarioError(Exception):
    """The text is no scenario."""


@dataclass
class Block:
    """`lines` are commands and comments."""

    lines: list[str]
    outcome: list[str]


def parse(text: str) -> list[Block]:
    blocks = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        lines = part.splitlines()
        if _END not in lines:
            raise ScenarioError(f"{_END} is missing after {lines[-1]!r}")
        at = lines.index(_END)
        blocks.append(Block(lines[:at], lines[at + 1 :]))
    return blocks


def render(blocks: list[Block]) -> str:
    return "\n\n".join("\n".join([*block.lines, _END, *block.outcome]) for block in blocks) + "\n"


def run(text: str) -> str:
    """The same story with what comes of it now. Raises ScenarioError."""
    story = Story()
    blocks = parse(text)
    for block in blocks:
        outcome = [line for text in block.lines if text[:1] != "#" for line in story.carry_out(text)]
        block.outcome = outcome or ["ok"]
    story.end()
    return render(blocks)


class _Actor:
    """A client by name. `arrived` is what came and was not shown."""

    def __init__(self) -> None:
        self.connection: SimConnection | None = None
        self.arrived: list[str] = []
        self.last = "0-0"


class Story:
    def __init__(self) -> None:
        self._world: World | None = None
        self._actors: dict[str, _Actor] = {}
        self._random = Random(0)
        self._verbs: dict[str, Callable[[list[str]], list[str]]] = {
            "cluster": self._cluster,
            "crash": self._crash,
            "start": self._start,
            "wipe": self._wipe,
            "pause": self._pause,
            "resume": self._resume,
            "flip": self._flip,
            "clock": self._clock,
            "disk": self._disk,
            "cut": self._cut,
            "one-way": self._one_way,
            "isolate": self._isolate,
            "heal": self._heal,
            "loss": self._loss,
            "drop": self._drop,
            "wait": self._wait,
            "leaders": self._leaders,
            "nodes": self._nodes,
        }

    @property
    def world(self) -> World:
        if self._world is None:
            raise ScenarioError("a scenario begins with `cluster`")
        return self._world

    def carry_out(self, text: str) -> list[str]:
        spoken = re.fullmatch(r"(\w+)([:<]) (.+)", text)
        if spoken:
            return self._say(self._actor(spoken[1]), spoken[3], waits=spoken[2] == ":")
        words = text.split()
        if (verb := self._verbs.get(words[0])) is not None:
            return verb(words[1:])
        if words[0].endswith("?"):
            return self._show(self._actor(words[0][:-1]))
        return self._act(words)

    def end(self) -> None:
        """Whatever the story was about, nothing may be broken."""
        if self.world.observer.violations:
            raise ScenarioError("; ".join(map(str, self.world.observer.violations)))
        for node in self.world.nodes:
            node.walk()

    # --- the cluster ------------------------------------------------------------------------------------------------

    def _cluster(self, words: list[str]) -> list[str]:
        wanted = dict(word.split("=", 1) for word in words)
        window = wanted.get("window")
        changes: dict[str, object] = {
            "nodes": int(wanted.get("nodes", 3)),
            "shards": int(wanted.get("shards", 1)),
            "window": Window(count=None if window is None else int(window)),
            "snapshot_log_bytes": int(wanted.get("snapshot_bytes", 10**9)),
            "snapshot_log_s": float(wanted.get("snapshot_s", 600)),
            "weather": Weather(),
            "drift": 0.0,
            "turn_s": 0.0001,
            "fault_kinds": ("crash",),
        }
        self._world = World(Options(int(wanted.get("seed", 1)), changes=changes))
        self.world.begin()
        self._pass(2.0)
        return self._leaders([])

    def _pass(self, seconds: float, is_done: Callable[[], bool] | None = None) -> bool:
        return self.world.clock.run_until(self.world.clock.now + seconds, is_done)

    def _node(self, word: str) -> SimNode:
        return self.world.nodes[int(word) - 1]

    def _crash(self, words: list[str]) -> list[str]:
        for word in words:
            self._node(word).crash()
        return []

    def _start(self, words: list[str]) -> list[str]:
        for word in words:
            self._node(word).start()
        self._pass(0.5)
        return [
            f"node {word} refuses: {node.lost_because}"
            for word in words
            if (node := self._node(word)).lost_because and not node.is_alive
        ]

    def _wipe(self, words: list[str]) -> list[str]:
        self._node(words[0]).wipe()
        return []

    def _pause(self, words: list[str]) -> list[str]:
        self._node(words[0]).pause()
        return []

    def _resume(self, words: list[str]) -> list[str]:
        self._node(words[0]).resume()
        return []

    def _flip(self, words: list[str]) -> list[str]:
        return [f"damaged: {self._node(words[0]).disk.rot(Random(int(words[1]) if len(words) > 1 else 1))}"]

    def _clock(self, words: list[str]) -> list[str]:
        self._node(words[0]).wall_offset_ms += int(float(words[1]) * 1000)
        return []

    def _disk(self, words: list[str]) -> list[str]:
        disk = self._node(words[0]).disk
        disk.heal()
        match words[1]:
            case "full":
                disk.is_full = True
            case "stuck":
                disk.is_stuck = True
            case "failing":
                disk.is_failing = True
            case "slow":
                disk.sync_s = (0.3, 0.4)
            case "well":
                pass
            case other:
                raise ScenarioError(f"a disk cannot be {other!r}")
        self._pass(0.2)  # a tick: the node looks at its disk
        return []

    def _cut(self, words: list[str]) -> list[str]:
        one, other = int(words[0]), int(words[1])
        self.world.network.cut([(one, other), (other, one)])
        return []

    def _one_way(self, words: list[str]) -> list[str]:
        self.world.network.cut([(int(words[0]), int(words[1]))])
        return []

    def _isolate(self, words: list[str]) -> list[str]:
        for node in self.world.nodes:
            if node.id != int(words[0]):
                self._cut([words[0], str(node.id)])
        return []

    def _heal(self, words: list[str]) -> list[str]:
        self.world.network.heal()
        return []

    def _loss(self, words: list[str]) -> list[str]:
        self.world.network.worsen(replace(Weather(), loss=float(words[0])))
        return []

    def _drop(self, words: list[str]) -> list[str]:
        def is_snapshot(_: Way, message: PeerMessage) -> bool:
            return type(message) is RaftMessage and Raft.peek(message.data)[0] == _MSG_SNAPSHOT

        self.world.network.is_dropped = is_snapshot if words[0] == "snapshots" else None
        return []

    def _wait(self, words: list[str]) -> list[str]:
        self._pass(float(words[0]))
        return []

    # --- what is seen -----------------------------------------------------------------------------------------------

    def _leaders(self, words: list[str]) -> list[str]:
        world = self.world
        self._pass(LEADERS_S, lambda: world.is_led(world.nodes))
        lines = []
        for shard in range(world.swarm.shards):
            leader = world.leader_of(shard, world.nodes)
            if leader is None or leader.engine is None:
                lines.append(f"shard {shard}: no leader")
            else:
                lines.append(
                    f"shard {shard}: node {leader.id} leads in term {leader.engine.shards[shard].replica.term}"
                )
        return lines

    def _nodes(self, words: list[str]) -> list[str]:
        lines = []
        for node in self.world.nodes:
            if node.engine is None:
                why = "waits, refused by the others" if node.is_alive else f"down, {node.lost_because or 'crashed'}"
                lines.append(f"node {node.id}: {why}")
                continue
            state = "paused" if node.is_paused else "up"
            unready = "; ".join(node.engine.unready())
            lines.append(f"node {node.id}: {state}" + (f", not ready: {unready}" if unready else ""))
            for shard in node.engine.shards:
                replica = shard.replica
                status = replica.raft.status()
                lines.append(
                    f"  shard {shard.number}: {_ROLES[replica.role]}, applied {replica.applied_index}, log "
                    f"{status['first']}..{status['last']}, snapshot {shard.keeper.last_index}, "
                    f"installed {shard.install.installed}, {replica.bus.retained_messages} messages"
                )
        return lines

    # --- clients ----------------------------------------------------------------------------------------------------

    def _actor(self, name: str) -> _Actor:
        return self._actors.setdefault(name, _Actor())

    def _act(self, words: list[str]) -> list[str]:
        actor = self._actor(words[0])
        verb = " ".join(words[1:])
        if words[1].startswith("@"):
            return self._connect(actor, words[0], self._node(words[1][1:]))
        connection = actor.connection
        if connection is None:
            raise ScenarioError(f"{words[0]} is not connected")
        match verb:
            case "hangs up":
                connection.hang_up()
                actor.connection = None
            case "vanishes":
                connection.vanish()
                actor.connection = None
            case "stops reading":
                connection.stop_reading()
            case "reads on":
                connection.read_again()
                self._pass(0.3)
            case _:
                raise ScenarioError(f"what does {' '.join(words)!r} mean?")
        self._pass(0.01)
        return []

    def _connect(self, actor: _Actor, name: str, node: SimNode) -> list[str]:
        if node.engine is None:
            return ["refused"]

        def on_closed() -> None:
            actor.arrived.append("(connection closed)")
            actor.connection = None

        def on_reply(reply: object) -> None:
            actor.arrived.append(self._text(actor, reply))

        actor.connection = SimConnection(self.world.clock, self._random, node, name, on_reply, on_closed)
        return []

    def _say(self, actor: _Actor, text: str, waits: bool) -> list[str]:
        if actor.connection is None:
            return ["(not connected)"]
        began, had = self.world.clock.now, len(actor.arrived)
        for one in text.split(";"):
            words = [actor.last if word == "last" else _expanded(word) for word in shlex.split(one)]
            actor.connection.send(command(*[word.encode() for word in words]))
        if not waits:
            return []
        expected = had + text.count(";") + 1
        if not self._pass(ANSWER_S, lambda: len(actor.arrived) >= expected):
            return [*self._show(actor), f"(no answer in {ANSWER_S:g} s)"]
        waited = self.world.clock.now - began
        self._pass(0.02)
        return [*self._show(actor), *([f"(after {waited:.1f} s)"] if waited >= 0.1 else [])]

    def _show(self, actor: _Actor) -> list[str]:
        self._pass(0.05)
        arrived, actor.arrived = actor.arrived, []
        return arrived or ["(nothing)"]

    def _text(self, actor: _Actor, reply: object) -> str:
        for id_ in _ID.findall(_plain(reply)):
            if tuple(map(int, id_)) > tuple(map(int, actor.last.split("-"))):
                actor.last = "-".join(id_)
        return _ID.sub(lambda match: f"{(int(match[1]) - EPOCH_MS) / 1000:.3f}-{match[2]}", _plain(reply))


def _expanded(word: str) -> str:
    """`x*1000` is a thousand x."""
    repeated = re.fullmatch(r"(\w)\*(\d+)", word)
    return repeated[1] * int(repeated[2]) if repeated else word


def _plain(reply: object) -> str:
    match reply:
        case None:
            return "(nil)"
        case bytes():
            text = reply.decode(errors="backslashreplace")
            return text if len(text) <= _SHOWN_BYTES else f"{text[:8]}... ({len(text)} bytes)"
        case hiredis.ReplyError():
            return f"(error) {reply}"
        case int():
            return f"(integer) {reply}"
        case list() | tuple():
            return "[" + ", ".join(map(_plain, reply)) + "]"
        case dict():
            return "{" + ", ".join(f"{_plain(key)}: {_plain(value)}" for key, value in reply.items()) + "}"
    return str(reply)
