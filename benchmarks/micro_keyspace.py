"""What keyspace commands cost to apply: consumer groups, XADD with options, XDEL, strings; memory of pending entries.

One shard's state machine alone, no network, no consensus: entries are made before the clock starts. "apply" is what
every replica does; "reply" adds what the node does that answers. Run: python -m benchmarks.micro_keyspace
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence

from riverbus.core.state.bus import Bus, WriteResult
from riverbus.core.state.entries import BatchBuilder, encode_entry
from riverbus.core.state.keyspace.codes import Noun
from riverbus.core.state.rules import UNLIMITED, Rules
from riverbus.fields import encode_fields
from riverbus.keyspace_commands import SetString, Trim, XAck, XAdd, XDel, XGroupCreate, XReadGroup
from riverbus.messages import ID_MAX, ID_MIN, Kind

MESSAGES = 100_000
PER_ENTRY = 50  # commands that share an entry
BODY = encode_fields([b"field", b"x" * 100])
KEY, GROUP = b"stream", b"group"


def new_bus() -> Bus:
    return Bus(Rules(shard_bytes_max=UNLIMITED))


def entries_of(bus: Bus, nouns: Sequence[Noun], per_entry: int = PER_ENTRY) -> list[bytes]:
    found: list[bytes] = []
    for at in range(0, len(nouns), per_entry):
        builder = BatchBuilder(1)
        for noun in nouns[at : at + per_entry]:
            builder.add_write(noun)
        found.append(encode_entry(bus.time_ms + 1 + len(found), [builder.finish(1)]))
    return found


def seconds(bus: Bus, entries: Sequence[bytes], with_replies: bool = False) -> float:
    begin = time.process_time()
    for entry in entries:
        applied = bus.apply(bus.applied_index + 1, entry)
        if with_replies:
            for result in applied.results[0].results:
                assert isinstance(result, WriteResult)
                _ = result.reply
    return time.process_time() - begin


def fill(bus: Bus, run: int) -> None:
    for at in range(MESSAGES // run):
        builder = BatchBuilder(1)
        builder.add_run(KEY, Kind.XADD, [BODY] * run)
        bus.apply(bus.applied_index + 1, encode_entry(bus.time_ms + (at % 2), [builder.finish(1)]))


def show(what: str, count: int, took: float) -> None:
    print(f"{what:<52} {count / took:>12,.0f} /s")


def groups(run: int) -> None:
    """All messages handed out by 100, and acknowledged by 100."""
    for with_replies in (False, True):
        bus = new_bus()
        fill(bus, run)
        seconds(bus, entries_of(bus, [XGroupCreate(KEY, GROUP, ID_MIN)]))
        reads = entries_of(bus, [XReadGroup(GROUP, b"consumer", (KEY,), (None,), 100)] * (MESSAGES // 100), 1)
        read_s = seconds(bus, reads, with_replies)
        ids = [message.id for message in bus.range(KEY, ID_MIN, ID_MAX)]
        acks = entries_of(bus, [XAck(KEY, GROUP, tuple(ids[at : at + 100])) for at in range(0, MESSAGES, 100)], 1)
        ack_s = seconds(bus, acks, with_replies)
        kind = f"runs of {run}, {'reply' if with_replies else 'apply'}"
        show(f"XREADGROUP COUNT 100 ({kind})", MESSAGES, read_s)
        show(f"XACK of 100 ({kind})", MESSAGES, ack_s)
        show(f"both ({kind})", MESSAGES, read_s + ack_s)


def memory() -> None:
    bus = new_bus()
    fill(bus, 100)
    seconds(bus, entries_of(bus, [XGroupCreate(KEY, GROUP, ID_MIN)]))
    reads = entries_of(bus, [XReadGroup(GROUP, b"consumer", (KEY,), (None,), 100)] * (MESSAGES // 100), 1)
    accounted = bus.memory_bytes
    tracemalloc.start()
    seconds(bus, reads)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    print(f"{'a pending entry takes':<52} {taken / MESSAGES:>12.1f} bytes", end="")
    print(f" ({(bus.memory_bytes - accounted) / MESSAGES:.1f} accounted)")


def others() -> None:
    bus = new_bus()
    show("XADD with options (apply)", 20_000, seconds(bus, entries_of(bus, [XAdd(KEY, BODY)] * 20_000)))
    trimmed = [XAdd(KEY, BODY, trim=Trim(maxlen=1000, is_approximate=True))] * 20_000
    show("XADD MAXLEN ~ 1000 (apply)", 20_000, seconds(bus, entries_of(bus, trimmed)))
    keyed = [XAdd(KEY, BODY, producer=b"p", idempotent_id=b"%d" % at) for at in range(20_000)]
    show("XADD IDMP (apply)", 20_000, seconds(bus, entries_of(bus, keyed)))
    ids = [message.id for message in bus.range(KEY, ID_MIN, ID_MAX)]
    show(
        "XDEL from the middle (apply)",
        5_000,
        seconds(bus, entries_of(bus, [XDel(KEY, (i,)) for i in ids[5000:10_000]])),
    )
    show("XDEL from the front (apply)", 5_000, seconds(bus, entries_of(bus, [XDel(KEY, (i,)) for i in ids[:5_000]])))
    strings = [SetString(b"key:%d" % (at % 1000), b"x" * 50, 60_000) for at in range(20_000)]
    show("SET PX (apply)", 20_000, seconds(bus, entries_of(bus, strings)))


def main() -> None:
    for run in (1, 50):
        groups(run)
    others()
    memory()


if __name__ == "__main__":
    main()
