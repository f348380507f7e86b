"""What a client may ask of keys beyond `commands.py`: streams in full, groups, keys, strings, transactions.

One noun a command, as in `commands.py`, and made the same way: checked for form (arity, numbers, ids, sizes), not for
sense. Fields are plain (bytes, int, bool, ids), since a writing noun is replicated: the log holds it as the msgpack
array of its fields. So fields are only ever added at a noun's end, with a default, and their order never changes.

Writes go through `Backend.write` to `Bus.apply`; reads through a barrier to `Bus.query`. Nouns of `commands.py` that
`Bus.query` answers too: XRange, XLen, XRead, XInfoStream. All times are milliseconds; absolute ones are Unix time. What
is relative counts from the entry's time. All keys of one noun are of one shard. Imports only the nouns.

It is one file because it is one table: who adds a command looks here for what there is.
"""

from __future__ import annotations

from typing import NamedTuple

from riverbus.messages import MessageId, Reply

# --- streams ----------------------------------------------------------------------------------------------------------


class Trim(NamedTuple):
    """MAXLEN | MINID [= | ~] threshold [LIMIT limit] [KEEPREF | DELREF | ACKED]; one of `maxlen` and `minid` is set.

    `limit` None: none was given; 0: no limit. `node_entries` is CONFIG's stream-node-max-entries where the client is.
    """

    maxlen: int | None = None
    minid: MessageId | None = None
    is_approximate: bool = False
    limit: int | None = None
    references: str = "keepref"  # keepref | delref | acked: what becomes of pending entries of what is trimmed
    node_entries: int = 100


class XAdd(NamedTuple):
    """`id` None: `*`; with `is_seq_auto`: `ms-*`, the sequence part of `id` means nothing. Reply: the id, or null.

    `body` is what `fields.encode_fields` made. `producer` None: not idempotent; with it, `idempotent_id` None means
    IDMPAUTO: the fields themselves are the key. A duplicate is answered by the id of the first.
    """

    key: bytes
    body: bytes
    id: MessageId | None = None
    is_seq_auto: bool = False
    no_mkstream: bool = False
    trim: Trim | None = None
    producer: bytes | None = None
    idempotent_id: bytes | None = None


class XCfgSet(NamedTuple):
    """XCFGSET: the idempotency window of a stream; None keeps what holds. Forgets what the window has."""

    key: bytes
    idmp_duration_s: int | None
    idmp_max_size: int | None


class PublishOnce(NamedTuple):
    """BUS.PUBLISH channel message KEY idempotency_key. Reply: the id (of the first, if it is a duplicate)."""

    channel: bytes
    kind: int
    payload: bytes
    idempotency_key: bytes


class PublishRun(NamedTuple):
    """BUS.PUBLISHRUN channel producer sequence message [message ...]: messages that their producer has numbered.

    Reply: an array of ids. A number that is known is answered by its id of then; one that may be known, by an error.
    """

    channel: bytes
    producer: bytes
    sequence: int  # of the first; the others follow
    payloads: tuple[bytes, ...]


class XTrim(NamedTuple):
    """Reply: how many entries are gone."""

    key: bytes
    trim: Trim


class XDel(NamedTuple):
    """Reply: how many of them there were."""

    key: bytes
    ids: tuple[MessageId, ...]


class XDelEx(NamedTuple):
    """Redis 8.2. Reply: for each id 1 deleted, -1 no such entry, 2 acked: somebody has it pending still."""

    key: bytes
    references: str  # keepref | delref | acked
    ids: tuple[MessageId, ...]


class XAckDel(NamedTuple):
    """Redis 8.2. Reply as XDELEX's; -1 for what is not pending in this group."""

    key: bytes
    group: bytes
    references: str  # keepref | delref | acked
    ids: tuple[MessageId, ...]


class XSetId(NamedTuple):
    key: bytes
    last_id: MessageId
    entries_added: int | None = None
    max_deleted: MessageId | None = None


