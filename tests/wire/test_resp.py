"""RESP requests: framing, limits, hostile bytes; and a comparison with a parser that is obviously right."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from riverbus.commands import Answered, Auth, Malformed, Ping, Publish, Subscribe
from riverbus.limits import COMMAND_ARGS_MAX, COMMAND_BYTES_MAX, INLINE_BYTES_MAX, MIB
from riverbus.messages import ErrorReply
from riverbus.wire.redis import RedisProtocol
from riverbus.wire.resp import ProtocolError, split_line
from tests.wire import fuzz_resp, resp_reference
from tests.wire.resp_reference import encode

PING = encode([b"PING"])


def receive(data: bytes, *, authenticated: bool = True) -> list[object]:
    return list(RedisProtocol(authenticated=authenticated).receive_data(data))


def error_of(data: bytes, *, authenticated: bool = True) -> str:
    """The text of the Malformed that ends `data`, alike whether it comes at once or byte by byte."""
    (*_, last) = receive(data, authenticated=authenticated)
    protocol = RedisProtocol(authenticated=authenticated)
    trickled = [noun for byte in data for noun in protocol.receive_data(bytes((byte,)))]
    assert trickled[-1] == last
    assert isinstance(last, Malformed)
    assert isinstance(last.reply, ErrorReply)
    return last.reply.text.removeprefix("ERR Protocol error: ")


# --- what Redis says, byte for byte (each compared by hand with redis-server 7.0.15) ----------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*03\r\n", "invalid multibulk length"),
        (b"*+3\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*1.5\r\n", "invalid multibulk length"),
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*99999999999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n+PING\r\n", "expected '$', got '+'"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
        (b"*2\r\n$4\r\nPING\r\n,1.5\r\n", "expected '$', got ','"),
        (b"*2\r\n$4\r\nPING\r\n_\r\n", "expected '$', got '_'"),
        (b"*1\r\n%1\r\n", "expected '$', got '%'"),
        (b"*1\r\n\r\n", "expected '$', got ' '"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$04\r\nPING\r\n", "invalid bulk length"),
        (b"*1\r\n$\r\n", "invalid bulk length"),
        (b"*1\r\n$999999999999\r\n", "invalid bulk length"),
        (b"*" + b"1" * 70, "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * 70, "too big bulk count string"),
        (b"a" * (INLINE_BYTES_MAX + 1), "too big inline request"),
        (b"PING 'a\r\n", "unbalanced quotes in request"),
        (b'PING "a"b\r\n', "unbalanced quotes in request"),
        (b"POST / HTTP/1.1\r\n", "this port speaks RESP, not HTTP"),
        (b"Host: example.com\r\n", "this port speaks RESP, not HTTP"),
        (b"*1\r\n$4\r\nPINGxx", "expected CRLF after a bulk string"),
    ],
)
def test_broken_framing_gets_redis_words(data: bytes, text: str) -> None:
    assert error_of(data) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"*11\r\n", "unauthenticated multibulk length"),
        (b"*1\r\n$16385\r\n", "unauthenticated bulk length"),
    ],
)
def test_strangers_have_small_limits(data: bytes, text: str) -> None:
    assert error_of(data, authenticated=False) == text
    assert receive(data) == []


def test_limits_hold_at_the_header_before_any_body() -> None:
    assert error_of(b"*%d\r\n" % (COMMAND_ARGS_MAX + 1)) == "invalid multibulk length"
    assert error_of(b"*1\r\n$%d\r\n" % (COMMAND_BYTES_MAX + 1)) == "invalid bulk length"
    half = COMMAND_BYTES_MAX // 2
    grown = b"*2\r\n$%d\r\n%b\r\n$%d\r\n" % (half, bytes(half), half)
    (malformed,) = receive(grown)
    assert malformed == Malformed(ErrorReply(f"ERR Protocol error: command longer than {COMMAND_BYTES_MAX} bytes"))


def test_after_malformed_nothing_more_comes() -> None:
    protocol = RedisProtocol()
    nouns = protocol.receive_data(PING + b"*1\r\n+PING\r\n" + PING)
    assert nouns == [Ping(None), Malformed(ErrorReply("ERR Protocol error: expected '$', got '+'"))]
    assert protocol.receive_data(PING) == []
    assert protocol.held_bytes == 0


def test_empty_arrays_and_lines_ask_nothing() -> None:
    assert receive(b"*0\r\n*-1\r\n*-5\r\n\r\n\n  \r\n" + PING) == [Ping(None)]


# --- inline -----------------------------------------------------------------------------------------------------------


def test_inline_commands_work_among_arrays() -> None:
    data = b"PING\r\n" + PING + b'ping "a b"\n' + b"  PUBLISH  c 'it\\'s'  \r\n"
    assert receive(data) == [Ping(None), Ping(None), Ping(b"a b"), Publish(b"c", 0, [b"it's"])]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (rb'a "b\x41\n\q\"" c', [b"a", b'bA\nq"', b"c"]),
        (rb"'a\n\'b' ''", [rb"a\n'b", b""]),
        (b'a"b c"', [b"ab c"]),
        (b"a\tb\rc\x0bd", [b"a", b"b", b"c\x0bd"]),
        (b"   ", []),
        (b"\xff\x00", [b"\xff\x00"]),
    ],
)
def test_inline_words(line: bytes, words: list[bytes]) -> None:
    assert split_line(line) == words == resp_reference._words(line)


@given(st.text(alphabet="ab\"'\\ x4\t\x0b\r", max_size=12))
def test_inline_words_as_the_reference_splits_them(text: str) -> None:
    line = text.encode()
    try:
        expected: object = resp_reference._words(line)
    except resp_reference.Refused as error:
        expected = str(error)
    try:
        words: object = split_line(line)
    except ProtocolError as error:
        words = str(error)
    assert words == expected


# --- hostile ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"*65536\r\n",
        b"*999999999\r\n",
        b"*4294967295\r\n" * 9,
        b"*60000\r\n" * 9,
        b"%99999999\r\n",
        b"*1\r\n$16777000\r\n",
        b"*65536\r\n" + b"$0\r\n\r\n" * 9,
    ],
)
def test_a_promise_of_much_costs_nothing(data: bytes) -> None:
    protocol = RedisProtocol(authenticated=True)
    tracemalloc.start()
    protocol.receive_data(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024
    assert protocol.held_bytes <= len(data)


@pytest.mark.timeout(60)
def test_a_trickle_of_single_bytes_is_linear() -> None:
    """Were each byte to copy or scan what is held, this would be 100 GB of work."""
    large = encode([b"PUBLISH", b"c", b"\r\n" * 200_000])
    many = encode([b"SUBSCRIBE", *(b"%d" % number for number in range(20_000))])
    line = b"PING " + b"x" * 60_000 + b"\r\n"
    protocol = RedisProtocol(authenticated=True)
    nouns = [noun for byte in large + many + line for noun in protocol.receive_data(bytes((byte,)))]
    assert [type(noun) for noun in nouns] == [Publish, Subscribe, Ping]
    assert protocol.held_bytes == 0


def test_what_is_held_is_bounded_while_a_command_grows() -> None:
    protocol = RedisProtocol(authenticated=True)
    chunk = encode([b"x" * MIB])[4:]  # one argument
    nouns = protocol.receive_data(b"*65536\r\n")
    while not nouns:
        nouns = protocol.receive_data(chunk)
        assert protocol.held_bytes <= COMMAND_BYTES_MAX
    assert isinstance(nouns[0], Malformed)
    assert protocol.held_bytes == 0


def test_commands_behind_an_auth_of_the_same_chunk_have_full_limits() -> None:
    subscribe = encode([b"SUBSCRIBE", *(b"c%d" % number for number in range(20))])
    auth = encode([b"AUTH", b"secret"])
    assert [type(noun) for noun in receive(auth + subscribe, authenticated=False)] == [Auth, Subscribe]
    assert [type(noun) for noun in receive(subscribe, authenticated=False)] == [Malformed]

    protocol = RedisProtocol()
    assert [type(noun) for noun in protocol.receive_data(auth + subscribe[:-5])] == [Auth]
    protocol.authenticated = True
    assert [type(noun) for noun in protocol.receive_data(subscribe[-5:])] == [Subscribe]

    protocol = RedisProtocol()
    protocol.receive_data(auth + subscribe[:-5])  # and the password was wrong
    assert [type(noun) for noun in protocol.receive_data(subscribe[-5:])] == [Malformed]


# --- properties -------------------------------------------------------------------------------------------------------

arguments = st.one_of(
    st.sampled_from(
        [b"PUBLISH", b"publish", b"SPUBLISH", b"XADD", b"PING", b"SUBSCRIBE", b"ECHO", b"a", b"b", b"*", b""]
    ),
    st.binary(max_size=20),
    st.sampled_from([b"\r\n", b"\r\n*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$", b"$1\r\na\r\n", b"x" * 4095, b"y" * 5000]),
)
publishes = st.tuples(
    st.sampled_from([b"PUBLISH", b"publish", b"SPUBLISH"]), st.sampled_from([b"a", b"b"]), arguments
).map(list)
command_lists = st.lists(
    st.one_of(
        st.lists(arguments, min_size=1, max_size=12),
        st.lists(arguments, min_size=15, max_size=60),
        publishes,
        st.tuples(publishes, st.integers(2, 40)).map(lambda pair: [pair[0]] * pair[1]),
    ),
    max_size=30,
).map(fuzz_resp.flattened)


@settings(max_examples=300, deadline=None)
@given(command_lists, st.lists(st.integers(0, 20_000), max_size=6))
def test_any_commands_cut_anywhere_give_the_same_nouns(commands: list[list[bytes]], cuts: list[int]) -> None:
    data = b"".join(map(encode, commands))
    nouns = fuzz_resp.received(data, cuts, authenticated=True)
    assert fuzz_resp.singles(nouns) == fuzz_resp.expected(data, authenticated=True)
    fuzz_resp.check_runs(nouns)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4), st.booleans())
@example(b"*1\r\n$1\r\n", [], True)
@example(b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$1\r\nx", [5], False)
def test_any_bytes_give_what_the_reference_gives(data: bytes, cuts: list[int], authenticated: bool) -> None:
    nouns = fuzz_resp.received(data, cuts, authenticated=authenticated)
    assert fuzz_resp.singles(nouns) == fuzz_resp.expected(data, authenticated=authenticated)


def test_fuzz_for_a_moment() -> None:
    assert fuzz_resp.run(seconds=2.0, seed=1) > 50


def test_an_error_reply_never_breaks_its_line() -> None:
    for args in ([b"a\r\nb", b"c\r\nd"], [b"CLIENT", b"x\r\ny"], [b"HELLO", b"3", b"a\r\nb"], [b"\xff\x00\r\n"]):
        (noun,) = receive(encode(args))
        assert isinstance(noun, Answered)
        assert isinstance(noun.reply, ErrorReply)
        assert not set(noun.reply.text) & set("\r\n")
