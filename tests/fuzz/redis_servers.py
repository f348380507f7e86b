"""Commands that redis-server and Riverbus both have, as an interface, and sync redis-py that sends them to either.

A run has names of its own, which both servers see with a prefix, and one connection for subscriptions. Ids of entries
are named by their place in their stream, since no two servers give the same.
"""

from __future__ import annotations

import itertools
from types import TracebackType
from typing import Annotated, Any, Literal, Protocol

import redis
from annotated_types import Interval, Len
from hypothesis import strategies as st

from riverbus.fuzz import earlier, hint, unordered

Channel = Literal["a", "b", "ab"]
Pattern = Literal["a*", "?", "[ab]", "*", "b"]
Stream = Literal["s", "t"]
Body = Annotated[bytes, Len(0, 4)]
Count = Annotated[int, Interval(ge=-1, le=3)]
Entries = list[tuple[int, dict[bytes, bytes]]]
# An end of a range: the place of an entry that was added, or what the server is given as it stands.
END = earlier("xadd", otherwise=st.sampled_from(["-", "+", "0", "0-1", "(0-0", "5-", "x", "", "99999999999999999999"]))
RUNS = itertools.count()


def patterns_in_any_order(pushed: list[list[object]]) -> list[list[object]]:
    """One message to several patterns of a client: Redis sends them in the order of a hash table."""
    groups = itertools.groupby(pushed, key=lambda each: (each[0] == "pmessage", each[2:]))
    return [each for (is_pattern, _), group in groups for each in (sorted(group, key=repr) if is_pattern else group)]


class Commands(Protocol):
    def publish(self, channel: Channel, payload: Body) -> int: ...
    def subscribe(self, channel: Channel) -> None: ...
    def unsubscribe(self, channel: Channel) -> None: ...
    def psubscribe(self, pattern: Pattern) -> None: ...
    def punsubscribe(self, pattern: Pattern) -> None: ...

    @hint(normalise=patterns_in_any_order)
    def pushed(self) -> list[object]:
        """All that came on the connection that subscribes, confirmations too, since the last time."""

    def numsub(self, *channels: Channel) -> list[tuple[bytes, int]]: ...

    @hint(compare=unordered)
    def channels(self, pattern: Pattern | None = None) -> list[bytes]: ...

    def numpat(self) -> int: ...

    @hint(weight=3)
    def xadd(self, stream: Stream, fields: Annotated[dict[Body, Body], Len(0, 3)]) -> int: ...

    def xlen(self, stream: Stream) -> int: ...

    @hint(arguments={"first": END, "last": END})
    def xrange(
        self, stream: Stream, first: int | str, last: int | str, count: Count | None = None, is_open: bool = False
    ) -> Entries: ...

    @hint(arguments={"first": END, "last": END})
    def xrevrange(self, stream: Stream, last: int | str, first: int | str, count: Count | None = None) -> Entries: ...

    @hint(arguments={"after": END})
    def xread(
        self, streams: Annotated[list[Stream], Len(1, 2)], after: int | str, count: Count | None = None
    ) -> list[tuple[bytes, Entries]]: ...

    def multi(self, stream: Stream, channel: Channel, payload: Body) -> list[object]:
        """MULTI, XADD, XLEN, PUBLISH, EXEC."""

    def raw(self, words: Annotated[list[Literal["XLEN", "PUBSUB", "NUMSUB", "XRANGE", "s", "-"]], Len(1, 4)]) -> object:
        """Commands with too few and too many words; the bytes of the reply, without redis-py's idea of it."""


