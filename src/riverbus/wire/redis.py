"""Redis' protocol, the asking half: bytes in, nouns of commands.py out. (encoders.py is the answering half.)

Clients pipeline: what matters is the cost of the n-th like command of a chunk. So a chunk is read in gears, each
exact, each handing over to the next where it ends:
0. `_read_alone`: a chunk that is one publish, like the chunk before: a client that waits for each reply;
1. `_read_run`: publishes that share all but their last argument (one channel, one command) are found by splitting the
   chunk at those shared bytes, and become one `Publish` with many payloads;
2. `RequestReader.read_simple`: any short commands, by tables;
3. `RequestReader.read_one`: everything else, byte by byte resumable.

Invariants: nouns come in the order of their commands; at most one `Malformed`, and nothing after it; a `Publish` holds
at most PUBLISH_RUN_MESSAGES_MAX payloads and PUBLISH_RUN_BYTES_MAX bytes, unless its only payload is larger.
"""

from __future__ import annotations

from riverbus.commands import Auth, Command, Hello, Malformed, Publish, Traced
from riverbus.fields import encode_many
from riverbus.limits import KIB, PUBLISH_RUN_BYTES_MAX, PUBLISH_RUN_MESSAGES_MAX
from riverbus.messages import ErrorReply, Kind
from riverbus.wire.command_table import may_be_shown, noun_of
from riverbus.wire.resp import CRLF, SIMPLE_BULK_BYTES_MAX, ProtocolError, RequestReader

_FIRST_WINDOW_BYTES = 5 * KIB  # what gear 2 reads before gear 1 is tried; then fourfold each time
_WINDOW_BYTES_MAX = 64 * KIB
_RUN_WINDOW_BYTES = PUBLISH_RUN_BYTES_MAX  # framed bytes, so the payloads of one window fit into one noun
_XADD = int(Kind.XADD)


def _run_tables() -> tuple[list[bytes], list[int]]:
    """By the size of `100\\r\\n<payload>`: its header, and the header's size. Impossible sizes get what can't match."""
    size_max = SIMPLE_BULK_BYTES_MAX + 8
    headers = [b"x" * (size + 1) for size in range(size_max)]
    header_sizes = [0] * size_max
    for length in range(SIMPLE_BULK_BYTES_MAX + 1):
        header = b"%d\r\n" % length
        headers[len(header) + length] = header
        header_sizes[len(header) + length] = len(header)
    return headers, header_sizes


_RUN_HEADERS, _RUN_HEADER_SIZES = _run_tables()


