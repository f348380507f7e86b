"""A data directory knows whose it is, survives a crash between any two steps, and is never used when in doubt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from riverbus.runtime import identity as identity_module
from riverbus.runtime.identity import FILE_NAME, Identity, IdentityError, cluster_id_of, open_identity

A, B, C = "aa" * 16, "bb" * 16, "cc" * 16


def open_fresh(path: Path, node_id: int = 1, incarnation: str = A) -> Identity:
    return open_identity(path, node_id, 8, (1, 2, 3), entropy=lambda count: bytes.fromhex(incarnation)[:count])


def test_a_new_directory_is_fresh_and_keeps_its_incarnation(tmp_path: Path) -> None:
    first = open_identity(tmp_path / "made" / "here", 1, 8, (2, 3))
    assert not first.is_bootstrapped
    assert first.members == (1, 2, 3)
    assert first.founder == 1
    assert first.others == (2, 3)
    first.close()
    again = open_identity(tmp_path / "made" / "here", 1, 8, (1, 2, 3))
    assert again.incarnation == first.incarnation
    again.close()


def test_two_new_directories_differ(tmp_path: Path) -> None:
    first, second = (open_identity(tmp_path / name, 1, 8, (1,)) for name in "ab")
    assert first.incarnation != second.incarnation
    first.close()
    second.close()


def test_a_bootstrapped_directory_remembers_every_member(tmp_path: Path) -> None:
    fresh = open_fresh(tmp_path)
    fresh.bootstrap({3: C, 1: A, 2: B})
    fresh.invariants()
    fresh.close()
    again = open_fresh(tmp_path, incarnation=B)
    again.invariants()
    assert again.is_bootstrapped
    assert again.incarnation == A
    assert again.incarnations == {1: A, 2: B, 3: C}
    assert again.cluster_id == cluster_id_of({1: A, 2: B, 3: C}) != cluster_id_of({1: A, 2: C, 3: B})
    again.close()


def test_a_record_without_this_incarnation_is_not_taken(tmp_path: Path) -> None:
    fresh = open_fresh(tmp_path)
    with pytest.raises(IdentityError, match="another incarnation of node 1"):
        fresh.bootstrap({1: B, 2: B, 3: C})
    with pytest.raises(IdentityError, match="has nodes 1, 2, the configuration 1, 2, 3"):
        fresh.bootstrap({1: A, 2: B})
    assert not fresh.is_bootstrapped
    fresh.close()


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_crash_before_the_rename_leaves_the_directory_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    fresh = open_fresh(tmp_path)

    def crash(*_: object) -> None:
        raise OSError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Path if step == "rename" else os, step, crash)
        with pytest.raises(OSError, match="power"):
            fresh.bootstrap({1: A, 2: B, 3: C})
    assert not fresh.is_bootstrapped
    fresh.close()
    again = open_fresh(tmp_path)
    assert not again.is_bootstrapped
    assert again.incarnation == A
    again.bootstrap({1: A, 2: B, 3: C})
    again.close()


def test_a_crash_after_the_rename_leaves_it_bootstrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = open_fresh(tmp_path)

    def crash(_: Path) -> None:
        raise OSError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(identity_module, "sync_directory", crash)
        with pytest.raises(OSError, match="power"):
            fresh.bootstrap({1: A, 2: B, 3: C})
    fresh.close()
    again = open_fresh(tmp_path)
    assert again.is_bootstrapped
    again.close()


def test_a_directory_in_use_is_refused_by_name_and_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from riverbus.runtime.identity import open_identity;"
        "held = open_identity(Path(sys.argv[1]), 1, 8, (1,)); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(IdentityError, match=rf"is in use by another node \(process {holder.pid}\)"):
            open_identity(tmp_path, 1, 8, (1,))
        holder.kill()
        holder.wait()
    open_identity(tmp_path, 1, 8, (1,)).close()


def test_another_nodes_directory_and_other_shards_are_refused(tmp_path: Path) -> None:
    open_fresh(tmp_path).close()
    with pytest.raises(IdentityError, match="belongs to node 1, this is node 2"):
        open_identity(tmp_path, 2, 8, (1, 2, 3))
    with pytest.raises(IdentityError, match="made for 8 shards, the configuration says 4"):
        open_identity(tmp_path, 1, 4, (1, 2, 3))
    open_fresh(tmp_path).close()  # the refused ones hold no lock


def test_other_members_are_refused_once_bootstrapped_only(tmp_path: Path) -> None:
    open_fresh(tmp_path).close()
    other = open_identity(tmp_path, 1, 8, (1, 2))
    other.bootstrap({1: A, 2: B})
    other.close()
    with pytest.raises(IdentityError, match="belongs to a cluster of nodes 1, 2, the configuration names 1, 2, 3"):
        open_fresh(tmp_path)


@pytest.mark.parametrize("ids", [(0, 1), (1, 2**32), tuple(range(1, 66))])
def test_impossible_members_are_refused(tmp_path: Path, ids: tuple[int, ...]) -> None:
    with pytest.raises(IdentityError, match="1 to 64 nodes"):
        open_identity(tmp_path, 1, 8, ids)


def test_a_flipped_bit_in_any_byte_of_the_file_is_found(tmp_path: Path) -> None:
    fresh = open_fresh(tmp_path)
    fresh.bootstrap({1: A, 2: B, 3: C})
    fresh.close()
    file = tmp_path / FILE_NAME
    good = file.read_bytes()
    for at in range(len(good)):
        file.write_bytes(good[:at] + bytes((good[at] ^ 1 << at % 8,)) + good[at + 1 :])
        try:
            survivor = open_fresh(tmp_path)
        except IdentityError:
            continue
        survivor.close()
        assert json.loads(file.read_bytes()) == json.loads(good), "only white space may change unseen"
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(IdentityError, match="damaged"):
        open_fresh(tmp_path)


def test_a_file_of_a_later_version_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    open_fresh(tmp_path).close()
    file = tmp_path / FILE_NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2, "zone": "a"}))
    with pytest.raises(IdentityError, match="has format 2; this version of Riverbus knows 1"):
        open_fresh(tmp_path)


def test_data_without_an_identity_never_gets_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lost+found" / "x").touch()
    open_fresh(tmp_path).close()
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / "log" / "0001.raftlog").touch()
    with pytest.raises(IdentityError, match=r"has data \(log\) but no identity.json"):
        open_fresh(tmp_path)
