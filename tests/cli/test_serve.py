"""`serve`, `dev` and `config` as processes: what they print, how they end, and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
from pathlib import Path

import pytest

from riverbus.cli.admin_client import ask
from riverbus.runtime.units import Address, parse_address
from tests.cli.processes import DEADLINE_S, free_ports, node, read_line, read_until, riverbus, started, stop


def test_config_default_is_accepted_by_config_check(tmp_path: Path) -> None:
    file = tmp_path / "riverbus.toml"
    file.write_bytes(riverbus("config", "default").stdout)
    assert riverbus("config", "check", str(file)).stdout.endswith(b": ok\n")
    file.write_text("[node]\nsherds = 1\n")
    done = riverbus("config", "check", str(file), code=2)
    assert b"did you mean 'node.shards'?" in done.stderr
    found = json.loads(riverbus("config", "check", str(file), "--json", code=2).stdout)
    assert found["ok"] is False
    assert len(found["problems"]) == 1


def test_serve_refuses_a_wrong_configuration_with_code_2(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    done = riverbus("serve", "--data", data, "--resp", "0.0.0.0:6380", code=2)
    assert b"can be reached from a network" in done.stderr
    done = riverbus("serve", "--data", data, "--shards", "0", code=2)
    assert b"node.shards" in done.stderr
    done = riverbus("serve", "--data", data, "--secret-file", str(tmp_path / "none"), code=2)
    assert b"No such file" in done.stderr
    assert not (tmp_path / "data" / "log").exists()


def test_serve_says_which_address_is_taken(tmp_path: Path) -> None:
    first = free_ports(3)
    with socket.create_server(("127.0.0.1", first)):
        places = ["--resp", f"127.0.0.1:{first}", "--admin", f"127.0.0.1:{first + 1}"]
        done = riverbus("serve", "--data", str(tmp_path), *places, "--peer", f"127.0.0.1:{first + 2}", code=1)
    expected = f"riverbus: cannot listen on 127.0.0.1:{first}: Address already in use"
    assert done.stderr.splitlines()[-1] == expected.encode()


def test_what_was_published_is_there_after_a_stop_and_a_start(tmp_path: Path) -> None:
    with node(tmp_path) as (url, _):
        (id_,) = riverbus("pub", "chat", "hi", "--url", url).stdout.split()
    with node(tmp_path) as (url, _):
        found = json.loads(riverbus("log", "chat", "--json", "--url", url).stdout)
    assert (found["id"].encode(), found["payload"]) == (id_, "hi")


def test_a_damaged_log_is_named_by_its_directory(tmp_path: Path) -> None:
    with node(tmp_path) as (url, _):
        riverbus("pub", "chat", "hi", "--url", url)
    (log,) = (tmp_path / "log").glob("*.raftlog")
    data = bytearray(log.read_bytes())
    data[len(data.rstrip(b"\0")) // 2] ^= 1
    log.write_bytes(data)
    first = free_ports(3)
    places = [f"--{name}=127.0.0.1:{first + at}" for at, name in enumerate(("resp", "admin", "peer"))]
    done = riverbus("serve", "--data", str(tmp_path), *places, code=1)
    assert done.stderr.splitlines()[-1].startswith(f"riverbus: the log in {tmp_path}: ".encode())


def test_dev_runs_a_cluster_says_ready_and_stops_it_all(tmp_path: Path) -> None:
    first = free_ports(40)
    with started("dev", "--nodes", "3", "--base-port", str(first), "--data", str(tmp_path / "dev")) as process:
        lines = read_until(process, b"ready")
        introduced = [re.findall(rb"redis://(\S+)  http://(\S+?)/metrics  process (\d+)", line) for line in lines]
        nodes = [match[0] for match in introduced if match]
        assert [parse_address(resp.decode()).port for resp, _, _ in nodes] == [first, first + 1, first + 2]
        assert all(ask(parse_address(admin.decode()), "/readyz")[0] == 200 for _, admin, _ in nodes)
        riverbus("pub", "chat", "hi", "--url", f"redis://{nodes[0][0].decode()}")
        assert riverbus("log", "chat", "--url", f"redis://{nodes[2][0].decode()}").stdout == b"hi\n"
        assert (tmp_path / "dev" / "secret").stat().st_mode & 0o777 == 0o600

        os.kill(int(nodes[1][2]), signal.SIGKILL)
        said = read_line(process)
        assert said.startswith(b"node 2 ended with code -9; start it again with:")
        assert stop(process, signal.SIGINT) == 0
    for resp, _, _ in nodes:
        with pytest.raises(OSError):
            socket.create_connection(parse_address(resp.decode()))


def test_no_node_outlives_a_dev_that_is_killed(tmp_path: Path) -> None:
    first = free_ports(40)
    with started("dev", "--nodes", "2", "--base-port", str(first), "--data", str(tmp_path)) as process:
        lines = read_until(process, b"ready")
        pids = [int(number) for line in lines for number in re.findall(rb"process (\d+)", line)]
        assert len(pids) == 2
        watched = [os.pidfd_open(pid) for pid in pids]
        process.kill()
        for descriptor in watched:
            with os.fdopen(descriptor) as file:
                assert _ends(file.fileno())


def _ends(process_descriptor: int) -> bool:
    return bool(select.select([process_descriptor], [], [], DEADLINE_S)[0])


def test_a_node_of_dev_that_cannot_start_ends_it_with_its_words(tmp_path: Path) -> None:
    first = free_ports(40)
    with socket.create_server(("127.0.0.1", first + 1)):
        done = riverbus("dev", "--nodes", "2", "--base-port", str(first), "--data", str(tmp_path), code=1)
    assert b"node 2 ended with code 1" in done.stderr
    assert b"in use" in done.stderr
    (tmp_path / "node-2.log").write_text("what a former life said\n")
    with socket.create_server(("127.0.0.1", first + 1)):
        done = riverbus("dev", "--nodes", "2", "--base-port", str(first), "--data", str(tmp_path), code=1)
    assert b"former life" not in done.stderr
    with pytest.raises(OSError):
        ask(Address("127.0.0.1", first + 20), "/livez")


def test_dev_is_not_ready_because_another_cluster_is(tmp_path: Path) -> None:
    first = free_ports(40)
    with started("dev", "--nodes", "1", "--base-port", str(first), "--data", str(tmp_path / "one")) as process:
        read_until(process, b"ready")
        done = riverbus("dev", "--nodes", "1", "--base-port", str(first), "--data", str(tmp_path / "two"), code=1)
        assert b"ready" not in done.stdout.splitlines()
        assert b"node 1 ended with code 1\n  riverbus: cannot listen on" in done.stderr
        assert stop(process) == 0


def test_dev_asks_its_nodes_with_the_token_that_the_configuration_gives_them(tmp_path: Path) -> None:
    file = tmp_path / "riverbus.toml"
    file.write_text('[admin]\ntoken = "a token for operators"\n')
    first = free_ports(40)
    places = ["--base-port", str(first), "--data", str(tmp_path / "data")]
    with started("dev", "--nodes", "1", *places, "--config", str(file)) as process:
        assert read_until(process, b"ready")[0].startswith(b"node 1: redis://")
        admin = Address("127.0.0.1", first + 20)
        assert ask(admin, "/status")[0] == 401
        assert stop(process) == 0
    file.write_text("[limits]\nsesions = 3\n")
    done = riverbus("dev", "--nodes", "1", *places, "--config", str(file), code=2)
    assert done.stderr.startswith(f"riverbus: {file}: limits.sesions: unknown key; did you mean".encode())


def test_a_wrong_flag_is_named_as_it_was_written(tmp_path: Path) -> None:
    done = riverbus("serve", "--data", str(tmp_path), "--resp", "nowhere", "--node-id", "0", code=2)
    assert done.stderr.splitlines() == [
        b"riverbus: --node-id (node.id): input should be greater than or equal to 1",
        b"riverbus: --resp (resp.listen): 'nowhere' is not HOST:PORT",
    ]
