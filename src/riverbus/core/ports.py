"""What a world (`runtime/` or `sim/`) and the parts of the core give each other: small protocols, no code.

Each has two users, the real world and the simulated one, or is the seam between a session and the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from riverbus.commands import Command
from riverbus.messages import BusError, MessageId, Reply
from riverbus.peer_messages import PeerMessage

if TYPE_CHECKING:
    from riverbus.core.access.acl import User
    from riverbus.core.access.acl_state import AclState
    from riverbus.core.state.bus import Bus
    from riverbus.core.state.rules import ChannelRule


class ReplyEncoder(Protocol):
    """One protocol version's way to write replies and deliveries (wire/redis.py has RESP2 and RESP3)."""

    @property
    def key(self) -> str:
        """Names the protocol: sessions of equal key share the bytes of a delivery."""
        ...

    def encode(self, reply: Reply) -> bytes: ...

    def deliver(
        self, space: str, channel: bytes, pattern: bytes | None, first: MessageId, payloads: Sequence[bytes]
    ) -> bytes:
        """Bytes of consecutive messages (ids first, first+1, ...) for a subscription of `space`.

        "channel", "pattern" and "shard" are Redis' message, pmessage and smessage; "bus" is BUS.SUBSCRIBE's, with ids.
        """
        ...

    def gap(self, space: str, channel: bytes, pattern: bytes | None, after: MessageId, until: MessageId) -> bytes:
        """Bytes that tell a subscriber: of the messages in (after, until] some are gone for ever."""
        ...


class Output(Protocol):
    """Where a session's bytes go: a socket of the runtime, or the simulator's."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """Flush what was written, then close."""
        ...

    def abort(self) -> None: ...

    def unacknowledged_bytes(self) -> int | None:
        """Of the bytes written here, how many the client's machine has not confirmed, at most. None: not known now."""
        ...


class Published(Protocol):
    """A waiting publish: told once how it ended."""

    def published(self, run: MessageId, offset: int, receivers: int) -> None:
        """Its first message stands `offset` places behind `run`, the first of the run that it is part of."""
        ...

    def failed(self, error: BusError) -> None: ...

    def is_abandoned(self) -> bool:
        """True once its connection is gone: what was not proposed yet is dropped."""
        ...


class PublishedEarly(Published, Protocol):
    """A waiting publish of durability memory: `held` comes at most once, before it is told how it ended."""

    def held(self, receivers: int) -> None:
        """A majority has it in memory."""
        ...


class Written(Protocol):
    """A waiting write of the keyspace: told once how it ended."""

    def written(self, reply: Reply) -> None: ...

    def failed(self, error: BusError) -> None: ...

    def is_abandoned(self) -> bool:
        """True once its connection is gone: what was not proposed yet is dropped."""
        ...


class Links(Protocol):
    """Ordered, authenticated channels to the peers. What is sent to a peer without a link is dropped.

    Messages to one peer are gathered and written at `flush`, or at the end of the turn.
    """

    def send(self, peer: int, message: PeerMessage) -> None: ...

    def is_up(self, peer: int) -> bool: ...

    def flush(self) -> None:
        """Write what has gathered now: the others need not wait for what else this turn has to do."""
        ...

    def backlog_bytes(self, peer: int) -> int:
        """What was sent and not taken by the network yet; 0 where there is no link."""
        ...


class Access(Protocol):
    """What the world says about clients: the users of its configuration, and what CONFIG GET shows."""

    def users(self) -> Mapping[str, User]:
        """By name; the same mapping each time, as long as nothing changed. Empty: nobody configured users."""
        ...

    def categories(self) -> Mapping[str, frozenset[str]]:
        """The ACL categories of each command that there is, by its full lower-case name (`client|list`)."""
        ...

    def check_password(self, user: str, password: bytes, hashes: Sequence[str], done: Callable[[bool], None]) -> None:
        """Is it one of these SHA-256 digests, or what the configuration has for this user? `done` once, now or later.

        Constant time, and the same work for every name.
        """
        ...

    def random_bytes(self, count: int) -> bytes:
        """Good for secrets."""
        ...

    def config(self) -> Mapping[str, str]: ...


