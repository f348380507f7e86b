"""A channel layer for Django Channels whose groups have history: over a failover or a reconnection nothing is dropped.

    CHANNEL_LAYERS = {"default": {
        "BACKEND": "riverbus.contrib.channels.ChannelLayer",
        "CONFIG": {"url": "redis://10.0.0.1:6380,10.0.0.2:6380,10.0.0.3:6380", "on_gap": "chat.gaps.on_gap"},
    }}

Follows the channel layer specification, with groups and flush. What other layers drop in silence is told here: a send
or group_send that the bus did not take raises; a consumer that is slow is served from history when it catches up; what
left the history or expired unread goes to `on_gap`. Two kinds of channels:

- of a process (`new_channel`, all consumers' own): one channel of the bus for the whole process, handed out in it;
- by name (`"thumbnails"`, read by runworker): kept in the bus until one receiver of any process claims it.

What one event loop of a process holds is in channels_process.py, channels by name are in channels_named.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from channels.layers import BaseChannelLayer
from django.utils.module_loading import import_string

import riverbus
from riverbus.contrib.buses import Buses
from riverbus.contrib.channels_nouns import LayerGap, OnGap, Settings, log_gap
from riverbus.contrib.channels_process import Process

__all__ = ["ChannelLayer", "LayerGap"]

URL_DEFAULT = "redis://127.0.0.1:6380"


class ChannelLayer(BaseChannelLayer):  # type: ignore[misc] # channels has no types
    """`url` is riverbus.connect()'s, or embedded:// for one process; `bus` is a bus that is there already.

    `expiry` (s), `capacity` and `channel_capacity` are the specification's; `prefix` begins the names in the bus.
    `on_gap`, a function of a LayerGap or its dotted name, sync or async, is called for what a consumer will not get.
    """

    extensions = ["groups", "flush"]

    def __init__(
        self,
        url: str | None = None,
        *,
        bus: riverbus.Bus | None = None,
        prefix: str = "asgi",
        expiry: float = 60,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
        on_gap: OnGap | str = log_gap,
    ) -> None:
        """Raises ValueError for a bad URL, ImportError when there is no such `on_gap`."""
        super().__init__(expiry=expiry, capacity=capacity, channel_capacity=channel_capacity)
        self.channel_capacity = self.compile_capacities(channel_capacity or {})
        hook: OnGap = import_string(on_gap) if isinstance(on_gap, str) else on_gap
        self._settings = Settings(prefix, expiry, self.get_capacity, hook)
        self._buses = Buses(URL_DEFAULT if url is None and bus is None else url, bus, self._on_bus_closed)
        self._processes: dict[riverbus.Bus, Process] = {}

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        """To one receiver. Raises ChannelFull when its backlog is at capacity, where that is known; NotAccepted or
        OutcomeUnknown when the bus has not taken it."""
        assert isinstance(message, Mapping), "message is not a dict"
        self.require_valid_channel_name(channel)
        await (await self._here()).send(channel, message)

    async def receive(self, channel: str) -> dict[str, Any]:
        """The channel's next message; waits for it. A channel that nobody waits on for `expiry` after a cancelled
        receive is forgotten, and leaves its groups."""
        self.require_valid_channel_name(channel)
        return await (await self._here()).receive(channel)

    async def new_channel(self, prefix: str = "specific") -> str:
        """A channel of this process."""
        return (await self._here()).new_channel(prefix)

    async def group_add(self, group: str, channel: str) -> None:
        """Returns once it holds, if the channel is of this process. One of another process is added by that process,
        soon. Raises ValueError for a channel that is of no process."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await (await self._here()).group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """As group_add. It is no error when the channel is not in the group."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await (await self._here()).group_discard(group, channel)

    async def group_send(self, group: str, message: Mapping[str, Any]) -> None:
        """Returns once the bus has it on the disks of a majority. Raises NotAccepted or OutcomeUnknown."""
        assert isinstance(message, Mapping), "message is not a dict"
        self.require_valid_group_name(group)
        await (await self._here()).group_send(group, message)

    async def flush(self) -> None:
        """Forget this process' channels, groups and messages. Those of other processes are theirs."""
        await (await self._here()).flush()

    async def close(self) -> None:
        """What this event loop holds of the layer. Done by itself when the loop ends."""
        process = self._processes.pop(await self._buses.here(), None)
        if process is not None:
            await process.close()
        await self._buses.close()

    async def _here(self) -> Process:
        bus = await self._buses.here()
        if bus not in self._processes:
            self._processes[bus] = Process(bus, self._settings)
        return self._processes[bus]

    def _on_bus_closed(self, bus: riverbus.Bus) -> None:
        self._processes.pop(bus, None)
