"""Structured logs: one line for each event that an operator would act on, none per message.

Lines for people on a terminal, JSON elsewhere; to standard error, so that standard output stays a command's own.
Values under a name that sounds like a secret are masked, whoever logs them. What libraries say through `logging`
(asyncio, uvicorn) comes out the same way, warnings and worse only. Tracebacks are printed without the values of local
variables, for those are where passwords are.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

SECRET_WORDS = ("password", "secret", "token", "authorization", "credential")
_NOT_SECRET = frozenset({"secret_file"})
_MASK = "***"

Logger = structlog.typing.FilteringBoundLogger


def configure(level: str = "info", style: str = "auto", stream: TextIO | None = None) -> None:
    """`style` is auto, text or json; `level` debug, info, warning or error. Until it is called, nothing is set up."""
    target = sys.stderr if stream is None else stream
    is_text = style == "text" or (style == "auto" and target.isatty())
    renderer: structlog.typing.Processor
    if is_text:
        renderer = structlog.dev.ConsoleRenderer(
            colors=target.isatty(),
            pad_event_to=0,
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        )
    else:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not is_text),
            mask_secrets,
            *([] if is_text else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forwarder()], level=logging.WARNING, force=True)


def get(part: str, **values: object) -> Logger:
    """The logger of a part of the node: `get("peers", node=2)`. The parts and values stand in each of its lines."""
    logger: Logger = structlog.get_logger(part=part, **values)
    return logger


def mask_secrets(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor."""
    for name in event:
        if name not in _NOT_SECRET and any(word in name.lower() for word in SECRET_WORDS):
            event[name] = _MASK
    return event


class _Forwarder(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(part=record.name)
        logger.log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)
