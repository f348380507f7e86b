"""The idempotency window of a shard's keyed publishes (BUS.PUBLISH channel message KEY key): key -> the message's id.

Kept for the window of the channel's rule by the entries' time, and the newest `PUBLISH_KEYS_MAX`, about: keys are
spread over buckets by their digest, and each bucket forgets its own oldest. A bucket is copied before its first change
in an epoch, so that a snapshot copies references. A key is kept as a cryptographic digest of channel and key, so that
its size is bounded and no client can make a key that hides another's.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from riverbus.core.state.keyspace.producers import Used
from riverbus.limits import PUBLISH_KEYS_MAX, PUBLISH_KEYS_MS
from riverbus.messages import MessageId

BUCKETS = 64
BUCKET_KEYS_MAX = PUBLISH_KEYS_MAX // BUCKETS
PUBLISH_KEY_COST = 250


class Bucket(msgspec.Struct, gc=False):
    epoch: int
    used: dict[bytes, Used]  # the oldest first


class PublishKeys:
    """`memory` is what all of it costs."""

    def __init__(self) -> None:
        self.buckets = [Bucket(0, {}) for _ in range(BUCKETS)]
        self.count = 0

    @property
    def memory(self) -> int:
        return PUBLISH_KEY_COST * self.count

    @staticmethod
    def digest(channel: bytes, key: bytes) -> bytes:
        return blake2b(b"%d:%b%b" % (len(channel), channel, key), digest_size=16).digest()

    def find(self, digest: bytes, time_ms: int, window_ms: int = PUBLISH_KEYS_MS) -> MessageId | None:
        used = self.buckets[digest[0] % BUCKETS].used.get(digest)
        if used is None or used.time_ms + window_ms <= time_ms:
            return None
        return MessageId(used.ms, used.seq)

    def add(
        self, digest: bytes, id_: MessageId, time_ms: int, epoch: int, window_ms_max: int = PUBLISH_KEYS_MS
    ) -> None:
        number = digest[0] % BUCKETS
        bucket = self.buckets[number]
        if bucket.epoch != epoch:
            bucket = self.buckets[number] = Bucket(epoch, dict(bucket.used))
        before = len(bucket.used)
        bucket.used.pop(digest, None)
        bucket.used[digest] = Used(time_ms, *id_)
        cut_ms = time_ms - window_ms_max
        while len(bucket.used) > BUCKET_KEYS_MAX or bucket.used[next(iter(bucket.used))].time_ms <= cut_ms:
            del bucket.used[next(iter(bucket.used))]
        self.count += len(bucket.used) - before

    def frozen(self) -> list[dict[bytes, Used]]:
        return [bucket.used for bucket in self.buckets]

    def restore(self, digest: bytes, used: Used) -> None:
        self.buckets[digest[0] % BUCKETS].used[digest] = used
        self.count += 1

    def invariants(self) -> None:
        assert self.count == sum(len(bucket.used) for bucket in self.buckets)
        for number, bucket in enumerate(self.buckets):
            assert len(bucket.used) <= BUCKET_KEYS_MAX
            assert all(digest[0] % BUCKETS == number for digest in bucket.used)
