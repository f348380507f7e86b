"""redis-py, sync: the ways to subscribe, counts, subscribers on other nodes, RESP2 and RESP3."""

from __future__ import annotations

from typing import Any

import redis
from outcome import URLS, named, tell


def messages(pubsub: Any, count: int) -> list[Any]:
    found = []
    for _ in range(count):
        message = pubsub.get_message(timeout=5)
        assert message is not None, found
        found.append([message["type"], message["pattern"], message["channel"], message["data"]])
    return found


def pubsub(protocol: int) -> list[Any]:
    outcome: list[Any] = []
    clients = [redis.Redis.from_url(url, protocol=protocol) for url in URLS]
    here, there = clients[0].pubsub(), clients[1].pubsub()
    news, sport, odd = named("news"), named("news.sport"), named("odd\x00\xff name")
    here.subscribe(news, odd)
    here.psubscribe(f"{news}*")
    there.subscribe(sport, news)
    outcome.append(messages(here, 3))
    outcome.append(messages(there, 2))
    assert clients[0].publish(news, b"\x00\r\n\xff") >= 1
    clients[2].publish(sport, "goal")
    clients[0].publish(odd, "")
    outcome.append(sorted(map(repr, messages(here, 3))))
    outcome.append(messages(there, 2))
    outcome.append([count for _, count in clients[1].pubsub_numsub(news, sport, odd, named("none"))])
    outcome.append(sorted(clients[2].pubsub_channels(f"*{news[-8:]}")))
    outcome.append(clients[0].pubsub_numpat() >= 1)
    here.ping("are you there")
    outcome.append(messages(here, 1))
    here.unsubscribe(news)
    here.punsubscribe()
    outcome.append(messages(here, 2))
    clients[0].publish(news, "for there only")
    outcome.append(messages(there, 1))
    outcome.append(here.get_message(timeout=0.1))
    for each in (here, there):
        each.close()
    for client in clients:
        client.close()
    return outcome


def handlers() -> list[Any]:
    """A thread that listens, as redis-py's documentation has it."""
    found: list[Any] = []
    with redis.Redis.from_url(URLS[0], decode_responses=True) as client, client.pubsub() as subscriber:
        subscriber.subscribe(**{named("handled"): lambda message: found.append(message["data"])})
        thread = subscriber.run_in_thread(sleep_time=0.01)
        for i in range(100):
            client.publish(named("handled"), f"{i}")
        while len(found) < 100:
            thread.join(0.01)
        thread.stop()
        thread.join()
    return found


if __name__ == "__main__":
    tell({"resp2": pubsub(2), "resp3": pubsub(3), "handlers": handlers()})
