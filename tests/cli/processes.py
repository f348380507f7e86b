"""`riverbus` as its users run it: a process, its output, its exit code; and a node for the commands that need one."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riverbus.cli.admin_client import ask
from riverbus.runtime.units import Address
from tests.ports import PORTS

DEADLINE_S = 60
PROGRAM = [sys.executable, "-m", "riverbus.cli"]


def environment() -> dict[str, str]:
    """Ours, without settings of the developer who runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RIVERBUS_")}


def riverbus(*arguments: str, stdin: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, which must be with `code`."""
    done = subprocess.run(
        [*PROGRAM, *arguments], input=stdin, capture_output=True, timeout=DEADLINE_S, env=environment(), check=False
    )
    assert done.returncode == code, (done.returncode, done.stdout[-3000:], done.stderr[-3000:])
    assert b"Traceback" not in done.stderr
    return done


@contextmanager
def started(*arguments: str, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs until the block ends; killed then, if it has not ended by itself."""
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        preexec_fn=_heed_interrupts,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()  # before the wait that ends the block


def _heed_interrupts() -> None:
    """A shell that runs the tests in its background has SIGINT ignored, by all its descendants."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def read_line(process: subprocess.Popen[bytes]) -> bytes:
    """The next line of its output. Fails at the deadline, or when the process ends before."""
    assert process.stdout is not None
    # One byte at a time: a buffered reader would hide from select what it holds.
    line = bytearray()
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], DEADLINE_S)
        assert ready, bytes(line)
        byte = os.read(process.stdout.fileno(), 1)
        assert byte, (bytes(line), process.poll())
        line += byte
    return bytes(line[:-1])


def read_until(process: subprocess.Popen[bytes], end: bytes) -> list[bytes]:
    """Lines of output up to one that is `end`. Fails as `read_line` does."""
    lines: list[bytes] = []
    while not lines or lines[-1] != end:
        try:
            lines.append(read_line(process))
        except AssertionError as error:
            raise AssertionError(f"no line {end!r} behind {lines}: {error}") from error
    return lines


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(DEADLINE_S)


def free_ports(count: int) -> int:
    """The first of `count` consecutive ports that nothing listens on, below those of outgoing connections."""
    for _ in range(100):
        first = random.choice(PORTS[:-count])
        held = []
        try:
            for port in range(first, first + count):
                probe = socket.socket()
                held.append(probe)
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for probe in held:
                probe.close()
        return first
    raise AssertionError("no free ports")


def wait_ready(process: subprocess.Popen[bytes], admin: Address) -> None:
    deadline = time.monotonic() + DEADLINE_S
    pause = select.poll()  # waits for the process' end of output, or a little
    assert process.stdout is not None
    pause.register(process.stdout, select.POLLHUP)
    while True:
        try:
            if ask(admin, "/readyz")[0] == 200:
                return
        except OSError:
            pass
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        pause.poll(50)


@contextmanager
def node(data: Path, *arguments: str) -> Iterator[tuple[str, str]]:
    """A cluster of one: the URL for clients, and the admin address."""
    first = free_ports(3)
    resp, admin, peer = (f"127.0.0.1:{first + number}" for number in range(3))
    places = ["--data", str(data), "--resp", resp, "--admin", admin, "--peer", peer]
    with started("serve", *places, *arguments) as process:
        wait_ready(process, Address("127.0.0.1", first + 1))
        yield f"redis://{resp}", admin
        assert stop(process) == 0
