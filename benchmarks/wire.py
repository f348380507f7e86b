"""What does a command cost on its way in, and a delivery on its way out? `python -m benchmarks.wire`

Nanoseconds a command (or message), the best of 50 rounds, in chunks of 256 and one a chunk; beside hiredis.Reader in
the same run, which only makes lists of the same bytes and checks nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import hiredis

from riverbus.messages import MessageId
from riverbus.wire.encoders import Resp2Encoder, Resp3Encoder
from riverbus.wire.redis import RedisProtocol

COUNT = 256
ROUNDS = 50


def encode(*args: bytes) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


def best_ns(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        work()
        best = min(best, time.perf_counter_ns() - start)
    return best / COUNT


def varied(number: int) -> bytes:
    return b"x" * (60 + number * 7 % 80)


REQUESTS: dict[str, list[bytes]] = {
    "PUBLISH, one channel, 100 B": [encode(b"PUBLISH", b"chan", b"x" * 100)] * COUNT,
    "PUBLISH, one channel, 60-140 B": [encode(b"PUBLISH", b"chan", varied(n)) for n in range(COUNT)],
    "PUBLISH, one channel, 1 KiB": [encode(b"PUBLISH", b"chan", b"x" * 1024)] * COUNT,
    "PUBLISH, one channel, 8 KiB": [encode(b"PUBLISH", b"chan", b"x" * 8192)] * COUNT,
    "PUBLISH, one channel, 100 B with CRLF": [encode(b"PUBLISH", b"chan", b"x" * 98 + b"\r\n")] * COUNT,
    "PUBLISH, 50 channels, 60-140 B": [encode(b"PUBLISH", b"chan%d" % (n % 50), varied(n)) for n in range(COUNT)],
    "XADD, one field of 100 B": [encode(b"XADD", b"chan", b"*", b"f", b"x" * 100)] * COUNT,
    "PING": [encode(b"PING")] * COUNT,
}


def requests() -> None:
    print(f"{'request':40} {'chunk':>7} {'hiredis':>8} {'single':>7} {'hiredis':>8}  (ns)")
    for name, commands in REQUESTS.items():
        chunk = b"".join(commands)
        protocol, reader = RedisProtocol(authenticated=True), hiredis.Reader()

        def ours(chunks: list[bytes], protocol: RedisProtocol = protocol) -> None:
            for data in chunks:
                protocol.receive_data(data)

        def theirs(chunks: list[bytes], reader: hiredis.Reader = reader) -> None:
            for data in chunks:
                reader.feed(data)
                while reader.gets() is not False:
                    pass

        figures = [
            best_ns(lambda work=work, chunks=chunks: work(chunks))  # type: ignore[misc]
            for chunks in ([chunk], commands)
            for work in (ours, theirs)
        ]
        print(f"{name:40} {figures[0]:7.0f} {figures[1]:8.0f} {figures[2]:7.0f} {figures[3]:8.0f}")


def deliveries() -> None:
    print(f"\n{'delivery':40} {'run':>7} {'single':>7}  (ns)")
    first = MessageId(1_700_000_000_000, 0)
    runs = {"100 B": [b"x" * 100] * COUNT, "60-140 B": [varied(n) for n in range(COUNT)]}
    for size, payloads in runs.items():
        for encoder in (Resp2Encoder(), Resp3Encoder()):
            for space, pattern in (("channel", None), ("pattern", b"ch*"), ("bus", None)):

                def run(
                    encoder: Resp2Encoder = encoder,
                    space: str = space,
                    pattern: bytes | None = pattern,
                    payloads: list[bytes] = payloads,
                ) -> bytes:
                    return encoder.deliver(space, b"chan", pattern, first, payloads)

                def singles(
                    encoder: Resp2Encoder = encoder,
                    space: str = space,
                    pattern: bytes | None = pattern,
                    payloads: list[bytes] = payloads,
                ) -> None:
                    for payload in payloads:
                        encoder.deliver(space, b"chan", pattern, first, [payload])

                print(f"{encoder.key + ' ' + space + ', ' + size:40} {best_ns(run):7.0f} {best_ns(singles):7.0f}")


if __name__ == "__main__":
    requests()
    deliveries()
