"""What a disk holds, and what is left of it when the power goes: the model beneath `fuse_disk.py`, without FUSE.

A disk is a tree of inodes. Each has its live content, which programs see, and its durable content, which is what the
last fsync of that very inode left; between the two stand the changes since, in order. A power cut keeps the durable
content and, of the changes, whatever the draw says:

- a write is kept, dropped, or torn at 512 B sectors, each sector on its own; what it should have covered and did not
  reads as zeros if the file's new size was kept, else the file is shorter. Writes of the same sector come to the disk
  in their order: a page cache has no later one without the earlier;
- a change of size (truncate, allocate) is kept or dropped;
- a directory's entries (created, renamed, removed) are kept as a prefix, as a journal would have it, or each on its
  own. An fsync of a file says nothing of its name: only an fsync of the directory does.

Stricter than ext4, which keeps the name of a file that was fsynced; as strict as POSIX.

Operations are plain tuples, so that a trace of them can be replayed up to any point. Numbers of inodes are part of
them. Invariant: replaying a trace over the image that it began with gives the same disk.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

SECTOR_BYTES = 512
ROOT = 1

Op: TypeAlias = tuple[str | int | bytes, ...]
Tree: TypeAlias = "dict[str, Tree | bytes]"  # an image: directories and files by name


@dataclass
class File:
    live: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    changes: list[Op] = field(default_factory=list)


@dataclass
class Directory:
    live: dict[str, int] = field(default_factory=dict)
    durable: dict[str, int] = field(default_factory=dict)
    changes: list[Op] = field(default_factory=list)


class Disk:
    def __init__(self, image: Tree | None = None) -> None:
        self.inodes: dict[int, File | Directory] = {ROOT: Directory()}
        self.next_inode = ROOT + 1
        self._load(ROOT, image or {})

    def _load(self, number: int, image: Tree) -> None:
        directory = self.directory(number)
        for name, content in sorted(image.items()):
            inode = self.next_inode
            self.next_inode += 1
            directory.live[name] = directory.durable[name] = inode
            if isinstance(content, bytes):
                self.inodes[inode] = File(bytearray(content), bytearray(content))
            else:
                self.inodes[inode] = Directory()
                self._load(inode, content)

    def file(self, number: int) -> File:
        found = self.inodes[number]
        assert isinstance(found, File)
        return found

    def directory(self, number: int) -> Directory:
        found = self.inodes[number]
        assert isinstance(found, Directory)
        return found

    def used_bytes(self) -> int:
        return sum(len(inode.live) for inode in self.inodes.values() if isinstance(inode, File))

    def apply(self, op: Op) -> None:
        """An operation, as the live disk did it:

        ("create" | "mkdir", directory, name, inode), ("unlink", directory, name), ("rename", directory, name, to),
        ("write", file, offset, data), ("resize", file, size), ("sync", inode), ("sync failed", inode, seed),
        ("note", data).
        """
        kind, number = op[0], op[1]
        if kind == "note":
            return
        assert isinstance(number, int)
        inode = self.inodes[number]
        if kind == "sync":
            _settle(inode, None)
        elif kind == "sync failed":
            _settle(inode, random.Random(_int(op[2])))
        elif isinstance(inode, File):
            _change_file(inode.live, op)
            inode.changes.append(op)
        else:
            if kind in ("create", "mkdir"):
                created = _int(op[3])
                self.inodes[created] = File() if kind == "create" else Directory()
                self.next_inode = max(self.next_inode, created + 1)
                op = ("enter", number, op[2], created)
            elif kind == "rename":
                op = ("rename", number, op[2], op[3], inode.live[_str(op[2])])
            _change_directory(inode.live, op)
            inode.changes.append(op)

    def image(self) -> Tree:
        """All that programs see."""
        return self._image(ROOT, None)

    def cut(self, draw: random.Random) -> Tree:
        """What is found after a power cut now. The disk itself goes on."""
        return self._image(ROOT, _Fate(draw))

    def _image(self, number: int, fate: _Fate | None) -> Tree:
        directory = self.directory(number)
        names = directory.live if fate is None else fate.names(directory)
        tree: Tree = {}
        for name, inode in sorted(names.items()):
            found = self.inodes[inode]
            if isinstance(found, Directory):
                tree[name] = self._image(inode, fate)
            else:
                tree[name] = bytes(found.live if fate is None else fate.content(found))
        return tree


class _Fate:
    """How hard this power cut hits: drawn once for the disk, then for each change."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._kept = draw.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        self._kept_names = draw.choice([0.0, 0.5, 1.0])
        self._torn = draw.choice([0.0, 0.3, 1.0])
        self._is_journal = draw.random() < 0.5

    def names(self, directory: Directory) -> dict[str, int]:
        names = dict(directory.durable)
        prefix = self._draw.randint(0, len(directory.changes))
        for at, op in enumerate(directory.changes):
            if at < prefix if self._is_journal else self._draw.random() < self._kept_names:
                _change_directory(names, op)
        return names

    def content(self, file: File) -> bytearray:
        content = bytearray(file.durable)
        stopped: set[int] = set()  # sectors that have missed a write, and so miss all later ones
        for op in file.changes:
            if op[0] != "write":
                if self._draw.random() < self._kept:
                    _change_file(content, op)
                continue
            for part, is_kept in self._parts(op):
                sector = _int(part[2]) // SECTOR_BYTES
                if part[0] == "write" and not is_kept:
                    stopped.add(sector)
                if is_kept and (part[0] != "write" or sector not in stopped):
                    _change_file(content, part)
        return content

    def _parts(self, op: Op) -> Iterator[tuple[Op, bool]]:
        """A write's sectors, as writes of their own, and the size that it gave the file; and which come to the disk."""
        draw, number, offset, data = self._draw, op[1], _int(op[2]), op[3]
        assert isinstance(data, bytes)
        end = offset + len(data)
        edges = [offset, *range(offset - offset % SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES), end]
        sectors = list(pairwise(edges))
        is_kept = [draw.random() < self._kept] * len(sectors)
        if draw.random() < self._torn:
            cut = draw.randint(0, len(sectors))
            is_kept = {
                "front": [at < cut for at in range(len(sectors))],
                "back": [at >= cut for at in range(len(sectors))],
                "any": [draw.random() < 0.5 for _ in sectors],
            }[draw.choice(["front", "back", "any"])]
            yield ("grow", number, end), draw.random() < 0.3
        for (start, stop), kept in zip(sectors, is_kept, strict=True):
            yield ("write", number, start, data[start - offset : stop - offset]), kept


def _settle(inode: File | Directory, draw: random.Random | None) -> None:
    """The changes become durable; with a draw each does or never will, though programs go on seeing it."""
    for op in inode.changes:
        if draw is not None and draw.random() < 0.5:
            continue
        if isinstance(inode, File):
            _change_file(inode.durable, op)
        else:
            _change_directory(inode.durable, op)
    inode.changes.clear()


def _change_file(content: bytearray, op: Op) -> None:
    kind, size = op[0], _int(op[2])
    if kind == "resize":
        del content[size:]
    if kind in ("resize", "grow", "write"):
        content.extend(bytes(max(0, size - len(content))))
    if kind == "write":
        data = op[3]
        assert isinstance(data, bytes)
        content[size : size + len(data)] = data


def _change_directory(names: dict[str, int], op: Op) -> None:
    kind, name = op[0], _str(op[2])
    if kind == "enter":
        names[name] = _int(op[3])
    elif kind == "unlink":
        names.pop(name, None)
    else:
        names.pop(name, None)
        names[_str(op[3])] = _int(op[4])


def _int(value: str | int | bytes) -> int:
    assert isinstance(value, int)
    return value


def _str(value: str | int | bytes) -> str:
    assert isinstance(value, str)
    return value
