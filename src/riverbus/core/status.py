"""What a node says of itself: the fields of `riverbus status`, INFO and /readyz, gathered from its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverbus._native import LEADER

if TYPE_CHECKING:
    from riverbus.core.consensus.shard import Shard
    from riverbus.core.engine import Engine

_ROLES = {0: "follower", 1: "candidate", 2: "leader", 3: "pre-candidate"}
_LAG_ENTRIES_MAX = 10_000  # committed and not yet applied here: above this a node says that it lags


def shard_status(shard: Shard) -> dict[str, object]:
    """One shard as this node sees it. `hash` is of the state at `applied`: equal on all replicas at equal indexes."""
    replica = shard.replica
    raft = replica.raft.status()
    return {
        "shard": shard.number,
        "role": _ROLES.get(replica.role, str(replica.role)),
        "leader": replica.leader,
        "term": replica.term,
        "commit": raft["commit"],
        "applied": replica.applied_index,
        "first": raft["first"],
        "last": raft["last"],
        "snapshot": shard.keeper.last_index,
        "snapshots_taken": shard.keeper.taken,
        "snapshots_failed": shard.keeper.failed + shard.install.failed,
        "snapshots_installed": shard.install.installed,
        "snapshot_failure": shard.keeper.last_failure or shard.install.last_failure,
        "hash": replica.bus.running_hash.hex(),
        "channels": replica.bus.channel_count,
        "messages": replica.bus.retained_messages,
        "bytes": replica.bus.retained_bytes,
        "pending_bytes": shard.route.pending_bytes,
        "unknown_outcomes": shard.route.unknown_outcomes,
    }


def status_of(engine: Engine) -> dict[str, object]:
    settings = engine.settings
    return {
        "node": settings.node,
        "voters": list(settings.voters),
        "peers_up": [peer for peer in engine.peers if engine.links.is_up(peer)],
        "shards": [shard_status(shard) for shard in engine.shards],
        "sessions": engine.sessions.status(),
        "log": engine.log.statistics(),
        "log_stalled": engine.log.stalled(),
        "bad_messages": engine.bad_messages,
        "last_bad_message": engine.last_bad_message,
        "disk_full": engine.is_disk_full,
        "ready": not unready_reasons(engine),
    }


def unready_reasons(engine: Engine) -> list[str]:
    """Why this node cannot serve writes now; empty when it can."""
    reasons: list[str] = []
    leaderless = [s.number for s in engine.shards if not s.replica.leader]
    if leaderless:
        reasons.append(f"no leader in contact for shards {leaderless}")
    uncommitted = [s.number for s in engine.shards if s.replica.leader and not s.replica.has_committed_in_term]
    if uncommitted:
        reasons.append(f"nothing committed yet in the current term of shards {uncommitted}")
    unlinked = sorted(
        {
            s.replica.leader
            for s in engine.shards
            if s.replica.leader not in (0, engine.settings.node) and not engine.links.is_up(s.replica.leader)
        }
    )
    if unlinked:
        reasons.append(f"no link to leading nodes {unlinked}")
    if engine.is_disk_full:
        reasons.append("the log's disk is full: publishes are refused")
    if (stalled := engine.log.stalled()) is not None:
        reasons.append(f"the log cannot be written: {stalled}")
    rules = engine.settings.rules
    leading = [shard for shard in engine.shards if shard.replica.is_leader]
    ruleless = [shard.number for shard in leading if not shard.replica.bus.rules.is_configured_as(rules)]
    if ruleless:
        reasons.append(f"the channel rules of shards {ruleless} are not agreed yet")
    installing = [s.number for s in engine.shards if s.install.is_under_way]
    if installing:
        reasons.append(f"receiving a snapshot of shards {installing}")
    returning = [s.number for s in engine.shards if s.comeback.is_under_way]
    if returning:
        reasons.append(f"may have forgotten what it had in memory, and asks the leaders of shards {returning}")
    lagging = [s.number for s in engine.shards if _lag(s) > _LAG_ENTRIES_MAX]
    if lagging:
        reasons.append(f"catching up in shards {lagging}")
    return reasons


def _lag(shard: Shard) -> int:
    commit = shard.replica.raft.status()["commit"]
    assert isinstance(commit, int)
    return commit - shard.replica.applied_index


assert LEADER == 2, "the names of roles above are in the order of raft-rs' StateRole"