# --- groups -----------------------------------------------------------------------------------------------------------


class XGroupCreate(NamedTuple):
    """`after` None: `$`."""

    key: bytes
    group: bytes
    after: MessageId | None
    mkstream: bool = False
    entries_read: int | None = None


class XGroupSetId(NamedTuple):
    key: bytes
    group: bytes
    after: MessageId | None
    entries_read: int | None = None


class XGroupDestroy(NamedTuple):
    key: bytes
    group: bytes


class XGroupCreateConsumer(NamedTuple):
    key: bytes
    group: bytes
    consumer: bytes


class XGroupDelConsumer(NamedTuple):
    """Reply: how many entries it had pending."""

    key: bytes
    group: bytes
    consumer: bytes


class XReadGroup(NamedTuple):
    """`after[i]` None: `>`. Reply: `Pairs` of (key, entries), or NULL_ARRAY.

    `block_ms` (None: don't block, 0: for ever) is the session's business and changes nothing here. `limit` None: all.
    `claim_ms` (Redis 8.4): pending entries idle at least so long come first, as [id, fields, idle ms, deliveries].
    """

    group: bytes
    consumer: bytes
    keys: tuple[bytes, ...]
    after: tuple[MessageId | None, ...]
    limit: int | None = None
    block_ms: int | None = None
    no_ack: bool = False
    claim_ms: int | None = None


class XAck(NamedTuple):
    key: bytes
    group: bytes
    ids: tuple[MessageId, ...]


class XClaim(NamedTuple):
    key: bytes
    group: bytes
    consumer: bytes
    min_idle_ms: int
    ids: tuple[MessageId, ...]
    idle_ms: int | None = None
    time_ms: int | None = None
    retry_count: int | None = None
    force: bool = False
    just_id: bool = False
    last_id: MessageId | None = None


class XAutoClaim(NamedTuple):
    """Reply: [where to go on, entries or ids, ids that were deleted]."""

    key: bytes
    group: bytes
    consumer: bytes
    min_idle_ms: int
    start: MessageId
    limit: int = 100
    just_id: bool = False


class XPending(NamedTuple):
    """`limit` None: the summary, and all that follows means nothing. Both ends inclusive. A read."""

    key: bytes
    group: bytes
    first: MessageId | None = None
    last: MessageId | None = None
    limit: int | None = None
    consumer: bytes | None = None
    min_idle_ms: int = 0


class XInfoGroups(NamedTuple):
    """A read."""

    key: bytes


class XInfoConsumers(NamedTuple):
    """A read."""

    key: bytes
    group: bytes


# --- keys -------------------------------------------------------------------------------------------------------------


class Del(NamedTuple):
    """DEL and UNLINK (`command`). Reply: how many there were."""

    keys: tuple[bytes, ...]
    command: str = "del"


class Exists(NamedTuple):
    """A read. EXISTS and TOUCH (`command`); a key that is named twice counts twice."""

    keys: tuple[bytes, ...]
    command: str = "exists"


class Type(NamedTuple):
    """A read. Reply: Status none | string | stream."""

    key: bytes


class Keys(NamedTuple):
    """A read, of the whole shard."""

    pattern: bytes


class Scan(NamedTuple):
    """A read, of one shard. `cursor` 0 begins; reply: [next cursor as an int, 0 at the end; keys].

    Every key that is there all the time is returned at least once, whichever node answers which step. `limit` is a
    hint. `type` (lower case) None: any.
    """

    cursor: int
    pattern: bytes | None = None
    limit: int = 10
    type: bytes | None = None


class RandomKey(NamedTuple):
    """A read, of one shard: any number chooses (modulo what there is). Reply: a key or null."""

    choice: int


class DbSize(NamedTuple):
    """A read, of one shard."""


class FlushAll(NamedTuple):
    """FLUSHALL and FLUSHDB (`command`) of one shard: every key, and no log that PUBLISH alone has made."""

    command: str = "flushall"


