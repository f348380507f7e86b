"""Riverbus: a distributed message bus on Raft consensus that Redis clients already speak to.

    async with riverbus.connect("redis://127.0.0.1:6380,127.0.0.1:6381") as bus:
        await bus.publish("chat", "hello")

The names below are loaded at first use, so that a node, which imports this package too, does not load the client.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from riverbus.client.bus import Bus, connect
    from riverbus.client.embedded import embedded
    from riverbus.client.nouns import Gap, HistoryLost, Message, Refused, Unreachable
    from riverbus.client.subscription import Subscription
    from riverbus.messages import BusError, DiskFull, MessageId, NotAccepted, OutcomeUnknown, OutOfMemory, Overloaded

__all__ = [
    "Bus",
    "BusError",
    "DiskFull",
    "Gap",
    "HistoryLost",
    "Message",
    "MessageId",
    "NotAccepted",
    "OutOfMemory",
    "OutcomeUnknown",
    "Overloaded",
    "Refused",
    "Subscription",
    "Unreachable",
    "__version__",
    "connect",
    "embedded",
]

_HOMES = {
    "Bus": "riverbus.client.bus",
    "connect": "riverbus.client.bus",
    "embedded": "riverbus.client.embedded",
    "Gap": "riverbus.client.nouns",
    "HistoryLost": "riverbus.client.nouns",
    "Message": "riverbus.client.nouns",
    "Refused": "riverbus.client.nouns",
    "Unreachable": "riverbus.client.nouns",
    "Subscription": "riverbus.client.subscription",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'riverbus' has no attribute {name!r}")
    value: object
    if name == "__version__":
        value = metadata.version("riverbus")
    else:
        value = getattr(import_module(_HOMES.get(name, "riverbus.messages")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
