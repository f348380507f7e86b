"""What a node says of itself and its clients in Redis' words: INFO, CONFIG GET, the lines of CLIENT LIST.

Fields that tools parse have Redis' names and a true value or, where the thing doesn't exist here, Redis' for "none".
What is Riverbus' own stands in a section of its own, `# Riverbus`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from riverbus import limits
from riverbus.commands import Command
from riverbus.core.clients.glob import Glob
from riverbus.core.clients.names import name_of

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session
    from riverbus.core.clients.sessions import Sessions

REDIS_VERSION = "7.2.5"  # whose behaviour this is; clients look at it to know what they may send

Fields = Mapping[str, object]


# --- INFO -------------------------------------------------------------------------------------------------------------


def _server(sessions: Sessions, _: Fields) -> Fields:
    """The version, the process and the port are the world's to know: it says them by CONFIG GET's settings."""
    config = sessions.backend.config()
    uptime_s = sessions.uptime_s
    return {
        "redis_version": REDIS_VERSION,
        "riverbus_version": config.get("riverbus-version", ""),
        "redis_mode": "standalone",
        "arch_bits": 64,
        "process_id": config.get("process-id", "0"),
        "tcp_port": config.get("port", "0"),
        "server_time_usec": sessions.backend.wall_ms() * 1000,
        "uptime_in_seconds": uptime_s,
        "uptime_in_days": uptime_s // 86_400,
    }


def _clients(sessions: Sessions, _: Fields) -> Fields:
    return {
        "connected_clients": len(sessions.by_id),
        "cluster_connections": 0,
        "maxclients": sessions.backend.config().get("maxclients", limits.SESSIONS_MAX),
        "blocked_clients": sum(each.blocked_read is not None for each in sessions.by_id.values()),
        "tracking_clients": 0,
        "pubsub_clients": sum(each.is_subscriber for each in sessions.by_id.values()),
        "total_blocking_keys": len(sessions.blocked.waiting),
        "total_blocking_keys_on_nokey": sessions.blocked.group_keys(),
    }


def _memory(sessions: Sessions, _: Fields) -> Fields:
    """What the shards hold and may hold; what the process takes besides is the operating system's to tell."""
    used = sum(bus.memory_bytes for bus in sessions.backend.shard_buses)
    maximum = sessions.backend.config().get("maxmemory", "0")
    return {"used_memory": used, "used_memory_rss": used, "maxmemory": maximum, "maxmemory_policy": "noeviction"}


def _persistence(_: Sessions, __: Fields) -> Fields:
    return {"loading": 0, "async_loading": 0, "rdb_bgsave_in_progress": 0, "aof_enabled": 1}


def _stats(sessions: Sessions, _: Fields) -> Fields:
    counters, sizes = sessions.counters, sessions.fanout.sizes()
    connections_before, errors_before, expired_before, _ = counters.before_reset
    return {
        "total_connections_received": counters.connections_opened - connections_before,
        "total_commands_processed": sum(counters.commands_since_reset.values()),
        "rejected_connections": sessions.rejected,
        "expired_keys": counters.expired_keys - expired_before,
        "evicted_keys": 0,
        "pubsub_channels": sizes["channel"],
        "pubsub_patterns": sizes["pattern"],
        "pubsubshard_channels": sizes["shard"],
        "total_error_replies": counters.error_replies - errors_before,
    }


def _replication(_: Sessions, __: Fields) -> Fields:
    """Every node takes writes, so to a client each is a master; replication is Raft's, and not to be seen here."""
    return {"role": "master", "connected_slaves": 0, "master_failover_state": "no-failover", "master_repl_offset": 0}


def _cluster(_: Sessions, __: Fields) -> Fields:
    return {"cluster_enabled": 0}


def _keyspace(sessions: Sessions, __: Fields) -> Fields:
    keys = sum(bus.key_count for bus in sessions.backend.shard_buses)
    expiring = sum(bus.expiring_key_count for bus in sessions.backend.shard_buses)
    return {"db0": f"keys={keys},expires={expiring},avg_ttl=0"} if keys else {}


def _riverbus(sessions: Sessions, status: Fields) -> Fields:
    counters = sessions.counters
    fields: dict[str, object] = {
        "published_messages": counters.published_messages,
        "delivered_messages": counters.delivered_messages,
        "bus_subscriptions": sessions.fanout.sizes()["bus"],
    }
    fields |= {f"dropped_{reason}": count for reason, count in counters.dropped.items()}
    plain = {key: value for key, value in status.items() if isinstance(value, str | int | float)}
    return fields | {key: int(value) if isinstance(value, bool) else value for key, value in plain.items()}


