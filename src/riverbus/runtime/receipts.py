"""What a client's machine has confirmed of the bytes written to its socket: the kernel's own count, when asked.

SIOCOUTQ (TIOCOUTQ for sockets, tcp(7)) is what the send queue holds that the peer has not acknowledged; it agrees with
TCP_INFO's tcpi_bytes_acked, and holds its value after a reset, too. It counts from the socket's side, so that nothing
has to be counted for each write. A descriptor's number may belong to another socket once its transport has closed it:
who asks makes sure that it has not.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios

_QUEUED = struct.Struct("i")


def unacknowledged_bytes(descriptor: int) -> int | None:
    """In the kernel's send queue. None where the kernel does not say."""
    try:
        answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(_QUEUED.size))
    except (OSError, ValueError):  # ValueError: it is closed
        return None
    return int(_QUEUED.unpack(answer)[0])


def unacknowledged_through(transport: asyncio.Transport, held_bytes: int) -> int | None:
    """Of a plain transport, or one through memory, to which `held_bytes` are still to be given. None once it closes."""
    if transport.is_closing():
        return None  # what it held is gone, and not to be counted any more
    client_socket = transport.get_extra_info("socket")
    queued = 0 if client_socket is None else unacknowledged_bytes(client_socket.fileno())
    return None if queued is None else queued + held_bytes + transport.get_write_buffer_size()
