"""Who is not let in, and why: other secrets and configurations, garbage, floods; TLS."""

from __future__ import annotations

import ssl
import struct
import subprocess
from pathlib import Path

import pytest

from riverbus import limits
from riverbus.peer_messages import Ask, RaftMessage
from riverbus.runtime import connection as connection_module
from riverbus.wire.frames import encode
from tests.runtime.linked import Cluster, Stranger, hello_to, run


def test_another_secret_is_refused_and_both_say_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 2) as cluster:
            cluster[2].secret = b"another"
            await cluster.start()
            await cluster.until(lambda: cluster.said("refused by a node it has another cluster secret"))
            await cluster.until(lambda: cluster.said("refused a node it has another cluster secret"))
            assert cluster[1].links.refused["SECRET"] >= 1
            assert cluster[2].links.refused["SECRET"] >= 1
            assert ("refused", "it has another cluster secret", False) in cluster[1].heard
            assert not cluster[1].is_bootstrapped
            (awaited,) = cluster[1].links.awaited()  # for /readyz
            assert awaited.startswith("the cluster is not founded: waiting for node 2 (")
            assert "another cluster secret" in awaited
            (awaited,) = cluster[2].links.awaited()
            assert awaited.startswith("the cluster is not founded: waiting for node 1 (")

    run(story())


def test_other_shards_members_and_addresses_are_refused_by_name(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            cluster[2].shards = 4
            cluster[3].members = (1, 3)
            await cluster.start()
            await cluster.until(lambda: cluster.said("node 1 has 8 shards, node 2 has 4"))
            await cluster.until(lambda: cluster.said("node 1 has 1, 2, 3, node 3 has 1, 3"))
            cluster[1].links.set_address(2, cluster[3].links.address)
            await cluster.until(lambda: cluster.said("node 2 was called and node 3 answered"))
            cluster[1].links.set_address(2, cluster[1].links.address)
            await cluster.until(lambda: cluster.said("node id 1 is used twice, or a node's address leads back"))
            assert not any(event[-1] is True for event in cluster[1].heard), "none of these is fatal"

    run(story())


def test_garbage_before_the_handshake_closes_the_connection_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 2) as cluster:
            await cluster.found()
            node = cluster[2]
            for garbage in (
                b"GET / HTTP/1.1\r\n\r\n",
                encode(RaftMessage(0, b"x")),
                struct.pack("<IB", limits.HANDSHAKE_FRAME_BYTES_MAX + 1, 1),
                struct.pack("<IB", 2**31, 1),
                encode(hello_to(node, cluster[1].identity)) * 2,
            ):
                stranger = await Stranger.dial(node)
                stranger.writer.write(garbage)
                await stranger.read_to_end()
                await stranger.close()
            assert node.links.handshakes_failed == 5
            assert (node.up, cluster[1].up) == ([1], [2])
            assert ("down", 1) not in node.heard

    run(story())


def test_a_handshake_that_takes_too_long_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HANDSHAKE_DEADLINE_S", 0.1)

    async def story() -> None:
        async with Cluster(tmp_path, 1) as cluster:
            await cluster.start()
            stranger = await Stranger.dial(cluster[1])
            assert await stranger.read_to_end() == b""
            await stranger.close()
            assert cluster.said("no handshake within 0.1 s")

    run(story())


def test_too_many_strangers_are_turned_away_and_members_come_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKES_MAX", 3)

    async def story() -> None:
        async with Cluster(tmp_path, 2) as cluster:
            await cluster.found()
            strangers = [await Stranger.dial(cluster[2]) for _ in range(4)]
            assert await strangers[3].read_to_end() == b""
            for stranger in strangers:
                await stranger.close()
            await cluster[1].stop()
            await cluster[1].start()
            await cluster.until(lambda: cluster[2].up == [1])

    run(story())


def test_a_bad_frame_after_the_handshake_drops_that_link_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            await cluster.found()
            identity = cluster[1].identity
            await cluster[1].stop()
            stranger = await Stranger.dial(cluster[3])
            await stranger.shake_hands(hello_to(cluster[3], identity))
            stranger.writer.write(encode(Ask(1, b"a")) + b"\xff" * 100)
            await cluster.until(lambda: cluster.said("it sent a bad frame"))
            await stranger.close()
            assert cluster[3].up == [2]
            assert cluster[3].heard[-1] == ("down", 1)

    run(story())


def test_messages_of_a_node_that_is_not_bootstrapped_drop_its_link(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            await cluster.start(1, 3)
            identity = cluster[1].identity
            await cluster[1].stop()
            stranger = await Stranger.dial(cluster[3])
            await stranger.shake_hands(hello_to(cluster[3], identity))
            stranger.writer.write(encode(RaftMessage(0, b"x")))
            await cluster.until(lambda: cluster.said("it sent messages before it was bootstrapped"))
            await stranger.close()
            assert cluster[3].messages == []

    run(story())


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 2) as cluster:
            await cluster.start(1)
            cluster.addresses[2] = cluster[1].links.address
            with pytest.raises(OSError, match="address already in use"):
                await cluster[2].start()

    run(story())


# --- TLS --------------------------------------------------------------------------------------------------------------


def make_certificates(path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context that wants client certificates, and a client's that has one; both of one new authority."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=path, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    names = ("-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1")
    openssl("req", *key, "-keyout", "node.key", "-out", "node.csr", *names)
    openssl("x509", "-req", "-in", "node.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-copy_extensions", "copy", "-out", "node.pem", "-days", "2")  # fmt: skip
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=path / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=path / "ca.pem")
    for context in (server, client):
        context.load_cert_chain(path / "node.pem", path / "node.key")
    return server, client


def test_links_over_mutual_tls_need_the_certificate_and_the_secret(tmp_path: Path) -> None:
    async def story() -> None:
        server, client = make_certificates(tmp_path)
        async with Cluster(tmp_path, 2) as cluster:
            for node in cluster.nodes.values():
                node.server_ssl, node.client_ssl = server, client
            await cluster.found()
            stranger = await Stranger.dial(cluster[1])
            stranger.writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await stranger.read_to_end()
            await stranger.close()
            large = RaftMessage(0, bytes(4 * limits.MIB))
            cluster[1].links.send(2, large)
            cluster[2].links.send(1, large)
            await cluster.until(lambda: cluster[1].messages == [(2, large)] and cluster[2].messages == [(1, large)])
            await cluster[1].stop()
            cluster[1].client_ssl = ssl.create_default_context(cafile=tmp_path / "ca.pem")  # no certificate of its own
            await cluster[1].start()
            await cluster.until(lambda: cluster.said("certificate required") or cluster.said("no handshake"))
            assert cluster[1].up == []
            await cluster[1].stop()
            cluster[1].client_ssl, cluster[1].secret = client, b"another"
            await cluster[1].start()
            await cluster.until(lambda: cluster[1].links.refused["SECRET"] > 0)

    run(story())
