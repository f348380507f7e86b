"""One shard's state machine, given keyspace commands one an entry; and replies as plain Python."""

from __future__ import annotations

from collections.abc import Sequence

from riverbus.core.state.bus import Applied, Bus, WriteResult
from riverbus.core.state.entries import BatchBuilder, encode_entry, message_fields
from riverbus.core.state.keyspace.codes import Noun
from riverbus.core.state.rules import UNLIMITED, ChannelRule, Rules
from riverbus.fields import encode_fields
from riverbus.keyspace_commands import Pairs, XAdd
from riverbus.messages import NULL_ARRAY, Entries, ErrorReply, Kind, MessageId, Status

START_MS = 1_000_000
FOREVER = Rules(default=ChannelRule(count=UNLIMITED, age_ms=UNLIMITED, bytes=UNLIMITED), shard_bytes_max=UNLIMITED)


def id_(text: str) -> MessageId:
    ms, _, seq = text.partition("-")
    return MessageId(int(ms), int(seq or 0))


def ids(text: str) -> tuple[MessageId, ...]:
    return tuple(map(id_, text.split()))


def plain(reply: object) -> object:
    """Errors and statuses as their text, arrays as lists, ids and names as they are."""
    if reply is NULL_ARRAY:
        return None
    if isinstance(reply, ErrorReply | Status):
        return reply.text
    if isinstance(reply, Entries):
        return [
            [run.first.plus(at).to_bytes(), message_fields(run.kind, body)]
            for run in reply.runs
            for at, body in enumerate(run.bodies)
        ]
    if isinstance(reply, Pairs):
        return [[plain(name), plain(value)] for name, value in reply.items]
    if isinstance(reply, dict):
        return {plain(key): plain(value) for key, value in reply.items()}
    if isinstance(reply, list | tuple):
        return [plain(item) for item in reply]
    return reply


class Shard:
    """`at_ms` is the time of the entries."""

    def __init__(self, rules: Rules = FOREVER) -> None:
        self.bus = Bus(rules)
        self.at_ms = START_MS
        self.entries: list[bytes] = []
        self.last: WriteResult | None = None
        self.applied: Applied | None = None

    def apply(self, builder: BatchBuilder) -> Applied:
        self.entries.append(encode_entry(self.at_ms, [builder.finish(1)]))
        self.applied = self.bus.apply(self.bus.applied_index + 1, self.entries[-1])
        self.bus.invariants()
        return self.applied

    def do(self, noun: Noun) -> object:
        builder = BatchBuilder(1)
        builder.add_write(noun)
        [result] = self.apply(builder).results[0].results
        assert isinstance(result, WriteResult)
        self.last = result
        return plain(result.reply)

    def ask(self, noun: Noun, later_ms: int = 0) -> object:
        return plain(self.bus.query(noun, self.at_ms + later_ms))

    def publish(self, channel: bytes, *payloads: bytes, kind: int = Kind.PUBLISH) -> object:
        builder = BatchBuilder(1)
        builder.add_run(channel, kind, payloads)
        [result] = self.apply(builder).results[0].runs
        return result.first if result.error is None else str(result.error)

    def tick(self, later_ms: int) -> None:
        self.at_ms += later_ms
        self.apply(BatchBuilder(1))

    def add(self, key: bytes, given: str, *values: bytes) -> None:
        """XADD with explicit ids, each with the field `f`."""
        for each in ids(given):
            value = values[0] if values else each.to_bytes()
            assert self.do(XAdd(key, body(value), each)) == each.to_bytes()

    @property
    def events(self) -> list[tuple[str, str, bytes]]:
        assert self.last is not None
        return self.last.events


def body(value: bytes) -> bytes:
    return encode_fields([b"f", value])


def entry(given: str, value: bytes | None = None) -> list[object]:
    text = id_(given).to_bytes()
    return [text, [b"f", text if value is None else value]]


def entries(given: Sequence[str]) -> list[object]:
    return [entry(each) for each in given]
