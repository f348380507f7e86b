"""What one event loop of a process holds of the channel layer: its channels, its groups, one subscription for them all.

In the bus are: one channel for all of the process' own channels, whose messages name the one they are for; one for each
group; one for each channel that has a name only. A task (`_pump`) takes what the subscription brings to the consumers'
queues (channels_queue.py). Groups are followed while a channel of this process is in them.

Leaves to others: how a message of a named channel is claimed (channels_named.py).
"""

from __future__ import annotations

import asyncio
import inspect
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from channels.exceptions import ChannelFull

from riverbus import Bus, Gap, Message, MessageId
from riverbus.client.subscription import Subscription
from riverbus.contrib.channels_named import NamedChannels
from riverbus.contrib.channels_nouns import LayerGap, Loss, Settings, now_ms
from riverbus.contrib.channels_queue import ConsumerQueue
from riverbus.messages import ID_MIN

MESSAGE, GROUP_ADD, GROUP_DISCARD = range(3)  # what another process sends to this one


@dataclass
class Group:
    members: dict[str, None] = field(default_factory=dict)  # channels of this process, in the order of joining
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0  # of the lock: while there are any, the group is not forgotten
    is_followed: bool = False


class Process:
    def __init__(self, bus: Bus, settings: Settings) -> None:
        self._bus = bus
        self._settings = settings
        self.id = uuid.uuid4().hex
        self._own = self._process_name(self.id)
        self._queues: dict[str, ConsumerQueue] = {}
        self._groups: dict[str, Group] = {}
        self._named = NamedChannels(bus, settings, lambda channel, loss: self._report(None, (channel,), loss))
        self._left: dict[str, float] = {}  # channels that nobody waits on since a cancelled receive, and since when
        self._waiting: dict[str, int] = {}  # receivers of each channel
        self._subscription: Subscription[Message | Gap] | None = None
        self._starting = asyncio.Lock()
        self._pumping: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- names in the bus ---------------------------------------------------------------------------------------------

    def _process_name(self, process: str) -> str:
        return f"{self._settings.prefix}:process:{process}"

    def _group_name(self, group: str) -> str:
        return f"{self._settings.prefix}:group:{group}"

    # --- channels -----------------------------------------------------------------------------------------------------

    def new_channel(self, prefix: str) -> str:
        self._sweep()
        channel = f"{prefix}.{self.id}!{uuid.uuid4().hex}"
        self._queues[channel] = self._queue(channel)
        return channel

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        body = msgspec.msgpack.encode(message)
        owner = _owner(channel)
        if owner == self.id:
            queue = self._queues.setdefault(channel, self._queue(channel))
            if queue.is_full:
                raise ChannelFull(channel)
            queue.put(now_ms(), body)
        elif owner is not None:
            await self._tell(owner, MESSAGE, channel, body)
        else:
            await self._named.send(channel, body)

    async def receive(self, channel: str) -> dict[str, Any]:
        subscription = await self._subscribed()
        owner = _owner(channel)
        if owner not in (None, self.id):
            raise ValueError(f"{channel!r} belongs to another process (or another event loop)")
        with self._received(channel):
            body = await (self._named.claim(subscription, channel) if owner is None else self._take(channel))
        return cast(dict[str, Any], msgspec.msgpack.decode(body))

    async def _take(self, channel: str) -> bytes:
        queue = self._queues.setdefault(channel, self._queue(channel))
        while True:
            found, losses = await queue.take(self._bus, self._settings.alive_ms())
            for loss in losses:
                self._report(self._group_of(loss.source), (channel,), loss)
            if found is not None:
                return found

    @contextmanager
    def _received(self, channel: str) -> Iterator[None]:
        """Someone waits on the channel. Once nobody has for long after a cancelled wait, it is forgotten."""
        self._left.pop(channel, None)
        self._waiting[channel] = self._waiting.get(channel, 0) + 1
        try:
            yield
        except BaseException:
            if self._waiting[channel] == 1:
                self._left[channel] = _monotonic_s()
                self._sweep()
            raise
        finally:
            self._waiting[channel] -= 1
            if not self._waiting[channel]:
                del self._waiting[channel]

    def _sweep(self) -> None:
        """Forget what was left for longer than a message lives. In the order of leaving, so that it ends soon."""
        until = _monotonic_s() - self._settings.expiry_s
        for channel in [channel for channel, left_at in self._left.items() if left_at < until]:
            del self._left[channel]
            self._spawn(self._forget(channel))

    async def _forget(self, channel: str) -> None:
        for group in [name for name, group in self._groups.items() if channel in group.members]:
            await self.group_discard(group, channel)
        if channel not in self._waiting:
            self._queues.pop(channel, None)
            if self._subscription is not None:
                await self._named.forget(self._subscription, channel)

    def _queue(self, channel: str) -> ConsumerQueue:
        return ConsumerQueue(
            self._settings.capacity(channel), lambda source, payload: self._body(channel, source, payload)
        )

    def _body(self, channel: str, source: str, payload: bytes) -> bytes | None:
        """Of a message read from history: what it has for the channel."""
        if source != self._own:
            return payload
        kind, name, body = _unpacked(payload)
        return body if kind == MESSAGE and name == channel else None

    # --- groups -------------------------------------------------------------------------------------------------------

    async def group_add(self, group: str, channel: str) -> None:
        owner = _owner(channel)
        if owner is None:
            raise ValueError(f"{channel!r} is of no process: only channels of new_channel() can be in a group")
        if owner != self.id:
            await self._tell(owner, GROUP_ADD, channel, group.encode())
            return
        subscription = await self._subscribed()
        name = self._group_name(group)
        with self._group(group) as state:
            async with state.lock:
                queue = self._queues.setdefault(channel, self._queue(channel))
                if channel in state.members:
                    return
                if not state.is_followed:
                    await subscription.add(name)
                    state.is_followed = True
                else:  # what was sent before it joined, and is still on its way to the others, is not for it
                    newest = await self._bus.history(name, limit=1, reverse=True)
                    queue.join(name, cast(MessageId, newest[0].id) if newest else ID_MIN)
                state.members[channel] = None

    async def group_discard(self, group: str, channel: str) -> None:
        owner = _owner(channel)
        if owner is not None and owner != self.id:
            await self._tell(owner, GROUP_DISCARD, channel, group.encode())
            return
        name = self._group_name(group)
        with self._group(group) as state:
            async with state.lock:
                if channel in state.members:
                    del state.members[channel]
                    if channel in self._queues:
                        self._queues[channel].leave(name)
                    if not state.members and self._subscription is not None:
                        state.is_followed = False
                        await self._subscription.remove(name)

    async def group_send(self, group: str, message: Mapping[str, Any]) -> None:
        await self._bus.publish(self._group_name(group), msgspec.msgpack.encode(message))

    @contextmanager
    def _group(self, name: str) -> Iterator[Group]:
        group = self._groups.setdefault(name, Group())
        group.users += 1
        try:
            yield group
        finally:
            group.users -= 1
            if not group.users and not group.members and self._groups.get(name) is group:
                del self._groups[name]

    def _group_of(self, source: str) -> str | None:
        name = source.removeprefix(self._group_name(""))
        return name if name != source else None

    # --- the subscription ---------------------------------------------------------------------------------------------

    async def _subscribed(self) -> Subscription[Message | Gap]:
        async with self._starting:
            if self._subscription is None:
                subscription = self._bus.subscribe(self._own, since="0-0")  # others may have been told its channels
                await subscription.__aenter__()
                self._subscription = subscription
                self._pumping = asyncio.get_running_loop().create_task(self._pump(subscription), name="riverbus layer")
            return self._subscription

    async def _pump(self, subscription: Subscription[Message | Gap]) -> None:
        """Waits for nothing but items: what they ask for has tasks of its own, since it may wait for this very task."""
        async for item in subscription:
            self._on_item(item)

    def _on_item(self, item: Message | Gap) -> None:
        source = cast(str, item.channel)
        if isinstance(item, Gap):
            loss = Loss(source, cast(MessageId, item.after), cast(MessageId, item.until), "trimmed")
            channels = self._queues if source == self._own else self._members(source)
            self._report(self._group_of(source), tuple(channels), loss)
        elif source == self._own:
            kind, channel, body = _unpacked(item.payload)
            if kind == MESSAGE:
                queue = self._queues.get(channel)
                if queue is None:
                    queue = self._queues[channel] = self._queue(channel)
                    self._left[channel] = _monotonic_s()  # made for a message that nobody may ever take
                queue.offer(source, cast(MessageId, item.id), body)
            else:
                act = self.group_add if kind == GROUP_ADD else self.group_discard
                self._spawn(act(body.decode(), channel))
        elif self._named.is_one(source):
            self._named.on_message(source)
        else:
            for channel in self._members(source):
                self._queues[channel].offer(source, cast(MessageId, item.id), item.payload)

    def _members(self, source: str) -> list[str]:
        group = self._groups.get(source.removeprefix(self._group_name("")))
        return [] if group is None else list(group.members)

    async def _tell(self, process: str, kind: int, channel: str, body: bytes) -> None:
        await self._bus.publish(self._process_name(process), msgspec.msgpack.encode((kind, channel, body)))

    def _report(self, group: str | None, channels: tuple[str, ...], loss: Loss) -> None:
        if channels:
            self._spawn(self._call_hook(LayerGap(group, channels, loss.after, loss.until, loss.reason)))

    async def _call_hook(self, gap: LayerGap) -> None:
        told = self._settings.on_gap(gap)
        if inspect.isawaitable(told):
            await told

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """In order: tasks start as they were made. One that fails is logged by the loop's exception handler."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the end ------------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        for name, group in list(self._groups.items()):
            for channel in list(group.members):
                await self.group_discard(name, channel)
        for queue in self._queues.values():
            queue.clear()
        await self._named.flush()

    async def close(self) -> None:
        """Idempotent."""
        tasks = [*self._tasks, *([] if self._pumping is None else [self._pumping])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._subscription is not None:
            await self._subscription.close()


def _owner(channel: str) -> str | None:
    """The process of `prefix.PROCESS!rest`; None for a channel by name."""
    head, mark, _ = channel.partition("!")
    return head.rpartition(".")[2] if mark else None


def _unpacked(payload: bytes) -> tuple[int, str, bytes]:
    return msgspec.msgpack.decode(payload, type=tuple[int, str, bytes])


def _monotonic_s() -> float:
    return time.monotonic()
