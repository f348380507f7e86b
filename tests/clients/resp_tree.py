"""A connection that shows replies as they are on the wire: a tree of (type byte, value), which loses nothing of RESP.

`Tree` of `:1` is (":", b"1"), of an array ("*", [...]), of a map ("%", [key, value, key, ...]), of a null ("$", None).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

Tree = tuple[str, Any]
Words = Sequence[bytes]
_TIMEOUT_S = 30.0
_AGGREGATES = {"*": 1, "%": 2, "~": 1, ">": 1}


def encode(words: Words) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class Wire:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def send(self, commands: Sequence[Words]) -> None:
        self._socket.sendall(b"".join(map(encode, commands)))

    def ask(self, *words: bytes) -> Tree:
        self.send([words])
        return self.read()

    def read(self) -> Tree:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), f"the server closed the connection: {line!r}"
        kind, rest = chr(line[0]), line[1:-2]
        if kind in "$=":
            size = int(rest)
            if size < 0:
                return kind, None
            return kind, self._file.read(size + 2)[:-2]
        if kind in _AGGREGATES:
            count = int(rest)
            if count < 0:
                return kind, None
            return kind, [self.read() for _ in range(count * _AGGREGATES[kind])]
        return kind, rest

    def close(self) -> None:
        self._file.close()
        self._socket.close()
