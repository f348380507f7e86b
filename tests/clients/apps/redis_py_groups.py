"""redis-py, sync: consumer groups, claims, trimming, keys and strings with expiry, WATCH."""

from __future__ import annotations

from typing import Any

import redis
from outcome import URLS, attempt, named, tell


def groups(one: Any, two: Any) -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    log = named("work")
    outcome["no group"] = attempt(one.xreadgroup, "workers", "a", {log: ">"})
    outcome["created"] = [
        attempt(one.xgroup_create, log, "workers", "0"),
        one.xgroup_create(log, "workers", "0", mkstream=True),
        attempt(two.xgroup_create, log, "workers", "0"),
    ]
    ids = [one.xadd(log, {"n": str(i)}) for i in range(10)]
    place = {id_: f"#{i}" for i, id_ in enumerate(ids)}

    def read(client: Any, name: str, **options: Any) -> Any:
        found = client.xreadgroup("workers", name, {log: ">"}, **options)
        entries = [] if not found else found[0][1] if isinstance(found, list) else found[log][0]
        return [place[id_] for id_, _ in entries]

    outcome["read"] = [read(one, "a", count=3), read(two, "b", count=3), read(one, "c", count=2, noack=True)]
    outcome["acked"] = [two.xack(log, "workers", *ids[:2]), one.xack(log, "workers", ids[0])]
    summary = two.xpending(log, "workers")
    outcome["pending"] = [summary["pending"], place[summary["min"]], place[summary["max"]], summary["consumers"]]
    each = one.xpending_range(log, "workers", "-", "+", 10)
    outcome["each pending"] = [[place[x["message_id"]], x["consumer"], x["times_delivered"]] for x in each]
    outcome["claimed"] = [place[id_] for id_, _ in two.xclaim(log, "workers", "d", 0, [ids[2]])]
    two.xdel(log, ids[4])
    start, claimed, gone = two.xautoclaim(log, "workers", "e", 0)[:3]
    outcome["autoclaimed"] = [start, [place[id_] for id_, _ in claimed], [place[id_] for id_ in gone]]
    (group,) = one.xinfo_groups(log)
    outcome["group"] = [group[key] for key in ("name", "consumers", "pending", "entries-read", "lag")]
    outcome["consumers"] = sorted([each["name"], each["pending"]] for each in one.xinfo_consumers(log, "workers"))
    outcome["trimmed"] = [two.xtrim(log, maxlen=4), one.xlen(log)]
    outcome["consumer deleted"] = one.xgroup_delconsumer(log, "workers", "e")
    outcome["rest"] = [read(one, "a"), read(one, "a", block=10)]
    outcome["destroyed"] = [two.xgroup_destroy(log, "workers"), two.xgroup_destroy(log, "workers")]
    return outcome


def keys(one: Any, two: Any) -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    key, other = named("{k}key"), named("{k}other")
    outcome["strings"] = [
        one.set(key, "v", ex=100),
        two.get(key),
        two.set(key, "w", nx=True),
        two.set(key, "w", xx=True, keepttl=True, get=True),
        0 < one.ttl(key) <= 100,
        two.expire(key, 200),
        one.persist(key),
        one.ttl(key),
        two.type(key),
        two.rename(key, other),
        one.exists(key, other),
        one.getdel(other),
        one.get(other),
        two.delete(key, other),
    ]
    outcome["wrong type"] = attempt(one.xadd, one.set(key, "v") and key, {"a": "b"})
    with one.pipeline() as pipe:
        pipe.watch(key)
        two.set(key, "changed")
        pipe.multi()
        pipe.set(key, "mine")
        outcome["watched"] = attempt(pipe.execute)
    outcome["kept"] = one.get(key)
    outcome["found"] = [sorted(two.keys(f"{key}*")), sorted(two.scan_iter(match=f"{key}*")), one.delete(key)]
    return outcome


if __name__ == "__main__":
    clients = [redis.Redis.from_url(url, decode_responses=True) for url in URLS[:2]]
    tell({"groups": groups(*clients), "keys": keys(*clients)})
