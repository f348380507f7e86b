"""What a node knows of one connected client.

The front (whoever holds the socket) hands it parsed commands and takes its output; `on_blocked` and `on_writable` say
how the socket does. Everything takes effect at once, or in the order that pipeline.py keeps; nothing waits.

Leaves to others: the order of commands (pipeline.py), what each does (*_commands.py), delivery (fanout.py),
bytes (the encoders). Invariant: after `on_closed` nothing refers to the session but commands still in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from riverbus import limits
from riverbus.commands import Command
from riverbus.core.clients.early import PendingEarly
from riverbus.core.clients.lag import Lag
from riverbus.core.clients.outbox import Outbox, PendingPublish, PendingReply, PendingWrite
from riverbus.core.clients.pipeline import Pipeline
from riverbus.core.clients.transactions import Transaction
from riverbus.core.counters import REPLIES_UNREAD
from riverbus.messages import ErrorReply, Reply, Several

if TYPE_CHECKING:
    from riverbus.core.access.acl_rights import Rights
    from riverbus.core.clients.blocked import Waiting
    from riverbus.core.clients.durable_session import Durable
    from riverbus.core.clients.sessions import Sessions
    from riverbus.core.ports import Output, ReplyEncoder

SPACES = ("channel", "pattern", "shard", "bus")


class Session:
    """Made by `Sessions.open`. The front calls the methods down to `on_closed`; the rest is for the core."""

    __slots__ = (
        "_encoders",
        "_unread_bytes",
        "active_at",
        "address",
        "backend",
        "blocked_read",
        "counters",
        "durable",
        "id",
        "is_authenticated",
        "is_blocked",
        "is_closed",
        "is_resumable",
        "lag",
        "last_command",
        "library",
        "local_address",
        "name",
        "opened_at",
        "outbox",
        "output",
        "pipeline",
        "protocol",
        "registry",
        "rights",
        "subscribed",
        "transaction",
        "user",
        "watched",
        "wishes",
    )

    def __init__(
        self,
        registry: Sessions,
        id_: int,
        output: Output,
        encoders: tuple[ReplyEncoder, ReplyEncoder],
        address: str,
        local_address: str,
        now: float,
    ) -> None:
        self.registry = registry
        self.backend = registry.backend
        self.counters = registry.counters
        self.id = id_
        self.output = output
        self.address = address
        self.local_address = local_address
        self.opened_at = self.active_at = now
        self.last_command: Command | None = None
        self.library: dict[str, bytes] = {}  # lib-name, lib-ver
        self.subscribed: dict[str, dict[bytes, None]] = {space: {} for space in SPACES}
        self.lag: Lag | None = None
        self.durable: Durable | None = None  # of a client with a durable name
        self.is_closed = False  # nothing is owed to this client any more
        self.is_blocked = False  # its socket is full
        self.is_resumable = False
        self.blocked_read: Waiting | None = None  # an XREAD or XREADGROUP that waits for a message
        self._encoders = encoders
        self._unread_bytes = 0
        self.outbox = Outbox(self, encoders[0])
        self.pipeline = Pipeline(self)
        self.forget_client()

    def forget_client(self) -> None:
        """The state of a new connection, but for its id, addresses and library: RESET. Has no subscriptions."""
        self.registry.monitors.remove(self)
        self.protocol = 2
        self.outbox.encoder = self._encoders[0]
        self.name = b""
        self.user = "default"
        self.is_authenticated = self.registry.users.is_open()
        self.rights: Rights | None = self.registry.users.rights(self.user)  # None: everything
        self.transaction: Transaction | None = None
        self.watched: dict[bytes, int] = {}  # versions by key
        self.wishes: set[str] = set()  # e: CLIENT NO-EVICT, T: CLIENT NO-TOUCH
        self.pipeline.reply_mode = "on"
        self.pipeline.update_plain()

    # --- the front's side -------------------------------------------------------------------------------------------

    def handle(self, commands: Sequence[Command]) -> None:
        """Carry out commands in order. Replies, now or later, come by `take_output`."""
        if commands and not self.is_closed:
            self.active_at = self.backend.time()
            if self.registry.monitors.are_on:
                commands = self.registry.monitors.show(self, commands)
            self.last_command = commands[-1]
            if self.pipeline.handle(commands):
                self.mark_dirty()

    @property
    def wants_read(self) -> bool:
        """False: pause reading its socket."""
        return self.pipeline.wants_read

    @property
    def is_dirty(self) -> bool:
        return self.outbox.is_dirty

    def take_output(self) -> bytes:
        """What is to be written now, perhaps nothing. Called for each session in `Sessions.dirty`, once a turn."""
        outbox = self.outbox
        outbox.is_dirty = False
        data = outbox.take()
        if self.is_blocked:
            self._unread_bytes += len(data)
            if self._unread_bytes > limits.OUTBOX_REPLIES_BYTES_MAX:
                self.disconnect(REPLIES_UNREAD)
                return b""
        if self.pipeline.is_stalled_by_bytes:
            self.pipeline.on_taken()
        return data

    @property
    def close_after_flush(self) -> bool:
        """True: close the socket once what was taken is written (QUIT, a protocol error)."""
        return self.pipeline.is_closing and self.outbox.is_settled

    def on_blocked(self) -> None:
        """The socket's buffer is above OUTBOX_HIGH_BYTES: from here on deliveries become cursors."""
        self.is_blocked = True
        self.need_lag()

    def on_writable(self) -> None:
        """The socket's buffer is below OUTBOX_LOW_BYTES. Its turn must be followed by `Sessions.end_turn`."""
        self.is_blocked = False
        self._unread_bytes = 0
        self.want_turn()

    def on_closed(self) -> None:
        """The connection is gone. Takes effect at once: no channel has this subscriber any more."""
        if self.durable is not None:
            self.durable.on_closed()
        if self.is_closed:
            return
        self.is_closed = True
        if self.blocked_read is not None:
            self.blocked_read.give_up()
        self.pipeline.clear()
        self.transaction = None
        self.registry.monitors.remove(self)
        self.registry.forget(self)
        for space, names in self.subscribed.items():
            for name in names:
                self.registry.fanout.unsubscribe(space, name, self.outbox)
            names.clear()
        if self.lag is not None:
            self.lag.clear()
        self.outbox.clear()

    def release(self) -> None:
        """After the turn in which it was closed: break its cycles, for nobody collects them (runtime/memory.py)."""
        if self.durable is not None:
            self.durable.release()
        self.lag = self.durable = None
        del self.pipeline.owner, self.outbox, self.pipeline

    # --- the end of a turn ------------------------------------------------------------------------------------------

    def mark_dirty(self) -> None:
        if not self.outbox.is_dirty and not self.is_closed:
            self.outbox.is_dirty = True
            self.registry.dirty.append(self)

    def want_resume(self) -> None:
        """`resume` at the end of this turn."""
        if not self.is_resumable and not self.is_closed:
            self.is_resumable = True
            self.registry.resumable.append(self)

    def want_turn(self) -> None:
        """`resume` at the end of this turn or, if that is under way, of the next, which is asked for."""
        if not self.is_closed:
            self.want_resume()
            self.registry.ask_for_turn()

    def resume(self) -> None:
        """Whatever can go on now, goes on."""
        self.is_resumable = False
        if not self.is_closed:
            self.pipeline.resume()
        if not self.is_closed:
            self.mark_dirty()
            self._serve_lag()

    def _serve_lag(self) -> None:
        lag = self.lag
        if lag is None or self.is_blocked:
            return
        if lag.has_work and not self.outbox.is_holding and not self.pipeline.is_closing:
            self.registry.fanout.spill()
            lag.serve()
            if lag.has_work:
                self.want_turn()
        if lag.is_empty:
            self.outbox.inbox = self.outbox.stream

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def subscription_count(self) -> int:
        """Channels, patterns and BUS.SUBSCRIBE's: what confirmations count. Shard channels are counted apart."""
        return len(self.subscribed["channel"]) + len(self.subscribed["pattern"]) + len(self.subscribed["bus"])

    @property
    def is_subscriber(self) -> bool:
        return any(self.subscribed.values())

    @property
    def is_waiting(self) -> bool:
        """True while an XREAD or XREADGROUP waits for a message."""
        return self.blocked_read is not None

    def use_protocol(self, version: int) -> None:
        """HELLO. Subscriptions move over to the other encoder."""
        self.registry.fanout.spill()
        if version == self.protocol or self.is_closed:
            return
        held = [(space, name) for space, names in self.subscribed.items() for name in names]
        fanout = self.registry.fanout
        for space, name in held:
            fanout.unsubscribe(space, name, self.outbox)
        self.protocol = version
        self.outbox.encoder = self._encoders[version - 2]
        for space, name in held:
            fanout.subscribe(space, name, self.outbox)
        self.pipeline.update_plain()

    def need_lag(self) -> Lag:
        """From here on deliveries go by cursors, where there are some."""
        if self.lag is None:
            self.lag = Lag(self, self.registry.fanout.hits)
        self.outbox.inbox = self.lag
        return self.lag

    def count_reply(self, pending: PendingReply, reply: Reply) -> None:
        one = reply.replies[0] if type(reply) is Several else reply
        if type(one) is ErrorReply:
            self.counters.error_replies += pending.count
        elif type(pending) is PendingPublish or type(pending) is PendingEarly:
            self.counters.published_messages += pending.count
        elif type(pending) is PendingWrite:
            self.counters.published_messages += pending.messages

    def close_when_answered(self) -> None:
        """QUIT and protocol errors: nothing behind this is carried out."""
        self.pipeline.close()
        self.mark_dirty()

    def disconnect(self, reason: str | None) -> None:
        """Give the client up now; `reason` is a counter's. None when it was asked for (CLIENT KILL)."""
        if not self.is_closed:
            if reason is not None:
                self.counters.dropped[reason] += 1
            self.on_closed()
            self.output.abort()

    def invariants(self) -> None:
        self.outbox.invariants()
        self.pipeline.invariants()
        assert not self.is_closed or not self.is_subscriber
        lag = self.lag
        if lag is not None and not self.is_closed:
            lag.invariants()
            assert self.outbox.inbox is lag or (lag.is_empty and not self.is_blocked)
