"""The rows of benchmarks/memory.py in the table: bytes per retained message over its payload, and per idle channel.

No peer: a floor in bytes. memory.py is run as its users run it, a process a case; a quick run takes one small case.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.harness import BenchmarkError, Budget, Row
from benchmarks.memory import AIM_BYTES, CASES, FLOOR_BYTES

SECONDS_MAX = 300
QUICK_CASE = next(number for number, case in enumerate(CASES) if case.messages <= 50_000 and case.channels == 1)
JUDGED_PAYLOAD_BYTES = 100


def measure(budget: Budget) -> list[Row]:
    numbers = [QUICK_CASE] if budget.is_quick else range(len(CASES))
    return [_row(number) for number in numbers]


def _row(number: int) -> Row:
    case = CASES[number]
    row = Row("memory", f"memory over the payload: {case.name}", "B", judged="ours", is_more_better=False)
    if case.payload_bytes == JUDGED_PAYLOAD_BYTES and case.messages > 1:
        row.floor, row.aim = FLOOR_BYTES, AIM_BYTES
    try:
        figures = _measured(number)
    except BenchmarkError as error:
        row.error = str(error)
        return row
    row.take([float(figures["over_payload_resident"])], [])
    row.details = {
        "retained": figures["retained"],
        "objects for the collector": figures["collector_objects_per_channel"],
    }
    return row


def _measured(number: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", "--case", str(number)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"benchmarks.memory: {done.stderr.strip()[-200:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