class SnapshotFile(Protocol):
    """A snapshot being written. Writes are queued to a thread; what is not committed does not exist."""

    @property
    def backlog_bytes(self) -> int:
        """Queued and not yet written: the writer of slices waits while this is large."""
        ...

    def write(self, framed_slice: bytes) -> None: ...

    def commit(self, done: Callable[[str | None], None]) -> None:
        """Make it durable under its final name; then, on the loop, `done(None)` or `done(reason)`."""
        ...

    def abort(self) -> None: ...


class Snapshots(Protocol):
    """The node's snapshot files, one a (shard, index), as sequences of framed slices (snapshot.py frames them)."""

    def create(self, shard: int, index: int) -> SnapshotFile: ...

    def indexes(self, shard: int) -> list[int]:
        """Those committed, rising."""
        ...

    def read(self, shard: int, index: int) -> Iterator[bytes]:
        """The framed slices of a committed snapshot, in order. Raises OSError."""
        ...

    def delete(self, shard: int, index: int) -> None: ...

    def fetch(self, peer: int, shard: int, index: int, done: Callable[[str | None], None]) -> None:
        """Copy a peer's snapshot over the bulk connection, resumed where a try ended; then `done` on the loop."""
        ...


Done = Callable[[BusError | None], None]


class Cancellable(Protocol):
    """A scheduled callback; `cancel` is idempotent."""

    def cancel(self) -> None: ...


class Backend(Protocol):
    """What a session asks of the node it is on. `core/engine.py` is the real one, `tests/core/fakes.py` has another.

    Whatever calls back may do so before the method returns; each `done` and each waiter is told exactly once.
    """

    def publish(self, channel: bytes, kind: int, payloads: list[bytes], waiter: Published) -> None: ...

    def publish_early(self, channel: bytes, kind: int, payloads: list[bytes], waiter: PublishedEarly) -> None:
        """As `publish`, in order with it, in a channel of durability memory."""
        ...

    @property
    def has_special_rules(self) -> bool:
        """Some channels are of another durability, or have a limit for payloads: see `rule_of` before a publish."""
        ...

    def rule_of(self, channel: bytes) -> ChannelRule:
        """The rule that holds for a channel, as this node's replica knows it."""
        ...

    def publish_fleeting(self, channel: bytes, kind: int, payloads: list[bytes]) -> None:
        """To whoever listens now, on any node: in a channel of durability none. Never fails, and nobody is told."""
        ...

    def write(self, key: bytes, noun: Command, waiter: Written) -> None:
        """Carry out a command of keyspace_commands.py on the shard of `key`, in order with the publishes to it."""
        ...

    def write_shard(self, shard: int, noun: Command, waiter: Written) -> None: ...

    def fresh(self, channels: Sequence[bytes], done: Done) -> None:
        """`done(None)` once this node's replicas hold all that was acknowledged, by any node, before this call."""
        ...

    def fresh_shards(self, numbers: Sequence[int], done: Done) -> None:
        """As `fresh`, of whole shards."""
        ...

    def bus(self, channel: bytes) -> Bus:
        """The local replica's state of the shard that the channel belongs to."""
        ...

    def shard_of(self, channel: bytes) -> int: ...

    @property
    def shard_buses(self) -> Sequence[Bus]:
        """The local replicas' states of all shards, by number."""
        ...

    def ask_peers(self, question: bytes, done: Callable[[list[bytes]], None]) -> None:
        """The answers of the other nodes that are in reach, in any order."""
        ...

    def time(self) -> float:
        """Monotonic seconds, the same for the whole turn."""
        ...

    def wall_ms(self) -> int: ...

    def schedule(self, at: float, callback: Callable[[], None]) -> Cancellable:
        """Run `callback` in the first turn at or after `at`; when that is now, in the next turn."""
        ...

    def status(self) -> dict[str, object]:
        """For INFO's own section, which shows what is plain: numbers, booleans, text."""
        ...

    def config(self) -> Mapping[str, str]:
        """For CONFIG GET; `port`, `process-id` and `riverbus-version` are shown by INFO, too."""
        ...

    def access(self) -> Access: ...

    def replicated_users(self) -> AclState:
        """The replicated users: the local replica's, of shard 0."""
        ...
