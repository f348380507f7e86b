"""pub, sub, log, status and bench against a real node; all but `status` and `bench` would do the same for three."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import riverbus as riverbus_client
from riverbus.runtime.units import Address
from tests.cli.processes import free_ports, node, read_line, read_until, riverbus, started, stop, wait_ready


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with node(tmp_path_factory.mktemp("node")) as found:
        yield found


@pytest.fixture
def url(addresses: tuple[str, str]) -> str:
    return addresses[0]


def test_pub_prints_the_id_of_each_message_and_log_prints_them_back(url: str) -> None:
    (one,) = riverbus("pub", "a", "hello", "--url", url).stdout.split()
    ids = riverbus("pub", "a", "--url", url, stdin=b"b\nc\r\n\nlast").stdout.split()
    assert len(ids) == 4
    assert riverbus("log", "a", "--url", url).stdout == b"hello\nb\nc\n\nlast\n"
    assert riverbus("log", "a", "--url", url, "--reverse", "--limit", "2").stdout == b"last\n\n"
    assert riverbus("log", "a", "--url", url, "--first", f"({one.decode()}", "--limit", "1").stdout == b"b\n"
    assert riverbus("log", "a", "--url", url, "--last", one.decode()).stdout == b"hello\n"


def test_json_has_ids_and_payloads_as_text_or_base64(url: str) -> None:
    done = riverbus("pub", "j", "--url", url, "--json", stdin=b"text\n\xff\x00")
    published = [json.loads(line) for line in done.stdout.splitlines()]
    found = [json.loads(line) for line in riverbus("log", "j", "--url", url, "--json").stdout.splitlines()]
    assert [each["id"] for each in found] == [each["id"] for each in published]
    assert found[0]["payload"] == "text"
    assert found[1]["payload_base64"] == "/wA="


def test_names_and_messages_that_are_no_text_go_in_and_come_out(url: str) -> None:
    name, message = os.fsdecode(b"raw\xff"), os.fsdecode(b"\xfe")
    riverbus("pub", name, message, "--url", url)
    assert riverbus("log", name, "--url", url).stdout == b"\xfe\n"
    published = json.loads(riverbus("pub", name, "text", "--url", url, "--json").stdout)
    newest = json.loads(riverbus("log", name, "--url", url, "--json", "--reverse", "--limit", "1").stdout)
    assert published["channel_base64"] == newest["channel_base64"] == "cmF3/w=="
    heard = riverbus("sub", name, "--since", "1-1", "--count", "2", "--url", url, "--json").stdout.splitlines()
    assert [json.loads(line)["channel_base64"] for line in heard] == ["cmF3/w=="] * 2


def test_count_publishes_each_message_so_often(url: str) -> None:
    assert len(riverbus("pub", "n", "x", "--count", "1000", "--url", url).stdout.splitlines()) == 1000
    assert riverbus("log", "n", "--url", url).stdout == b"x\n" * 1000


def test_sub_since_goes_from_history_to_live(url: str) -> None:
    first, _ = riverbus("pub", "s", "--url", url, stdin=b"old\nolder").stdout.split()
    with started("sub", "s", "--since", first.decode(), "--url", url) as process:
        assert read_until(process, b"older") == [b"older"]
        riverbus("pub", "s", "live", "--url", url)
        assert read_until(process, b"live") == [b"live"]
        assert stop(process, signal.SIGINT) == 0


def test_sub_says_when_no_node_is_in_reach(tmp_path: Path) -> None:
    first = free_ports(3)
    places = [f"--{name}=127.0.0.1:{first + at}" for at, name in enumerate(("resp", "admin", "peer"))]
    admin = Address("127.0.0.1", first + 1)
    with started("serve", "--data", str(tmp_path), *places) as server:
        wait_ready(server, admin)
        with started("sub", "c", "--since", "0-0", "--url", f"redis://127.0.0.1:{first}") as process:
            riverbus("pub", "c", "before", "--url", f"redis://127.0.0.1:{first}")
            assert read_line(process) == b"before"
            assert stop(server) == 0
            assert read_line(process) == b"no node is in reach: trying again"
            with started("serve", "--data", str(tmp_path), *places) as server_again:
                wait_ready(server_again, admin)
                assert read_line(process) == b"a node is in reach again"
                assert stop(server_again) == 0


def test_sub_pattern_gets_all_channels_that_match_and_count_ends_it(url: str) -> None:
    with started("sub", "news.*", "--pattern", "--count", "1", "--json", "--url", url) as process:
        with started("pub", "news.uk", "--url", url, stdin=subprocess.PIPE) as publisher:
            assert publisher.stdin is not None
            # A pattern is live only: publish until it is heard, a line at a time.
            while process.poll() is None:
                publisher.stdin.write(b"hi\n")
                publisher.stdin.flush()
                assert publisher.stdout is not None
                publisher.stdout.readline()
        assert process.stdout is not None
        message = json.loads(process.stdout.read())
        assert (message["channel"], message["pattern"], message["payload"]) == ("news.uk", "news.*", "hi")
        assert process.wait() == 0


def test_lines_of_a_slow_pipe_are_published_as_they_come(url: str) -> None:
    with started("pub", "slow", "--url", url, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(3):
            process.stdin.write(b"line\n")
            process.stdin.flush()
            assert b"-" in process.stdout.readline()
        process.stdin.close()
        assert process.wait() == 0


def test_a_reader_that_has_enough_ends_the_command_quietly(url: str) -> None:
    riverbus("pub", "pipe", "x" * 1000, "--count", "500", "--url", url)
    with started("log", "pipe", "--url", url) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 0


def test_status_shows_each_shard_as_lines_or_json(addresses: tuple[str, str]) -> None:
    _, admin = addresses
    lines = riverbus("status", "--admin", admin).stdout.decode().splitlines()
    assert [line.split("\t")[:4] for line in lines] == [["1", str(shard), "leader", "1"] for shard in range(8)]
    state = json.loads(riverbus("status", "--json", "--admin", admin).stdout)
    assert (state["node"], state["ready"], state["reasons"], len(state["shards"])) == (1, True, [], 8)
    both = json.loads(riverbus("status", "--json", "--admin", f"{admin},{admin}").stdout)
    assert [each["node"] for each in both] == [1, 1]


def test_status_of_several_nodes_shows_those_that_answer(addresses: tuple[str, str]) -> None:
    _, admin = addresses
    done = riverbus("status", "--admin", f"127.0.0.1:1,{admin}", code=1)
    assert len(done.stdout.splitlines()) == 8
    assert b"no node answers at 127.0.0.1:1: Connection refused" in done.stderr
    dead, alive = json.loads(riverbus("status", "--json", "--admin", f"127.0.0.1:1,{admin}", code=1).stdout)
    assert dead == {"admin": "127.0.0.1:1", "error": "no node answers at 127.0.0.1:1: Connection refused"}
    assert alive["ready"] is True


def test_info_names_the_version_and_the_process(addresses: tuple[str, str], url: str) -> None:
    async def info() -> bytes:
        async with riverbus_client.connect(url) as bus:
            found = await bus.execute("INFO", "server")
            assert isinstance(found, bytes)
            return found

    lines = asyncio.run(info()).split(b"\r\n")
    state = json.loads(riverbus("status", "--json", "--admin", addresses[1]).stdout)
    assert f"riverbus_version:{riverbus_client.__version__}".encode() in lines
    assert f"process_id:{state['process']}".encode() in lines


def test_bench_prints_figures_and_their_ratio_to_a_peer(url: str) -> None:
    work = ["--msgs", "2000", "--size", "50", "--clients", "2", "--subscribers", "2"]
    found = json.loads(riverbus("bench", *work, "--url", url, "--peer", url, "--json").stdout)
    assert found["riverbus"]["msgs_per_s"] > 0
    assert found["peer"]["delivered_per_s"] == pytest.approx(2 * found["peer"]["msgs_per_s"], rel=0.01)
    assert found["ratio"]["msgs_per_s"] == found["riverbus"]["msgs_per_s"] / found["peer"]["msgs_per_s"]
    assert 0 < found["riverbus"]["p50_ms"] <= found["riverbus"]["max_ms"]


def test_bench_at_a_rate_keeps_it(url: str) -> None:
    found = json.loads(riverbus("bench", "--msgs", "500", "--rate", "1000", "--url", url, "--json").stdout)
    assert found["riverbus"]["msgs_per_s"] == pytest.approx(1000, rel=0.3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pub"], 2, "Missing argument"),
        (["sub", "a*", "--pattern", "--since", "0-0"], 2, "a pattern is live only"),
        (["log", "a", "--url", "http://x"], 1, "redis://"),
        (["log", "a", "--first", "nonsense"], 1, "nonsense"),
        (["status", "--admin", "nowhere"], 2, "is not HOST:PORT"),
        (["status", "--admin", "127.0.0.1:1"], 1, "no node answers at 127.0.0.1:1"),
        (["log", "a", "--url", "redis://127.0.0.1:1?deadline=0.1"], 1, "127.0.0.1:1: Connection refused"),
        (["sim", "--scenario", "nowhere.txt"], 1, "nowhere.txt: No such file or directory"),
        (["sim", "--only-faults", "1,b"], 2, "--only-faults 1,b: write numbers"),
        (["serve", "--data", "/dev/null"], 1, "/dev/null: File exists"),
        (["bench", "--url", "redis://127.0.0.1:1"], 1, "cannot be reached"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_an_error_is_words_on_standard_error_and_a_code(arguments: list[str], code: int, words: str, url: str) -> None:
    if "--url" not in arguments and arguments[0] in ("sub", "log"):
        arguments = [*arguments, "--url", url]
    done = riverbus(*arguments, code=code)
    assert done.stdout == b""
    assert words in done.stderr.decode()


def test_version() -> None:
    assert riverbus("--version").stdout.startswith(b"riverbus 0.")
