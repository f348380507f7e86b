"""One node, but for its sockets, its clock and its disk: everything between a command and its reply.

The two worlds run this class: `runtime/node.py` with real sockets and the real log, `sim/` with simulated ones. Both do
the same: give it inputs (`on_tick`, `on_messages`, `on_log`, and commands through `sessions`), each after `begin_turn`;
and call `end_turn` when a turn's inputs are in. `touch` is called by the engine when it wants a turn that no input
would bring. At the end of a turn, in this order: publishes go to their leaders, the shards led here propose what
gathered, every replica advances, the other nodes are told, the log is flushed once, and what was applied is delivered.

It is one file because it is one seam: what the world gives, what replicas tell (Host), what sessions ask (Backend).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from riverbus import limits
from riverbus._native import BadMessage, Log, Raft
from riverbus.commands import Command
from riverbus.core.access.acl_state import AclState
from riverbus.core.clients.fanout import Fanout
from riverbus.core.clients.fleeting import Fleeting
from riverbus.core.clients.sessions import Sessions
from riverbus.core.consensus.questions import Questions
from riverbus.core.consensus.replica import Replica
from riverbus.core.consensus.rounds import Rounds
from riverbus.core.consensus.router import fault_of
from riverbus.core.consensus.shard import Settings, Shard, open_shard
from riverbus.core.consensus.upkeep import Upkeep
from riverbus.core.ports import Access, Done, Links, Published, PublishedEarly, Snapshots, Written
from riverbus.core.slots import ShardMap
from riverbus.core.state.bus import Applied, Bus, RunResult, WriteResult
from riverbus.core.state.entries import DamagedEntry
from riverbus.core.state.rule_book import RuleBook
from riverbus.core.state.rules import ChannelRule
from riverbus.core.status import status_of, unready_reasons
from riverbus.core.timers import Timer, Timers
from riverbus.messages import BusError, DiskFull, NotAccepted
from riverbus.peer_messages import (
    Answer,
    Ask,
    Forward,
    Health,
    Held,
    PeerMessage,
    Proposed,
    RaftMessage,
    Recall,
    Recalled,
    Received,
    Rejected,
    Relay,
    SnapshotStatus,
)

_MSG_SNAPSHOT = 7  # eraftpb.MessageType


class Engine:
    """The pure part of a node. See the module for who calls what."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        links: Links,
        snapshots: Snapshots,
        access: Access,
        touch: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.links = links
        self.log = log
        self.now = 0.0
        self._wall_ms = 0
        self._access = access
        self._touch = touch
        self._seq = 0
        self.flushed_batch = 0
        self.completed_batch = 0
        self.is_disk_full = False
        self.bad_messages = 0
        self.last_bad_message: str | None = None
        self._map = ShardMap(settings.shards)
        self.timers = Timers()
        self._rounds = Rounds(self.timers, touch)
        self.questions = Questions(links, self.timers)
        self.peers = tuple(voter for voter in settings.voters if voter != settings.node)
        self.sessions = Sessions(self)
        self.fanout: Fanout = self.sessions.fanout
        for number in range(settings.shards):
            if not Raft.is_bootstrapped(log, number):
                Raft.bootstrap(log, number, list(settings.voters))
        self.flushed_batch = log.flush()
        log.sync()
        self.completed_batch = log.completed()
        self.shards: list[Shard] = [
            open_shard(number, settings, log, links, snapshots, self, self._next_seq)
            for number in range(settings.shards)
        ]
        self.fleeting = Fleeting(links, self.peers, self.sessions)
        self.rules = RuleBook()
        for shard in self.shards:
            self.rules.look(shard.number, shard.replica.bus)
            shard.watch_memory(log, links, self, self.peers, self.fanout.receivers)
        self.upkeep = Upkeep(self)
        self._dirty: set[int] = set()  # shards that the end of this turn has something to do for

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    # --- inputs -----------------------------------------------------------------------------------------------------

    def begin_turn(self, now: float, wall_ms: int) -> None:
        """Before a turn's first input: the time, monotonic seconds and Unix milliseconds."""
        self.now = now
        self._wall_ms = wall_ms

    def on_tick(self) -> None:
        """A tenth of a second has passed. After a stall call it once: lost ticks are not made up for."""
        for shard in self.shards:
            if shard.comeback.is_under_way:
                shard.comeback.on_tick()
                shard.replica.advance()
            elif shard.replica.raft.tick():
                shard.replica.advance()
            if shard.route.pending_bytes:
                shard.route.expire(self.now)
            shard.barriers.on_tick(self.now)
            shard.keeper.on_tick(self.now, self.flushed_batch, self.completed_batch)
            if shard.has_slices or shard.replica.has_submitted:
                self.mark(shard.number)
        self.upkeep.on_tick()
        self._touch()

    def on_timers(self) -> None:
        self.timers.fire(self.now)

    def on_log(self) -> None:
        """The log's eventfd is readable: batches are on disk. Raises LogError when the disk failed for good."""
        completed = self.log.completed()
        if completed == self.completed_batch:
            return
        before, self.completed_batch = self.completed_batch, completed
        for shard in self.shards:
            if shard.replica.awaits_batch > before:
                shard.replica.persisted(completed)
                shard.replica.advance()
        self.links.flush()  # a leader waits for what is said of this
        self._touch()

    def on_messages(self, peer: int, messages: Sequence[PeerMessage]) -> None:
        """Messages of one peer, in order. One that breaks the protocol is as good as lost: counted, and no more."""
        touched: set[int] = set()
        for message in messages:
            try:
                if type(message) is RaftMessage:
                    number, data = message
                    shard = self._shard(number)
                    kind = Raft.peek(data)[0]
                    if kind == _MSG_SNAPSHOT:
                        shard.install.on_raft_snapshot(peer, data)
                        touched.add(number)
                    elif shard.comeback.is_under_way and not shard.comeback.admits(kind):
                        continue
                    elif shard.replica.raft.step(data, peer):
                        touched.add(number)
                else:
                    self._on_message(peer, message)
            except (BadMessage, DamagedEntry) as error:
                self.bad_messages += 1
                self.last_bad_message = f"node {peer}: {error}"
        for number in sorted(touched):
            self.shards[number].replica.advance()
        self._touch()

    def _on_message(self, peer: int, message: PeerMessage) -> None:
        match message:
            case Forward():
                self._on_forward(peer, message)
            case Proposed(number, seq, index, _):
                shard = self._shard(number)
                shard.route.on_proposed(seq, index, shard.replica.applied_index)
            case Rejected(number, seq, code, reason):
                self._shard(number).route.on_rejected(seq, code, reason)
                self.mark(number)
            case Ask(asked, question):
                self.links.send(peer, Answer(asked, self.sessions.answer(question)))
            case Answer():
                self.questions.on_answer(peer, message)
            case SnapshotStatus(number, is_ok):
                shard = self._shard(number)
                shard.replica.raft.report(peer, "snapshot_ok" if is_ok else "snapshot_failed")
                shard.replica.advance()
            case Received(number, term, index):
                self._shard(number).receipts.on_received(peer, term, index)
            case Held(number, term, index):
                self._shard(number).receipts.on_held(peer, term, index)
            case Recall(number):
                self._shard(number).comeback.on_recall(peer)
            case Recalled(number):
                self._shard(number).comeback.on_recalled(peer, message)
            case Relay():
                self.fleeting.on_relay(message)
            case Health(is_writable):
                self.upkeep.on_health(peer, is_writable)

    def _on_forward(self, peer: int, forward: Forward) -> None:
        replica = self._shard(forward.shard).replica
        if self.is_disk_full:
            error: BusError | None = DiskFull("the leader's disk is full")
        elif not replica.is_leader or replica.term != forward.term:
            error = NotAccepted("the leader changed before the command was proposed")
        else:
            error = fault_of(forward.batch)
        if error is None:
            replica.submit(peer, forward.seq, forward.batch)
            self._rounds.on_arrival()
            self.mark(forward.shard)
        else:
            self.links.send(peer, Rejected(forward.shard, forward.seq, error.code, str(error.args[0])))

    def _shard(self, number: int) -> Shard:
        if not 0 <= number < len(self.shards):
            raise BadMessage(f"there is no shard {number}")
        return self.shards[number]

    def on_peer_up(self, peer: int) -> None:
        for shard in self.shards:
            shard.receipts.on_link(peer)
            self.mark(shard.number)

    def on_peer_down(self, peer: int) -> None:
        for shard in self.shards:
            shard.replica.raft.report(peer, "unreachable")
            # A leader waits for a report of the snapshot that it sent; the link is gone, and the report with it.
            shard.replica.raft.report(peer, "snapshot_failed")
            shard.replica.advance()
            shard.receipts.on_link(peer)
        self.upkeep.on_peer_down(peer)
        self.questions.on_peer_down(peer)
        self._touch()

    def on_disk_room(self, is_full: bool) -> None:
        """Told once a second whether the log's disk has less than its reserve left."""
        self.is_disk_full = is_full

    # --- the turn's end ---------------------------------------------------------------------------------------------

    def end_turn(self) -> None:
        if self._dirty:
            self._end_shards_turn()
        for shard in self.shards:
            shard.on_turn_of_memory()
        self.links.flush()  # before the log: the others' disks are what a round waits for
        self.flushed_batch = self.log.flush()
        self.fleeting.flush()
        self.sessions.end_turn()
        self.fleeting.flush()  # of commands that had to wait for something

    def _end_shards_turn(self) -> None:
        dirty = sorted(self._dirty)
        if self._rounds.is_waiting(self.now, self._is_settled()):
            # What another node leads waits for that node's rounds, and would wait twice here.
            dirty = [number for number in dirty if not self.shards[number].replica.is_leader]
        self._dirty.difference_update(dirty)
        for number in dirty:
            self._end_shard_turn(self.shards[number])

    def _is_settled(self) -> bool:
        return all(self.shards[number].replica.is_settled for number in self._dirty)

    def _end_shard_turn(self, shard: Shard) -> None:
        replica = shard.replica
        self._flush_route(shard)
        if shard.barriers.is_gathering:
            shard.barriers.submit(self.now)
            replica.advance()
        if replica.has_submitted:
            self._rounds.on_begun(self.now)
            replica.propose(self._wall_ms)
            replica.advance()  # what a transfer of leadership holds up is tried again at the next tick
        if shard.has_slices:
            shard.keeper.on_turn()
            shard.install.on_turn()
            self.mark(shard.number)

    def mark(self, number: int) -> None:
        """The shard has something to do at the end of the turn."""
        self._dirty.add(number)
        self._touch()

    def _flush_route(self, shard: Shard) -> None:
        """Send what waits to the shard's leader; without one it goes on waiting, until its deadline."""
        route, replica = shard.route, shard.replica
        if not route.is_waiting:
            return
        if replica.is_leader:
            target = (self.settings.node, replica.term)
            while (batch := route.next_batch(target)) is not None:
                if self.is_disk_full:
                    route.on_rejected(batch[0], DiskFull.code, "the disk of the shard's leader is full")
                else:
                    replica.submit(None, batch[0], batch[1])
        elif replica.leader and self.links.is_up(replica.leader):
            while (batch := route.next_batch((replica.leader, replica.term))) is not None:
                self.links.send(replica.leader, Forward(shard.number, replica.term, batch[0], batch[1]))

    # --- replicas tell (Host) ---------------------------------------------------------------------------------------

    def on_applied(self, replica: Replica, index: int, applied: Applied) -> None:
        shard = self.shards[replica.shard]
        origin = self.settings.origin
        on_run = self.fanout.on_run
        for batch in applied.results:
            if batch.origin == origin:
                # Replies first: a publisher that also subscribes sees its message after the reply.
                shard.route.on_applied(batch.seq, batch.results, self._receivers)
            for result in batch.results:
                if type(result) is WriteResult:
                    self.sessions.events.on_write(result)
                elif type(result) is RunResult and result.first is not None:
                    on_run(result.run.channel, result.run, result.first)
        if applied.events:
            self.sessions.events.on_events(applied.events)
        shard.route.on_entry(index)
        shard.barriers.on_applied()
        if self.rules.look(shard.number, replica.bus):
            self.upkeep.on_rules(shard)
            shard.receipts.on_rules()

    def _receivers(self, result: RunResult) -> int:
        return self.fanout.receivers(result.run.channel, result.run.kind)

    def on_proposed(self, shard: int, seq: int, index: int) -> None:
        self.shards[shard].route.on_proposed(seq, index, self.shards[shard].replica.applied_index)

    def on_rejected(self, shard: int, seq: int, code: str, reason: str) -> None:
        self.shards[shard].route.on_rejected(seq, code, reason)
        self.mark(shard)

    def on_read_ready(self, shard: int, context: bytes, index: int) -> None:
        self.shards[shard].barriers.on_ready(context, index)

    def on_leader(self, replica: Replica) -> None:
        self.upkeep.on_leader(self.shards[replica.shard])
        self.mark(replica.shard)

    def on_snapshot_installed(self, replica: Replica, old: Bus) -> None:
        shard = self.shards[replica.shard]
        shard.keeper.on_installed(replica.applied_index)
        shard.route.on_snapshot(replica.applied_index)
        shard.barriers.on_applied()
        self.rules.look(shard.number, replica.bus)
        shard.receipts.on_rules()
        self.sessions.on_state_replaced(replica.shard, old, replica.bus)
        shard.install.free(old)

    # --- sessions ask (Backend) -------------------------------------------------------------------------------------

    def publish(self, channel: bytes, kind: int, payloads: list[bytes], waiter: Published) -> None:
        number = self._map.shard_of(channel)
        route = self.shards[number].route
        if route.submit(channel, kind, payloads, waiter, self.now + limits.COMMAND_DEADLINE_S):
            self._on_arrival(number)

    def publish_early(self, channel: bytes, kind: int, payloads: list[bytes], waiter: PublishedEarly) -> None:
        number = self._map.shard_of(channel)
        route = self.shards[number].route
        if route.submit_early(channel, kind, payloads, waiter, self.now + limits.COMMAND_DEADLINE_S):
            self._on_arrival(number)

    @property
    def has_special_rules(self) -> bool:
        return self.rules.has_special

    def rule_of(self, channel: bytes) -> ChannelRule:
        return self.rules.rule_of(self.bus(channel), channel)

    def publish_fleeting(self, channel: bytes, kind: int, payloads: list[bytes]) -> None:
        self.fleeting.publish(channel, kind, payloads)
        self._touch()

    def write(self, key: bytes, noun: Command, waiter: Written) -> None:
        self.write_shard(self._map.shard_of(key), noun, waiter)

    def write_shard(self, shard: int, noun: Command, waiter: Written) -> None:
        if self.shards[shard].route.submit_write(noun, waiter, self.now + limits.COMMAND_DEADLINE_S):
            self._on_arrival(shard)

    def _on_arrival(self, number: int) -> None:
        if self.shards[number].replica.is_leader:
            self._rounds.on_arrival()
        if number not in self._dirty:
            self.mark(number)

    def fresh(self, channels: Sequence[bytes], done: Done) -> None:
        self.fresh_shards(sorted({self._map.shard_of(channel) for channel in channels}), done)

    def fresh_shards(self, numbers: Sequence[int], done: Done) -> None:
        """See `Barriers`. `done` is told once: None when all the shards are fresh, or the first error."""
        waiting = len(numbers)
        is_told = False

        def one_done(error: BusError | None) -> None:
            nonlocal waiting, is_told
            waiting -= 1
            if not is_told and (error is not None or waiting == 0):
                is_told = True
                done(error)

        if not numbers:
            done(None)
        for number in numbers:
            self.shards[number].barriers.add(one_done, self.now + limits.COMMAND_DEADLINE_S)
            self.mark(number)

    def bus(self, channel: bytes) -> Bus:
        return self.shards[self._map.shard_of(channel)].replica.bus

    def shard_of(self, channel: bytes) -> int:
        return self._map.shard_of(channel)

    @property
    def shard_buses(self) -> list[Bus]:
        return [shard.replica.bus for shard in self.shards]

    def ask_peers(self, question: bytes, done: Callable[[list[bytes]], None]) -> None:
        self.questions.ask(self.peers, question, self.now + limits.COMMAND_DEADLINE_S, done)
        self._touch()

    def time(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return self._wall_ms

    def schedule(self, at: float, callback: Callable[[], None]) -> Timer:
        timer = self.timers.schedule(at, callback)
        self._touch()
        return timer

    def access(self) -> Access:
        return self._access

    def replicated_users(self) -> AclState:
        return self.shards[0].replica.bus.users

    def config(self) -> Mapping[str, str]:
        return self._access.config()

    def status(self) -> dict[str, object]:
        return status_of(self)

    def unready(self) -> list[str]:
        """Why this node cannot serve writes now; empty when it can."""
        return unready_reasons(self)

    def invariants(self) -> None:
        for shard in self.shards:
            shard.invariants()
