"""What nodes say to each other beside peer messages: who they are (handshake), whether they live (link), and bulk.

Frozen nouns without behaviour; `frames.py` makes bytes of them. Incarnations and cluster ids are 32 hex digits.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from riverbus.peer_messages import PeerMessage


class Role(IntEnum):
    """What a connection is for."""

    LINK = 1
    BULK = 2


class Refusal(IntEnum):
    """Why a node does not talk to another. Numbers are never reused."""

    VERSION = 1
    SECRET = 2
    UNKNOWN_NODE = 3
    WRONG_NODE = 4
    SHARDS = 5
    MEMBERS = 6
    WIPED = 7
    OTHER_CLUSTER = 8
    DUPLICATE = 9
    NOT_READY = 10
    BUSY = 11


# --- handshake frames -------------------------------------------------------------------------------------------------


class Hello(NamedTuple):
    """Who a node says it is. Node ids are unsigned 32 bits."""

    role: int
    node_id: int
    to: int  # whom the dialer means to reach; whom the acceptor answers
    shards: int
    incarnation: str
    process: str  # 16 hex digits, drawn at each start: tells a reconnect from a second process of the same identity
    nonce: bytes  # 32 bytes
    cluster_id: str  # empty until bootstrapped
    members: tuple[int, ...]  # of its configuration, rising, itself included
    known: tuple[tuple[int, str], ...]  # incarnations on record, rising, its own included; empty until bootstrapped

    @property
    def is_bootstrapped(self) -> bool:
        return bool(self.cluster_id)


class OtherVersion(NamedTuple):
    """A HELLO of a protocol version that is not ours; nothing else of it was understood. Never sent."""

    version: int


class Proof(NamedTuple):
    digest: bytes  # 32 bytes


class Accepted(NamedTuple): ...


class Refused(NamedTuple):
    code: int
    reason: str


# --- link and bulk frames ---------------------------------------------------------------------------------------------


class Ping(NamedTuple):
    time_us: int  # the sender's own clock, handed back in the Pong


class Pong(NamedTuple):
    time_us: int


class Founded(NamedTuple):
    """The sender is bootstrapped now: the first frame of a link that began before it was."""

    cluster_id: str
    known: tuple[tuple[int, str], ...]


class BulkRequest(NamedTuple):
    shard: int
    log_index: int


class BulkOffer(NamedTuple):
    """The snapshot's size and the xxh3_128 of it all: two nodes' snapshots of one index differ in their slices."""

    size: int
    digest: bytes


class BulkMissing(NamedTuple):
    reason: str


class BulkStart(NamedTuple):
    offset: int


class BulkChunk(NamedTuple):
    offset: int
    checksum: int  # xxh3_64 of data
    data: bytes


HandshakeFrame: TypeAlias = Hello | OtherVersion | Proof | Accepted | Refused
Control: TypeAlias = Ping | Pong | Founded
BulkFrame: TypeAlias = BulkRequest | BulkOffer | BulkMissing | BulkStart | BulkChunk
Frame: TypeAlias = PeerMessage | Control | HandshakeFrame | BulkFrame
CONTROL: Final = frozenset((Ping, Pong, Founded))
