"""What malformed input has broken, each once: the inputs, as short as the driver made them."""

from __future__ import annotations

from tests.malformed.driver import replay
from tests.malformed.edges import EDGES


def test_a_publish_to_the_channel_without_a_name() -> None:
    """The front let it in and the log's format did not: the node stopped. Also tests/scenarios."""
    replay(
        EDGES["resp"],
        1,
        [b"*3\r\n$7\r\nPUBLISH\r\n$0\r\n\r\n$1\r\nx\r\n", b"*3\r\n$8\r\nSPUBLISH\r\n$0\r\n\r\n$1\r\ny\r\n"],
    )


def test_a_committed_membership_change_that_cannot_be_made() -> None:
    """A forged leader has a joint membership committed, then another on top: it changes nothing, no node stops."""
    inputs = [
        "000308031001180320062806300c3a1208021006180d220a12021004120408011003400c",
        "000208031001180220062806300d3a1208021006180e220a12021004120408011003400d",
        "00020808100118022008400e",
    ]
    replay(EDGES["raft"], 8589935251, [bytes.fromhex(each) for each in inputs])


def test_a_request_that_breaks_the_protocol_after_it_has_begun() -> None:
    """uvicorn answered 400, then let the application answer too, and logged a traceback for each."""
    request = b"GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n"
    replay(EDGES["http"], 1, [b"\x00" + request, b"\x80" + request, b"\xf0" + request])


def test_what_follows_a_head_request_and_is_none() -> None:
    """uvicorn's 400 has a body, which h11 refuses to send after a HEAD: the exception went to the event loop."""
    request = b"HEAD /livez HTTP/1.0\r\nHost: a\r\n\r\n" + b"x" * 2000
    replay(EDGES["http"], 1, [b"\x00" + request, b"\x20" + request, b"\x80" + request])


def test_an_error_about_a_name_that_is_no_text() -> None:
    """The running hash of an error's text could not be made: every replica would have stopped at that entry."""
    words = (b"XREADGROUP", b"GROUP", b"g", b"c", b"STREAMS", b"\xff", b">")
    data = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    replay(EDGES["resp"], 1, [data] * 8)


def test_a_raft_message_whose_last_entry_is_cut_off() -> None:
    """Taken for one with an empty entry by rust-protobuf; found when `peek` looked at lengths alone."""
    replay(EDGES["raft"], 87020852075298861, [bytes.fromhex("0003080f100118033a0e")])
