"""The bus as a program sees it: publish, subscribe, history. The same object over sockets and in process.

`connect(url)` returns a `Bus` over sockets, `embedded()` (embedded.py) one over memory; they differ in their dialer.
Which calls are retried, and what each error means, is in `Commander`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, TypeAlias, cast, overload

from riverbus.client.address import parse_url
from riverbus.client.commander import Commander
from riverbus.client.connection import encode_command
from riverbus.client.dialer import Dialer, SocketDialer
from riverbus.client.nouns import (
    Gap,
    Message,
    Refused,
    Unreachable,
    id_from,
    id_from_bytes,
    name_from_bytes,
    name_to_bytes,
    payload_to_bytes,
)
from riverbus.client.publisher import Publisher
from riverbus.client.subscription import Subscription
from riverbus.limits import CLIENT_PAGE_BYTES_TARGET
from riverbus.messages import MessageId

Position: TypeAlias = MessageId | str | bytes
Since: TypeAlias = Position | Mapping[str, Position | None] | Mapping[bytes, Position | None] | None

PAGE_COUNT_FIRST = 16  # of a history read, while the size of its messages is not known
PAGE_COUNT_MAX = 4096
HISTORY_RESTARTS_MAX = 8
_NEVER_ANSWERED = frozenset(  # but by pushes, so that the call, and all others on the connection, would wait for ever
    prefix + verb for prefix in (b"", b"P", b"S") for verb in (b"SUBSCRIBE", b"UNSUBSCRIBE")
)


class Bus:
    def __init__(self, dialer: Dialer, deadline: float) -> None:
        self._dialer = dialer
        self._commander = Commander(dialer, deadline)
        self._publisher = Publisher(self._commander)
        self._subscriptions: list[Subscription[Any]] = []
        self._is_closed = False

    async def __aenter__(self) -> Bus:
        """Raises NotAccepted when no node is reached, Refused when the credentials are wrong."""
        try:
            await self._commander.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self._is_closed = True
        for subscription in self._subscriptions:
            await subscription.close()
        self._commander.close()
        self._publisher.close()
        await self._dialer.close()
        await asyncio.sleep(0)  # aborted transports close their sockets in the next turn

    async def publish(
        self,
        channel: str | bytes,
        payload: str | bytes | bytearray | memoryview,
        key: str | bytes | None = None,
    ) -> MessageId:
        """The message's id, once it is on the disks of a majority. Concurrent calls travel together.

        Tried again until the deadline, over lost connections and failovers, with one effect: each is numbered
        (publisher.py), or known by the `key` that the program gives, which then holds for its next lives too. Raises
        NotAccepted (or OutOfMemory, DiskFull): it is not in the channel and never will be. Raises OutcomeUnknown at
        the deadline: it may be. One program's concurrent publishes to a channel keep the order of the calls, except
        for those that had to be tried again; await each to be sure. In a channel of durability `none` there is one
        try, and the id is 0-0.
        """
        body = payload_to_bytes(payload)
        name = name_to_bytes(channel)
        if key is None:
            return await self._publisher.publish(name, body)
        return await self._publisher.publish_key(name, body, payload_to_bytes(key))

    @overload
    def subscribe(
        self, *channels: str | bytes, since: Since = None, pattern: str | bytes | None = None, on_gap: Literal["raise"]
    ) -> Subscription[Message]: ...

    @overload
    def subscribe(
        self,
        *channels: str | bytes,
        since: Since = None,
        pattern: str | bytes | None = None,
        on_gap: Literal["yield"] = "yield",
    ) -> Subscription[Message | Gap]: ...

    def subscribe(
        self,
        *channels: str | bytes,
        since: Since = None,
        pattern: str | bytes | None = None,
        on_gap: Literal["yield", "raise"] = "yield",
    ) -> Subscription[Any]:
        """Messages of the channels, each once and in order, from just after `since` to live, across failovers.

        `since` is an id, "0-0" for all that is retained, None for live only, or one of these by channel. A `pattern`
        (as PSUBSCRIBE's) is live only and without ids. Where messages are gone for ever the iterator yields a `Gap`,
        or raises `HistoryLost`. Raises ValueError for what cannot be subscribed, Unreachable when the bus is closed.
        """
        if bool(channels) == (pattern is not None):
            raise ValueError("subscribe to channels, or to a pattern")
        if on_gap not in ("yield", "raise"):
            raise ValueError(f"on_gap is 'yield' or 'raise', not {on_gap!r}")
        if pattern is not None and since is not None:
            raise ValueError("a pattern has no positions: it is live only")
        if self._is_closed:
            raise Unreachable("the bus is closed")
        positions = _positions([name_to_bytes(channel) for channel in channels], since)
        patterns = () if pattern is None else (name_to_bytes(pattern),)
        subscription: Subscription[Any] = Subscription(self._dialer, positions, patterns, on_gap)
        self._subscriptions = [each for each in self._subscriptions if not each.is_closed]
        self._subscriptions.append(subscription)
        return subscription

    async def execute(self, *command: str | bytes | int, is_read: bool = False) -> Any:
        """Any other command that is answered at once: its reply in RESP3's types (bytes, int, list, dict, None ...).

        Not for commands that block, subscribe, or change the connection, which all calls share. One that `is_read` is
        tried again whatever happens, another only while that is safe. Raises as `publish`; Refused for its errors;
        ValueError for no command at all, or one that subscribes.
        """
        parts = [b"%d" % part if isinstance(part, int) else name_to_bytes(part) for part in command]
        if not parts:
            raise ValueError("a command has a name")
        if parts[0].upper() in _NEVER_ANSWERED:
            raise ValueError(f"{name_from_bytes(parts[0])} has no reply of its own: use subscribe()")
        run = self._commander.read if is_read else self._commander.write
        return await run(encode_command(*parts))

    async def length(self, channel: str | bytes) -> int:
        """How many messages the channel retains."""
        return cast(int, await self._commander.read(encode_command(b"XLEN", name_to_bytes(channel))))

    async def history(
        self,
        channel: str | bytes,
        first: Position = "-",
        last: Position = "+",
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Message]:
        """Retained messages with first <= id <= last, oldest first, or newest first if `reverse`. At most `limit`.

        Read in pages, and started anew when the window moved past a page meanwhile: there is no hole in the result.
        """
        name = name_to_bytes(channel)
        if limit is not None and limit <= 0:
            return []
        ends = (_end(first), _end(last))
        if reverse:
            return await self._newest_first(name, ends, limit)
        for _ in range(HISTORY_RESTARTS_MAX):
            found = await self._oldest_first(name, ends, limit)
            if found is not None:
                return found
        raise Refused("ERR", "the channel's window moves faster than its history can be read: give a limit")

    async def _oldest_first(self, channel: bytes, ends: tuple[bytes, bytes], limit: int | None) -> list[Message] | None:
        """None when the last message of one page was trimmed before the next was read."""
        found: list[Message] = []
        start, count = ends[0], PAGE_COUNT_FIRST
        while True:
            wanted = count if limit is None else min(count, limit - len(found))
            overlap = 1 if found else 0  # the last one again: while it is retained, so is all that follows it
            page = await self._page(b"XRANGE", channel, start, ends[1], wanted + overlap)
            if found and (not page or page[0].id != found[-1].id):
                return None
            found += page[overlap:]
            if len(page) < wanted + overlap or len(found) == limit:
                return found
            start = cast(MessageId, found[-1].id).to_bytes()
            count = _next_count(count, page)

    async def _newest_first(self, channel: bytes, ends: tuple[bytes, bytes], limit: int | None) -> list[Message]:
        found: list[Message] = []
        start, count = ends[1], PAGE_COUNT_FIRST
        while True:
            wanted = count if limit is None else min(count, limit - len(found))
            page = await self._page(b"XREVRANGE", channel, start, ends[0], wanted)
            found += page
            if len(page) < wanted or len(found) == limit:
                return found
            start = b"(" + cast(MessageId, found[-1].id).to_bytes()
            count = _next_count(count, page)

    async def _page(self, verb: bytes, channel: bytes, start: bytes, end: bytes, count: int) -> list[Message]:
        reply = await self._commander.read(encode_command(verb, channel, start, end, b"COUNT", b"%d" % count))
        name = name_from_bytes(channel)
        return [_message(name, entry) for entry in reply]


def connect(
    url: str = "redis://127.0.0.1:6380",
    *,
    client_name: str | None = None,
    deadline: float | None = None,
    tls: ssl.SSLContext | None = None,
) -> Bus:
    """A bus over sockets: `async with riverbus.connect("redis://host:6380,host2:6380") as bus`.

    The URL's form and options are in `address.py`. `deadline` is for how many seconds what was not accepted is tried
    again. Raises ValueError for a bad URL; nothing is connected before `async with` or the first call.
    """
    address = parse_url(url, tls, client_name)
    return Bus(SocketDialer(address), address.deadline if deadline is None else deadline)


def _positions(channels: list[bytes], since: Since) -> dict[bytes, MessageId | None]:
    """Raises ValueError for a position of a channel that is not subscribed: its history would be missed in silence."""
    if not isinstance(since, Mapping):
        return dict.fromkeys(channels, None if since is None else id_from(since))
    given = {name_to_bytes(name): position for name, position in since.items()}
    for name in given:
        if name not in channels:
            raise ValueError(f"since has a position for {name_from_bytes(name)!r}, which is not among the channels")
    found = {name: given.get(name) for name in channels}
    return {name: None if position is None else id_from(position) for name, position in found.items()}


def _end(position: Position) -> bytes:
    """One end of a range: `-`, `+`, an id, or `(` and an id."""
    if isinstance(position, MessageId):
        return position.to_bytes()
    end = position.encode() if isinstance(position, str) else position
    if end not in (b"-", b"+"):
        id_from_bytes(end.removeprefix(b"("))
    return end


def _message(channel: str, entry: list[Any]) -> Message:
    id_, flat = id_from_bytes(entry[0]), entry[1]
    if len(flat) == 2 and flat[0] == b"message":
        return Message(channel, id_, flat[1])
    return Message(channel, id_, b"", fields=dict(zip(flat[::2], flat[1::2], strict=True)))


def _next_count(count: int, page: list[Message]) -> int:
    """Pages grow until they hold the target of bytes, as far as the last one tells."""
    size = sum(len(message.payload) + 64 for message in page)
    return max(1, min(PAGE_COUNT_MAX, count * 4, count * CLIENT_PAGE_BYTES_TARGET // max(size, 1)))
