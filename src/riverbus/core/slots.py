"""Which shard a channel belongs to: the key slots of Redis Cluster, dealt to shards in ranges.

Source: Redis Cluster specification, "Key distribution model" and "Hash tags"; CRC16 is the XMODEM variant.
"""

from __future__ import annotations

from binascii import crc_hqx

from riverbus.limits import SLOTS

_CACHE_MAX = 100_000  # names whose shard is remembered; a name costs some 150 bytes


def slot_of(channel: bytes) -> int:
    """The key slot, 0 to 16383; only what stands between the first `{` and the next `}` counts, if it is not empty."""
    start = channel.find(b"{")
    if start >= 0:
        end = channel.find(b"}", start + 1)
        if end > start + 1:
            channel = channel[start + 1 : end]
    return crc_hqx(channel, 0) % SLOTS


class ShardMap:
    """Slots dealt to `shards` ranges of (nearly) equal length, for the life of the cluster."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self._known: dict[bytes, int] = {}

    def shard_of(self, channel: bytes) -> int:
        shard = self._known.get(channel)
        if shard is None:
            if len(self._known) >= _CACHE_MAX:
                self._known.clear()
            shard = self._known[channel] = slot_of(channel) * self.shards // SLOTS
        return shard
