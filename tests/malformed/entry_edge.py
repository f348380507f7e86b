"""What is replicated: entries, batches and snapshots' slices, as a log or another node may hand them over.

An input is a mode and bytes: an entry (decoded, and applied if it decodes), a batch of another node's (decoded), or a
slice of a snapshot (the slices before it were right; so were those behind it, if it is taken). Slices are changed
inside of their checksum, which is made again half of the time: what is behind it must hold by itself.

Checked: nothing is raised but what is documented; a batch that decodes is applied without an error, and all invariants
of the state machine hold; a decoded batch is applied by replicas alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

from xxhash import xxh3_64_intdigest

from riverbus.core.state.bus import Bus
from riverbus.core.state.entries import (
    BatchBuilder,
    DamagedEntry,
    UnknownEntry,
    decode_batch,
    decode_entry,
    encode_entry,
)
from riverbus.core.state.rules import ChannelRule, Rules, rules_to_bytes
from riverbus.core.state.snapshot import BusRestore, DamagedSnapshot
from riverbus.core.state.snapshot_writer import FRAME
from riverbus.fields import encode_fields
from riverbus.messages import Kind
from tests.malformed.driver import kind_of
from tests.malformed.mutations import mutate, splice

ENTRY, BATCH, SLICE = range(3)
TIME_MS = 1_000_000
RULES = Rules(default=ChannelRule(count=20, bytes=20_000), shard_bytes_max=300_000)
SLICE_BYTES = 2_000


class EntrySubject:
    """Two replicas that must go on being equal, and snapshots that are restored."""

    def __init__(self, seed: int) -> None:
        self.bus, self.twin = Bus(RULES), Bus(RULES)

    def feed(self, data: bytes) -> str:
        mode, which, data = data[0] % 3, data[1], data[2:]
        if mode == ENTRY:
            try:
                decode_entry(data)
            except (DamagedEntry, UnknownEntry) as error:
                return f"refused entry: {kind_of(str(error))}"
            self._apply(data)
            return "entry"
        if mode == BATCH:
            try:
                decode_batch(data)
            except (DamagedEntry, UnknownEntry) as error:
                return f"refused batch: {kind_of(str(error))}"
            self._apply(encode_entry(TIME_MS + which, [data]))
            return "batch"
        return _restore(data, which)

    def _apply(self, data: bytes) -> None:
        for bus in (self.bus, self.twin):
            bus.apply(bus.applied_index + 1, data)
        assert self.bus.running_hash == self.twin.running_hash

    def finish(self) -> None:
        self.bus.invariants()
        self.twin.invariants()
        _release(self.bus)
        _release(self.twin)


def _restore(data: bytes, which: int) -> str:
    slices = snapshots()[which % len(snapshots())]
    at = which // len(snapshots()) % len(slices)
    restore = BusRestore(RULES)
    try:
        for framed in slices[:at]:
            restore.feed(framed)
        restore.feed(data)
        for framed in slices[at + 1 :]:
            restore.feed(framed)
        bus = restore.finish()
    except DamagedSnapshot as error:
        _release(restore)
        return f"refused slice: {kind_of(str(error))}"
    bus.invariants()
    _release(bus)
    return "slice"


def _release(made: Bus | BusRestore) -> None:
    while made.release_some():
        pass


# --- samples and inputs -----------------------------------------------------------------------------------------------


@cache
def batches() -> tuple[bytes, ...]:
    random = Random(0)
    made = []
    for number in range(300):
        builder = BatchBuilder(random.choice((1, 7, 2**64 - 1)))
        for _ in range(random.choice((1, 1, 2, 5))):
            kind = random.choice(tuple(Kind))
            count = random.choice((1, 1, 2, 3, 40))
            size = random.choice((0, 1, 10, 10, 100, 3000))
            payloads = [random.randbytes(random.choice((size, size, random.randrange(size + 1)))) for _ in range(count)]
            if kind == Kind.XADD:
                payloads = [encode_fields([b"field", payload]) for payload in payloads]
            builder.add_run(random.choice((b"a", b"b", b"c" * 40, b"")), int(kind), payloads)
        if random.random() < 0.05:
            builder.add_rules(rules_to_bytes(RULES))
        made.append(builder.finish(number))
    return tuple(made)


@cache
def entries() -> tuple[bytes, ...]:
    random = Random(1)
    return tuple(
        encode_entry(TIME_MS + number, [random.choice(batches()) for _ in range(random.choice((0, 1, 1, 1, 2, 4)))])
        for number in range(300)
    )


@cache
def snapshots() -> tuple[tuple[bytes, ...], ...]:
    made = []
    for count in (0, 3, 60):
        bus = Bus(RULES)
        for index, entry in enumerate(entries()[:count]):
            bus.apply(index + 1, entry)
        writer = bus.begin_snapshot()
        slices = []
        while (framed := writer.next_slice(SLICE_BYTES)) is not None:
            slices.append(framed)
        made.append(tuple(slices[:8]) if count == 60 else tuple(slices))
    return tuple(made)


def generator(random: Random) -> Callable[[], bytes]:
    def generate() -> bytes:
        draw = random.random
        mode, which = int(draw() * 3), random.getrandbits(8)
        if mode == SLICE:
            slices = snapshots()[which % len(snapshots())]
            data = _changed_slice(slices[which // len(snapshots()) % len(slices)], random)
        else:
            samples = entries() if mode == ENTRY else batches()
            data = samples[int(draw() * len(samples))]
            if draw() < 0.05:
                data = splice(data, samples[int(draw() * len(samples))], random)
            while draw() < 0.5:
                data = mutate(data, random) if draw() < 0.3 else _changed_head(data, random)
        return bytes((mode, which)) + data

    return generate


def _changed_head(data: bytes, random: Random) -> bytes:
    """A change in the first bytes, where counts and lengths stand."""
    return mutate(data[:60], random) + data[60:]


def _changed_slice(framed: bytes, random: Random) -> bytes:
    payload = framed[FRAME.size :]
    while random.random() < 0.6:
        payload = mutate(payload, random) if random.random() < 0.5 else _changed_head(payload, random)
    if random.random() < 0.5:
        return FRAME.pack(len(payload), xxh3_64_intdigest(payload)) + payload
    return framed[: FRAME.size] + payload
