"""Fuzz the RESP front: `python -m tests.wire.fuzz_resp 60 [seed]`. Prints the seed of what fails.

Valid pipelines are mutated (bytes changed, inserted, deleted, doubled, headers replaced), cut into chunks, and read by
`RedisProtocol`; the nouns must be those of the reference parser, and what is held must be bounded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from itertools import pairwise
from random import Random

from riverbus.commands import Auth, Command, Hello, Malformed, Publish
from riverbus.limits import COMMAND_BYTES_MAX, PUBLISH_RUN_BYTES_MAX, PUBLISH_RUN_MESSAGES_MAX
from riverbus.messages import ErrorReply
from riverbus.wire.command_table import ROWS, noun_of
from riverbus.wire.redis import RedisProtocol
from tests.wire import resp_reference

TOKENS = [
    b"\r\n", b"\n", b"\r", b"*", b"$", b"*3\r\n", b"*-1\r\n", b"*0\r\n", b"$-1\r\n", b"*999999999\r\n",
    b"$99999999\r\n", b"+OK\r\n", b":1\r\n", b"%2\r\n", b"~1\r\n", b">1\r\n", b"_\r\n", b"#t\r\n", b",1\r\n", b"(1\r\n",
    b"=5\r\ntxt:a\r\n",
    b"PING\r\n", b'"', b"'", b"0", b"9", b"-", b"\x00", b"\xff", b"$4\r\nPING\r\n", b"*1\r\n$4\r\nPING\r\n",
]  # fmt: skip


def flattened(items: Iterable[list[bytes] | list[list[bytes]]]) -> list[list[bytes]]:
    """Commands, and lists of commands, as one list of commands."""
    flat: list[list[bytes]] = []
    for item in items:
        for part in item:
            if isinstance(part, list):
                flat.append(part)
        if isinstance(item[0], bytes):
            flat.append([part for part in item if isinstance(part, bytes)])
    return flat


def received(data: bytes, cuts: Iterable[int], *, authenticated: bool) -> list[Command]:
    """The nouns of `data`, cut there; checks what holds at each moment."""
    protocol = RedisProtocol(authenticated=authenticated)
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(data)), len(data)]
    nouns: list[Command] = []
    for start, stop in pairwise(places):
        nouns += protocol.receive_data(data[start:stop])
        assert protocol.held_bytes <= COMMAND_BYTES_MAX + stop - start
    assert all(type(noun) is not Malformed for noun in nouns[:-1])
    return nouns


def expected(data: bytes, *, authenticated: bool) -> list[Command]:
    parsed = resp_reference.parse(data, is_trusted=authenticated)
    nouns = [noun_of(args) for args in parsed.commands]
    if parsed.error is not None:
        nouns.append(Malformed(ErrorReply(f"ERR Protocol error: {parsed.error}")))
    return nouns


def singles(nouns: Iterable[Command]) -> list[Command]:
    """Each Publish of many as many of one."""
    return [
        single
        for noun in nouns
        for single in (
            [noun._replace(payloads=[payload]) for payload in noun.payloads] if isinstance(noun, Publish) else [noun]
        )
    ]


def check_runs(nouns: list[Command]) -> None:
    """Runs are within their bounds, and no two neighbours fit into one (but for where a chunk ended)."""
    for noun in nouns:
        if isinstance(noun, Publish):
            assert len(noun.payloads) <= PUBLISH_RUN_MESSAGES_MAX
            assert len(noun.payloads) == 1 or sum(map(len, noun.payloads)) <= PUBLISH_RUN_BYTES_MAX


def _argument(random: Random) -> bytes:
    if random.random() < 0.2:
        return random.choice(TOKENS)
    return random.randbytes(random.choice([0, 1, 3, 10, 100, 100, 4090, 4200]))


def _command(random: Random) -> list[bytes]:
    choice = random.random()
    if choice < 0.4:
        return [random.choice([b"PUBLISH", b"publish"]), random.choice([b"a", b"bb"]), _argument(random)]
    if choice < 0.5:
        return [b"XADD", b"a", b"*", b"f", _argument(random)]
    row = random.choice(list(ROWS.values()))
    args = [row.name.encode()]
    if row.subcommands and random.random() < 0.9:
        args.append(random.choice(list(row.subcommands)))
    return args + [_argument(random) for _ in range(random.choice([0, 1, 2, 3, 4, 5, 20, 40]))]


def _mutated(data: bytes, random: Random) -> bytes:
    for _ in range(random.choice([0, 0, 1, 1, 2, 5])):
        at = random.randrange(len(data) + 1)
        match random.randrange(4):
            case 0:
                data = data[:at] + random.choice(TOKENS) + data[at:]
            case 1:
                data = data[:at] + random.choice(TOKENS) + data[at + random.randrange(8) :]
            case 2:
                data = data[:at] + data[at + random.randrange(1, 5) :]
            case _:
                data = data[:at] + data[max(0, at - random.randrange(200)) :]
    return data


def one_case(seed: int) -> None:
    """Raises AssertionError if the protocol and the reference differ."""
    random = Random(seed)
    commands = []
    for _ in range(random.randrange(1, 20)):
        commands += [_command(random)] * random.choice([1, 1, 1, 2, 30])
    data = _mutated(b"".join(map(resp_reference.encode, commands)), random)
    authenticated = random.random() < 0.7
    cuts = [random.randrange(len(data) + 1) for _ in range(random.choice([0, 1, 5]))]
    nouns = received(data, cuts, authenticated=authenticated)
    check_runs(nouns)
    got, wanted = singles(nouns), expected(data, authenticated=authenticated)
    if any(type(noun) in (Auth, Hello) for noun in got) and not authenticated:
        return  # behind an AUTH the limits depend on where the chunks end
    assert got == wanted, f"seed {seed}"


def run(seconds: float, seed: int) -> int:
    """How many cases passed in the time."""
    end = time.monotonic() + seconds
    cases = 0
    while time.monotonic() < end:
        one_case(seed * 1_000_000_007 + cases)
        cases += 1
    return cases


if __name__ == "__main__":
    print(f"{run(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns())} cases, no difference")
