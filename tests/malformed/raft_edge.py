"""Raft messages of peers into the native `step`: what a replica does with real ones that were changed.

An episode has one replica, in one of the `STATES` that a short story of three nodes brings about (tests/native's loop
in memory): a leader, followers, candidates, one with a compacted log, one that installs a snapshot, one in a joint
membership. The messages of all those stories are the samples. An input is an operation and its bytes: mostly a message
and who sent it, now and then a tick, a campaign, a proposal, or "do what is ready". What a message did is lived with.

Checked: `step` raises nothing but BadMessage; nothing poisons the replica; what it wrote can be opened again after a
power loss at the end; applied entries only follow each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

from riverbus._native import BadMessage, NotLeader, ProposalDropped, Raft, RaftError
from tests.malformed import protobuf
from tests.malformed.driver import kind_of
from tests.malformed.mutations import mutate, splice
from tests.native.cluster import GROUP, Cluster, Node, make_raft

STEP, DRIVE, TICK, CAMPAIGN, PROPOSE, READ, TRANSFER, REPORT = range(8)
STATES = ("leader", "follower", "candidate", "pre-candidate", "compacted", "installing", "joint", "stranger", "lone")
HERE = 1
SEEDS = 4  # variants of each state


class RaftSubject:
    def __init__(self, seed: int) -> None:
        self.cluster = story(STATES[seed % len(STATES)], seed // len(STATES) % SEEDS)
        self.node = self.cluster.nodes[HERE]
        self.log = self.node.log

    def feed(self, data: bytes) -> str:
        operation, argument, message = data[0] % 8, data[1], data[2:]
        if operation == STEP:
            try:
                self.node.raft.step(message, argument & 7)
            except BadMessage as error:
                return f"refused: {kind_of(str(error))}"
            return f"stepped {Raft.peek(message)[0]}"
        raft = self.node.raft
        try:
            if operation == DRIVE:
                self.node.take()
            elif operation == TICK:
                raft.tick()
            elif operation == CAMPAIGN:
                raft.campaign()
            elif operation == PROPOSE:
                raft.propose(message)
            elif operation == READ:
                raft.read_index(message[:8])
            elif operation == TRANSFER:
                raft.transfer(argument & 7)
            else:
                raft.report(argument & 7, ("unreachable", "snapshot_ok", "snapshot_failed")[argument % 3])
        except (NotLeader, ProposalDropped):
            return "not now"
        return "driven"

    def finish(self) -> None:
        node = self.node
        node.take()
        node.raft.tick()
        node.take()
        applied, log = node.saved_applied, node.log.crash(7)
        made = make_raft(log, HERE, applied=max(applied, log.first_index(GROUP) - 1))
        made.campaign()
        while made.ready() is not None:
            pass


# --- stories ----------------------------------------------------------------------------------------------------------


def story(state: str, seed: int, record: Callable[[int, int, bytes], bool] | None = None) -> Cluster:
    """Three nodes up to where node 1 is what `state` says. The same for the same arguments."""
    cluster = Cluster(seed=seed + 1)
    if record is not None:
        cluster.filter = record
    here = cluster.nodes[HERE]
    leader = HERE if state in ("leader", "joint", "lone") else 2
    cluster.elect(leader)
    _publish(cluster, leader, 4 + seed)
    cluster.nodes[3].raft.read_index(b"read")
    cluster.deliver()
    if state == "candidate" or state == "pre-candidate":
        _publish(cluster, leader, 2)
        cluster.cut = {HERE}
        here.raft.campaign()
        here.take()
        if state == "candidate":
            _let_campaign(cluster, here)
    elif state == "compacted":
        here.save()
        here.raft.compact(here.applied - 2)
        here.take()
        _publish(cluster, leader, 2)
    elif state == "installing":
        _lag_and_offer(cluster, leader)
    elif state == "joint":
        here.raft.propose_conf([("voter", 4), ("remove", 3)], b"")
        here.take()
    elif state == "stranger":
        cluster.cut = {HERE}
        _publish(cluster, leader, 5)
        cluster.nodes[leader].raft.transfer(3)
        cluster.deliver()
    elif state == "lone":
        cluster.cut = {HERE}
        _publish(cluster, leader, 3 + seed)
    return cluster


def _publish(cluster: Cluster, leader: int, count: int) -> None:
    for number in range(count):
        cluster.nodes[leader].raft.propose(b"entry %d of node %d" % (number, leader))
        cluster.deliver()
    cluster.tick(1)


def _let_campaign(cluster: Cluster, here: Node) -> None:
    """Its pre-vote is granted; its votes are under way."""
    samples: list[bytes] = []
    for other in (2, 3):
        cluster.nodes[other].raft.tick()
    here.raft.campaign()
    for to, data in here.take():
        tree = protobuf.fields_of(data)
        protobuf.put(tree, protobuf.TYPE, 18)  # MsgRequestPreVoteResponse
        protobuf.put(tree, protobuf.TO, HERE)
        protobuf.put(tree, protobuf.FROM, to)
        for number in (protobuf.INDEX, protobuf.LOG_TERM, protobuf.COMMIT, protobuf.COMMIT_TERM):
            protobuf.put(tree, number, 0)
        samples.append(protobuf.encoded(tree))
        here.raft.step(samples[-1], to)
        break
    here.take()


def _lag_and_offer(cluster: Cluster, leader: int) -> None:
    """Node 1 misses entries that are compacted away; the snapshot reaches it, and is not on its disk yet."""
    cluster.cut = {HERE}
    _publish(cluster, leader, 5)
    ahead = cluster.nodes[leader]
    ahead.save()
    ahead.raft.compact(ahead.applied)
    cluster.cut = set()
    here = cluster.nodes[HERE]
    for _ in range(12):
        ahead.raft.tick()
        for number in (leader, 3, HERE):
            for target, data in cluster.nodes[number].take():
                if not cluster.filter(number, target, data):
                    continue
                if target == HERE and Raft.peek_snapshot(data) is not None:
                    here.raft.step(data, number)
                    return
                cluster.nodes[target].raft.step(data, number)


# --- samples and inputs -----------------------------------------------------------------------------------------------


@cache
def samples() -> tuple[tuple[int, int, bytes], ...]:
    """(from, to, message) of all stories, each once."""
    found: dict[tuple[int, int, bytes], None] = {}

    def record(source: int, target: int, data: bytes) -> bool:
        found[source, target, data] = None
        return True

    for state in STATES:
        for seed in range(SEEDS):
            cluster = story(state, seed, record)
            cluster.cut = set()
            try:
                cluster.tick(12)
                cluster.nodes[2].raft.campaign()
                cluster.deliver()
                cluster.nodes[3].raft.read_index(b"late")
                cluster.tick(2)
            except (RaftError, AssertionError, KeyError):
                continue  # a story that cannot go on has given what it has
    return tuple(found)


@cache
def trees() -> tuple[tuple[int, protobuf.Tree], ...]:
    """Those to node 1, and the others turned towards it, as trees."""
    made = []
    for source, target, data in samples():
        tree = protobuf.fields_of(data)
        if target != HERE:
            protobuf.put(tree, protobuf.TO, HERE)
            if source == HERE:
                source = target
                protobuf.put(tree, protobuf.FROM, source)
        made.append((source, tree))
    return tuple(made)


@cache
def telling_values() -> tuple[int, ...]:
    """Terms and indices that the samples have, and their neighbours."""
    values = set()
    for _, tree in trees():
        for number, _, value in tree:
            if type(value) is int and number in (protobuf.TERM, protobuf.LOG_TERM, protobuf.INDEX, protobuf.COMMIT):
                values |= {value, value + 1, max(0, value - 1)}
    return tuple(sorted(values))


def generator(random: Random) -> Callable[[], bytes]:
    every, telling = trees(), telling_values()
    others = bytes((DRIVE, DRIVE, DRIVE, DRIVE, TICK, TICK, CAMPAIGN, PROPOSE, PROPOSE, READ, TRANSFER, REPORT))

    def generate() -> bytes:
        draw = random.random
        if draw() < 0.2:
            operation = others[int(draw() * len(others))]
            return bytes((operation, random.getrandbits(8))) + random.randbytes(random.getrandbits(4))
        source, sample = every[int(draw() * len(every))]
        tree = protobuf.copied(sample)
        while draw() < 0.6:
            protobuf.change(tree, random, telling)
        data = protobuf.encoded(tree)
        if draw() < 0.1:
            data = mutate(data, random)
        elif draw() < 0.02:
            data = splice(data, protobuf.encoded(every[int(draw() * len(every))][1]), random)
        sender = source if draw() < 0.97 else random.getrandbits(3)
        return bytes((STEP, sender)) + data

    return generate
