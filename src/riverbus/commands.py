"""What a client may ask of a node: one noun a command, made by a protocol in `wire/`, handled by `session.py`.

A noun holds what was asked, checked for form (arity, numbers, ids, sizes) but not for sense. Commands that a protocol
can answer by itself from its own tables (COMMAND, ECHO) come as `Answered`. Imports only `messages`.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from riverbus.messages import MessageId, Reply


class Answered(NamedTuple):
    """The protocol knows the reply already: an unknown command's error, a wrong arity, ECHO, COMMAND COUNT.

    `command` is the full name ("echo", "client|list") of a command whose arity is right, and so runs like others (not
    before AUTH, queued in MULTI, refused to a RESP2 subscriber); "" if there is none: answered whatever the state.
    """

    reply: Reply
    command: str = ""


class Malformed(NamedTuple):
    """The peer broke the protocol: it gets `reply` (after all earlier ones) and its connection is closed."""

    reply: Reply


# --- connection -------------------------------------------------------------------------------------------------------


class Hello(NamedTuple):
    version: int | None  # 2, 3, or None to keep
    user: bytes | None
    password: bytes | None
    name: bytes | None


class Auth(NamedTuple):
    user: bytes | None  # None: the default user
    password: bytes


class Ping(NamedTuple):
    text: bytes | None


class Quit(NamedTuple): ...


class Reset(NamedTuple): ...


class Time(NamedTuple): ...


class Info(NamedTuple):
    sections: tuple[bytes, ...]  # lower case


class ConfigGet(NamedTuple):
    patterns: tuple[bytes, ...]


class ConfigSet(NamedTuple):
    settings: tuple[tuple[bytes, bytes], ...]


class ConfigResetStat(NamedTuple): ...


class Monitor(NamedTuple): ...


class Wait(NamedTuple):
    """`timeout_ms` 0: for ever."""

    replicas: int
    timeout_ms: int


class Traced(NamedTuple):
    """A command as it came and its noun, made while some connection monitors. Not for the log of anything."""

    arguments: list[bytes]
    command: Command


class ClientPause(NamedTuple):
    ms: int
    writes_only: bool


class ClientUnpause(NamedTuple): ...


class ClientUnblock(NamedTuple):
    id: int
    with_error: bool


class ClientSetName(NamedTuple):
    name: bytes


class ClientGetName(NamedTuple): ...


class ClientSetInfo(NamedTuple):
    attribute: str  # lib-name | lib-ver
    value: bytes


class ClientId(NamedTuple): ...


class ClientInfo(NamedTuple): ...


class ClientList(NamedTuple):
    ids: tuple[int, ...] | None  # None: all
    type: str | None  # normal | pubsub | master | replica


class ClientKill(NamedTuple):
    """Every filter that is not None must match. `old_form` (an address alone) answers OK or an error, not a count."""

    address: bytes | None = None
    local_address: bytes | None = None
    id: int | None = None
    user: bytes | None = None
    type: str | None = None
    skip_me: bool = True
    old_form: bool = False


class ClientNoEvict(NamedTuple):
    on: bool


class ClientNoTouch(NamedTuple):
    on: bool


class ClientReply(NamedTuple):
    mode: str  # on | off | skip


# --- pub/sub ----------------------------------------------------------------------------------------------------------


class Publish(NamedTuple):
    """Pipelined publishes to one channel, in order: one or more payloads (`limits.PUBLISH_RUN_*` bound them).

    `style` is how each is answered: "receivers" (PUBLISH, SPUBLISH), "id" (XADD, BUS.PUBLISH). For `Kind.XADD` each
    payload is the body that `encode_fields` made.
    """

    channel: bytes
    kind: int
    payloads: list[bytes]
    style: str = "receivers"


class Subscribe(NamedTuple):
    """`space` is "channel", "pattern" or "shard": SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE."""

    space: str
    names: tuple[bytes, ...]


class Unsubscribe(NamedTuple):
    space: str
    names: tuple[bytes, ...]  # empty: all of that space


class BusSubscribe(NamedTuple):
    """BUS.SUBSCRIBE channel [SINCE id]: messages with ids, from just after `since`, then live, without a gap."""

    channel: bytes
    since: MessageId | None


class BusUnsubscribe(NamedTuple):
    channel: bytes


class PubsubChannels(NamedTuple):
    pattern: bytes | None
    shard: bool


class PubsubNumsub(NamedTuple):
    channels: tuple[bytes, ...]
    shard: bool


class PubsubNumpat(NamedTuple): ...


# --- history ----------------------------------------------------------------------------------------------------------


class XRange(NamedTuple):
    """Both ends inclusive (the parser resolved `(`, `-`, `+` and missing sequence parts)."""

    channel: bytes
    first: MessageId
    last: MessageId
    limit: int | None
    reverse: bool


class XLen(NamedTuple):
    channel: bytes


NEWEST = MessageId(-1, -1)  # no id: XREAD's `+`


class XRead(NamedTuple):
    """`after[i]` is None for `$`, NEWEST for `+`; `block_ms` None: don't block, 0: for ever."""

    channels: tuple[bytes, ...]
    after: tuple[MessageId | None, ...]
    limit: int | None
    block_ms: int | None


class XInfoStream(NamedTuple):
    channel: bytes
    full: bool
    limit: int


# --- transactions -----------------------------------------------------------------------------------------------------


class Multi(NamedTuple): ...


class Exec(NamedTuple):
    refusal: str = ""  # what is wrong with it: the transaction ends all the same


class Discard(NamedTuple): ...


class Watch(NamedTuple):
    keys: tuple[bytes, ...]


class Unwatch(NamedTuple): ...


Command: TypeAlias = NamedTuple
