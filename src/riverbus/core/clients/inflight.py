"""What of one owner (a connection, or a transaction that it executes) is under way, and what may start beside it."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from riverbus.commands import Command
from riverbus.limits import SESSION_READS_PENDING_MAX

if TYPE_CHECKING:
    from riverbus.core.clients.outbox import PendingReply


class Order(IntEnum):
    """What of its own connection a command has to wait for before it may start."""

    FREE = 0  # nothing: it reads and changes nothing that is in flight
    WRITE = 1  # earlier reads, which must not see it
    AFTER_WRITES = 2  # earlier writes: a later SUBSCRIBE must not receive them
    READ = 3  # earlier writes, which it must see
    ALONE = 4  # everything


class InFlight:
    """Commands that have started and have no reply yet. Pipelined publishes count one by one in `commands`."""

    __slots__ = ("bytes", "commands", "early", "reads", "writes")

    def __init__(self) -> None:
        self.reads = 0
        self.writes = 0
        self.early = 0  # of `writes`: answered, and not known to be in the log
        self.commands = 0
        self.bytes = 0

    def add(self, pending: PendingReply) -> None:
        self.reads += pending.order is Order.READ
        self.writes += pending.order is Order.WRITE
        self.commands += pending.count
        self.bytes += pending.charge_bytes

    def remove(self, pending: PendingReply) -> None:
        self.reads -= pending.order is Order.READ
        self.writes -= pending.order is Order.WRITE
        self.commands -= pending.count
        self.bytes -= pending.charge_bytes

    def answer_early(self, pending: PendingReply) -> None:
        """It has its reply, and goes on counting as a write until `settle`."""
        self.early += 1
        self.commands -= pending.count

    def settle(self, pending: PendingReply) -> None:
        self.early -= 1
        self.writes -= 1
        self.bytes -= pending.charge_bytes

    def may_start(self, order: Order) -> bool:
        if order is Order.FREE:
            return True
        if order is Order.WRITE:
            return not self.reads
        if order is Order.AFTER_WRITES:
            return not self.writes
        if order is Order.READ:
            return not self.writes and self.reads < SESSION_READS_PENDING_MAX
        return not self.commands and not self.writes

    def invariants(self) -> None:
        assert min(self.reads, self.writes, self.early, self.commands, self.bytes) >= 0
        assert self.commands + self.early >= self.reads + self.writes
        assert not self.bytes or self.writes


def command_bytes(command: Command) -> int:
    """About how much memory a command that waits to be carried out holds."""
    size = 256
    for field in command:
        if isinstance(field, bytes):
            size += len(field)
        elif isinstance(field, tuple | list):
            size += sum(len(item) + 32 if isinstance(item, bytes) else 32 for item in field)
    return size
