"""Publishes with one effect each, whatever is lost on the way: numbered, gathered, and sent again until answered.

A client draws a name when it starts and numbers all that it publishes. What one turn of the loop publishes to a channel
travels as one BUS.PUBLISHRUN, so that a publish costs about what a plain one does. The bus remembers numbers far longer
than anything is tried again here, so a run whose connection died, whose outcome is unknown, or which no leader took, is
simply sent again, to whichever node is next, until the deadline.

A channel of durability `none` takes no numbers (-NOKEYS): it is remembered, and its messages go out plainly, once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from typing import Any

from riverbus.client.commander import Commander, Sent
from riverbus.client.connection import encode_command, reply_error
from riverbus.client.nouns import Refused, id_from_bytes
from riverbus.limits import CLIENT_PLAIN_CHANNELS_MAX, PUBLISH_RUN_BYTES_MAX, PUBLISH_RUN_MESSAGES_MAX
from riverbus.messages import ID_MIN, MessageId, OutcomeUnknown

NO_KEYS = "NOKEYS"  # the code of the refusal

Item = tuple[bytes, asyncio.Future[MessageId]]


class Publisher:
    def __init__(self, commander: Commander) -> None:
        self._commander = commander
        self._producer = secrets.token_hex(8).encode()
        self._next = 0  # number
        self._gathered: dict[bytes, list[Item]] = {}  # of this turn, by channel
        self._plain: dict[bytes, None] = {}  # channels that take no numbers
        self._tasks: dict[asyncio.Task[None], list[Item]] = {}

    async def publish(self, channel: bytes, payload: bytes) -> MessageId:
        size = len(payload) + 64
        await self._commander.room.take(size)
        try:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[MessageId] = loop.create_future()
            if not self._gathered:
                loop.call_soon(self._send_gathered)
            self._gathered.setdefault(channel, []).append((payload, future))
            return await future
        finally:
            self._commander.room.give_back(size)

    async def publish_key(self, channel: bytes, payload: bytes, key: bytes) -> MessageId:
        """With a key of the program's own."""
        command = encode_command(b"BUS.PUBLISH", channel, payload, b"KEY", key)
        return id_from_bytes(await self._commander.write_once(command))

    def close(self) -> None:
        for task, items in self._tasks.items():
            _fail(items, OutcomeUnknown("the bus was closed before the reply"))
            task.cancel()

    # --- a turn's runs ------------------------------------------------------------------------------------------------

    def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for channel, items in gathered.items():
            if channel in self._plain:
                self._start(self._send_plainly(channel, items), items)
                continue
            start = size = 0
            for at, (payload, _) in enumerate(items):
                if at > start and (
                    size + len(payload) > PUBLISH_RUN_BYTES_MAX or at - start == PUBLISH_RUN_MESSAGES_MAX
                ):
                    self._send_run(channel, items[start:at])
                    start, size = at, 0
                size += len(payload)
            self._send_run(channel, items[start:])

    def _send_run(self, channel: bytes, items: list[Item]) -> None:
        first = self._next
        self._next += len(items)
        command = self._command(channel, first, items)
        connection = self._commander.usable
        sent = None if connection is None else (connection, connection.call(command))
        self._start(self._carry(channel, first, items, command, sent), items)

    def _command(self, channel: bytes, first: int, items: Sequence[Item]) -> bytes:
        payloads = [payload for payload, _ in items]
        return encode_command(b"BUS.PUBLISHRUN", channel, self._producer, b"%d" % first, *payloads)

    def _start(self, work: Coroutine[Any, Any, None], items: list[Item]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = items
        task.add_done_callback(self._tasks.pop)

    async def _carry(self, channel: bytes, first: int, items: list[Item], command: bytes, sent: Sent | None) -> None:
        try:
            reply = await self._commander.write_once(command, sent)
            if not isinstance(reply, list) or len(reply) != len(items):
                raise Refused("ERR", f"the node answered a run of {len(items)} messages by {reply!r:.100}")
            for (_, future), one in zip(items, reply, strict=True):
                _tell(future, one)
        except Refused as error:
            await self._on_refused(channel, first, items, error)
        except BaseException as error:
            _fail(items, error)
            if not isinstance(error, Exception):
                raise

    async def _on_refused(self, channel: bytes, first: int, items: list[Item], error: Refused) -> None:
        if error.code == NO_KEYS:
            self._plain[channel] = None
            while len(self._plain) > CLIENT_PLAIN_CHANNELS_MAX:
                del self._plain[next(iter(self._plain))]
            await self._send_plainly(channel, items)
        elif len(items) == 1:
            _fail(items, error)
        else:  # one of them may be at fault for all, such as by its size: each alone, under its own number
            for at, item in enumerate(items):
                await self._carry(channel, first + at, [item], self._command(channel, first + at, [item]), None)

    async def _send_plainly(self, channel: bytes, items: list[Item]) -> None:
        commands = [encode_command(b"BUS.PUBLISH", channel, payload) for payload, _ in items]
        replies = await asyncio.gather(*map(self._commander.write, commands), return_exceptions=True)
        for (_, future), reply in zip(items, replies, strict=True):
            _tell(future, reply)
            if isinstance(reply, bytes) and id_from_bytes(reply) != ID_MIN:
                self._plain.pop(channel, None)  # its rule has changed


def _tell(future: asyncio.Future[MessageId], reply: Any) -> None:
    """An id, or an error in its place."""
    if future.done():  # its caller was cancelled
        return
    error = reply if isinstance(reply, Exception) else None
    if error is not None:
        future.set_exception(reply_error(error))
        return
    try:
        future.set_result(id_from_bytes(reply))
    except (TypeError, ValueError) as broken:
        future.set_exception(Refused("ERR", f"the node answered no id: {broken}"))


def _fail(items: Sequence[Item], error: BaseException) -> None:
    for _, future in items:
        if not future.done():
            if isinstance(error, Exception):
                future.set_exception(error)
            else:
                future.cancel()
