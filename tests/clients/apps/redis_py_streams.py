"""redis-py, sync: streams without groups, transactions, and what goes wrong in its words."""

from __future__ import annotations

import threading
from typing import Any

import redis
from outcome import URLS, attempt, named, tell


def streams() -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    one, two = (redis.Redis.from_url(url, decode_responses=True) for url in URLS[:2])
    log = named("log")
    ids = [one.xadd(log, {"n": str(i), "text": "Äöü"}) for i in range(10)]
    place = {id_: f"#{i}" for i, id_ in enumerate(ids)}

    def named_ids(entries: Any) -> Any:
        return [(place[id_], fields) for id_, fields in entries]

    outcome["rise"] = ids == sorted(ids, key=lambda id_: tuple(map(int, id_.split("-"))))
    outcome["all"] = named_ids(two.xrange(log))
    outcome["some"] = named_ids(two.xrange(log, ids[2], ids[4]))
    outcome["open"] = named_ids(two.xrange(log, f"({ids[2]}", "+", count=2))
    outcome["back"] = named_ids(two.xrevrange(log, "+", "-", count=3))
    outcome["length"] = two.xlen(log)
    read = two.xread({log: ids[7]})
    outcome["read"] = named_ids(read[0][1] if isinstance(read, list) else read[log][0])  # RESP2, RESP3
    info = two.xinfo_stream(log)
    outcome["info"] = [info["length"], place[info["last-generated-id"]], place[info["first-entry"][0]]]
    outcome["type"] = two.type(log)
    blocked: list[Any] = []
    thread = threading.Thread(target=lambda: blocked.append(two.xread({log: "$"}, block=5000)))
    thread.start()
    while not one.info("clients")["blocked_clients"] and not two.info("clients")["blocked_clients"]:
        pass
    one.xadd(log, {"late": "yes"})
    thread.join()
    outcome["blocked"] = "late" in str(blocked)
    outcome["waited in vain"] = not two.xread({log: "$"}, block=10)
    outcome["errors"] = [
        attempt(one.xadd, log, {}),
        attempt(one.xadd, log, {"a": "b"}, id="0-1"),
        attempt(one.execute_command, "XADD", log, "*", "odd"),
        attempt(one.execute_command, "XREAD", "STREAMS", log),
        attempt(one.execute_command, "NOSUCHCOMMAND", "x"),
        attempt(one.execute_command, "XLEN"),
    ]
    outcome["transaction"] = transaction(one)
    return outcome


def transaction(client: Any) -> Any:
    name = named("{t}log")
    with client.pipeline(transaction=True) as pipe:
        pipe.xadd(name, {"a": "1"})
        pipe.xlen(name)
        pipe.publish(name, "x")
        results = pipe.execute()
    with client.pipeline(transaction=False) as pipe:
        for _ in range(3):
            pipe.xlen(name)
        results += pipe.execute()
    return [isinstance(results[0], str), results[1], results[3] >= 1]


if __name__ == "__main__":
    tell(streams())
