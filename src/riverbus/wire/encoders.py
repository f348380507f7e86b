"""Redis' protocol, the answering half: reply trees and deliveries to bytes, in RESP2 and RESP3 (core's ReplyEncoder).

Two classes, for the protocol differs in more than marks: RESP2 has no maps, doubles, booleans, sets and pushes.
Sessions of equal `key` share the bytes of a delivery, so `deliver` runs once a run and protocol, not once a subscriber.

What subscribers get (docs/protocol.md): Redis' message, pmessage, smessage; and of BUS.SUBSCRIBE
`["bus.message", channel, id, payload]`. A gap is never silence: BUS.SUBSCRIBE gets
`["bus.gap", channel, after, until]`; all others get an ordinary message on the reserved channel `__riverbus__:gap`
with the payload `<channel> <after> <until>` (split it from the right), of their subscription's kind and with its
pattern. So a library that knows nothing of Riverbus shows it like any message, or hands it to who subscribes to that
name as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from riverbus.fields import field_lengths
from riverbus.keyspace_commands import Pairs
from riverbus.limits import KIB
from riverbus.messages import (
    NULL_ARRAY,
    EncodedArray,
    Entries,
    ErrorReply,
    Kind,
    Members,
    MessageId,
    Push,
    Repeated,
    Reply,
    RunIds,
    Several,
    Status,
    Verbatim,
)
from riverbus.wire.parsing import GAP_CHANNEL, INT64_MAX

_HEADERS = [b"%d\r\n" % length for length in range(4 * KIB)]  # of payloads, after their `$`
_INTEGERS = [b":%d\r\n" % value for value in range(KIB)]  # the replies of PUBLISH
_MESSAGE = b"message"  # the field of an entry that was published
_ENTRY = b"*2\r\n$%d\r\n%b\r\n*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
_KINDS = {"channel": b"message", "pattern": b"pmessage", "shard": b"smessage"}

Write = Callable[[bytes], None]


def _is_plain_entry(item: Sequence[Reply]) -> bool:
    """[id, [name, value]], as of a published message."""
    if len(item) != 2 or type(item[1]) is not list or len(item[1]) != 2:
        return False
    return type(item[0]) is type(item[1][0]) is type(item[1][1]) is bytes


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _text(text: str) -> bytes:
    """Surrogates are bytes of a client's own argument, repeated in an error."""
    return text.encode("utf-8", "surrogateescape")


