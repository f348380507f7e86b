"""A log that is lost, or was never founded, under an identity."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from riverbus._native import Raft
from riverbus.runtime.durable_log import open_log
from riverbus.runtime.identity import IdentityError, open_identity

SHARDS = 2


def test_a_lost_log_is_refused_once_the_node_has_taken_part(tmp_path: Path) -> None:
    identity = open_identity(tmp_path, 1, SHARDS, (1,))
    open_log(tmp_path, identity, SHARDS).close()
    identity.bootstrap({1: identity.incarnation})
    open_log(tmp_path, identity, SHARDS).close()
    shutil.rmtree(tmp_path / "log")
    with pytest.raises(IdentityError, match="its log is lost"):
        open_log(tmp_path, identity, SHARDS)
    with pytest.raises(IdentityError, match="its log is lost"):
        open_log(tmp_path, identity, SHARDS)  # the attempt has not made it good
    identity.close()


def test_before_the_founding_the_log_is_made_anew_for_the_members_of_today(tmp_path: Path) -> None:
    identity = open_identity(tmp_path, 1, SHARDS, (1, 2))
    open_log(tmp_path, identity, SHARDS).close()
    log = open_log(tmp_path, identity, SHARDS)
    assert all(Raft.is_bootstrapped(log, shard) for shard in range(SHARDS))
    log.close()
    identity.close()
