"""Is this password right? Digests in constant time, and the slow kind (scrypt) on a thread, remembered once right.

A machine's long random password is safe as a SHA-256 digest, as Redis keeps it; one that a person made up is not, and
`scrypt:` in the configuration is for those. A check costs 16 MiB and some 50 ms, so it is done in one thread of its
own, at most PASSWORD_CHECKS_MAX wait for it, and what was right once is known from then on by a keyed digest in memory.

Whatever the name, the work is the same: where any user has a slow password, a wrong one costs a slow check.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from riverbus.limits import MIB, PASSWORD_CHECKS_MAX

COST, BLOCK, PARALLEL = 2**14, 8, 1  # OWASP's least for scrypt in 16 MiB
_SALT_BYTES, _DIGEST_BYTES = 16, 32
_COST_MAX = 2**17
_NO_DIGEST = "0" * 64


class Slow(NamedTuple):
    """`scrypt:COST:SALT:DIGEST`, the last two in base 64."""

    cost: int
    salt: bytes
    digest: bytes

    def matches(self, password: bytes) -> bool:
        return hmac.compare_digest(_scrypt(password, self.salt, self.cost), self.digest)


_NOBODY = Slow(COST, bytes(_SALT_BYTES), bytes(_DIGEST_BYTES))


def _scrypt(password: bytes, salt: bytes, cost: int) -> bytes:
    return hashlib.scrypt(
        password, salt=salt, n=cost, r=BLOCK, p=PARALLEL, maxmem=256 * MIB, dklen=_DIGEST_BYTES
    )  # fmt: skip


def hash_slowly(password: bytes) -> str:
    """The text for a configuration."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _scrypt(password, salt, COST)
    return f"scrypt:{COST}:{b64encode(salt).decode()}:{b64encode(digest).decode()}"


def read_slow(text: str) -> Slow:
    """Raises ValueError."""
    try:
        name, cost, salt, digest = text.split(":")
        slow = Slow(int(cost), b64decode(salt, validate=True), b64decode(digest, validate=True))
    except (ValueError, Base64Error):
        raise ValueError("after scrypt: come COST:SALT:DIGEST, as `riverbus config password` prints them") from None
    if name != "scrypt" or not 2 <= slow.cost <= _COST_MAX or slow.cost & (slow.cost - 1):
        raise ValueError(f"scrypt's cost is a power of two, at most {_COST_MAX}")
    if len(slow.salt) < _SALT_BYTES or len(slow.digest) != _DIGEST_BYTES:
        raise ValueError(f"scrypt's salt has at least {_SALT_BYTES} bytes and its digest {_DIGEST_BYTES}")
    return slow


class Passwords:
    """`slow`: of each configured user that has one. `enter` begins a turn of the loop, for what ends on a thread."""

    def __init__(self, slow: Mapping[str, Slow], enter: Callable[[], None]) -> None:
        self._slow = dict(slow)
        self._enter = enter
        self._key = secrets.token_bytes(32)
        self._known: dict[str, bytes] = {}  # keyed digests of passwords that were right, by user
        self._thread: ThreadPoolExecutor | None = None
        self._waiting = 0

    def check(self, user: str, password: bytes, hashes: Sequence[str], done: Callable[[bool], None]) -> None:
        digest = hashlib.sha256(password).hexdigest()
        is_right = False
        for each in hashes or (_NO_DIGEST,):
            is_right |= hmac.compare_digest(digest, each)
        if is_right or not self._slow:
            done(is_right)
            return
        keyed = hmac.digest(self._key, user.encode("utf-8", "surrogateescape") + b"\0" + password, "sha256")
        if hmac.compare_digest(keyed, self._known.get(user, bytes(32))):
            done(True)
        elif self._waiting >= PASSWORD_CHECKS_MAX:
            done(False)
        else:
            self._check_slowly(user, password, keyed, done)

    def _check_slowly(self, user: str, password: bytes, keyed: bytes, done: Callable[[bool], None]) -> None:
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "passwords")
        self._waiting += 1
        known = self._slow.get(user)
        future = loop.run_in_executor(self._thread, (known or _NOBODY).matches, password)

        def checked(ended: asyncio.Future[bool]) -> None:
            self._waiting -= 1
            if ended.cancelled():
                return
            is_right = ended.result() and known is not None
            if is_right:
                self._known[user] = keyed
            self._enter()
            done(is_right)

        future.add_done_callback(checked)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
