"""URLs: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import ssl

import pytest

from riverbus.client.address import parse_url


def test_hosts_default_to_riverbus_port_and_loopback() -> None:
    assert parse_url("redis://").hosts == (("127.0.0.1", 6380),)
    assert parse_url("redis://a,b:7,[::1]:8/0").hosts == (("a", 6380), ("b", 7), ("::1", 8))


def test_credentials_are_decoded_and_hidden() -> None:
    address = parse_url("redis://us%40er:p%3Aw@h:1?client_name=me&deadline=2.5")
    assert (address.user, address.password, address.client_name, address.deadline) == ("us@er", "p:w", "me", 2.5)
    assert "p:w" not in repr(address)
    assert parse_url("redis://:pw@h").user is None


def test_rediss_verifies_unless_told_otherwise() -> None:
    tls = parse_url("rediss://h").tls
    assert tls is not None
    assert tls.verify_mode == ssl.CERT_REQUIRED
    lax = parse_url("rediss://h?ssl_cert_reqs=none").tls
    assert lax is not None
    assert lax.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://h", "redis://"),
        ("h:6380", "redis://"),
        ("redis://h/3", "only database 0"),
        ("redis://h:port", "host and port"),
        ("redis://h:99999", "host and port"),
        ("redis://[::1", "host and port"),
        ("redis://h?dedline=1", "did you mean 'deadline'"),
        ("redis://h?deadline=0", "above 0"),
        ("redis://h?deadline=soon", "deadline must be a number of seconds above 0, not 'soon'"),
        ("redis://h?deadline", "written as name=value"),
        ("redis://h:6380,", "a host is missing in 'h:6380,'"),
        ("redis://u:secret@,h", "a host is missing in ',h'"),
        ("rediss://h?ssl_cert_reqs=maybe", "required"),
    ],
)
def test_a_bad_url_is_refused_with_the_reason(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        parse_url(url)
