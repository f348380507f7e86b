"""Who a node is: its data directory's identity, so that a node which lost its memory is never taken for its old self.

A directory draws its incarnation (16 random bytes) when it is made. It is *fresh* until the cluster is founded; then it
has on record the incarnation of every member, and the cluster's id, a hash of them all. Raft runs only after that.

Who founds: the member of the lowest id, and no other, once it is linked to all other members at the same time and all
are fresh. Everyone else adopts a bootstrapped member's record, if it has this very incarnation in it. So two records
can never come about, whatever crashes between two nodes' writes; and members that lost their directories wait for the
rest, who refuse them. A fresh founder that is on others' record was restored from an old copy: refused as well.

Durable steps, in this order: write aside, fsync, rename, fsync the directory; only then is the record told to anyone.
Invariants: one process a directory (flock, held while open); a file that fails its checksum is never used.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from riverbus.limits import NODES_MAX, SHARDS_MAX

FILE_NAME = "identity.json"
LOCK_NAME = "lock"
_PROCESS_WIDTH = 20  # of the process id in the lock file
_FORMAT = 1
_NOT_OURS = frozenset(("lost+found",))  # may be there when a file system's root is the data directory


class IdentityError(Exception):
    """This data directory cannot be used by this node as it is configured. The text is for its operator."""


class _Format(msgspec.Struct):
    format: int


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    cluster_id: str
    node_id: int
    incarnation: str
    shards: int
    bootstrapped: bool
    peers: dict[int, str]
    check: str


def cluster_id_of(incarnations: Mapping[int, str]) -> str:
    """32 hex digits that name the cluster made of exactly these members in these incarnations."""
    lines = "".join(f"{node}:{incarnations[node]}\n" for node in sorted(incarnations))
    return hashlib.sha256(b"riverbus cluster\n" + lines.encode()).hexdigest()[:32]


class Identity:
    """An open data directory. `incarnations` is the record: of every member, this node included; empty while fresh."""

    def __init__(self, path: Path, lock: int, node_id: int, shards: int, members: tuple[int, ...], incarnation: str):
        self.path = path
        self.node_id = node_id
        self.shards = shards
        self.members = members
        self.incarnation = incarnation
        self.cluster_id = ""
        self.incarnations: dict[int, str] = {}
        self._lock = lock

    @property
    def is_bootstrapped(self) -> bool:
        return bool(self.cluster_id)

    @property
    def founder(self) -> int:
        return self.members[0]

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(node for node in self.members if node != self.node_id)

    def bootstrap(self, incarnations: Mapping[int, str]) -> None:
        """Persist the founded cluster's record. When this returns it is on the disk. Raises OSError, IdentityError."""
        assert not self.is_bootstrapped, "a cluster is founded once"
        if tuple(sorted(incarnations)) != self.members:
            raise IdentityError(f"the cluster has nodes {_ids(incarnations)}, the configuration {_ids(self.members)}")
        if incarnations[self.node_id] != self.incarnation:
            raise IdentityError(f"the cluster knows another incarnation of node {self.node_id}")
        cluster_id = cluster_id_of(incarnations)
        self._write(cluster_id, incarnations)
        self.cluster_id = cluster_id
        self.incarnations = dict(sorted(incarnations.items()))

    def close(self) -> None:
        """Let another process use the directory. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def invariants(self) -> None:
        assert self.node_id in self.members
        assert list(self.members) == sorted(set(self.members))
        assert bool(self.incarnations) == self.is_bootstrapped
        if self.is_bootstrapped:
            assert self.cluster_id == cluster_id_of(self.incarnations)
            assert self.incarnations[self.node_id] == self.incarnation

    def _write(self, cluster_id: str, incarnations: Mapping[int, str]) -> None:
        record = _File(
            format=_FORMAT,
            cluster_id=cluster_id,
            node_id=self.node_id,
            incarnation=self.incarnation,
            shards=self.shards,
            bootstrapped=bool(cluster_id),
            peers={node: text for node, text in sorted(incarnations.items()) if node != self.node_id},
            check="",
        )
        record.check = _check_of(record)
        write_durably(self.path / FILE_NAME, json.dumps(msgspec.to_builtins(record), indent=2).encode() + b"\n")

    def _adopt_file(self, record: _File) -> None:
        if record.node_id != self.node_id:
            raise IdentityError(
                f"data directory {self.path} belongs to node {record.node_id}, this is node {self.node_id}"
            )
        if record.shards != self.shards:
            raise IdentityError(
                f"data directory {self.path} was made for {record.shards} shards, the configuration says "
                f"{self.shards}; the number of shards is fixed when a cluster is created"
            )
        self.incarnation = record.incarnation
        if not record.bootstrapped:
            return
        self.incarnations = dict(sorted({**record.peers, self.node_id: record.incarnation}.items()))
        self.cluster_id = record.cluster_id
        if tuple(self.incarnations) != self.members:
            raise IdentityError(
                f"data directory {self.path} belongs to a cluster of nodes {_ids(self.incarnations)}, "
                f"the configuration names {_ids(self.members)}"
            )
        self.invariants()


def open_identity(
    path: Path, node_id: int, shards: int, members: Iterable[int], entropy: Callable[[int], bytes] = os.urandom
) -> Identity:
    """Open a data directory, or make it. `members` are the configured node ids (this one may be left out).

    Raises IdentityError when it is in use, damaged, another node's, or made for other shards or members; OSError.
    """
    all_members = tuple(sorted({node_id, *members}))
    if not all(0 < node < 2**32 for node in all_members) or len(all_members) > NODES_MAX:
        raise IdentityError(f"a cluster has 1 to {NODES_MAX} nodes with ids from 1 on, not {_ids(all_members)}")
    if not 1 <= shards <= SHARDS_MAX:
        raise IdentityError(f"a cluster has 1 to {SHARDS_MAX} shards, not {shards}")
    make_directory(path)
    lock = _lock(path)
    try:
        identity = Identity(path, lock, node_id, shards, all_members, entropy(16).hex())
        record = _read(path)
        if record is not None:
            identity._adopt_file(record)
        else:
            _check_has_no_data(path)
            identity._write("", {})
    except BaseException:
        os.close(lock)
        raise
    return identity


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file's content: after a crash at any moment it has the old or the new. Raises OSError."""
    aside = path.with_name(path.name + ".tmp")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside.rename(path)
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make it and what is missing above it, durably: no fsync of what is in a directory keeps its own name."""
    missing = [each for each in path.parents if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in (path, *missing):
        try:
            sync_directory(each.absolute().parent)
        except PermissionError:
            pass  # not ours to read, so not ours to have made a directory in


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    descriptor = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, _PROCESS_WIDTH, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise IdentityError(f"data directory {path} is in use by another node (process {owner})") from None
        raise
    try:
        os.pwrite(descriptor, f"{os.getpid():<{_PROCESS_WIDTH}}\n".encode(), 0)  # in place, which needs no room
    except OSError as error:
        # It is only for the error above: a full disk must not keep a node from starting.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            os.close(descriptor)
            raise
    return descriptor


def _read(path: Path) -> _File | None:
    file = path / FILE_NAME
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    try:
        # The format first: a later version's file may have fields that this one does not know.
        known = msgspec.json.decode(data, type=_Format, strict=False)
        if known.format != _FORMAT:
            raise IdentityError(f"{file} has format {known.format}; this version of Riverbus knows {_FORMAT}")
        record = msgspec.json.decode(data, type=_File, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IdentityError(f"{file} is damaged: {error}") from None
    incarnations = {**record.peers, record.node_id: record.incarnation}
    if record.check != _check_of(record) or record.cluster_id != (
        cluster_id_of(incarnations) if record.bootstrapped else ""
    ):
        raise IdentityError(f"{file} is damaged: its checksum does not match what it says")
    return record


def _check_of(record: _File) -> str:
    body = {**msgspec.to_builtins(record), "check": ""}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _check_has_no_data(path: Path) -> None:
    """A directory that lost its identity but not its log must not get a new one on top of it."""
    for entry in sorted(path.iterdir()):
        if entry.name not in _NOT_OURS and entry.is_dir() and any(entry.iterdir()):
            raise IdentityError(
                f"data directory {path} has data ({entry.name}) but no {FILE_NAME}; "
                "give this node an empty directory, or the whole of its own back"
            )


def _ids(nodes: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(nodes)))
