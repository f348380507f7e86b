"""What CONFIG SET changes, for this node and until it stops: stream-node-max-entries and notify-keyspace-events.

Everything else is in the node's configuration file (runtime/config.py). The flags of keyspace events are kept as a set
of letters and shown in Redis' order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from riverbus.limits import STREAM_NODE_ENTRIES_MAX

EVENT_CLASSES = "g$lshzxetd"  # what `A` stands for, in the order in which Redis shows them
_FLAGS = EVENT_CLASSES + "nKEm"  # the order behind that


class BadSetting(ValueError):
    """The value is none for this setting; the text is the reason."""


class NodeSettings:
    def __init__(self) -> None:
        self.stream_node_entries = 100
        self.event_flags: frozenset[str] = frozenset()

    @property
    def shown(self) -> dict[str, str]:
        return {
            "notify-keyspace-events": show_flags(self.event_flags),
            "stream-node-max-entries": str(self.stream_node_entries),
        }

    def check(self, name: str, value: str) -> None:
        """Raises BadSetting."""
        _SETTINGS[name][1](value)

    def change(self, settings: Sequence[tuple[str, str]]) -> None:
        """Settings that were checked."""
        for name, value in settings:
            attribute, read = _SETTINGS[name]
            setattr(self, attribute, read(value))


def _read_node_entries(text: str) -> int:
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        raise BadSetting("argument couldn't be parsed into an integer")
    if not 0 <= int(text) <= STREAM_NODE_ENTRIES_MAX:
        raise BadSetting(f"argument must be between 0 and {STREAM_NODE_ENTRIES_MAX} inclusive")
    return int(text)


def read_flags(text: str) -> frozenset[str]:
    """The letters of notify-keyspace-events. Raises BadSetting."""
    found: set[str] = set()
    for letter in text:
        if letter == "A":
            found |= set(EVENT_CLASSES)
        elif letter in _FLAGS:
            found.add(letter)
        else:
            raise BadSetting("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")
    return frozenset(found)


def show_flags(flags: frozenset[str]) -> str:
    is_all = flags.issuperset(EVENT_CLASSES)
    rest = _FLAGS if not is_all else _FLAGS[len(EVENT_CLASSES) + 1 :]
    return "A" * is_all + "".join(letter for letter in rest if letter in flags)


_SETTINGS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "notify-keyspace-events": ("event_flags", read_flags),
    "stream-node-max-entries": ("stream_node_entries", _read_node_entries),
}
