"""RESP: bytes of clients, through the parser and a whole session, on a backend without Raft (tests/core/fakes.py).

An input is what one read of a socket may bring: parts of pipelines of every command of the table, with arguments that
mean something now and then, changed, cut and spliced. Inputs of an episode go on where the one before ended, on a few
connections in turn, so that a command may begin in one and end in another. Checked: nothing is raised; what is held is
bounded; a protocol error is the last that is answered; all that a client gets is well-formed RESP; all sessions close.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import hiredis

from riverbus.commands import Command, Malformed
from riverbus.core.state.rules import ChannelRule, Rules
from riverbus.limits import COMMAND_BYTES_MAX
from riverbus.messages import ErrorReply
from riverbus.wire.command_row import CommandRow
from riverbus.wire.command_table import ROWS
from riverbus.wire.redis import RedisProtocol
from tests.core.fakes import RESP2, RESP3, FakeNode, FakeOutput
from tests.malformed.driver import kind_of
from tests.malformed.mutations import BYTES, Mutation, double_part, mutate, pick, splice

CONNECTIONS = 3
INPUTS_PER_CONNECTION = 12
INPUTS_PER_SETTLE = 4
HELD_BYTES_ENOUGH = 20_000  # a connection that waits for so much gets no more inputs
_CORPUS = 4_000

TOKENS = (
    b"\r\n", b"\n", b"\r", b"*", b"$", b"*3\r\n", b"*-1\r\n", b"*0\r\n", b"$-1\r\n", b"*999999999\r\n", b"*65537\r\n",
    b"$99999999\r\n", b"$00\r\n", b"$+1\r\n", b"+OK\r\n", b":1\r\n", b"%2\r\n", b"~1\r\n", b">1\r\n", b"_\r\n",
    b"#t\r\n", b",1\r\n", b"(1\r\n", b"=5\r\ntxt:a\r\n", b"PING\r\n", b'"', b"'", b"0", b"9", b"-", b"\x00", b"\xff",
    b"$4\r\nPING\r\n", b"*1\r\n$4\r\nPING\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"*1\r\n*1\r\n$4\r\nPING\r\n",
    b"*" + b"1" * 80, b"$" + b"9" * 70, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)  # fmt: skip

WORDS = (
    b"a", b"b", b"{a}b", b"a*", b"*", b"[a-", b"h?llo", b"", b"\x00", b"\xff\xfe", b"x" * 1025, b"y" * 70,
    b"0", b"1", b"-1", b"+1", b"2", b"3", b"00", b"10", b"1e3", b"nan", b"9223372036854775807", b"-9223372036854775808",
    b"18446744073709551615", b"18446744073709551616", b"99999999999999999999999", b"0-0", b"1-1", b"0-1", b"-", b"+",
    b"$", b">", b"(1-1", b"(", b"1-", b"-1-1", b"18446744073709551615-18446744073709551615", b"1000000-0", b"*-*",
    b"COUNT", b"BLOCK", b"STREAMS", b"SINCE", b"MAXLEN", b"MINID", b"~", b"=", b"LIMIT", b"NOMKSTREAM", b"WITHCODE",
    b"on", b"off", b"skip", b"ID", b"TYPE", b"ADDR", b"LADDR", b"SKIPME", b"USER", b"normal", b"pubsub", b"yes", b"no",
    b"LIB-NAME", b"LIB-VER", b"SETNAME", b"AUTH", b"default", b"FULL", b"FILTERBY", b"ACLCAT", b"PATTERN", b"MODULE",
    b"GROUP", b"g", b"c", b"MKSTREAM", b"ENTRIESREAD", b"NOACK", b"IDLE", b"JUSTID", b"FORCE", b"RETRYCOUNT", b"TIME",
    b"EX", b"PX", b"NX", b"XX", b"GET", b"KEEPTTL", b"EXAT", b"PXAT", b"MATCH", b"publish", b"xadd", b"xread", b"get",
    b"127.0.0.1:a", b"server", b"all", b"ASYNC", b"SYNC", b"riverbus-*", b"value", b"v" * 300,
)  # fmt: skip
# Whole commands, that the words above would seldom make; k is a channel, i an id, n a number, v any word.
PHRASES = tuple(
    phrase.split()
    for phrase in (
        "PUBLISH k v", "SPUBLISH k v", "BUS.PUBLISH k v", "XADD k * f v", "XADD k * f v g v", "XRANGE k - +",
        "XADD k i f v", "XADD k MAXLEN ~ n * f v", "XADD k NOMKSTREAM MINID = i LIMIT n * f v", "XADD k n-* f v",
        "XRANGE k i i COUNT n", "XRANGE k (i +", "XREVRANGE k + - COUNT n", "XREAD COUNT n STREAMS k i", "XLEN k",
        "XREAD BLOCK n STREAMS k $", "XREAD COUNT n BLOCK n STREAMS k k i i", "XINFO STREAM k", "XINFO STREAM k FULL",
        "XINFO STREAM k FULL COUNT n", "BUS.SUBSCRIBE k SINCE i", "BUS.SUBSCRIBE k", "BUS.UNSUBSCRIBE k",
        "SUBSCRIBE k k", "PSUBSCRIBE * k", "SSUBSCRIBE k", "UNSUBSCRIBE k", "PUBSUB NUMSUB k k", "PUBSUB CHANNELS *",
        "HELLO 3", "HELLO 2", "HELLO 3 AUTH default default SETNAME v", "AUTH default", "AUTH default default", "MULTI",
        "EXEC", "DISCARD", "WATCH k k", "UNWATCH", "RESET", "CLIENT SETNAME v", "CLIENT KILL ID n", "CLIENT LIST ID n",
        "CLIENT REPLY OFF", "CLIENT REPLY ON", "CLIENT REPLY SKIP", "CLIENT SETINFO LIB-NAME v", "CLIENT TRACKING ON",
        "CONFIG GET *", "SELECT 0", "ECHO v", "QUIT", "SET k v", "SET k v EX n NX", "GET k", "DEL k k", "EXISTS k",
        "EXPIRE k n", "PEXPIREAT k n XX", "PERSIST k", "TTL k", "TYPE k", "KEYS *", "SCAN n MATCH * COUNT n", "DBSIZE",
        "XDEL k i i", "XTRIM k MAXLEN n", "XTRIM k MINID ~ i", "XSETID k i ENTRIESADDED n MAXDELETEDID i",
        "XGROUP CREATE k g i MKSTREAM", "XGROUP CREATE k g $", "XGROUP SETID k g i ENTRIESREAD n", "XGROUP DESTROY k g",
        "XGROUP CREATECONSUMER k g c", "XGROUP DELCONSUMER k g c", "XREADGROUP GROUP g c STREAMS k >", "XACK k g i i",
        "XREADGROUP GROUP g c COUNT n BLOCK n NOACK STREAMS k k > i", "XPENDING k g", "XPENDING k g IDLE n - + n c",
        "XCLAIM k g c n i IDLE n RETRYCOUNT n FORCE JUSTID", "XAUTOCLAIM k g c n i COUNT n JUSTID", "XINFO GROUPS k",
        "XINFO CONSUMERS k g", "INCRBY k n", "APPEND k v", "MGET k k", "MSET k v k v", "FLUSHALL", "ACL WHOAMI",
        "ACL SETUSER v on >v ~* &* +@all", "ACL GETUSER v", "ACL LIST", "ACL CAT", "ACL DRYRUN v XADD k * f v",
        "BUS.PUBLISH k v KEY v", "BUS.PUBLISHRUN k v n v v", "BUS.RULE SET k COUNT n AGE n", "BUS.RULE DEL k",
        "BUS.RULE SET k DURABILITY none", "BUS.RULE SET k DURABILITY memory WINDOW 1s PAYLOAD n", "BUS.RULE LIST",
        "XADD k IDMP v v * f v", "XADD k IDMPAUTO v MAXLEN n * f v", "XCFGSET k IDMP-DURATION n IDMP-MAXSIZE n",
        "XDELEX k ACKED IDS 2 i i", "XACKDEL k g DELREF IDS 2 i i", "XREADGROUP GROUP g c CLAIM n STREAMS k >",
        "XREAD STREAMS k +", "XREAD BLOCK n STREAMS k +", "RENAME k k", "SET k v GET PX n", "GETEX k PXAT n",
        "XCLAIM k g c 0 i LASTID i", "XPENDING k g (i (i n", "XSETID k i", "EXEC v", "MONITOR", "WAIT n n", "GETDEL k",
        "CLIENT PAUSE n WRITE", "CLIENT UNPAUSE", "CLIENT UNBLOCK n ERROR", "CLIENT SETNAME durable:v", "CLIENT LIST",
        "CLIENT NO-EVICT ON", "CLIENT KILL USER default SKIPME no", "COMMAND GETKEYSANDFLAGS XREAD STREAMS k k i i",
        "OBJECT ENCODING k", "CONFIG SET notify-keyspace-events KEA stream-node-max-entries n", "CONFIG RESETSTAT",
    )
)  # fmt: skip
CHANNELS = (b"a", b"b", b"{a}b", b"", b"\xff")
IDS = (
    b"0", b"0-0", b"1-1", b"-", b"+", b"$", b">", b"1100000-0", b"1100000-1", b"5", b"18446744073709551615-1",
    b"1-18446744073709551615", b"18446744073709551615-18446744073709551615",
)  # fmt: skip
COUNTS = (b"0", b"1", b"2", b"-1", b"100", b"9223372036854775807", b"x")
HEAVY = frozenset({b"command", b"info"})  # their long answers would be most of the work


class RespSubject:
    def __init__(self, seed: int) -> None:
        rule = ChannelRule(count=50, bytes=200_000)
        self.node = FakeNode(Rules(default=rule, shard_bytes_max=1_000_000))
        self.has_users = seed % 4 == 0
        if self.has_users:
            self.node.users["default"] = b"default"
        self.links: list[_Link] = []
        self.at = 0
        self.opened = 0

    def feed(self, data: bytes) -> str:
        self.at += 1
        if len(self.links) < CONNECTIONS:
            self.opened += 1
            self.links.append(_Link(self.node, self.opened))
        link = self.links[
            len(data) % len(self.links)
        ]  # by the input: the others stay where they are if one is left out
        outcome = link.feed(data)
        if self.at % INPUTS_PER_SETTLE == 0:
            self.settle()
        return outcome

    def settle(self) -> None:
        node = self.node
        node.now += 0.3
        node.commit()
        node.release_reads()
        node.release_questions()
        node.fire_timers()
        node.sessions.end_turn()
        node.sessions.flush()
        for link in self.links[:]:
            if link.is_over:
                link.close()
                self.links.remove(link)

    def finish(self) -> None:
        self.node.settle()
        for link in self.links:
            link.close()
        self.node.settle()
        assert not self.node.sessions.by_id, "closed sessions are forgotten"
        for bus in self.node.buses:
            bus.invariants()
            while bus.release_some():
                pass


class _Link:
    """One connection, as runtime/clients.py drives one."""

    def __init__(self, node: FakeNode, number: int) -> None:
        self.node = node
        self.output = FakeOutput()
        self.protocol = RedisProtocol()
        self.session = node.sessions.open(self.output, RESP2, RESP3, f"127.0.0.1:{number}", "127.0.0.1:6380", node.now)
        self.protocol.authenticated = self.session.is_authenticated
        self.inputs = 0
        self.is_broken = False

    @property
    def is_over(self) -> bool:
        return (
            self.inputs >= INPUTS_PER_CONNECTION
            or self.is_broken
            or self.session.is_closed
            or self.output.is_closed
            or self.output.is_aborted
            or self.protocol.held_bytes > HELD_BYTES_ENOUGH
        )

    def feed(self, data: bytes) -> str:
        self.inputs += 1
        if self.session.is_closed:
            return "closed"
        commands = self.protocol.receive_data(data)
        assert self.protocol.held_bytes <= COMMAND_BYTES_MAX + len(data)
        if not commands:
            return "incomplete"
        outcome = _outcome(commands)
        session = self.session
        session.handle(commands)
        self.protocol.authenticated = session.is_authenticated
        self.is_broken = type(commands[-1]) is Malformed
        if self.is_broken:
            assert not self.protocol.receive_data(b"*1\r\n$4\r\nPING\r\n"), "nothing is read after a protocol error"
        return outcome

    def close(self) -> None:
        session = self.session
        if not session.is_closed:
            session.invariants()
            if not self.output.is_closed and not self.output.is_aborted:
                self.output.write(session.take_output())
            session.on_closed()
        reader = hiredis.Reader(notEnoughData=...)
        reader.feed(bytes(self.output.data))
        while reader.gets() is not ...:
            pass
        assert not reader.has_data(), "what is written is whole replies"


def _outcome(commands: list[Command]) -> str:
    last = commands[-1]
    if type(last) is Malformed:
        assert isinstance(last.reply, ErrorReply)
        return "refused: " + kind_of(last.reply.text.partition(": ")[2])
    return type(last).__name__


def generator(random: Random) -> Callable[[], bytes]:
    corpus = _corpus()

    def generate() -> bytes:
        draw = random.random
        data = corpus[int(draw() * _CORPUS)]
        if draw() < 0.5:
            other = corpus[int(draw() * _CORPUS)]
            data = data + other if draw() < 0.7 else splice(data, other, random)
        while draw() < 0.45:
            data = mutate(data, random, MUTATIONS)
        return data

    return generate


def _token(data: bytes, random: Random) -> bytes:
    at = int(random.random() * (len(data) + 1))
    return data[:at] + pick(random, TOKENS) + data[at + int(random.random() * 6) :]


def _other_number(data: bytes, random: Random) -> bytes:
    """A `*` or `$` header says something else."""
    at = data.find((b"*", b"$")[random.getrandbits(1)], int(random.random() * len(data)))
    if at < 0:
        return data
    end = data.find(b"\r\n", at)
    return data[: at + 1] + pick(random, NUMBERS) + data[end if end >= 0 else len(data) :]


NUMBERS = (b"0", b"1", b"2", b"3", b"4", b"5", b"7", b"-1", b"-2", b"", b"01", b"+1", b" 1", b"1 ", b"11", b"64",
           b"1023", b"16384", b"16385", b"65536", b"65537", b"16777216", b"16777217", b"4294967296",
           b"9223372036854775808", b"1" * 62)  # fmt: skip
MUTATIONS: tuple[Mutation, ...] = (*BYTES, _token, _token, _other_number, _other_number, double_part)


# --- valid commands, made once ----------------------------------------------------------------------------------------

_made: list[bytes] = []


def _corpus() -> list[bytes]:
    """Pipelines of every row of the table, from a seed of their own: the same in every process."""
    if not _made:
        random = Random(0)
        rows = [(name, row) for name, row in sorted(ROWS.items())]
        while len(_made) < _CORPUS:
            if random.random() < 0.6:
                _made.append(_phrase(random) * random.choice((1, 1, 1, 1, 1, 2, 20)))
                continue
            name, row = random.choice(rows)
            if name in HEAVY and random.random() < 0.95:
                continue
            _made.append(_command(row, random))
    return _made


def _phrase(random: Random) -> bytes:
    pools = {"k": CHANNELS, "i": IDS, "n": COUNTS, "v": WORDS}
    return _encoded([random.choice(pools[word]) if word in pools else word.encode() for word in random.choice(PHRASES)])


def _command(row: CommandRow, random: Random) -> bytes:
    name = row.name.encode()
    args = [random.choice((name, name.upper(), name.title()))]
    if row.subcommands and random.random() < 0.95:
        sub = random.choice(sorted(row.subcommands))
        row = row.subcommands[sub]
        args.append(sub)
    wanted = abs(row.arity) - len(args)
    if row.arity < 0:
        wanted += random.choice((0, 0, 1, 2, 3, 4, 8))
    if random.random() < 0.05:
        wanted += random.choice((-1, 1))
    keywords = [word.strip("[]()<>|.,").encode() for word in row.usage.split()]
    keywords = [word for word in keywords if word.isupper()]
    args += [random.choice(keywords) if keywords and random.random() < 0.2 else _word(random) for _ in range(wanted)]
    if row.key_keyword and random.random() < 0.8:
        keys = random.choice((1, 1, 2))
        args += [row.key_keyword.encode(), *(_word(random) for _ in range(2 * keys))]
    if random.random() < 0.05:
        return b" ".join(args) + b"\r\n"
    return _encoded(args)


def _encoded(args: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


def _word(random: Random) -> bytes:
    """Often one of the first, which are channels."""
    return WORDS[int(random.random() ** 2 * len(WORDS))]
