"""Opens a node's log so that a lost one is noticed: an empty log under an identity that took part is amnesia.

The log gets its first records (the groups' bootstrap) before the identity is founded. So where the identity says that
this node has taken part, the log has groups; if it has none, it was deleted, or another disk is mounted in its place. A
node that went on could vote twice in a term and forget what it acknowledged. Before the founding the log is worth
nothing, and is made anew, for the members may have been corrected.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from riverbus._native import Log, Raft
from riverbus.runtime.identity import Identity, IdentityError


def open_log(data: Path, identity: Identity, shards: int) -> Log:
    """Call before the identity is founded. Raises IdentityError, LogError, LogDamaged, OSError."""
    path = data / "log"
    if not identity.is_bootstrapped and path.exists():
        shutil.rmtree(path)
    log = Log.open(str(path))
    if not identity.is_bootstrapped:
        for shard in range(shards):
            Raft.bootstrap(log, shard, sorted(identity.members))
        log.flush()
        log.sync()
        return log
    lost = [shard for shard in range(shards) if not Raft.is_bootstrapped(log, shard)]
    if lost:
        log.close()
        raise IdentityError(
            f"{path} holds nothing of shards {lost}, though this node has taken part in its cluster: its log is lost. "
            "Mount or restore what was there; a node that lost its log cannot come back under its old identity"
        )
    return log
