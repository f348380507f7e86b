"""Random commands over the whole command table, for a server that is compared with another.

Most are well formed and about few keys, so that they meet; some have arguments dropped, doubled or replaced, so that
errors are compared too. Ids and times are chosen so that both servers answer alike: small ids that rise by luck, idle
times of nothing or for ever, expiries far off or past.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Words = list[bytes]

KEYS = [b"{k}%d" % at for at in range(6)] + [b"other", b"another", b""]  # most of one slot, for RENAME and EXEC
AUTO_KEYS = [b"{k}auto"]  # the stream with ids of the clock; one, as two may get the same id
GROUPS = [b"g1", b"g2", b"nogroup"]
CONSUMERS = [b"alice", b"bob", b"carol"]
FOREVER_MS = b"100000000000"
LAST_ID = b"18446744073709551615-18446744073709551615"
_WORDS_STAY = (
    frozenset(  # a channel and a stream of one name share one log; RENAME stays in one shard; no key ends soon
        [
            b"PUBLISH",
            b"SPUBLISH",
            b"RENAME",
            b"RENAMENX",
            b"SCAN",
            b"SET",
            b"SETEX",
            b"PSETEX",
            b"GETEX",
            b"EXPIRE",
            b"PEXPIRE",
        ]
    )
)
_WORDS = [
    b"0", b"1", b"-1", b"abc", b"$", b">", b"-", b"+", b"~", b"=", b"(1-1", b"5-*", b"MAXLEN", b"MINID", b"LIMIT",
    b"COUNT", b"BLOCK", b"STREAMS", b"GROUP", b"NX", b"XX", b"GET", b"EX", b"KEEPTTL", b"FORCE", b"JUSTID", b"IDLE",
    b"99999999999999999999", b"", b"1-1", b"0-0", b"18446744073709551615-0", b"MKSTREAM", b"TIME", LAST_ID,
]  # fmt: skip


class Generator:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._last_ms = 1

    def commands(self) -> list[Words]:
        """One command, and what must follow it."""
        words = self._random.choices(_MAKERS, _WEIGHTS)[0](self)
        if self._random.random() < 0.12:
            self._spoil(words)
        return [words, *self._with_all_consumers(words)]

    def _with_all_consumers(self, words: Words) -> list[Words]:
        """A group always has all its consumers: 7.0 makes them at other moments than 7.2."""
        if words[0] == b"XGROUP" and len(words) > 4 and words[1] in (b"CREATE", b"DELCONSUMER"):
            return [[b"XGROUP", b"CREATECONSUMER", words[2], words[3], consumer] for consumer in CONSUMERS]
        return []

    def transaction(self) -> list[Words]:
        """MULTI to EXEC over keys of one slot."""
        commands: list[Words] = []
        if self._random.random() < 0.3:
            commands.append([b"WATCH", self.pick(*KEYS[:6])])
        commands.append([b"MULTI"])
        for _ in range(self._random.randint(0, 5)):
            words = self._random.choices(_MAKERS, _WEIGHTS)[0](self)
            if words[0] in _NOT_IN_MULTI or any(word in KEYS[6:] for word in words[1:]):
                continue
            if self._random.random() < 0.05:
                words.pop()  # nothing else: a word in its place might be a key of another slot
            commands += [words, *self._with_all_consumers(words)]
        commands.append([b"DISCARD"] if self._random.random() < 0.1 else [b"EXEC"])
        return commands

    def _spoil(self, words: Words) -> None:
        """No command on its own becomes another by this, and none becomes one that blocks."""
        random = self._random
        if len(words) < 2:
            return
        at = random.randrange(1, len(words))
        match random.randrange(4):
            case 0:
                del words[at]
            case 1:
                words.insert(at, words[at])
            case 2 if words[0] not in _WORDS_STAY and b"*" not in words and words[at] not in CONSUMERS:
                words[at] = random.choice(_WORDS)
            case _:
                words.append(random.choice(_WORDS))

    # --- arguments ----------------------------------------------------------------------------------------------------

    def key(self) -> bytes:
        return self._random.choices(KEYS, [6] * 6 + [2, 2, 1])[0]

    def pick(self, *choices: bytes) -> bytes:
        return self._random.choice(choices)

    def maybe(self, chance: float, *words: bytes) -> Words:
        return list(words) if self._random.random() < chance else []

    def number(self) -> bytes:
        return b"%d" % self._random.choice((0, 1, 2, 3, 5, 10, 100))

    def id(self) -> bytes:
        """Of what may be there."""
        if self._random.random() < 0.01:
            return LAST_ID
        self._last_ms = max(self._last_ms, 1)
        ms = self._random.randint(max(0, self._last_ms - 30), self._last_ms)
        return b"%d-%d" % (ms, self._random.choice((0, 0, 1, 2)))

    def new_id(self) -> bytes:
        if self._random.random() < 0.003:
            return LAST_ID  # no stream takes another after it
        self._last_ms += self._random.choice((0, 1, 1, 2))
        if self._random.random() < 0.15:
            return b"%d-*" % self._last_ms
        return b"%d-%d" % (self._last_ms, self._random.choice((0, 0, 1, 2)))

    def end(self, name: bytes) -> bytes:
        return self._random.choice((name, name, self.id(), self.id().partition(b"-")[0], b"(" + self.id()))

    def ids(self) -> Words:
        return [self.id() for _ in range(self._random.randint(1, 4))]

    def group(self) -> bytes:
        return self._random.choices(GROUPS, [8, 4, 1])[0]

    def consumer(self) -> bytes:
        return self._random.choice(CONSUMERS)

    def trim(self) -> Words:
        strategy = self._random.choice((b"MAXLEN", b"MINID"))
        threshold = self.number() if strategy == b"MAXLEN" else self.id()
        words = [strategy, *self.maybe(0.5, self.pick(b"=", b"~")), threshold]
        return words + (self.maybe(0.4, b"LIMIT", self.number()) if b"~" in words else [])

    def fields(self) -> Words:
        return [b"f%d" % self._random.randrange(3), self._random.choice((b"", b"value", b"v" * 40))] * (
            self._random.choice((1, 1, 2))
        )


# --- the makers -------------------------------------------------------------------------------------------------------

_Maker = Callable[[Generator], Words]


def _xadd(g: Generator) -> Words:
    if g.maybe(0.2, b"x"):
        options = g.maybe(0.1, b"NOMKSTREAM") + (g.trim() if g.maybe(0.2, b"x") else [])
        return [b"XADD", g.pick(*AUTO_KEYS), *options, b"*", *g.fields()]
    options = g.maybe(0.1, b"NOMKSTREAM") + (g.trim() if g.maybe(0.15, b"x") else [])
    return [b"XADD", g.key(), *options, g.new_id(), *g.fields()]


def _xrange(g: Generator) -> Words:
    if g.maybe(0.5, b"x"):
        return [b"XRANGE", g.key(), g.end(b"-"), g.end(b"+"), *g.maybe(0.4, b"COUNT", g.number())]
    return [b"XREVRANGE", g.key(), g.end(b"+"), g.end(b"-"), *g.maybe(0.4, b"COUNT", g.number())]


def _xread(g: Generator) -> Words:
    keys = [g.key() for _ in range(g._random.choice((1, 1, 2)))]
    positions = [g.pick(g.id(), b"0", b"$") for _ in keys]
    return [b"XREAD", *g.maybe(0.5, b"COUNT", g.number()), *g.maybe(0.1, b"BLOCK", b"1"), b"STREAMS", *keys, *positions]


def _xreadgroup(g: Generator) -> Words:
    keys = [g.key() for _ in range(g._random.choice((1, 1, 1, 2)))]
    positions = [g.pick(b">", b">", b">", b"0", g.id()) for _ in keys]
    options = g.maybe(0.7, b"COUNT", g.number()) + g.maybe(0.1, b"BLOCK", b"1") + g.maybe(0.15, b"NOACK")
    return [b"XREADGROUP", b"GROUP", g.group(), g.consumer(), *options, b"STREAMS", *keys, *positions]


def _xgroup(g: Generator) -> Words:
    key, group = g.key(), g.group()
    after = g.pick(b"$", b"0", g.id())
    read = g.maybe(0.15, b"ENTRIESREAD", g.pick(b"0", b"1", b"3", b"-1"))
    return g._random.choices(
        [
            [b"XGROUP", b"CREATE", key, group, after, *g.maybe(0.6, b"MKSTREAM"), *read],
            [b"XGROUP", b"SETID", key, group, after, *read],
            [b"XGROUP", b"DESTROY", key, group],
            [b"XGROUP", b"CREATECONSUMER", key, group, g.consumer()],
            [b"XGROUP", b"DELCONSUMER", key, group, g.consumer()],
        ],
        [10, 2, 1, 2, 1],
    )[0]


def _xpending(g: Generator) -> Words:
    words = [b"XPENDING", g.key(), g.group()]
    if g.maybe(0.6, b"x"):
        idle = g.maybe(0.3, b"IDLE", g.pick(b"0", FOREVER_MS))
        words += [*idle, g.end(b"-"), g.end(b"+"), g.number(), *g.maybe(0.3, g.consumer())]
    return words


def _xclaim(g: Generator) -> Words:
    options = [
        *g.maybe(0.2, b"FORCE"),
        *g.maybe(0.3, b"JUSTID"),
        *g.maybe(0.2, b"RETRYCOUNT", g.number()),
        *g.maybe(0.2, b"IDLE", b"1000"),
        *g.maybe(0.1, b"TIME", b"1000000"),
        *g.maybe(0.1, b"LASTID", g.id()),
    ]
    return [b"XCLAIM", g.key(), g.group(), g.consumer(), g.pick(b"0", b"0", FOREVER_MS), *g.ids(), *options]


def _xautoclaim(g: Generator) -> Words:
    options = g.maybe(0.5, b"COUNT", g.number()) + g.maybe(0.3, b"JUSTID")
    return [
        b"XAUTOCLAIM",
        g.key(),
        g.group(),
        g.consumer(),
        g.pick(b"0", FOREVER_MS),
        g.pick(b"-", b"0", g.id()),
        *options,
    ]


def _xsetid(g: Generator) -> Words:
    options = g.maybe(0.3, b"ENTRIESADDED", g.pick(b"0", b"3", b"10")) + g.maybe(0.3, b"MAXDELETEDID", g.id())
    return [b"XSETID", g.key(), g.new_id().replace(b"*", b"9"), *options]


def _xinfo(g: Generator) -> Words:
    return g._random.choice(
        [
            [b"XINFO", b"STREAM", g.key(), *g.maybe(0.5, b"FULL", *g.maybe(0.5, b"COUNT", g.number()))],
            [b"XINFO", b"GROUPS", g.key()],
            [b"XINFO", b"CONSUMERS", g.key(), g.group()],
        ]
    )


def _set(g: Generator) -> Words:
    expiry = (
        [b"EX", b"10000"],
        [b"PX", b"10000000"],
        [b"EXAT", b"4000000000"],
        [b"PXAT", b"4000000000000"],
        [b"KEEPTTL"],
    )
    options = g.maybe(0.15, g.pick(b"NX", b"XX")) + g.maybe(0.2, b"GET")
    options += g._random.choice(expiry) if g.maybe(0.3, b"x") else []
    return [b"SET", g.key(), g.pick(b"", b"12", b"value", b"x" * 50), *options]


def _strings(g: Generator) -> Words:
    key = g.key()
    return g._random.choice(
        [
            [b"GET", key],
            [b"GET", key],
            [b"GETDEL", key],
            [b"STRLEN", key],
            [b"SETNX", key, b"v"],
            [b"SETEX", key, g.pick(b"10000", b"0", b"-1"), b"v"],
            [b"PSETEX", key, g.pick(b"10000000", b"0"), b"v"],
            [b"GETEX", key, *g._random.choice(([], [b"EX", b"10000"], [b"PERSIST"], [b"PXAT", b"4000000000000"]))],
        ]
    )


def _expiry(g: Generator) -> Words:
    key = g.key()
    when = g._random.choice(
        [
            [b"EXPIRE", key, g.pick(b"10000", b"20000", b"-1", b"9223372036854775807")],
            [b"PEXPIRE", key, g.pick(b"10000000", b"0")],
            [b"EXPIREAT", key, g.pick(b"4000000000", b"1")],
            [b"PEXPIREAT", key, g.pick(b"4000000000000", b"5000000000000")],
        ]
    )
    return g._random.choice(
        [
            # GT and LT of a time from now would depend on the millisecond.
            when + g.maybe(0.3, g.pick(b"NX", b"XX", *((b"GT", b"LT") if b"AT" in when[0] else ()))),
            [g.pick(b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME"), key],
            [b"PERSIST", key],
        ]
    )


def _keys(g: Generator) -> Words:
    return g._random.choices(
        [
            [g.pick(b"DEL", b"UNLINK"), *(g.key() for _ in range(g._random.choice((1, 1, 2, 3))))],
            [g.pick(b"EXISTS", b"TOUCH"), *(g.key() for _ in range(g._random.choice((1, 2, 3))))],
            [b"TYPE", g.key()],
            [g.pick(b"RENAME", b"RENAMENX"), g.pick(*KEYS[:6]), g.pick(*KEYS[:6])],
            [b"KEYS", g.pick(b"*", b"{k}*", b"*[0-3]", b"none")],
            [b"SCAN", b"0", b"COUNT", b"1000", *g.maybe(0.3, b"MATCH", b"{k}*"), *g.maybe(0.3, b"TYPE", b"stream")],
            [b"DBSIZE"],
            [b"RANDOMKEY"],
            [b"OBJECT", g.pick(b"ENCODING", b"REFCOUNT", b"IDLETIME", b"FREQ"), g.key()],
            [g.pick(b"FLUSHALL", b"FLUSHDB"), *g.maybe(0.3, g.pick(b"ASYNC", b"SYNC"))],
        ],
        [5, 4, 5, 3, 2, 2, 2, 1, 2, 0.15],
    )[0]


def _connection(g: Generator) -> Words:
    return g._random.choice(
        [
            [b"PING", *g.maybe(0.4, b"text")],
            [b"ECHO", b"text"],
            [b"SELECT", b"0"],
            [b"CLIENT", b"SETNAME", b"name"],
            [b"CLIENT", b"GETNAME"],
            [b"CLIENT", b"GETREDIR"],
            [b"CLIENT", b"TRACKINGINFO"],
            [b"CLIENT", b"UNBLOCK", b"987654", *g.maybe(0.5, g.pick(b"TIMEOUT", b"ERROR"))],
            [b"CLIENT", b"UNPAUSE"],
            [b"CLIENT", b"NO-EVICT", g.pick(b"ON", b"OFF")],
            [b"CLIENT", b"KILL", b"ID", b"987654"],
            [b"CLIENT", b"CACHING", b"YES"],
            [b"CONFIG", b"SET", b"notify-keyspace-events", g.pick(b"", b"KEA", b"AKEm", b"Kx$", b"q")],
            [b"CONFIG", b"GET", b"notify-keyspace-events"],
            [b"FUNCTION", b"FLUSH"],
            [b"SCRIPT", b"FLUSH", *g.maybe(0.5, b"SYNC")],
            [b"WAIT", b"0", b"10"],
            [b"PUBSUB", b"NUMSUB", b"c1", b"none"],
            [b"PUBSUB", b"CHANNELS", b"c*"],
            [b"PUBSUB", b"NUMPAT"],
            [b"PUBSUB", b"SHARDNUMSUB", b"c1"],
            [b"UNWATCH"],
            [b"DISCARD"],
            [b"EXEC"],
            [b"NOSUCHCOMMAND", b"a", b"b"],
            [b"XGROUP", b"NOSUCH", b"a"],
        ]
    )


def _publish(g: Generator) -> Words:
    return [g.pick(b"PUBLISH", b"PUBLISH", b"SPUBLISH"), g.pick(b"c1", b"c2", b"quiet"), g.pick(b"m", b"", b"x" * 30)]


_MAKERS: list[_Maker]
_WEIGHTS: list[float]
_MAKERS, _WEIGHTS = map(
    list,
    zip(
        (_xadd, 14.0),
        (_xrange, 5.0),
        (_xread, 4.0),
        (_xreadgroup, 10.0),
        (_xgroup, 7.0),
        (lambda g: [b"XACK", g.key(), g.group(), *g.ids()], 4.0),
        (_xpending, 6.0),
        (_xclaim, 5.0),
        (_xautoclaim, 4.0),
        (lambda g: [b"XDEL", g.key(), *g.ids()], 4.0),
        (lambda g: [b"XTRIM", g.key(), *g.trim()], 2.0),
        (lambda g: [b"XLEN", g.key()], 2.0),
        (_xsetid, 1.5),
        (_xinfo, 8.0),
        (_set, 3.0),
        (_strings, 5.0),
        (_expiry, 5.0),
        (_keys, 8.0),
        (_connection, 4.0),
        (_publish, 3.0),
        strict=True,
    ),
)
_NOT_IN_MULTI = frozenset(  # what is of no key, or (docs/divergence.md) carried out behind the rest
    [
        b"FLUSHALL",
        b"FLUSHDB",
        b"CLIENT",
        b"CONFIG",
        b"DISCARD",
        b"EXEC",
        b"WAIT",
        b"UNWATCH",
        b"NOSUCHCOMMAND",
        b"PUBLISH",
        b"KEYS",
        b"SCAN",
        b"DBSIZE",
        b"RANDOMKEY",
    ]
)
