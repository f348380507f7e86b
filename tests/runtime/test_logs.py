"""Logs: JSON in a pipe, lines for people, no secret in either."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from riverbus.runtime import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(level: str, style: str) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, style, stream)
    return stream


def test_in_a_pipe_an_event_is_one_line_of_json() -> None:
    stream = lines("info", "auto")
    logs.get("peers", node=2).warning("lost the link", peer=3)
    logs.get("peers").debug("not shown")
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "lost the link", "level": "warning", "part": "peers", "node": 2, "peer": 3}


def test_values_named_like_secrets_are_masked_in_both_forms() -> None:
    for style in ("text", "json"):
        stream = lines("info", style)
        logs.get("config").info("loaded", password="hunter2", Admin_Token="hunter2", secret_file="/etc/secret")
        assert "hunter2" not in stream.getvalue()
        assert "/etc/secret" in stream.getvalue()


def test_a_traceback_shows_no_local_variable() -> None:
    for style in ("text", "json"):
        stream = lines("info", style)
        try:
            password = "hunter" + str(2)
            raise RuntimeError(f"of length {len(password)}")
        except RuntimeError:
            logs.get("node").exception("failed")
        assert "of length 7" in stream.getvalue()
        assert "hunter2" not in stream.getvalue()


def test_what_libraries_log_comes_out_alike_if_it_is_a_warning_or_worse() -> None:
    stream = lines("info", "json")
    logging.getLogger("asyncio").warning("a slow %s", "callback")
    logging.getLogger("asyncio").info("not shown")
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["part"], event["level"]) == ("a slow callback", "asyncio", "warning")