class RedisProtocol:
    """One connection's requests, of RESP2 and RESP3 alike.

    `authenticated` is set by the session's owner (after each batch of commands, or at the start where no user is
    configured): while it is False only small commands are read. A chunk that holds an AUTH is read with full limits
    from there on, as its commands may be allowed once the AUTH is handled. `is_traced` is set while somebody monitors:
    commands that may be shown come as `Traced`, one by one.
    """

    __slots__ = (
        "_alone",
        "_alone_before",
        "_is_broken",
        "_is_idle",
        "_reader",
        "_run",
        "_run_bytes",
        "authenticated",
        "is_traced",
    )

    def __init__(self, *, authenticated: bool = False) -> None:
        self.authenticated = authenticated
        self.is_traced = False
        self._reader = RequestReader()
        self._is_broken = False
        self._is_idle = True  # the reader holds nothing
        self._alone: tuple[bytes, bytes, int, str] | None = None  # a publish up to "$"; its channel, kind, style
        self._alone_before = b""  # ... of the channel of the one before
        self._run: Publish | None = None  # while receive_data runs: the last noun, if it may grow; else None
        self._run_bytes = 0  # of its payloads

    @property
    def held_bytes(self) -> int:
        """Received and not yet a command."""
        return self._reader.held_bytes

    def receive_data(self, data: bytes) -> list[Command]:
        """The commands that `data` completes. After a `Malformed` there is nothing more, whatever comes."""
        nouns: list[Command] = []
        if self._is_broken:
            return nouns
        at = 0
        if self._is_idle:
            if self._alone is not None and data.startswith(self._alone[0]) and self._read_alone(data, nouns):
                return nouns
            batch, at = self._reader.read_simple(data, 0, _FIRST_WINDOW_BYTES)
            for args in batch:
                self._take(args, nouns)
            if at == len(data):
                self._run = None
                if len(batch) == 1:
                    self._remember_alone(data, batch[0], nouns[0])
                return nouns
            if batch:
                at = self._maybe_read_run(data, at, batch, nouns)
        try:
            self._read(data, at, nouns)
        except ProtocolError as error:
            self._is_broken = True
            self._reader = RequestReader()
            nouns.append(Malformed(ErrorReply(f"ERR Protocol error: {error}")))
        self._run = None  # its noun is the session's now
        return nouns

    def _read(self, data: bytes, at: int, nouns: list[Command]) -> None:
        reader = self._reader
        reader.is_trusted = self.authenticated or any(map(_may_log_in, nouns))
        is_simple = at > 0  # else gear 2 was just tried, or would meet the middle of a command
        if not self._is_idle:
            data = reader.receive(data)
            self._is_idle = bool(data)
        window_bytes = _FIRST_WINDOW_BYTES
        exact = 1
        size = len(data)
        while at < size:
            if is_simple:
                batch, at = reader.read_simple(data, at, window_bytes)
                for args in batch:
                    self._take(args, nouns)
                if batch:
                    at = self._maybe_read_run(data, at, batch, nouns)
                    window_bytes = min(4 * window_bytes, _WINDOW_BYTES_MAX)
                    continue
            # What gear 2 can't read is seldom alone; doubling keeps the cost of its tries linear.
            is_simple = True
            for _ in range(exact):
                args_or_none, at = reader.read_one(data, at)
                if args_or_none is None:
                    self._is_idle = False
                    return
                if args_or_none:
                    self._take(args_or_none, nouns)
                if at >= size:
                    return
            exact *= 2

    def _take(self, args: list[bytes], nouns: list[Command]) -> None:
        noun = noun_of(args)
        if self.is_traced and may_be_shown(args, noun):
            self._run = None
            nouns.append(Traced(args, noun))
            return
        if type(noun) is Publish:
            run = self._run
            channel, kind, payloads, style = noun
            payload_bytes = len(payloads[0])
            if (
                run is not None
                and run[0] == channel
                and run[1] == kind
                and run[3] == style
                and len(run[2]) < PUBLISH_RUN_MESSAGES_MAX
                and self._run_bytes + payload_bytes <= PUBLISH_RUN_BYTES_MAX
            ):
                run[2].append(payloads[0])
                self._run_bytes += payload_bytes
                return
            self._run = noun
            self._run_bytes = payload_bytes
        else:
            self._run = None
            if _may_log_in(noun):
                self._reader.is_trusted = True
        nouns.append(noun)

    # --- gear 0: a lone publish -----------------------------------------------------------------------------------

    def _remember_alone(self, data: bytes, args: list[bytes], noun: Command) -> None:
        """`data` was read as canonical RESP: up to the payload's length it can be compared byte by byte."""
        self._alone = None
        if type(noun) is not Publish or noun.kind == _XADD:
            return
        payload = args[-1]
        if noun.channel == self._alone_before and payload == noun.payloads[0]:
            beginning = data[: -len(b"%d\r\n%b\r\n" % (len(payload), payload))]
            self._alone = (beginning, noun.channel, noun.kind, noun.style)
        self._alone_before = noun.channel

    def _read_alone(self, data: bytes, nouns: list[Command]) -> bool:
        """A third of what gear 2 takes. Exact: the length that is said is that of all that is left but CRLF."""
        assert self._alone is not None
        beginning, channel, kind, style = self._alone
        part = data[len(beginning) : -2]
        size = len(part)
        if self.is_traced or size >= len(_RUN_HEADERS):
            return False
        if not part.startswith(_RUN_HEADERS[size]) or not data.endswith(CRLF):
            return False
        nouns.append(Publish(channel, kind, [part[_RUN_HEADER_SIZES[size] :]], style))
        return True

    # --- gear 1: runs -------------------------------------------------------------------------------------------------

    def _maybe_read_run(self, data: bytes, at: int, batch: list[list[bytes]], nouns: list[Command]) -> int:
        """Where two publishes have become one noun, more may follow: read those."""
        if self._run is None or len(self._run.payloads) < 2:
            return at
        return self._read_run(data, at, batch[-1], nouns)

    def _read_run(self, data: bytes, at: int, args: list[bytes], nouns: list[Command]) -> int:
        """Reads on behind a publish of arguments `args`, while like ones follow; returns where it stopped.

        `args` was read as canonical RESP, so its bytes can be made again. Splitting at them is exact where every part
        between two of them has the length that its header says: then no other reading of these bytes exists. A part
        that has not (a payload that contains them, damage) leaves its window to the next gear.
        """
        shared = b"*%d\r\n" % len(args) + b"".join([b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args[:-1]]) + b"$"
        separator = CRLF + shared
        shared_bytes = len(shared)
        while data.startswith(shared, at):
            window = data[at + shared_bytes : at + shared_bytes + _RUN_WINDOW_BYTES]
            payloads, taken = _uniform_payloads(window, separator)
            if not payloads:
                payloads, taken = _payloads(window, separator)
            if not payloads:
                break
            at += taken
            self._take_run(payloads, args[3:-1], nouns)
        return at

    def _take_run(self, payloads: list[bytes], fields: list[bytes], nouns: list[Command]) -> None:
        """Append payloads, in bytes within one noun's bound, to the run or to new nouns."""
        run = self._run
        assert run is not None
        if run.kind == _XADD:
            payloads = encode_many(fields, payloads)
        payloads_bytes = sum(map(len, payloads))
        room = PUBLISH_RUN_MESSAGES_MAX - len(run.payloads)
        if len(payloads) <= room and self._run_bytes + payloads_bytes <= PUBLISH_RUN_BYTES_MAX:
            run.payloads.extend(payloads)
            self._run_bytes += payloads_bytes
            return
        for first in range(0, len(payloads), PUBLISH_RUN_MESSAGES_MAX):
            run = run._replace(payloads=payloads[first : first + PUBLISH_RUN_MESSAGES_MAX])
            nouns.append(run)
        self._run = run
        self._run_bytes = sum(map(len, run.payloads))


