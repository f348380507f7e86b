"""What the configuration says about subscribers with a durable name, told to the core."""

from __future__ import annotations

from riverbus.core.clients.durable import DurableNames
from riverbus.runtime.config import Config


def configure_durable(names: DurableNames, config: Config) -> None:
    names.keep_ms = config.durable.keep
    names.save_ms = config.durable.save
    names.marker = config.durable.gap_marker.encode()
