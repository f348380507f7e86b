"""A client that waits for each reply sends chunks that resemble each other: what was learned of one serves the next.

It must never make a difference: each chunk gives what a connection without a past makes of it.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from riverbus.commands import Publish
from riverbus.wire.redis import RedisProtocol
from tests.wire.resp_reference import encode

PAYLOADS = st.one_of(
    st.sampled_from([b"", b"\r\n", b"5\r\nhello", b"x" * 100, b"*1\r\n$4\r\nPING\r\n", b"y" * 5000]),
    st.binary(max_size=20),
)
PUBLISHES = st.builds(
    lambda name, channel, payload: encode([name, channel, payload]),
    st.sampled_from([b"PUBLISH", b"publish", b"SPUBLISH", b"BUS.PUBLISH"]),
    st.sampled_from([b"a", b"b", b"$1"]),
    PAYLOADS,
)
XADDS = st.builds(lambda payload: encode([b"XADD", b"a", b"*", b"f", payload]), PAYLOADS)
DAMAGED = st.builds(
    lambda chunk, at, byte: chunk[: at % len(chunk)] + bytes([byte]) + chunk[at % len(chunk) + 1 :],
    PUBLISHES,
    st.integers(min_value=0),
    st.integers(0, 255),
)
CUT = st.builds(lambda chunk, at: chunk[: at % len(chunk)], PUBLISHES, st.integers(min_value=0))
TWO = st.builds(lambda a, b: a + b, PUBLISHES, st.one_of(PUBLISHES, CUT))


@given(st.lists(st.one_of(PUBLISHES, PUBLISHES, PUBLISHES, XADDS), max_size=6), st.one_of(PUBLISHES, DAMAGED, CUT, TWO))
def test_a_chunk_means_the_same_behind_others(before: list[bytes], chunk: bytes) -> None:
    experienced = RedisProtocol(authenticated=True)
    for one in before:
        nouns = experienced.receive_data(one)
        assert nouns == RedisProtocol(authenticated=True).receive_data(one)
    fresh = RedisProtocol(authenticated=True)
    assert experienced.receive_data(chunk) == fresh.receive_data(chunk)
    assert experienced.held_bytes == fresh.held_bytes


def test_a_lone_publish_is_read_as_the_one_before() -> None:
    protocol = RedisProtocol(authenticated=True)
    for payload in (b"one", b"two", b"three", b"", b"x" * 70_000):
        assert protocol.receive_data(encode([b"PUBLISH", b"c", payload])) == [Publish(b"c", 0, [payload])]
