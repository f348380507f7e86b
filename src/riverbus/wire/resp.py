"""RESP requests: bytes in, argument lists out. It knows frames and limits, no command.

A request is a flat array of bulk strings, or a line of text (telnet's form). `RequestReader` has two ways to read
arrays, which agree exactly:
- `read_simple` splits a chunk at every CRLF and checks each argument's header against a table: short commands, whole,
  with no CRLF inside. What isn't that ends it, and nothing is lost or guessed.
- `read_one` reads any one command, resumable after any byte; it holds what is incomplete.

hiredis.Reader isn't used on purpose: it reads *replies*. It takes all their types (`+` where `$` belongs), and on a
mere `*99999999` it reserves 800 MB and stops the loop for 300 ms when it frees them; where it stands in its buffer
can't be asked, so neither can be checked beforehand. On the hot path (runs, redis.py) this reader is as fast.

Invariants: held bytes are bounded by COMMAND_BYTES_MAX and one chunk; however the peer cuts its bytes, each is copied
and scanned a bounded number of times; limits are checked when a header arrives. Errors have Redis' texts
(networking.c). Stricter than Redis in one point: a missing CRLF is an error, not skipped.
"""

from __future__ import annotations

import re

from riverbus.limits import COMMAND_ARGS_MAX, COMMAND_BYTES_MAX, INLINE_BYTES_MAX, KIB

CRLF = b"\r\n"
UNAUTHENTICATED_ARGS_MAX = 10  # as in Redis: strangers get no memory
UNAUTHENTICATED_BULK_BYTES_MAX = 16 * KIB
HEADER_BYTES_MAX = 64  # a `*` or `$` line without an end; Redis waits for 64 KiB of digits
SIMPLE_ARGS_MAX = UNAUTHENTICATED_ARGS_MAX  # what read_simple takes is within everybody's limits
SIMPLE_BULK_BYTES_MAX = 4 * KIB  # size of its table; above, parsing costs less than the bytes themselves

_MANY_ARGS = 16  # that are still to come: worth reading by splitting
_MANY_WINDOW_BYTES = 64 * KIB

_COUNTS = {b"*%d" % count: count for count in range(1, SIMPLE_ARGS_MAX + 1)}
_HEADERS = [b"$%d" % length for length in range(SIMPLE_BULK_BYTES_MAX + 1)]
_LENGTHS = {header: length for length, header in enumerate(_HEADERS)}
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")  # what Redis' string2ll takes: no sign +, no leading zero, no space

assert SIMPLE_ARGS_MAX <= UNAUTHENTICATED_ARGS_MAX <= COMMAND_ARGS_MAX
assert SIMPLE_BULK_BYTES_MAX <= UNAUTHENTICATED_BULK_BYTES_MAX <= COMMAND_BYTES_MAX


class ProtocolError(Exception):
    """The peer broke the protocol: its text is for the peer, and nothing after it can be read."""


