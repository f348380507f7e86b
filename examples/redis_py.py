"""redis-py, unchanged: only the URL is Riverbus'. What was published stays readable as a stream."""

import os

import redis

URL = os.environ.get("RIVERBUS_URL", "redis://127.0.0.1:6380").split(",")[0]


def main() -> None:
    with redis.Redis.from_url(URL, decode_responses=True) as client, client.pubsub() as subscriber:
        subscriber.subscribe("chat.room")
        subscriber.get_message(timeout=5)  # the confirmation
        print("receivers:", client.publish("chat.room", "hello"))
        message = subscriber.get_message(timeout=5)
        assert message is not None
        print("got:", message["data"])
        for _, fields in client.xrange("chat.room"):
            print("kept:", fields["message"])


if __name__ == "__main__":
    main()