class Server:
    """One server, in one run. What comes back is without the run's prefix, and with places for ids."""

    def __init__(self, port: int) -> None:
        self._redis: Any = redis.Redis(host="127.0.0.1", port=port, socket_timeout=10)
        client: Any = redis.Redis(host="127.0.0.1", port=port, socket_timeout=10)
        self._subscriber = client.pubsub()
        self._pushed: list[object] = []
        self._prefix = b"run-%d-" % (next(RUNS) // 2)  # of both servers in one run
        self._ids: dict[str, list[bytes]] = {"s": [], "t": []}

    def __enter__(self) -> Server:
        self._subscriber.subscribe(self._name("always"))
        self.pushed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._subscriber.punsubscribe()  # NUMPAT counts those of all clients: the next run must not see ours
        self.pushed()
        self._subscriber.close()
        self._redis.close()

    def _name(self, name: str) -> bytes:
        return self._prefix + name.encode()

    def _plain(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return value.replace(self._prefix, b"")
        return [self._plain(each) for each in value] if isinstance(value, list | tuple) else value

    def _end(self, stream: str, end: int | str) -> str:
        if isinstance(end, str):
            return end
        ids = self._ids[stream]
        return ids[end].decode() if end < len(ids) else "+"

    def _entries(self, stream: str, found: Any) -> Entries:
        return [(self._ids[stream].index(id_), dict(fields)) for id_, fields in found]

    def publish(self, channel: Channel, payload: bytes) -> int:
        return int(self._redis.publish(self._name(channel), payload))

    def subscribe(self, channel: Channel) -> None:
        self._subscriber.subscribe(self._name(channel))
        self._wait()

    def unsubscribe(self, channel: Channel) -> None:
        self._subscriber.unsubscribe(self._name(channel))
        self._wait()

    def psubscribe(self, pattern: Pattern) -> None:
        self._subscriber.psubscribe(self._name(pattern))
        self._wait()

    def punsubscribe(self, pattern: Pattern) -> None:
        self._subscriber.punsubscribe(self._name(pattern))

    def _wait(self) -> None:
        """Until the server has done what was sent on the connection that subscribes: it answers a PING behind it."""
        self._subscriber.ping("end")
        while True:
            message = self._subscriber.get_message(timeout=10)
            assert message is not None, "no PONG"
            if message["type"] == "pong":
                return
            self._pushed.append(
                [message["type"], *(self._plain(message[key]) for key in ("pattern", "channel", "data"))]
            )

    def pushed(self) -> list[object]:
        self._wait()
        found, self._pushed = self._pushed, []
        return found

    def numsub(self, *channels: Channel) -> list[tuple[bytes, int]]:
        found = self._redis.pubsub_numsub(*(self._name(channel) for channel in channels))
        return [(self._plain(name), count) for name, count in found]

    def channels(self, pattern: Pattern | None = None) -> list[bytes]:
        found = self._redis.pubsub_channels((self._name(pattern or "*")).decode())
        return [self._plain(name) for name in found]

    def numpat(self) -> int:
        return int(self._redis.pubsub_numpat())

    def xadd(self, stream: Stream, fields: dict[bytes, bytes]) -> int:
        flat = [each for item in fields.items() for each in item]
        self._ids[stream].append(self._redis.execute_command("XADD", self._name(stream), "*", *flat))
        return len(self._ids[stream]) - 1

    def xlen(self, stream: Stream) -> int:
        return int(self._redis.xlen(self._name(stream)))

    def xrange(
        self, stream: Stream, first: int | str, last: int | str, count: int | None = None, is_open: bool = False
    ) -> Entries:
        start = ("(" if is_open else "") + self._end(stream, first)
        more = [] if count is None else ["COUNT", count]
        found = self._redis.execute_command("XRANGE", self._name(stream), start, self._end(stream, last), *more)
        return self._entries(stream, found)

    def xrevrange(self, stream: Stream, last: int | str, first: int | str, count: int | None = None) -> Entries:
        more = [] if count is None else ["COUNT", count]
        ends = (self._end(stream, last), self._end(stream, first))
        return self._entries(stream, self._redis.execute_command("XREVRANGE", self._name(stream), *ends, *more))

    def xread(self, streams: list[Stream], after: int | str, count: int | None = None) -> list[tuple[bytes, Entries]]:
        more = [] if count is None else ["COUNT", count]
        # `+` is newer than the reference, from Redis 7.4.
        ends = ["$" if (end := self._end(stream, after)) == "+" else end for stream in streams]
        names = [self._name(stream) for stream in streams]
        found = self._redis.execute_command("XREAD", *more, "STREAMS", *names, *ends)
        pairs = found.items() if isinstance(found, dict) else found or []
        result = []
        for name, entries in pairs:
            flat = entries[0] if isinstance(found, dict) and entries and isinstance(entries[0], list) else entries
            result.append((self._plain(name), self._entries(self._plain(name).decode(), flat)))
        return result

    def multi(self, stream: Stream, channel: Channel, payload: bytes) -> list[object]:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.execute_command("XADD", self._name(stream), "*", "f", payload)
        pipeline.xlen(self._name(stream))
        pipeline.publish(self._name(channel), payload)
        id_, *others = pipeline.execute()
        self._ids[stream].append(id_)
        return [len(self._ids[stream]) - 1, *others]

    def raw(self, words: list[str]) -> object:
        named = [self._name(word) if word == "s" else word for word in words]
        connection: Any = self._redis.connection_pool.get_connection()
        try:
            connection.send_command(*named)
            reply = connection.read_response()
            return self._plain(reply)
        finally:
            self._redis.connection_pool.release(connection)