def _commandstats(sessions: Sessions, _: Fields) -> Fields:
    return {
        f"cmdstat_{name}": f"calls={calls},usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=0"
        for name, calls in sessions.counters.commands_since_reset.items()
    }


_SECTIONS: dict[str, Callable[[Sessions, Fields], Fields]] = {
    "Server": _server,
    "Clients": _clients,
    "Memory": _memory,
    "Persistence": _persistence,
    "Stats": _stats,
    "Replication": _replication,
    "Cluster": _cluster,
    "Keyspace": _keyspace,
    "Riverbus": _riverbus,
    "Commandstats": _commandstats,
}
_NOT_DEFAULT = {b"commandstats"}
_ALL = {b"all", b"everything"}


def info_text(sessions: Sessions, wanted: tuple[bytes, ...]) -> str:
    """The sections named (lower case), or those that INFO shows by default."""
    status = sessions.backend.status()
    parts = []
    for title, fields_of in _SECTIONS.items():
        name = title.lower().encode()
        is_default = name not in _NOT_DEFAULT and (not wanted or b"default" in wanted)
        if is_default or name in wanted or not _ALL.isdisjoint(wanted):
            lines = [f"{key}:{value}" for key, value in fields_of(sessions, status).items()]
            parts.append("\r\n".join([f"# {title}", *lines, ""]))
    return "\r\n".join(parts)


# --- CONFIG GET -------------------------------------------------------------------------------------------------------

_REDIS_CONFIG = {
    "appendfsync": "always",
    "appendonly": "yes",
    "bind": "",
    "cluster-enabled": "no",
    "databases": "1",
    "maxclients": str(limits.SESSIONS_MAX),
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "proto-max-bulk-len": str(limits.MESSAGE_BYTES_MAX),
    "save": "",
    "timeout": "0",
}  # what clients and tools ask of any Redis; the node's own settings are added and go before


def settings_of(sessions: Sessions) -> dict[str, str]:
    """All that CONFIG GET shows."""
    return {**_REDIS_CONFIG, **sessions.backend.config(), **sessions.settings.shown}


def config_matching(settings: Mapping[str, str], patterns: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """The settings whose name matches one of the globs, letter case ignored."""
    globs = [Glob(pattern.lower()) for pattern in patterns]
    names = [name for name in settings if any(glob.matches(name.lower().encode()) for glob in globs)]
    return {name.encode(): settings[name].encode() for name in names}


# --- CLIENT LIST ------------------------------------------------------------------------------------------------------


def client_type(session: Session) -> str:
    return "pubsub" if session.is_subscriber else "normal"


def client_line(session: Session, command: Command | None) -> str:
    """https://redis.io/commands/client-list. Sizes of Redis' own buffers, which don't exist here, are 0."""
    now = session.backend.time()
    flags = (
        "O" * (session in session.registry.monitors)
        + "P" * session.is_subscriber
        + "x" * (session.transaction is not None)
        + "b" * (session.blocked_read is not None)
        + "".join(flag for flag in "eT" if flag in session.wishes)
    )
    transaction = session.transaction
    subscribed = session.subscribed
    fields = {
        "id": session.id,
        "addr": session.address,
        "laddr": session.local_address,
        "fd": session.id,
        "name": session.name.decode("utf-8", "replace"),
        "age": int(now - session.opened_at),
        "idle": int(now - session.active_at),
        "flags": flags or "N",
        "db": 0,
        "sub": len(subscribed["channel"]) + len(subscribed["bus"]),
        "psub": len(subscribed["pattern"]),
        "ssub": len(subscribed["shard"]),
        "multi": -1 if transaction is None else transaction.command_count,
        "qbuf": 0,
        "qbuf-free": 0,
        "argv-mem": 0,
        "multi-mem": 0,
        "rbs": 0,
        "rbp": 0,
        "obl": 0,
        "oll": 0,
        "omem": session.outbox.reply_bytes,
        "tot-mem": 0,
        "events": "r",
        "cmd": "NULL" if command is None else name_of(command),
        "user": session.user,
        "redir": -1,
        "resp": session.protocol,
        "lib-name": session.library.get("lib-name", b"").decode("utf-8", "replace"),
        "lib-ver": session.library.get("lib-ver", b"").decode("utf-8", "replace"),
    }
    return " ".join(f"{key}={value}" for key, value in fields.items())
