"""Parsers of the stream commands that touch no group: arguments in, a noun out. (Reads: parse_bus.py.)

Each takes the whole argument list, its name included, of checked arity. Raises CommandError with Redis' text. Where
Redis looks at the data before it looks at an argument, the argument's error comes first here: a noun is well-formed.
"""

from __future__ import annotations

from riverbus import commands
from riverbus import keyspace_commands as keyspace
from riverbus.commands import Command
from riverbus.fields import encode_fields
from riverbus.keyspace_commands import Trim
from riverbus.limits import IDEMPOTENCY_KEY_BYTES_MAX
from riverbus.messages import ID_MIN, Kind, MessageId
from riverbus.wire.parsing import (
    SYNTAX_ERROR,
    CommandError,
    checked_body,
    checked_channel,
    integer,
    stream_id,
    writable_key,
    wrong_arity,
)

_XADD = int(Kind.XADD)
_REFERENCES = {b"KEEPREF": "keepref", b"DELREF": "delref", b"ACKED": "acked"}


class _Options:
    """What may stand between a stream's key and its id: XADD's and XTRIM's options."""

    def __init__(self) -> None:
        self.maxlen: int | None = None
        self.minid: MessageId | None = None
        self.is_approximate = False
        self.limit: int | None = None
        self.references = "keepref"
        self.no_mkstream = False
        self.producer: bytes | None = None
        self.idempotent_id: bytes | None = None

    @property
    def has_strategy(self) -> bool:
        return self.maxlen is not None or self.minid is not None

    def take(self, args: list[bytes], at: int, *, is_xadd: bool) -> int:
        """Read the option at `at` and return where the next begins; `at` itself if it is none."""
        option = args[at].upper()
        more = len(args) - 1 - at
        if option in (b"MAXLEN", b"MINID") and more:
            return self._take_strategy(option, args, at)
        if option == b"LIMIT" and more:
            self.limit = integer(args[at + 1])
            if self.limit < 0:
                raise CommandError("ERR The LIMIT argument must be >= 0.")
            return at + 2
        if option in _REFERENCES:
            self.references = _REFERENCES[option]
            return at + 1
        if not is_xadd:
            raise CommandError(SYNTAX_ERROR)
        if option == b"NOMKSTREAM":
            self.no_mkstream = True
            return at + 1
        if option == b"IDMPAUTO" and more:
            self._take_key(args[at + 1], None)
            return at + 2
        if option == b"IDMP" and more >= 2:
            self._take_key(args[at + 1], args[at + 2])
            return at + 3
        return at

    def _take_strategy(self, option: bytes, args: list[bytes], at: int) -> int:
        if self.has_strategy:
            raise CommandError("ERR syntax error, MAXLEN and MINID options at the same time are not compatible")
        at += 1
        self.is_approximate = False
        if args[at] in (b"~", b"=") and at + 1 < len(args):
            self.is_approximate = args[at] == b"~"
            at += 1
        if option == b"MINID":
            self.minid = stream_id(args[at])
        else:
            self.maxlen = integer(args[at])
            if self.maxlen < 0:
                raise CommandError("ERR The MAXLEN argument must be >= 0.")
        return at + 1

    def _take_key(self, producer: bytes, idempotent_id: bytes | None) -> None:
        if self.producer is not None:
            raise CommandError("ERR IDMP/IDMPAUTO specified multiple times")
        if not producer:
            raise CommandError("ERR IDMP requires a non-empty producer ID")
        if idempotent_id == b"":
            raise CommandError("ERR IDMP requires a non-empty idempotent ID")
        for part in (producer, idempotent_id or b""):
            if len(part) > IDEMPOTENCY_KEY_BYTES_MAX:
                raise CommandError(
                    f"ERR idempotency key of {len(part)} bytes, the limit is {IDEMPOTENCY_KEY_BYTES_MAX}"
                )
        self.producer, self.idempotent_id = producer, idempotent_id

    def check(self) -> None:
        if self.limit and not self.has_strategy:
            raise CommandError("ERR syntax error, LIMIT cannot be used without specifying a trimming strategy")

    def trim(self) -> Trim | None:
        if not self.has_strategy and self.limit is None:
            return None
        if self.limit is not None and not self.is_approximate:
            raise CommandError("ERR syntax error, LIMIT cannot be used without the special ~ option")
        return Trim(self.maxlen, self.minid, self.is_approximate, self.limit, self.references)