class Rename(NamedTuple):
    """RENAME: Status OK; RENAMENX (`nx`): 1, or 0 if the new key is there."""

    key: bytes
    new_key: bytes
    nx: bool = False


class Object(NamedTuple):
    """A read. `subcommand`: encoding | refcount | idletime | freq."""

    subcommand: str
    key: bytes


class Expire(NamedTuple):
    """EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT. `ms` may be negative. `condition`: "" | nx | xx | gt | lt | xxgt | xxlt.

    `command` is the name for the error text of a time that does not fit.
    """

    key: bytes
    ms: int
    is_absolute: bool
    condition: str = ""
    command: str = "expire"


class Ttl(NamedTuple):
    """A read. TTL (in_seconds), PTTL, EXPIRETIME (is_absolute, in_seconds), PEXPIRETIME."""

    key: bytes
    in_seconds: bool
    is_absolute: bool = False


class Persist(NamedTuple):
    key: bytes


# --- strings ----------------------------------------------------------------------------------------------------------


class SetString(NamedTuple):
    """SET, SETEX, PSETEX, SETNX. `expire_ms` None: no expiry is given; `is_absolute`: it is Unix time (EXAT, PXAT).

    Reply: Status OK, or null if NX or XX held it back; with `get` the old value or null. `command` is for errors.
    """

    key: bytes
    value: bytes
    expire_ms: int | None = None
    is_absolute: bool = False
    keep_ttl: bool = False
    nx: bool = False
    xx: bool = False
    get: bool = False
    command: str = "set"


class GetString(NamedTuple):
    """A read. GET, or GETEX without an option (`command`)."""

    key: bytes
    command: str = "get"


class StrLen(NamedTuple):
    """A read."""

    key: bytes


class GetDel(NamedTuple):
    key: bytes


class GetEx(NamedTuple):
    """A write, unless neither `expire_ms` nor `persist` is given: then the session asks GetString."""

    key: bytes
    expire_ms: int | None = None
    is_absolute: bool = False
    persist: bool = False


# --- transactions -----------------------------------------------------------------------------------------------------


class Transaction(NamedTuple):
    """MULTI ... EXEC on keys of one shard, as one operation. Reply: an array with one reply each, or NULL_ARRAY.

    `watched`: (key, `Bus.version` of it when WATCH came); if one has changed nothing is done. `commands` are nouns of
    this file (but Transaction), `commands.Publish`, and the reads that `Bus.query` answers. A Publish of n payloads
    gives n replies; where it asks for receivers each is a `Receivers`, which the origin replaces.
    """

    watched: tuple[tuple[bytes, int], ...]
    commands: tuple[NamedTuple, ...]


# --- parts of replies -------------------------------------------------------------------------------------------------


class Receivers(NamedTuple):
    """In a reply, in place of the number of local subscribers that `WriteResult.runs[run]` is delivered to."""

    run: int


class Pairs(NamedTuple):
    """A map in RESP3, an array of two-item arrays in RESP2: what XREAD and XREADGROUP answer."""

    items: tuple[tuple[Reply, Reply], ...]


WRITES = (
    XAdd,
    XCfgSet,
    PublishOnce,
    PublishRun,
    XTrim,
    XDel,
    XDelEx,
    XAckDel,
    XSetId,
    XGroupCreate,
    XGroupSetId,
    XGroupDestroy,
    XGroupCreateConsumer,
    XGroupDelConsumer,
    XReadGroup,
    XAck,
    XClaim,
    XAutoClaim,
    Del,
    FlushAll,
    Rename,
    Expire,
    Persist,
    SetString,
    GetDel,
    GetEx,
    Transaction,
)
READS = (
    XPending,
    XInfoGroups,
    XInfoConsumers,
    Exists,
    Type,
    Keys,
    Scan,
    RandomKey,
    DbSize,
    Object,
    Ttl,
    GetString,
    StrLen,
)
