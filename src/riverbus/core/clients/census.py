"""Questions between nodes about their subscriptions and replicas, for PUBSUB and WAIT.

Their form on the wire (msgpack), and a node's answer.

A question that can't be read (from a newer node) is answered by nothing, b""; an answer that can't be read is left out,
as is that of a node out of reach. Answers have a size limit: a list that would pass it says that it is not complete.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import msgspec

from riverbus.core.clients.glob import Glob
from riverbus.limits import ANSWER_BYTES_MAX

if TYPE_CHECKING:
    from riverbus.core.clients.sessions import Sessions


class Channels(msgspec.Struct, tag=True, frozen=True):
    """Channels (or shard channels) with a subscriber whose name matches; all of them if `pattern` is None."""

    pattern: bytes | None
    shard: bool


class Patterns(msgspec.Struct, tag=True, frozen=True):
    """Patterns with a subscriber."""


class Numsub(msgspec.Struct, tag=True, frozen=True):
    """How many subscribers each channel has."""

    channels: list[bytes]
    shard: bool


class Holds(msgspec.Struct, tag=True, frozen=True):
    """For WAIT: 1 if this node's replicas have applied the shards' logs so far, else 0. By shard number."""

    applied: list[int]


class Names(msgspec.Struct, frozen=True):
    names: list[bytes]
    is_complete: bool = True


class Counts(msgspec.Struct, frozen=True):
    counts: list[int]


Question: TypeAlias = Channels | Patterns | Numsub | Holds
AnswerT = TypeVar("AnswerT", Names, Counts)

_encoder = msgspec.msgpack.Encoder()
_questions: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Channels | Patterns | Numsub | Holds)


def encode(question: Question) -> bytes:
    return _encoder.encode(question)


def answer_bytes(sessions: Sessions, question: bytes) -> bytes:
    """A peer's question, answered."""
    try:
        asked = _questions.decode(question)
    except msgspec.DecodeError:
        return b""
    return _encoder.encode(answer(sessions, asked))


def answer(sessions: Sessions, question: Question) -> Names | Counts:
    fanout = sessions.fanout
    match question:
        case Holds(applied):
            here = [bus.applied_index for bus in sessions.backend.shard_buses]
            return Counts([int(len(applied) == len(here) and all(a <= b for a, b in zip(applied, here, strict=True)))])
        case Channels(pattern, shard):
            names = fanout.names(shard)
            if pattern is not None:
                glob = Glob(pattern)
                names = [name for name in names if glob.matches(name)]
            return _bounded(names)
        case Patterns():
            return _bounded(fanout.patterns())
        case Numsub(channels, shard):
            return Counts([fanout.subscriber_count(channel, shard) for channel in channels])


def _bounded(names: list[bytes]) -> Names:
    if sum(map(len, names)) + 5 * len(names) <= ANSWER_BYTES_MAX:
        return Names(names)
    return Names([], is_complete=False)


def decode_answers(answers: Iterable[bytes], kind: type[AnswerT]) -> list[AnswerT]:
    decoded = []
    for data in answers:
        try:
            decoded.append(msgspec.msgpack.decode(data, type=kind))
        except msgspec.DecodeError:
            continue
    return decoded
