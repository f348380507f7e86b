"""DEL, RENAME, EXPIRE and what else works on keys of any type; strings. As Redis 7.2 answers.

Commands that change something run at the entry's time (`space.time_ms`); those that only look are given the asker's.
"""

from __future__ import annotations

from collections.abc import Iterator

from riverbus.core.clients.glob import Glob
from riverbus.core.state.keyspace import replies
from riverbus.core.state.keyspace.codes import I64_MAX
from riverbus.core.state.keyspace.explicit import make_implicit, move
from riverbus.core.state.keyspace.keys import KEY_COST, NO_EXPIRY, Key, StreamKey, StringKey
from riverbus.core.state.keyspace.keyspace import PARTITIONS, Keyspace
from riverbus.core.state.keyspace.streams import admit
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
    RandomKey,
    Rename,
    Scan,
    SetString,
    StrLen,
    Ttl,
    Type,
)
from riverbus.messages import ErrorReply, Reply, Status

_EMBEDDED_BYTES_MAX = 44  # of a string that Redis keeps within its object: OBJECT ENCODING says embstr
_INTEGER_BYTES_MAX = 20


def _type_of(key: Key) -> str:
    return "string" if isinstance(key, StringKey) else "stream"


# --- looking ----------------------------------------------------------------------------------------------------------


def exists(space: Keyspace, noun: Exists, now_ms: int) -> Reply:
    return sum(space.see(name, now_ms) is not None for name in noun.keys)


def type_(space: Keyspace, noun: Type, now_ms: int) -> Reply:
    key = space.see(noun.key, now_ms)
    return Status("none" if key is None else _type_of(key))


def keys(space: Keyspace, noun: Keys, now_ms: int) -> Reply:
    matches = Glob(noun.pattern).matches
    return [key.name for key in _all(space, now_ms) if matches(key.name)]


def _all(space: Keyspace, now_ms: int) -> Iterator[Key]:
    for number in range(PARTITIONS):
        yield from space.names(now_ms, number)


def scan(space: Keyspace, noun: Scan, now_ms: int) -> Reply:
    """A step covers whole partitions of the registry: so it does not matter in which order a node has their keys."""
    matches = Glob(noun.pattern).matches if noun.pattern is not None else None
    wanted = None if noun.type is None else noun.type.decode("utf-8", "replace")
    found: list[Reply] = []
    looked_at = 0
    number = noun.cursor
    while number < PARTITIONS and looked_at < noun.limit:
        for key in space.names(now_ms, number):
            looked_at += 1
            if (matches is None or matches(key.name)) and (wanted is None or wanted == _type_of(key)):
                found.append(key.name)
        number += 1
    return [number if number < PARTITIONS else 0, found]


