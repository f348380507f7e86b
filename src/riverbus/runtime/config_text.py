"""The commented TOML of all defaults, made from the models of config.py, so that it can never lag behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from riverbus.runtime.config import Config
from riverbus.runtime.config_users import Section
from riverbus.runtime.units import Address, format_bytes, format_duration

_HEAD = """\
# Riverbus configuration. Every value below is the default: keep only what you change.
# Precedence: flags, then the environment (RIVERBUS_SECTION_KEY, such as RIVERBUS_NODE_ID), then this file.
# Durations: ms s m h d. Sizes: bytes, or KiB MiB GiB TiB (KB MB GB TB are the decimal ones).
"""

_TAIL = """\
# Channels with other windows. The first rule that matches holds; what it leaves out is as in [history].
# [[channel]]
# match = "orders.*"
# history = { count = 1000000, age = "1h", bytes = "1GiB" }
# payload = "64KiB"      # of a message at most
# window = "10m"         # how long the key of a publish is known
# [[channel]]
# match = "cursors.*"
# durability = "none"    # at most once, in no log, no history; the default is "quorum": docs/durability.md
# [[channel]]
# match = "ticks.*"
# durability = "memory"  # answered once a majority has it in memory, kept as with "quorum" a flush later

# Users. With any, clients must authenticate (AUTH, HELLO ... AUTH). The password of the name "default" is that of
# clients who give no name. A password may be given as "sha256:" and the 64 hex digits of its SHA-256, or as
# `riverbus config password` prints it; `passwords` takes several. `rules` are Redis ACL rules: see docs/security.md.
# [[user]]
# name = "default"
# password = "..."
# rules = "~* &* +@all"
"""


def default_text() -> str:
    """TOML that `load` accepts, and that changes nothing."""
    parts = [_HEAD]
    for name, field in Config.model_fields.items():
        if isinstance(field.default, Section):
            parts.append("\n".join(_section(name, field.default)) + "\n")
    return "\n".join([*parts, _TAIL])


def _section(name: str, section: BaseModel) -> list[str]:
    lines = [f"[{name}]"]
    inner: list[str] = []
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, Section):
            inner += ["", *_section(f"{name}.{key}", value)]
            continue
        lines.append(f"# {field.description}")
        # A key without a default is shown as a comment: TOML has no null.
        lines.append(f"# {key} =" if value is None else f"{key} = {_toml(value, field)}")
    return lines + inner


def _toml(value: Any, field: FieldInfo) -> str:
    parsers = {item.func.__name__ for item in field.metadata if isinstance(item, BeforeValidator)}
    match value:
        case Address() | Path() | str():
            text = str(value)
        case dict():
            text = ""
        case int() if "parse_duration" in parsers:
            text = format_duration(value)
        case int() if "parse_bytes" in parsers:
            text = format_bytes(value)
        case _:
            return str(value)
    return f'"{text}"'