class Resp2Encoder:
    """RESP2: https://redis.io/docs/latest/develop/reference/protocol-spec/"""

    key = "resp2"
    _push_mark = b"*"
    _map_mark = b"*"
    _map_items = 2  # what the count of a map counts, a pair
    _set_mark = b"*"
    _null = b"$-1\r\n"
    _null_array = b"*-1\r\n"

    def __init__(self) -> None:
        self._writers: dict[type, Callable[[Any, Write], None]] = {
            int: self._integer,
            bytes: lambda value, write: write(_bulk(value)),
            str: lambda value, write: write(_bulk(_text(value))),
            bool: self._boolean,
            float: self._double,
            type(None): lambda value, write: write(self._null),
            Status: lambda value, write: write(b"+%b\r\n" % _text(value.text)),
            ErrorReply: lambda value, write: write(b"-%b\r\n" % _text(value.text)),
            MessageId: lambda value, write: write(_bulk(value.to_bytes())),
            Repeated: lambda value, write: write(b":%d\r\n" % value.value * value.times),
            RunIds: lambda value, write: write(_run_ids(value)),
            Several: lambda value, write: self._items(value.replies, write),
            Entries: _entries,
            EncodedArray: _encoded,
            Push: lambda value, write: self._sequence(self._push_mark, value.items, write),
            Verbatim: self._verbatim,
            list: lambda value, write: self._sequence(b"*", value, write),
            tuple: lambda value, write: self._sequence(b"*", value, write),
            dict: self._map,
            Pairs: self._pairs,
            Members: lambda value, write: self._sequence(self._set_mark, value.items, write),
            frozenset: lambda value, write: self._sequence(self._set_mark, sorted(value), write),
        }

    # --- replies ------------------------------------------------------------------------------------------------------

    def encode(self, reply: Reply) -> bytes:
        """A reply tree's bytes. Raises TypeError for what is none."""
        if type(reply) is int and 0 <= reply < len(_INTEGERS):
            return _INTEGERS[reply]
        if type(reply) is bytes:
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        chunks: list[bytes] = []
        self._write(reply, chunks.append)
        return b"".join(chunks)

    def _write(self, reply: Reply, write: Write) -> None:
        writer = self._writers.get(type(reply))
        if writer is not None:
            writer(reply, write)
        elif reply is NULL_ARRAY:
            write(self._null_array)
        elif isinstance(reply, int):  # an IntEnum
            self._integer(reply, write)
        else:
            raise TypeError(f"{type(reply).__name__} is no reply")

    def _items(self, items: Sequence[Reply], write: Write) -> None:
        for item in items:
            if type(item) is bytes:  # nearly all, in history
                write(b"$%d\r\n%b\r\n" % (len(item), item))
            elif type(item) is tuple or type(item) is list:  # `_sequence`, found at once
                if _is_plain_entry(item):
                    id_, (name, value) = item
                    write(_ENTRY % (len(id_), id_, len(name), name, len(value), value))
                else:
                    write(b"*%d\r\n" % len(item))
                    self._items(item, write)
            else:
                self._write(item, write)

    def _sequence(self, mark: bytes, items: Sequence[Reply], write: Write) -> None:
        write(b"%b%d\r\n" % (mark, len(items)))
        self._items(items, write)

    def _map(self, value: dict[Reply, Reply], write: Write) -> None:
        write(b"%b%d\r\n" % (self._map_mark, len(value) * self._map_items))
        for key, item in value.items():
            self._write(key, write)
            self._write(item, write)

    def _pairs(self, value: Pairs, write: Write) -> None:
        self._sequence(b"*", value.items, write)

    def _integer(self, value: int, write: Write) -> None:
        """A count of 64 bits that a client began near the end (XSETID ENTRIESADDED) is signed, as in Redis."""
        write(b":%d\r\n" % (value if value <= INT64_MAX else value - 2**64))

    def _boolean(self, value: bool, write: Write) -> None:
        write(b":1\r\n" if value else b":0\r\n")

    def _double(self, value: float, write: Write) -> None:
        write(_bulk(_double_text(value)))

    def _verbatim(self, value: Verbatim, write: Write) -> None:
        write(_bulk(_text(value.text)))

    # --- deliveries ---------------------------------------------------------------------------------------------------

    def deliver(
        self, space: str, channel: bytes, pattern: bytes | None, first: MessageId, payloads: Sequence[bytes]
    ) -> bytes:
        """Consecutive messages as one subscription of `space` gets them; see `ReplyEncoder`."""
        if space == "bus":
            if len(payloads) == 1:
                return self.encode(Push((b"bus.message", channel, first, payloads[0])))
            return b"".join(self._bus_messages(channel, first, payloads))
        beginning = self._message_beginning(_KINDS[space], channel, pattern)
        size = len(payloads[0])
        if len(payloads) == 1:
            return b"%b%d\r\n%b\r\n" % (beginning, size, payloads[0])
        if set(map(len, payloads)) == {size}:
            beginning += b"%d\r\n" % size
            return b"%b%b\r\n" % (beginning, (b"\r\n" + beginning).join(payloads))
        try:
            bodies = [_HEADERS[len(payload)] + payload for payload in payloads]
        except IndexError:
            bodies = [b"%d\r\n%b" % (len(payload), payload) for payload in payloads]
        return b"%b%b\r\n" % (beginning, (b"\r\n" + beginning).join(bodies))

    def gap(self, space: str, channel: bytes, pattern: bytes | None, after: MessageId, until: MessageId) -> bytes:
        """Of the messages in (after, until] some are gone for ever."""
        if space == "bus":
            return self.encode(Push((b"bus.gap", channel, after, until)))
        payload = b"%b %b %b" % (channel, after.to_bytes(), until.to_bytes())
        beginning = self._message_beginning(_KINDS[space], GAP_CHANNEL, pattern)
        return b"%b%d\r\n%b\r\n" % (beginning, len(payload), payload)

    def _message_beginning(self, kind: bytes, channel: bytes, pattern: bytes | None) -> bytes:
        """All of a message up to its payload's length."""
        if pattern is None:
            return b"%b3\r\n%b%b$" % (self._push_mark, _bulk(kind), _bulk(channel))
        return b"%b4\r\n%b%b%b$" % (self._push_mark, _bulk(kind), _bulk(pattern), _bulk(channel))

    def _bus_messages(self, channel: bytes, first: MessageId, payloads: Sequence[bytes]) -> list[bytes]:
        digits = len(b"%d" % first.seq)
        of_equal_digits = 10**digits - first.seq  # so many ids are of one size
        head = b"%b4\r\n$11\r\nbus.message\r\n%b$%d\r\n" % (
            self._push_mark, _bulk(channel), len(b"%d-" % first.ms) + digits
        )  # fmt: skip
        template = head.replace(b"%", b"%%") + b"%d-%%d\r\n$%%d\r\n%%b\r\n" % first.ms
        messages = [
            template % (seq, len(payload), payload) for seq, payload in enumerate(payloads[:of_equal_digits], first.seq)
        ]
        if len(payloads) > of_equal_digits:
            messages += self._bus_messages(channel, first.plus(of_equal_digits), payloads[of_equal_digits:])
        return messages


