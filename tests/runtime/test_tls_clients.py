"""TLS of clients on real sockets: who comes in, who does not and what the log says of it, and new certificates."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from riverbus import limits
from riverbus.client.address import parse_url
from riverbus.runtime.clients import TLS_FAILED
from riverbus.runtime.config_users import ClientTls
from riverbus.runtime.tls import Certificates
from tests.runtime.certificates import Authority
from tests.runtime.test_clients import Front, run, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("server")


async def is_let_in(front: Front, context: ssl.SSLContext) -> bool:
    """With TLS 1.3 a client learns only at its first read that its certificate was refused."""
    with contextlib.suppress(OSError):
        client = await front.connect(context)
        return await client.ask(b"PING") == b"+PONG"
    return False


def reasons(logs: list[dict[str, object]]) -> list[object]:
    return [entry["reason"] for entry in logs if entry["event"] == "a client's TLS handshake failed: closed"]


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ("none", "it showed no certificate, and tls.ca asks for one"),
        ("other", "its certificate is refused: unable to get local issuer certificate"),
        ("expired", "its certificate is refused: certificate has expired"),
    ],
)
def test_without_a_good_certificate_nobody_comes_in(
    authority: Authority, server: tuple[Path, Path], tmp_path: Path, shown: str, reason: str
) -> None:
    certificate = None
    if shown == "other":
        certificate = Authority(tmp_path / "other", "other").issue("client")
    elif shown == "expired":
        certificate = authority.issue("expired", days=-1)
    certificates = Certificates("tls", ClientTls(cert=server[0], key=server[1], ca=authority.ca))

    async def story() -> None:
        async with serving(tls=certificates) as front:
            with capture_logs() as logs:
                assert not await is_let_in(front, authority.client(certificate))
                await front.until(lambda: front.node.sessions.counters.dropped[TLS_FAILED] == 1)
            assert reasons(list(map(dict, logs))) == [reason]
            assert not front.node.sessions.by_id
            assert await is_let_in(front, authority.client(authority.issue("good")))

    run(story)


def test_a_certificate_may_be_optional(authority: Authority, server: tuple[Path, Path], tmp_path: Path) -> None:
    tls = ClientTls(cert=server[0], key=server[1], ca=authority.ca, client_certificates="optional")
    stranger = Authority(tmp_path / "other", "other").issue("client")

    async def story() -> None:
        async with serving(tls=Certificates("tls", tls)) as front:
            assert await is_let_in(front, authority.client())
            assert not await is_let_in(front, authority.client(stranger))

    run(story)


@pytest.mark.parametrize(
    "said", [b"*1\r\n$4\r\nPING\r\n", b"PING\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 64]
)
def test_a_plain_client_is_closed_and_the_log_says_why(
    authority: Authority, server: tuple[Path, Path], said: bytes
) -> None:
    async def story() -> None:
        async with serving(tls=Certificates("tls", ClientTls(cert=server[0], key=server[1]))) as front:
            with capture_logs() as logs:
                client = await front.connect()
                client.writer.write(said)
                with contextlib.suppress(ConnectionError):
                    assert b"PONG" not in await client.rest()
                await front.until(lambda: front.node.sessions.counters.dropped[TLS_FAILED] == 1)
            assert "does not speak TLS" in str(reasons(list(map(dict, logs)))[0])

    run(story)


def test_a_client_that_says_nothing_is_closed_in_time(
    authority: Authority, server: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TLS_HANDSHAKE_S", 0.2)

    async def story() -> None:
        async with serving(tls=Certificates("tls", ClientTls(cert=server[0], key=server[1]))) as front:
            with capture_logs() as logs:
                client = await front.connect()
                with contextlib.suppress(ConnectionError):
                    await client.rest()
                await front.until(lambda: front.node.sessions.counters.dropped[TLS_FAILED] == 1)
            assert reasons(list(map(dict, logs))) == ["no handshake within 0.2 s"]

    run(story)


def test_strangers_fill_neither_the_places_nor_the_log(
    authority: Authority, server: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TLS_HANDSHAKES_MAX", 5)

    async def story() -> None:
        async with serving(tls=Certificates("tls", ClientTls(cert=server[0], key=server[1]))) as front:
            with capture_logs() as logs:
                for _ in range(20):
                    await front.connect()
                await front.until(lambda: front.node.sessions.counters.dropped[TLS_FAILED] >= 15)
            assert len(logs) == 1
            for client in front.opened:
                client.writer.transport.abort()
            await front.until(lambda: front.node.sessions.counters.dropped[TLS_FAILED] == 20)
            assert await is_let_in(front, authority.client())

    run(story)


def test_a_new_certificate_holds_for_new_connections_and_the_old_ones_stay(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    ca = tmp_path / "ca.pem"
    newer = Authority(tmp_path / "newer", "newer")
    old_client = authority.issue("a-client")

    def put(issuer: Authority, clients: Authority, name: str) -> None:
        for source, target in zip((*issuer.issue(name), clients.ca), (cert, key, ca), strict=True):
            shutil.copy(source, target.with_suffix(".new"))
            target.with_suffix(".new").rename(target)

    put(authority, authority, "first")
    certificates = Certificates("tls", ClientTls(cert=cert, key=key, ca=ca))

    async def story() -> None:
        async with serving(tls=certificates) as front:
            early = await front.connect(authority.client(old_client))
            assert await early.ask(b"PING") == b"+PONG"
            assert not certificates.look()
            key.write_text("not a key")
            with capture_logs() as logs:
                assert not certificates.look()
            assert logs[0]["event"] == "the changed certificate is not taken: the old one goes on"
            assert await is_let_in(front, authority.client(old_client))
            put(newer, newer, "second")
            assert certificates.look()
            assert not await is_let_in(front, authority.client(old_client))
            mixed = authority.client()
            mixed.load_verify_locations(newer.ca)
            mixed.load_cert_chain(*old_client)
            assert not await is_let_in(front, mixed), "the old authority is trusted no more"
            assert await is_let_in(front, newer.client(newer.issue("b-client")))
            assert await early.ask(b"PING") == b"+PONG"

    run(story)


def test_what_is_pipelined_behind_the_handshake_is_not_lost(authority: Authority, server: tuple[Path, Path]) -> None:
    async def story() -> None:
        async with serving(tls=Certificates("tls", ClientTls(cert=server[0], key=server[1]))) as front:
            for size in (1, 100, 20_000, 300_000):
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                secure = authority.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
                reader, writer = await asyncio.open_connection(*front.address)
                while True:
                    try:
                        secure.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        writer.write(outgoing.read())
                        incoming.write(await reader.read(65_536))
                # Finished and the first commands in one segment.
                secure.write(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\n" % (size, b"x" * size))
                writer.write(outgoing.read())
                got = b""
                while not got.endswith(b"x\r\n"):
                    incoming.write(await reader.read(65_536))
                    with contextlib.suppress(ssl.SSLWantReadError):
                        while True:
                            got += secure.read(65_536)
                assert len(got) == size + len(b"$%d\r\n\r\n" % size)
                writer.close()

    run(story)


def test_the_server_is_not_taken_in_by_a_renegotiating_or_old_client(
    authority: Authority, server: tuple[Path, Path]
) -> None:
    old = authority.client()
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1

    async def story() -> None:
        async with serving(tls=Certificates("tls", ClientTls(cert=server[0], key=server[1]))) as front:
            assert not await is_let_in(front, old)
            assert await is_let_in(front, authority.client())

    run(story)


# --- the Python client's side -----------------------------------------------------------------------------------------


def test_the_clients_url_takes_certificates_as_redis_pys_does(authority: Authority, server: tuple[Path, Path]) -> None:
    cert, key = server
    url = f"rediss://localhost:1?ssl_ca_certs={authority.ca}&ssl_certfile={cert}&ssl_keyfile={key}"
    tls = parse_url(url).tls
    assert tls is not None
    assert tls.verify_mode is ssl.CERT_REQUIRED
    assert tls.check_hostname
    trusting = parse_url(f"rediss://localhost:1?ssl_ca_certs={authority.ca}&ssl_check_hostname=false").tls
    assert trusting is not None
    assert not trusting.check_hostname
    for wrong, text in (
        ("redis://h?ssl_ca_certs=x", "starts with rediss://"),
        (f"rediss://h?ssl_keyfile={key}", "needs ssl_certfile"),
        ("rediss://h?ssl_ca_certs=/none.pem", "No such file"),
        (f"rediss://h?ssl_certfile={cert}&ssl_keyfile={authority.folder / 'ca.key'}", "ca.key"),
        ("rediss://h?ssl_check_hostname=maybe", "'true' or 'false'"),
    ):
        with pytest.raises(ValueError, match=text):
            parse_url(wrong)


def test_a_socket_that_is_reset_in_its_handshake_harms_nobody(authority: Authority, server: tuple[Path, Path]) -> None:
    async def story() -> None:
        async with serving(tls=Certificates("tls", ClientTls(cert=server[0], key=server[1]))) as front:
            for said in (b"", b"\x16", b"\x16\x03\x01\x00\xff\x01"):
                plain = socket.create_connection((front.address.host, front.address.port))
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                plain.send(said)
                plain.close()
            assert await is_let_in(front, authority.client())
            await front.until(lambda: front.node.sessions.counters.dropped[TLS_FAILED] == 3)

    run(story)
