"""A RESP request parser that is obviously right and slow: the whole input at once, one rule a line. For comparison."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from riverbus.limits import COMMAND_ARGS_MAX, COMMAND_BYTES_MAX, INLINE_BYTES_MAX
from riverbus.wire.resp import HEADER_BYTES_MAX, UNAUTHENTICATED_ARGS_MAX, UNAUTHENTICATED_BULK_BYTES_MAX


@dataclass
class Parsed:
    commands: list[list[bytes]] = field(default_factory=list)  # none empty
    error: str | None = None
    rest: bytes = b""  # of an incomplete command


class Incomplete(Exception):
    pass


class Refused(Exception):
    pass


def parse(data: bytes, *, is_trusted: bool) -> Parsed:
    parsed = Parsed()
    at = 0
    while at < len(data):
        try:
            args, end = _array(data, at, is_trusted) if data[at : at + 1] == b"*" else _inline(data, at)
        except Incomplete:
            parsed.rest = data[at:]
            break
        except Refused as error:
            parsed.error = str(error)
            break
        if args:
            parsed.commands.append(args)
        at = end
    return parsed


def encode(args: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


def _array(data: bytes, at: int, is_trusted: bool) -> tuple[list[bytes], int]:
    start = at
    line, at = _line(data, at, "too big mbulk count string")
    count = _integer(line[1:])
    if count is None or count > COMMAND_ARGS_MAX:
        raise Refused("invalid multibulk length")
    if count > UNAUTHENTICATED_ARGS_MAX and not is_trusted:
        raise Refused("unauthenticated multibulk length")
    used = 0 if count <= 0 else at - start
    args = []
    for _ in range(count):
        if data[at : at + 1] not in (b"$", b""):
            got = chr(data[at]) if 32 <= data[at] < 127 else " "
            raise Refused(f"expected '$', got '{got}'")
        line, body = _line(data, at, "too big bulk count string")
        length = _integer(line[1:])
        if length is None or not 0 <= length <= COMMAND_BYTES_MAX:
            raise Refused("invalid bulk length")
        if length > UNAUTHENTICATED_BULK_BYTES_MAX and not is_trusted:
            raise Refused("unauthenticated bulk length")
        used += body + length + 2 - at
        if used > COMMAND_BYTES_MAX:
            raise Refused(f"command longer than {COMMAND_BYTES_MAX} bytes")
        at = body + length + 2
        if at > len(data):
            raise Incomplete
        if data[at - 2 : at] != b"\r\n":
            raise Refused("expected CRLF after a bulk string")
        args.append(data[body : at - 2])
    return args, at


def _line(data: bytes, at: int, too_big: str) -> tuple[bytes, int]:
    line, crlf, _ = data[at : at + HEADER_BYTES_MAX + 2].partition(b"\r\n")
    if crlf:
        return line, at + len(line) + 2
    if len(data) - at >= HEADER_BYTES_MAX + 2:
        raise Refused(too_big)
    raise Incomplete


def _integer(digits: bytes) -> int | None:
    value = int(digits) if re.fullmatch(rb"-?[0-9]{1,19}", digits) else None
    return value if value is not None and b"%d" % value == digits else None


def _inline(data: bytes, at: int) -> tuple[list[bytes], int]:
    line, newline, _ = data[at:].partition(b"\n")
    if len(line) > INLINE_BYTES_MAX:
        raise Refused("too big inline request")
    if not newline:
        raise Incomplete
    words = _words(line.removesuffix(b"\r"))
    if words and words[0].lower() in (b"post", b"host:"):
        raise Refused("this port speaks RESP, not HTTP")
    return words, at + len(line) + 1


def _words(line: bytes) -> list[bytes]:
    """sdssplitargs, character by character."""
    words: list[bytes] = []
    at = 0
    text = [bytes((byte,)) for byte in line]
    while True:
        while at < len(text) and text[at] in b" \t\n\r\v\f":
            at += 1
        if at == len(text):
            return words
        word = b""
        quote = b""
        while True:
            char = text[at] if at < len(text) else None
            following = b"".join(text[at + 1 : at + 4])
            if quote:
                if char is None:
                    raise Refused("unbalanced quotes in request")
                if quote == b'"' and char == b"\\" and re.match(rb"x[0-9a-fA-F]{2}", following):
                    word += bytes((int(following[1:3], 16),))
                    at += 4
                elif quote == b'"' and char == b"\\" and following:
                    escapes = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
                    word += escapes.get(following[:1], following[:1])
                    at += 2
                elif quote == b"'" and char == b"\\" and following[:1] == b"'":
                    word += b"'"
                    at += 2
                elif char == quote:
                    at += 1
                    if at < len(text) and text[at] not in b" \t\n\r\v\f":
                        raise Refused("unbalanced quotes in request")
                    break
                else:
                    word += char
                    at += 1
            elif char is None or char in b" \t\n\r":
                break
            elif char in b"\"'":
                quote = char
                at += 1
            else:
                word += char
                at += 1
        words.append(word)