class RequestReader:
    """Usage: `data = receive(chunk)`, then `read_simple` and `read_one` until its end; it keeps the rest.

    `is_trusted` switches the small limits for strangers off.
    """

    __slots__ = ("_args", "_args_total", "_command_bytes", "_held", "_wanted_bytes", "_wants_line", "is_trusted")

    def __init__(self) -> None:
        self.is_trusted = False
        self._held = bytearray()  # bytes of the incomplete command that aren't in _args yet
        self._wanted_bytes = 0  # nothing can be read before so many are held ...
        self._wants_line = False  # ... or, if True, before a newline is
        self._args: list[bytes] = []  # of the command that is being read
        self._args_total = 0  # how many it has; 0: between two commands
        self._command_bytes = 0  # of what of it is in _args, as framed

    @property
    def held_bytes(self) -> int:
        return len(self._held) + sum(map(len, self._args))

    @property
    def is_inside(self) -> bool:
        """A command's beginning was read and its arguments not all: only `read_one` may go on."""
        return self._args_total > 0

    @property
    def is_between(self) -> bool:
        """No command is begun: `receive` would give back the chunk as it is."""
        return not self._args_total and not self._held

    def receive(self, chunk: bytes) -> bytes:
        """What can be read now: held bytes and the chunk; empty if that would bring nothing. Raises ProtocolError."""
        held = self._held
        if not self.is_trusted and self._args_total:
            self._check_stranger()
        if not held:
            return chunk
        held += chunk
        if self._wants_line:
            if b"\n" not in chunk:
                self._check_line(held)
                return b""
        elif len(held) < self._wanted_bytes:
            return b""
        data = bytes(held)
        self._held = bytearray()
        self._wants_line = False
        return data

    def read_simple(self, data: bytes, at: int, window_bytes: int) -> tuple[list[list[bytes]], int]:
        """The simple commands that stand whole at the start of `data[at:at + window_bytes]`, and where they end.

        Not necessarily all of them. Never raises.
        """
        window = data[at : at + window_bytes]
        tokens = window.split(CRLF, window_bytes // 128)  # short ones have more; the first window is to be cheap
        unfinished = len(tokens) - 1  # the last token has no CRLF after it
        commands: list[list[bytes]] = []
        first = 0
        headers = _HEADERS
        try:
            while True:
                count = _COUNTS[tokens[first]]
                end = first + 1 + 2 * count
                if end > unfinished:
                    break
                if count == 3:  # PUBLISH: half the time of the general form
                    header0, name, header1, key, header2, value = tokens[first + 1 : end]
                    if headers[len(name)] != header0 or headers[len(key)] != header1 or headers[len(value)] != header2:
                        break
                    commands.append([name, key, value])
                else:
                    args = tokens[first + 2 : end : 2]
                    if [headers[len(arg)] for arg in args] != tokens[first + 1 : end : 2]:
                        break
                    commands.append(args)
                first = end
        except (KeyError, IndexError):  # not `*1` to `*10`; an argument too long for the table
            pass
        if first == unfinished:
            return commands, at + len(window) - len(tokens[first])
        rest = tokens[first:]
        return commands, at + len(window) - sum(map(len, rest)) - 2 * (len(rest) - 1)

    def read_one(self, data: bytes, at: int) -> tuple[list[bytes] | None, int]:
        """One command and where it ends; [] for what asks nothing (`*0`, an empty line); None once all else is held."""
        if self._args_total == 0:
            if data[at] != 42:  # b"*"
                return self._read_line(data, at)
            header = self._header(data, at)
            if header is None:
                return None, len(data)
            count, at = self._checked_count(header), at + len(header) + 2
            if count <= 0:
                return [], at
            self._args_total = count
            self._command_bytes = len(header) + 2
        args = self._args
        args_total = self._args_total
        if args_total - len(args) >= _MANY_ARGS:
            at = self._read_many(data, at)
        used = self._command_bytes
        while len(args) < args_total:
            line_end = data.find(CRLF, at, at + HEADER_BYTES_MAX + 2)
            length = _LENGTHS.get(data[at:line_end]) if line_end >= 0 else None
            if length is None:
                header = self._header(data, at)
                if header is None:
                    self._command_bytes = used
                    return None, len(data)
                length = self._checked_length(header)
            body_at = line_end + 2
            body_end = body_at + length
            used += body_end + 2 - at
            if used > COMMAND_BYTES_MAX:
                raise ProtocolError(f"command longer than {COMMAND_BYTES_MAX} bytes")
            if body_end + 2 > len(data):
                self._command_bytes = used - (body_end + 2 - at)
                self._hold(data, at, body_end + 2 - at)
                return None, len(data)
            if data[body_end : body_end + 2] != CRLF:
                raise ProtocolError("expected CRLF after a bulk string")
            args.append(data[body_at:body_end])
            at = body_end + 2
        self._args = []
        self._args_total = 0
        return args, at

    def _read_many(self, data: bytes, at: int) -> int:
        """Takes what stands whole and simple of a long command's arguments, at a fifth of the time; returns its end."""
        args = self._args
        found = _MANY_ARGS
        while found >= _MANY_ARGS and len(args) < self._args_total:
            tokens = data[at : at + _MANY_WINDOW_BYTES].split(CRLF, 2 * (self._args_total - len(args)))
            whole = (len(tokens) - 1) & ~1  # tokens of whole arguments: the last token has no CRLF after it
            headers, bodies = tokens[0:whole:2], tokens[1:whole:2]
            wanted = [_HEADERS[size] if size <= SIMPLE_BULK_BYTES_MAX else b"" for size in map(len, bodies)]
            if wanted == headers:
                found = len(bodies)
            else:
                found = [one == other for one, other in zip(wanted, headers, strict=True)].index(False)
            args += bodies[:found]
            size = sum(map(len, headers[:found])) + sum(map(len, bodies[:found])) + 4 * found
            at += size
            self._command_bytes += size
            if self._command_bytes > COMMAND_BYTES_MAX:
                raise ProtocolError(f"command longer than {COMMAND_BYTES_MAX} bytes")
        return at

    # --- headers ------------------------------------------------------------------------------------------------------

    def _header(self, data: bytes, at: int) -> bytes | None:
        """The `*` or `$` line at `at`, without its CRLF; None if it isn't whole: then it is held."""
        if self._args_total and data[at : at + 1] not in (b"$", b""):
            raise ProtocolError(f"expected '$', got '{_printable(data[at])}'")
        line_end = data.find(CRLF, at, at + HEADER_BYTES_MAX + 2)
        if line_end >= 0:
            return data[at:line_end]
        self._check_line(data[at : at + HEADER_BYTES_MAX + 2])
        if at < len(data):
            self._hold(data, at, 0)
        return None

    def _checked_count(self, header: bytes) -> int:
        digits = header[1:]
        if not _INTEGER.fullmatch(digits) or (count := int(digits)) > COMMAND_ARGS_MAX:
            raise ProtocolError("invalid multibulk length")
        if not self.is_trusted and count > UNAUTHENTICATED_ARGS_MAX:
            raise ProtocolError("unauthenticated multibulk length")
        return count

    def _checked_length(self, header: bytes) -> int:
        digits = header[1:]
        if not _INTEGER.fullmatch(digits) or not 0 <= (length := int(digits)) <= COMMAND_BYTES_MAX:
            raise ProtocolError("invalid bulk length")
        if not self.is_trusted and length > UNAUTHENTICATED_BULK_BYTES_MAX:
            raise ProtocolError("unauthenticated bulk length")
        return length

    def _check_line(self, line: bytes | bytearray) -> None:
        """Raises ProtocolError if a line is too long, whose end (or its last byte) is still to come."""
        if self._args_total:
            if len(line) >= HEADER_BYTES_MAX + 2:
                raise ProtocolError("too big bulk count string")
        elif line[:1] == b"*":
            if len(line) >= HEADER_BYTES_MAX + 2:
                raise ProtocolError("too big mbulk count string")
        elif len(line) > INLINE_BYTES_MAX:
            raise ProtocolError("too big inline request")

    def _check_stranger(self) -> None:
        """A command that began behind an AUTH of the same chunk was read with full limits; the AUTH has failed."""
        if self._args_total > UNAUTHENTICATED_ARGS_MAX:
            raise ProtocolError("unauthenticated multibulk length")
        if self._wanted_bytes > UNAUTHENTICATED_BULK_BYTES_MAX + HEADER_BYTES_MAX:
            raise ProtocolError("unauthenticated bulk length")

    def _hold(self, data: bytes, at: int, wanted_bytes: int) -> None:
        self._held += data[at:]
        self._wanted_bytes = wanted_bytes
        self._wants_line = wanted_bytes == 0

    # --- inline commands ----------------------------------------------------------------------------------------------

    def _read_line(self, data: bytes, at: int) -> tuple[list[bytes] | None, int]:
        line_end = data.find(b"\n", at)
        if line_end < 0:
            self._check_line(data[at : at + INLINE_BYTES_MAX + 1])
            self._hold(data, at, 0)
            return None, len(data)
        line = data[at:line_end]
        self._check_line(line)
        args = split_line(line.removesuffix(b"\r"))
        if args and args[0].lower() in (b"post", b"host:"):
            # As Redis does: a browser lured into sending us a request must not get its body run as commands.
            raise ProtocolError("this port speaks RESP, not HTTP")
        return args, line_end + 1


# --- the words of an inline command (sdssplitargs) --------------------------------------------------------------------

_SPACE = b" \t\n\r\v\f"
_SPECIAL = re.compile(rb"""["'\v\f]""")  # a line without: its words are what Python's own split finds
_SPACES = re.compile(rb"[ \t\n\r\v\f]*")
_BARE = re.compile(rb"""[^ \t\n\r"']*""")
# Unrolled loops whose parts begin with different bytes: no input makes them backtrack far.
_QUOTED = {
    34: re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL),
    39: re.compile(rb"'([^'\\]*(?:\\(?:'|(?!'))[^'\\]*)*)'"),
}
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_line(line: bytes) -> list[bytes]:
    """The words of an inline command, quotes and escapes resolved. Raises ProtocolError on unbalanced quotes.

    A word is bare bytes, then perhaps a part in quotes, behind which only white space may stand.
    """
    if not _SPECIAL.search(line):
        return line.split()
    words = []
    at = len(line) - len(line.lstrip(_SPACE))
    while at < len(line):
        bare = _BARE.match(line, at)
        assert bare is not None  # it may be empty
        word = bare[0]
        at = bare.end()
        pattern = _QUOTED.get(line[at]) if at < len(line) else None
        if pattern is not None:
            quoted = pattern.match(line, at)
            if quoted is None or line[quoted.end() : quoted.end() + 1] not in _SPACE:
                raise ProtocolError("unbalanced quotes in request")
            if line[at] == 34:
                word += _ESCAPE.sub(_unescape, quoted[1])
            else:
                word += quoted[1].replace(b"\\'", b"'")
            at = quoted.end()
        words.append(word)
        spaces = _SPACES.match(line, at)
        assert spaces is not None
        at = spaces.end()
    return words


def _unescape(match: re.Match[bytes]) -> bytes:
    digits, char = match.groups()
    return bytes((int(digits, 16),)) if digits else _ESCAPED.get(char, char)


def _printable(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 else " "  # Redis: white space for what would break the error's line
