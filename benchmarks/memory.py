"""What does a retained message cost in memory, over its payload? And a channel that holds one message?

Fills a bus by its own `apply`, in a process of its own for each case, and compares the resident set before and after
(after a warm-up, so that code and caches do not count). Run: `.venv/bin/python -m benchmarks.memory [--json]`.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from riverbus.core.state.bus import Bus
from riverbus.core.state.entries import BatchBuilder, encode_entry
from riverbus.core.state.rules import UNLIMITED, ChannelRule, Rules

START_MS = 1_700_000_000_000
FLOOR_BYTES = 80  # the table
AIM_BYTES = 60


@dataclass(frozen=True)
class Case:
    """`messages` in each of `channels`, `run` at a time, one run an entry (or all channels' runs in one entry)."""

    name: str
    channels: int
    messages: int
    run: int
    payload_bytes: int
    window: int


CASES = [
    Case("one a time, 100 B", 1, 1_000_000, 1, 100, UNLIMITED),
    Case("one a time, 100 B, window full and moving", 1, 1_000_000, 1, 100, 300_000),
    Case("one a time over 1,000 channels, 100 B", 1000, 500, 1, 100, UNLIMITED),
    Case("the same, windows full and moving", 1000, 900, 1, 100, 300),
    Case("runs of 16, 100 B", 1, 1_000_000, 16, 100, UNLIMITED),
    Case("runs of 256, 100 B", 1, 1_000_000, 256, 100, UNLIMITED),
    Case("one a time, 1 KiB", 1, 200_000, 1, 1024, UNLIMITED),
    Case("one a time, 5 KiB", 1, 50_000, 1, 5 * 1024, UNLIMITED),
    Case("one a time, 32 KiB", 1, 10_000, 1, 32 * 1024, UNLIMITED),
    Case("a channel with one message of 100 B", 300_000, 1, 1, 100, UNLIMITED),
]


def fill(bus: Bus, case: Case, prefix: bytes) -> None:
    """Payloads are made anew for each entry, as they come from a socket; nothing else is kept."""
    per_entry = 256
    for turn in range(-(-case.messages // case.run)):
        for start in range(0, case.channels, per_entry):
            builder = BatchBuilder(1)
            for number in range(start, min(start + per_entry, case.channels)):
                payloads = [b"%0*d" % (case.payload_bytes, turn) for _ in range(case.run)]
                builder.add_run(prefix + b"%d" % number, 0, payloads)
            bus.apply(bus.applied_index + 1, encode_entry(START_MS + turn, [builder.finish(turn)]))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(case: Case) -> dict[str, object]:
    rule = ChannelRule(count=case.window, age_ms=UNLIMITED, bytes=UNLIMITED)
    warm = Case("", 1, 100, case.run, case.payload_bytes, UNLIMITED)
    fill(Bus(Rules(default=rule)), warm, b"warm")
    gc.collect()
    objects, resident = len(gc.get_objects()), resident_bytes()
    bus = Bus(Rules(default=rule, shard_bytes_max=UNLIMITED))
    fill(bus, case, b"chat.room.")
    resident = resident_bytes() - resident
    gc.collect()
    objects = len(gc.get_objects()) - objects
    messages = bus.retained_messages
    return {
        **asdict(case),
        "retained": messages,
        "over_payload_resident": round((resident - bus.retained_bytes) / messages, 1),
        "over_payload_estimated": round((bus.memory_bytes - bus.retained_bytes) / messages, 1),
        "collector_objects_per_channel": round(objects / case.channels, 3),
    }


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--case":
        print(json.dumps(measure(CASES[int(sys.argv[2])])))
        return
    rows = []
    for number in range(len(CASES)):
        command = [sys.executable, "-m", "benchmarks.memory", "--case", str(number)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    if "--json" in sys.argv:
        print(json.dumps(rows, indent=2))
        return
    print(f"bytes over the payload for each retained message (100 B: at most {FLOOR_BYTES}, aim {AIM_BYTES})\n")
    print(f"{'case':45} {'messages':>9} {'resident':>9} {'estimate':>9} {'gc objects/channel':>19}")
    for row in rows:
        figures = f"{row['over_payload_resident']:>9} {row['over_payload_estimated']:>9}"
        print(f"{row['name']:45} {row['retained']:>9} {figures} {row['collector_objects_per_channel']:>19}")


if __name__ == "__main__":
    main()