def randomkey(space: Keyspace, noun: RandomKey, now_ms: int) -> Reply:
    for step in range(PARTITIONS):
        number = (noun.choice + step) % PARTITIONS
        found = [key.name for key in space.names(now_ms, number)]
        if found:
            return found[noun.choice // PARTITIONS % len(found)]
    return None


def dbsize(space: Keyspace, _: DbSize, now_ms: int) -> Reply:
    return space.count


def object_(space: Keyspace, noun: Object, now_ms: int) -> Reply:
    key = space.see(noun.key, now_ms)
    if key is None:
        return None
    if noun.subcommand == "refcount":
        return 1
    if noun.subcommand == "idletime":
        return 0  # reads leave no trace in what is replicated
    if noun.subcommand == "freq":
        return replies.NO_FREQUENCY
    return b"stream" if isinstance(key, StreamKey) else _encoding(key.value)


def _encoding(value: bytes) -> bytes:
    digits = value[1:] if value[:1] == b"-" else value
    is_number = len(value) <= _INTEGER_BYTES_MAX and digits.isdigit() and (digits[:1] != b"0" or value == b"0")
    if is_number and -I64_MAX - 1 <= int(value) <= I64_MAX:
        return b"int"
    return b"embstr" if len(value) <= _EMBEDDED_BYTES_MAX else b"raw"


def ttl(space: Keyspace, noun: Ttl, now_ms: int) -> Reply:
    key = space.see(noun.key, now_ms)
    if key is None:
        return -2
    if key.expire_ms == NO_EXPIRY:
        return -1
    left_ms = key.expire_ms if noun.is_absolute else max(0, key.expire_ms - now_ms)
    return (left_ms + 500) // 1000 if noun.in_seconds else left_ms


def get(space: Keyspace, noun: GetString, now_ms: int) -> Reply:
    key = space.see(noun.key, now_ms)
    if key is None:
        return None
    return key.value if isinstance(key, StringKey) else replies.WRONG_TYPE


def strlen(space: Keyspace, noun: StrLen, now_ms: int) -> Reply:
    key = space.see(noun.key, now_ms)
    if key is None:
        return 0
    return len(key.value) if isinstance(key, StringKey) else replies.WRONG_TYPE


# --- keys of any type -------------------------------------------------------------------------------------------------


def _delete(space: Keyspace, key: Key) -> None:
    space.remove(key)
    space.event("g", "del", key.name)


def del_(space: Keyspace, noun: Del) -> Reply:
    count = 0
    for name in noun.keys:
        key = space.take(name)
        if key is not None:
            _delete(space, key)
            count += 1
    return count


def flushall(space: Keyspace, _: FlushAll) -> Reply:
    space.flush()
    return replies.OK


def rename(space: Keyspace, noun: Rename) -> Reply:
    key = space.take(noun.key)
    if key is None:
        return replies.NO_SUCH_KEY
    there = space.take(noun.new_key)
    if noun.nx and there is not None:
        return 0
    if noun.key != noun.new_key:
        if there is not None:
            space.remove(there)
        _rename(space, key, noun.new_key)
        space.event("g", "rename_from", noun.key)
        space.event("g", "rename_to", noun.new_key)
    return 1 if noun.nx else replies.OK


def _rename(space: Keyspace, key: Key, new_name: bytes) -> None:
    """The new name has no key. If it has an implicit log, that goes, and its ids are not made again."""
    if isinstance(key, StringKey):
        space.leave(key)
        space.adopt(StringKey(new_name, space.store.epoch, space.index, key.value, key.expire_ms))
        return
    store = space.store
    source = store.get(key.name)
    target = store.get(new_name) or store.create(new_name, space.time_ms)
    assert source is not None
    space.leave(key)
    if target.epoch != store.epoch:
        store.preserve(target)
    store.discard(target)
    floor = max(key.floor, target.last_id)
    renamed = StreamKey(
        name=new_name,
        epoch=store.epoch,
        version=space.index,
        groups=key.groups,
        producers=key.producers,
        memory=key.memory - len(key.name) + len(new_name),
        expire_ms=key.expire_ms,
        max_deleted=key.max_deleted,
        node_base=key.node_base,
        floor=floor,
    )
    store.explicit_bytes += target.memory()
    target.is_explicit = True
    target.stream = renamed
    move(store, source, target)
    make_implicit(store, source, space.time_ms)
    space.adopt(renamed)


def _absolute(space: Keyspace, ms: int, is_absolute: bool) -> int | None:
    """None if it does not fit."""
    at_ms = ms if is_absolute else space.time_ms + ms
    return at_ms if -I64_MAX - 1 <= at_ms <= I64_MAX else None


def expire(space: Keyspace, noun: Expire) -> Reply:
    at_ms = _absolute(space, noun.ms, noun.is_absolute)
    if at_ms is None:
        return replies.invalid_expire(noun.command)
    key = space.take(noun.key)
    if key is None or not _may_expire(key, at_ms, noun.condition):
        return 0
    _expire_at(space, key, at_ms)
    return 1


def _may_expire(key: Key, at_ms: int, condition: str) -> bool:
    has_expiry = key.expire_ms != NO_EXPIRY
    if condition == "nx":
        return not has_expiry
    if condition.startswith("xx") and not has_expiry:
        return False
    if condition.endswith("gt"):
        return has_expiry and at_ms > key.expire_ms
    if condition.endswith("lt"):
        return not has_expiry or at_ms < key.expire_ms
    return True


def _expire_at(space: Keyspace, key: Key, at_ms: int) -> None:
    if at_ms <= space.time_ms:
        _delete(space, key)
    else:
        space.set_expiry(key, at_ms)
        space.event("g", "expire", key.name)


def persist(space: Keyspace, noun: Persist) -> Reply:
    key = space.take(noun.key)
    if key is None or key.expire_ms == NO_EXPIRY:
        return 0
    space.set_expiry(key, NO_EXPIRY)
    space.event("g", "persist", key.name)
    return 1


# --- strings ----------------------------------------------------------------------------------------------------------


def set_(space: Keyspace, noun: SetString) -> Reply:
    reply = _set(space, noun)
    if noun.command == "setnx" and not isinstance(reply, ErrorReply):
        return int(reply is not None)
    return reply


def _set(space: Keyspace, noun: SetString) -> Reply:
    expire_ms = NO_EXPIRY
    if noun.expire_ms is not None:
        at_ms = _absolute(space, noun.expire_ms, noun.is_absolute)
        if at_ms is None or noun.expire_ms <= 0:
            return replies.invalid_expire(noun.command)
        expire_ms = at_ms
    key = space.take(noun.key)
    if noun.get and isinstance(key, StreamKey):
        return replies.WRONG_TYPE
    before = key.value if isinstance(key, StringKey) else None
    if (noun.nx and key is not None) or (noun.xx and key is None):
        return before if noun.get else None
    error = admit(space, KEY_COST + len(noun.key) + len(noun.value))
    if error is not None:
        return ErrorReply(str(error))
    if isinstance(key, StreamKey):
        kept_ms = key.expire_ms
        space.remove(key)
        key = space.new_string(noun.key, noun.value)
        if noun.keep_ttl:
            expire_ms = kept_ms
    elif key is None:
        key = space.new_string(noun.key, noun.value)
    else:
        space.replace_value(key, noun.value)
        if noun.keep_ttl:
            expire_ms = key.expire_ms
    if expire_ms != key.expire_ms:
        space.set_expiry(key, expire_ms)
    space.event("$", "set", noun.key)
    if noun.expire_ms is not None:
        space.event("g", "expire", noun.key)
    return before if noun.get else replies.OK


def getdel(space: Keyspace, noun: GetDel) -> Reply:
    key = space.take(noun.key)
    if key is None:
        return None
    if not isinstance(key, StringKey):
        return replies.WRONG_TYPE
    _delete(space, key)
    return key.value


def getex(space: Keyspace, noun: GetEx) -> Reply:
    at_ms = None
    if noun.expire_ms is not None:
        at_ms = _absolute(space, noun.expire_ms, noun.is_absolute)
        if at_ms is None or noun.expire_ms <= 0:
            return replies.invalid_expire("getex")
    key = space.take(noun.key)
    if key is None:
        return None
    if not isinstance(key, StringKey):
        return replies.WRONG_TYPE
    if at_ms is not None:
        _expire_at(space, key, at_ms)
    elif noun.persist and key.expire_ms != NO_EXPIRY:
        space.set_expiry(key, NO_EXPIRY)
        space.event("g", "persist", key.name)
    return key.value