class Resp3Encoder(Resp2Encoder):
    """RESP3: https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md"""

    key = "resp3"
    _push_mark = b">"
    _map_mark = b"%"
    _map_items = 1
    _set_mark = b"~"
    _null = b"_\r\n"
    _null_array = b"_\r\n"

    def _pairs(self, value: Pairs, write: Write) -> None:
        write(b"%%%d\r\n" % len(value.items))  # a key that was asked for twice stands there twice
        for pair in value.items:
            self._items(pair, write)

    def _boolean(self, value: bool, write: Write) -> None:
        write(b"#t\r\n" if value else b"#f\r\n")

    def _double(self, value: float, write: Write) -> None:
        write(b",%b\r\n" % _double_text(value))

    def _verbatim(self, value: Verbatim, write: Write) -> None:
        text = _text(value.text)
        write(b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text))


# --- ids and entries --------------------------------------------------------------------------------------------------
# Nearly all of a reply is the same bytes again and again: a run is one template, repeated and filled in at once.


def _of_equal_digits(first: MessageId, count: int) -> int:
    """So many of `count` ids from `first` on are of one size."""
    above: int = 10 ** len(b"%d" % first.seq)
    return min(count, above - first.seq)


def _id_template(first: MessageId) -> bytes:
    beginning = b"%d-" % first.ms
    return b"$%d\r\n%b%%d\r\n" % (len(beginning) + len(b"%d" % first.seq), beginning)


def _run_ids(ids: RunIds) -> bytes:
    first, count = ids
    equal = _of_equal_digits(first, count)
    text = _id_template(first) * equal % tuple(range(first.seq, first.seq + equal))
    return text + _run_ids(RunIds(first.plus(equal), count - equal)) if equal < count else text


def _entries(entries: Entries, write: Write) -> None:
    write(b"*%d\r\n" % sum([len(run.bodies) for run in entries.runs]))
    for run in entries.runs:
        _entry_run(*run, write)


def _encoded(array: EncodedArray, write: Write) -> None:
    write(b"*%d\r\n" % array.length)
    for part in array.parts:
        write(part)


def _entry_run(first: MessageId, kind: int, bodies: list[bytes], write: Write) -> None:
    count = len(bodies)
    equal = _of_equal_digits(first, count)
    if equal < count:
        _entry_run(first, kind, bodies[:equal], write)
        _entry_run(first.plus(equal), kind, bodies[equal:], write)
        return
    one = bodies[0]
    is_xadd = kind == Kind.XADD
    lengths = field_lengths(one) if is_xadd else (len(_MESSAGE), len(one))
    header = one[: len(one) - sum(lengths)] if is_xadd else b""  # says the lengths
    if count > 1 and (set(map(len, bodies)) != {len(one)} or not all(body.startswith(header) for body in bodies)):
        for at, body in enumerate(bodies):
            _entry_run(first.plus(at), kind, [body], write)
        return
    fields = b"".join([b"$%d\r\n%%b\r\n" % length for length in lengths])
    template = b"*2\r\n%b*%d\r\n%b" % (_id_template(first), len(lengths), fields)
    values: list[int | bytes] = []
    cuts = list(pairwise(accumulate(lengths, initial=len(header))))
    for seq, body in enumerate(bodies, first.seq):
        values.append(seq)
        values += [body[start:end] for start, end in cuts] if is_xadd else (_MESSAGE, body)
    write(template * count % tuple(values))


def _double_text(value: float) -> bytes:
    """As Redis writes them: the shortest digits that read back the same; whole numbers without a point."""
    if value.is_integer() and abs(value) < 2**53:
        return b"%d" % value
    return repr(value).encode()  # inf, -inf and nan are spelled as RESP3 wants
