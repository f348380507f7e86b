"""What nodes say to each other: one noun a frame. `wire/frames.py` makes bytes of them, `core/engine.py` handles them.

All travel in order over the one link of a pair of nodes, but for a snapshot's bulk, which has a connection of its own.
Imports nothing.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class RaftMessage(NamedTuple):
    """A raft-rs message of one shard, opaque here."""

    shard: int
    data: bytes


class Forward(NamedTuple):
    """A batch of commands for the shard's leader, which proposes it only in the term that its sender believes in.

    The term keeps a client's order: a batch that waited in a socket while leadership went and came back is refused.
    """

    shard: int
    term: int
    seq: int
    batch: bytes


class Proposed(NamedTuple):
    """Answer to `Forward`: the batch is in the leader's log at (index, term); whether it commits is to be seen."""

    shard: int
    seq: int
    log_index: int
    term: int


class Rejected(NamedTuple):
    """Answer to `Forward`: the batch was not proposed. `code` is a `BusError.code`."""

    shard: int
    seq: int
    code: str
    reason: str


class Ask(NamedTuple):
    """A question to another node about its sessions (PUBSUB NUMSUB, CHANNELS), answered once."""

    id: int
    question: bytes


class Answer(NamedTuple):
    id: int
    answer: bytes


class SnapshotStatus(NamedTuple):
    """A follower's report to the leader that offered a snapshot: installed, or failed and to be offered again."""

    shard: int
    is_ok: bool


class Health(NamedTuple):
    """Said once a second. A node that is not writable (its disk is full) hands leadership to one that is."""

    is_writable: bool


class Relay(NamedTuple):
    """What clients of the sender published, in a turn, to channels of durability none: for subscribers there."""

    batch: bytes


class Received(NamedTuple):
    """A follower's log is, in memory, the leader's of this term up to here. On disk it may not be yet."""

    shard: int
    term: int
    log_index: int


class Held(NamedTuple):
    """The leader, to whoever forwarded to it: a majority has its log in memory up to here."""

    shard: int
    term: int
    log_index: int


class Recall(NamedTuple):
    """The sender has restarted: what it said it had `Received` it may have forgotten. Said until it knows better."""

    shard: int


class Recalled(NamedTuple):
    """Answer to `Recall`, of the shard's leader: where its log ends. Who has that has forgotten nothing."""

    shard: int
    term: int
    log_index: int


PeerMessage: TypeAlias = (
    RaftMessage
    | Forward
    | Proposed
    | Rejected
    | Ask
    | Answer
    | SnapshotStatus
    | Health
    | Relay
    | Received
    | Held
    | Recall
    | Recalled
)
