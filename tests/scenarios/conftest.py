"""`pytest tests/scenarios --rewrite` writes what comes of each story now; read the diff before you keep it."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", default=False, help="rewrite the scenario files")
