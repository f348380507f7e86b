"""How a keyspace command stands in the log: a code for its noun, and the msgpack array of its fields.

The codes are in the log for ever: never reuse one, never change the order of a noun's fields. A noun may get further
fields at its end, with defaults. A code, or a field, that this node does not know was written by a newer one
(`UnknownNoun`); what is not of the noun's form is damaged (`DamagedNoun`), and refused before it is proposed.

Form is checked whole here, whoever sent it: types by msgspec, then ids, numbers, names and words by the noun's own
annotations. So what `execute.py` carries out can be refused, but never be malformed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_type_hints

import msgspec

from riverbus.access_commands import AclDelUser, AclSetUser
from riverbus.commands import Publish, XInfoStream, XLen, XRange, XRead
from riverbus.core.state.rules import DURABILITIES, commanded_from_bytes
from riverbus.durable_commands import DurableCursor, DurableOpen, DurablePlace, DurableSave, DurableTarget
from riverbus.fields import decode_fields
from riverbus.keyspace_commands import (
    DbSize,
    Del,
    Exists,
    Expire,
    FlushAll,
    GetDel,
    GetEx,
    GetString,
    Keys,
    Object,
    Persist,
    PublishOnce,
    PublishRun,
    RandomKey,
    Rename,
    Scan,
    SetString,
    StrLen,
    Transaction,
    Trim,
    Ttl,
    Type,
    XAck,
    XAckDel,
    XAdd,
    XAutoClaim,
    XCfgSet,
    XClaim,
    XDel,
    XDelEx,
    XGroupCreate,
    XGroupCreateConsumer,
    XGroupDelConsumer,
    XGroupDestroy,
    XGroupSetId,
    XInfoConsumers,
    XInfoGroups,
    XPending,
    XReadGroup,
    XSetId,
    XTrim,
)
from riverbus.limits import CHANNEL_BYTES_MAX, MESSAGE_BYTES_MAX, PATTERN_BYTES_MAX
from riverbus.messages import SEQ_MAX, Kind, MessageId
from riverbus.rule_commands import RuleDel, RulesCopy, RuleSet

Noun = Any  # a NamedTuple of the table below

TYPES: dict[int, type[Noun]] = {
    1: XAdd,
    2: XTrim,
    3: XDel,
    4: XDelEx,
    5: XAckDel,
    6: XSetId,
    7: XCfgSet,
    8: XGroupCreate,
    9: XGroupSetId,
    10: XGroupDestroy,
    11: XGroupCreateConsumer,
    12: XGroupDelConsumer,
    13: XReadGroup,
    14: XAck,
    15: XClaim,
    16: XAutoClaim,
    20: Del,
    21: FlushAll,
    22: Rename,
    23: Expire,
    24: Persist,
    30: SetString,
    31: GetDel,
    32: GetEx,
    40: PublishOnce,
    41: Transaction,
    42: PublishRun,
    45: AclSetUser,
    46: AclDelUser,
    47: DurableOpen,
    48: DurableSave,
    90: RuleSet,
    91: RuleDel,
    92: RulesCopy,
    # Only within a transaction:
    50: Publish,
    60: XRange,
    61: XLen,
    62: XRead,
    63: XInfoStream,
    64: XPending,
    65: XInfoGroups,
    66: XInfoConsumers,
    70: Exists,
    71: Type,
    72: Keys,
    73: Scan,
    74: RandomKey,
    75: DbSize,
    76: Object,
    77: Ttl,
    80: GetString,
    81: StrLen,
}
ONLY_IN_TRANSACTIONS = range(50, 90)  # these codes
CODES: dict[type[Noun], int] = {noun: code for code, noun in TYPES.items()}
_TRANSACTION = CODES[Transaction]

I64_MAX = 2**63 - 1
_I64_MIN = -(2**63)
_MAY_BE_NEGATIVE = frozenset({"ms", "expire_ms", "idle_ms", "time_ms", "entries_read", "retry_count"})
_NAMES = frozenset({"user", "durable", "key", "keys", "new_key", "channel", "channels", "group", "consumer"})
_PATTERNS = frozenset({"pattern", "type"})
_WORDS = {
    "references": frozenset({"keepref", "delref", "acked"}),
    "condition": frozenset({"", "nx", "xx", "gt", "lt", "xxgt", "xxlt"}),
    "subcommand": frozenset({"encoding", "refcount", "idletime", "freq"}),
    "style": frozenset({"receivers", "id"}),
    "durability": frozenset(DURABILITIES),
    "space": frozenset({"channel", "pattern", "shard"}),
}
_WORD_CHARACTERS_MAX = 64


class DamagedNoun(ValueError):
    """The bytes are no command of their code."""


class UnknownNoun(ValueError):
    """A newer node wrote this."""


class _TransactionParts(NamedTuple):
    watched: tuple[tuple[bytes, int], ...]
    commands: tuple[tuple[int, msgspec.Raw], ...]


_encode = msgspec.msgpack.Encoder().encode
_decode_parts = msgspec.msgpack.Decoder(_TransactionParts).decode
_decoders: dict[int, Callable[[bytes], Noun]] = {
    code: msgspec.msgpack.Decoder(noun).decode for code, noun in TYPES.items() if code != _TRANSACTION
}


def encode_noun(noun: Noun) -> tuple[int, bytes]:
    """Its code and its fields. Raises KeyError for what is not replicated."""
    code = CODES[type(noun)]
    if code == _TRANSACTION:
        commands = tuple((inner, msgspec.Raw(fields)) for inner, fields in map(encode_noun, noun.commands))
        return code, _encode(_TransactionParts(noun.watched, commands))
    return code, _encode(noun)


def decode_noun(code: int, fields: bytes, is_in_transaction: bool = False) -> Noun:
    """Raises DamagedNoun, UnknownNoun."""
    noun_type = TYPES.get(code)
    if noun_type is None:
        raise UnknownNoun(f"command of code {code}")
    if (code in ONLY_IN_TRANSACTIONS and not is_in_transaction) or (code == _TRANSACTION and is_in_transaction):
        raise DamagedNoun(f"{noun_type.__name__} is out of place")
    try:
        if code == _TRANSACTION:
            return _decode_transaction(fields)
        noun = _decoders[code](fields)
        for check, value in zip(_checks[noun_type], noun, strict=True):
            check(value)
    except (DamagedNoun, UnknownNoun):
        raise
    except (ValueError, RecursionError) as error:  # msgspec's own, text that is no text, a damaged body, deep nesting
        if _is_newer(noun_type, fields):
            raise UnknownNoun(f"{noun_type.__name__} with more fields than this node knows") from error
        raise DamagedNoun(f"{noun_type.__name__}: {error}") from error
    return noun


def _decode_transaction(fields: bytes) -> Transaction:
    parts = _decode_parts(fields)
    for key, version in parts.watched:
        _check_name(key)
        _check_count(version)
    return Transaction(parts.watched, tuple(decode_noun(code, bytes(raw), True) for code, raw in parts.commands))


def _is_newer(noun_type: type[Noun], fields: bytes) -> bool:
    try:
        values = msgspec.msgpack.decode(fields)
    except (ValueError, RecursionError):
        return False
    return isinstance(values, list) and len(values) > len(noun_type._fields)


# --- checks, made from the annotations --------------------------------------------------------------------------------


def _check_nothing(value: object) -> None:
    pass


def _check_id(value: MessageId | None) -> None:
    if value is not None and not (0 <= value[0] <= SEQ_MAX and 0 <= value[1] <= SEQ_MAX):
        raise DamagedNoun(f"id {value}")


def _check_ids(value: tuple[MessageId | None, ...]) -> None:
    for each in value:
        if each is not None and min(each) < 0:
            raise DamagedNoun(f"id {each}")


def _check_count(value: int | None) -> None:
    if value is not None and not 0 <= value <= I64_MAX:
        raise DamagedNoun(f"number {value}")


def _check_number(value: int | None) -> None:
    if value is not None and not _I64_MIN <= value <= I64_MAX:
        raise DamagedNoun(f"number {value}")


def _check_name(value: bytes | None) -> None:
    if value is not None and len(value) > CHANNEL_BYTES_MAX:
        raise DamagedNoun(f"a name of {len(value)} bytes")


def _check_names(value: tuple[bytes, ...]) -> None:
    for each in value:
        _check_name(each)


def _check_pattern(value: bytes | None) -> None:
    if value is not None and len(value) > PATTERN_BYTES_MAX:
        raise DamagedNoun(f"a pattern of {len(value)} bytes")


def _check_text(value: bytes | None) -> None:
    if value is not None and len(value) > MESSAGE_BYTES_MAX:
        raise DamagedNoun(f"a value of {len(value)} bytes")


def _check_kind(value: int) -> None:
    if value not in (Kind.PUBLISH, Kind.SPUBLISH, Kind.XADD):
        raise UnknownNoun(f"message of kind {value}")


def _check_body(value: bytes) -> None:
    _check_text(value)
    decode_fields(value)


def _check_trim(value: Trim | None) -> None:
    if value is None:
        return
    if (value.maxlen is None) == (value.minid is None):
        raise DamagedNoun("a trim by neither or both of length and id")
    for check, each in zip(_checks[Trim], value, strict=True):
        check(each)


def _check_commanded(value: bytes) -> None:
    commanded_from_bytes(value)


def _check_payloads(value: list[bytes]) -> None:
    if not value:
        raise DamagedNoun("a publish of nothing")
    if (longest := max(map(len, value))) > MESSAGE_BYTES_MAX:
        raise DamagedNoun(f"a value of {longest} bytes")


def _check_target(value: DurableTarget) -> None:
    _check_all(DurableTarget, value)
    _check_name(value.name)


def _check_targets(value: tuple[DurableTarget, ...]) -> None:
    for each in value:
        _check_target(each)


def _check_cursors(value: tuple[DurableCursor, ...]) -> None:
    for each in value:
        _check_all(DurableCursor, each)


def _check_place(value: DurablePlace | None) -> None:
    if value is not None:
        _check_id(value.id)
        for name, id_ in value.exact:
            _check_name(name)
            _check_id(id_)


def _check_all(noun: type[Noun], value: Noun) -> None:
    for check, each in zip(_checks[noun], value, strict=True):
        check(each)


def _word_check(words: frozenset[str] | None) -> Callable[[Any], None]:
    def check(value: str) -> None:
        if value not in words if words is not None else len(value) > _WORD_CHARACTERS_MAX:
            raise DamagedNoun(f"the word {value[:_WORD_CHARACTERS_MAX]!r}")

    return check


_PARTS: dict[str, Callable[[Any], None]] = {
    "trim": _check_trim,
    "payloads": _check_payloads,
    "commanded": _check_commanded,
    "target": _check_target,
    "targets": _check_targets,
    "cursors": _check_cursors,
    "place": _check_place,
}


def _check_for(name: str, hint: object) -> Callable[[Any], None]:
    text = str(hint)
    if name in _PARTS:
        return _PARTS[name]
    if "MessageId" in text:
        return _check_ids if text.startswith("tuple") else _check_id
    if name == "kind":
        return _check_kind
    if name == "body":
        return _check_body
    if hint is bool:
        return _check_nothing
    if hint is str:
        return _word_check(_WORDS.get(name))
    if "int" in text:
        return _check_number if name in _MAY_BE_NEGATIVE else _check_count
    if name in _NAMES:
        return _check_names if text.startswith("tuple") else _check_name
    assert "bytes" in text, f"{name}: {text} has no check"
    return _check_pattern if name in _PATTERNS else _check_text


def _checks_of(noun: type[Noun]) -> tuple[Callable[[Any], None], ...]:
    hints: Mapping[str, object] = get_type_hints(noun)
    return tuple(_check_for(name, hints[name]) for name in noun._fields)


_checks: dict[type[Noun], tuple[Callable[[Any], None], ...]] = {
    noun: _checks_of(noun) for noun in (*TYPES.values(), Trim, DurableCursor, DurableTarget) if noun is not Transaction
}

__all__ = ["CODES", "I64_MAX", "TYPES", "DamagedNoun", "UnknownNoun", "decode_noun", "encode_noun"]
