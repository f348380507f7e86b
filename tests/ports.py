"""The ports that this process of pytest may take: below those of outgoing connections, and not the other worker's.

A node that a test kills leaves its ports free until it is started again; nobody may take them meanwhile.
"""

from __future__ import annotations

import os

WORKERS_MAX = 4
_FIRST, _END = 20_000, 32_000
_SHARE = (_END - _FIRST) // WORKERS_MAX
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS_MAX

PORTS = range(_FIRST + _WORKER * _SHARE, _FIRST + (_WORKER + 1) * _SHARE)