def parse_xadd(args: list[bytes]) -> Command:
    """XADD key [NOMKSTREAM] [KEEPREF | DELREF | ACKED] [IDMPAUTO producer | IDMP producer id] [MAXLEN | MINID ...]
    <* | id> field value [field value ...]

    The plain form with `*` is a Publish, which travels as messages do.
    """
    if args[2] == b"*" and len(args) % 2:
        body = checked_body(encode_fields(args[3:]))
        return commands.Publish(writable_key(args[1]), _XADD, [body], "id")
    options = _Options()
    at = 2
    while at < len(args) and args[at] != b"*":
        after = options.take(args, at, is_xadd=True)
        if after == at:
            break
        at = after
    id_, is_seq_auto = None, False
    if at < len(args) and args[at] != b"*":
        id_, is_seq_auto = _new_id(args[at])
    options.check()
    trim = options.trim()
    fields = args[at + 1 :]
    if len(fields) < 2 or len(fields) % 2:
        raise wrong_arity("xadd")
    if id_ == ID_MIN and not is_seq_auto:
        raise CommandError("ERR The ID specified in XADD must be greater than 0-0")
    if options.producer is not None and id_ is not None:
        raise CommandError("ERR IDMP/IDMPAUTO can be used only with auto-generated IDs")
    body = checked_body(encode_fields(fields))
    return keyspace.XAdd(
        writable_key(args[1]),
        body,
        id_,
        is_seq_auto,
        options.no_mkstream,
        trim,
        options.producer,
        options.idempotent_id,
    )


def _new_id(argument: bytes) -> tuple[MessageId, bool]:
    """An id, or `ms-*`; and whether it is that."""
    ms, dash, seq = argument.partition(b"-")
    if dash and seq == b"*":
        return stream_id(ms), True
    return stream_id(argument), False


def parse_xtrim(args: list[bytes]) -> Command:
    """XTRIM key MAXLEN | MINID [= | ~] threshold [LIMIT count] [KEEPREF | DELREF | ACKED]"""
    options = _Options()
    at = 2
    while at < len(args):
        at = options.take(args, at, is_xadd=False)
    options.check()
    if not options.has_strategy:
        raise CommandError("ERR syntax error, XTRIM must be called with a trimming strategy")
    trim = options.trim()
    assert trim is not None
    return keyspace.XTrim(checked_channel(args[1]), trim)


def parse_xdel(args: list[bytes]) -> Command:
    """XDEL key id [id ...]"""
    return keyspace.XDel(checked_channel(args[1]), tuple(map(stream_id, args[2:])))


def parse_xdelex(args: list[bytes]) -> Command:
    """XDELEX key [KEEPREF | DELREF | ACKED] IDS numids id [id ...]"""
    references, ids = _reference_ids(args, 2)
    return keyspace.XDelEx(checked_channel(args[1]), references, ids)


def parse_xackdel(args: list[bytes]) -> Command:
    """XACKDEL key group [KEEPREF | DELREF | ACKED] IDS numids id [id ...]"""
    references, ids = _reference_ids(args, 3)
    return keyspace.XAckDel(checked_channel(args[1]), checked_channel(args[2]), references, ids)


def _reference_ids(args: list[bytes], at: int) -> tuple[str, tuple[MessageId, ...]]:
    """The two parts, each once, in either order."""
    references: str | None = None
    ids: list[bytes] = []
    while at < len(args):
        option = args[at].upper()
        if option in _REFERENCES and references is None:
            references = _REFERENCES[option]
            at += 1
        elif option == b"IDS" and not ids and at + 1 < len(args):
            count = integer(args[at + 1], "ERR Number of IDs must be a positive integer", at_least=1)
            ids = args[at + 2 : at + 2 + count]
            if count != len(ids):
                raise CommandError("ERR The `numids` parameter must match the number of arguments")
            at += 2 + count
        else:
            raise CommandError(SYNTAX_ERROR)
    if not ids:
        raise CommandError(SYNTAX_ERROR)
    return references or "keepref", tuple(map(stream_id, ids))


def parse_xsetid(args: list[bytes]) -> Command:
    """XSETID key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]"""
    last_id = stream_id(args[2])
    entries_added = max_deleted = None
    at = 3
    while at < len(args):
        option = args[at].upper()
        if option == b"ENTRIESADDED" and at + 1 < len(args):
            entries_added = integer(args[at + 1])
            if entries_added < 0:
                raise CommandError("ERR entries_added must be positive")
        elif option == b"MAXDELETEDID" and at + 1 < len(args):
            max_deleted = stream_id(args[at + 1])
            if last_id < max_deleted:
                raise CommandError("ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id")
        else:
            raise CommandError(SYNTAX_ERROR)
        at += 2
    return keyspace.XSetId(checked_channel(args[1]), last_id, entries_added, max_deleted)


def parse_xcfgset(args: list[bytes]) -> Command:
    """XCFGSET key [IDMP-DURATION seconds] [IDMP-MAXSIZE entries]: the window in which XADD's IDMP knows duplicates"""
    duration_s = max_size = None
    at = 2
    while at + 1 < len(args):
        match args[at].upper():
            case b"IDMP-DURATION":
                duration_s = integer(args[at + 1])
                if not 1 <= duration_s <= 86_400:
                    raise CommandError("ERR IDMP-DURATION must be between 1 and 86400 seconds")
            case b"IDMP-MAXSIZE":
                max_size = integer(args[at + 1])
                if not 1 <= max_size <= 10_000:
                    raise CommandError("ERR IDMP-MAXSIZE must be between 1 and 10000 entries")
            case _:
                raise CommandError(SYNTAX_ERROR)
        at += 2
    if at != len(args) or (duration_s is None and max_size is None):
        raise CommandError(SYNTAX_ERROR)
    return keyspace.XCfgSet(checked_channel(args[1]), duration_s, max_size)