def _may_log_in(noun: Command) -> bool:
    return type(noun) is Auth or (type(noun) is Hello and noun.user is not None)


def _payloads(window: bytes, separator: bytes) -> tuple[list[bytes], int]:
    """The payloads at the start of `<length> CRLF <payload> separator ...`, and what they and the separators measure.

    Only those in front of a separator. None at all if one's length isn't what its header says.
    """
    parts = window.split(separator)
    parts.pop()  # cut, or the last: the next gear's
    sizes = list(map(len, parts))
    if not parts or max(sizes) >= len(_RUN_HEADERS):
        return [], 0
    if not all(map(bytes.startswith, parts, map(_RUN_HEADERS.__getitem__, sizes))):
        return [], 0
    payloads = [part[_RUN_HEADER_SIZES[len(part)] :] for part in parts]
    return payloads, sum(sizes) + len(parts) * len(separator)


def _uniform_payloads(window: bytes, separator: bytes) -> tuple[list[bytes], int]:
    """What `_payloads` gives, in half the time, if nearly all of the window is payloads of one size; else none."""
    header = window[: window.find(CRLF) + 2]
    payloads = window[len(header) :].split(separator + header)
    payloads.pop()
    size = len(payloads[0]) if payloads else 0
    taken = len(payloads) * (len(separator) + len(header) + size)
    # A window is given up only if little of it was read: else a peer could have it read again and again.
    if 2 * taken < len(window) or header != b"%d\r\n" % size or set(map(len, payloads)) != {size}:
        return [], 0
    return payloads, taken
