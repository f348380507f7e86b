"""redis-py's asyncio: a subscriber of one channel and one pattern, whose connection's name begins with `durable:`.

Tells each message as a line of JSON, and its subscription by a line of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff


def say(line: Any) -> None:
    print(json.dumps(line), flush=True)


async def main(port: int) -> None:
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 60)
    client = redis.asyncio.Redis(port=port, client_name="durable:asyncio", retry=retry, decode_responses=True)
    pubsub: Any = client.pubsub()
    await pubsub.subscribe("c")
    await pubsub.psubscribe("d.*")
    confirmed = 0
    async for message in pubsub.listen():
        if message["type"] in ("message", "pmessage"):
            say([message["channel"], message["data"]])
        else:
            confirmed += 1
            if confirmed == 2:
                say("subscribed")


asyncio.run(main(int(sys.argv[1])))
