"""Slots: as in Redis Cluster, and dealt to shards in whole ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverbus.core.slots import ShardMap, slot_of
from riverbus.limits import SHARDS_MAX, SLOTS


@pytest.mark.parametrize(
    ("name", "slot"),
    [
        (b"123456789", 0x31C3 % SLOTS),  # the CRC's check value, from the specification
        (b"foo", 12182),
        (b"{foo}bar", 12182),
        (b"bar{foo}{zap}", 12182),
    ],
)
def test_slots_are_those_of_redis_cluster(name: bytes, slot: int) -> None:
    assert slot_of(name) == slot


def test_an_empty_or_unclosed_tag_counts_as_part_of_the_name() -> None:
    assert slot_of(b"foo{}{bar}") == 8363
    assert slot_of(b"foo{bar") != slot_of(b"bar")


@given(st.integers(1, SHARDS_MAX), st.binary(min_size=1, max_size=40))
def test_each_channel_has_a_shard_of_the_cluster_always_the_same(shards: int, name: bytes) -> None:
    shard_map = ShardMap(shards)
    shard = shard_map.shard_of(name)
    assert 0 <= shard < shards
    assert shard_map.shard_of(name) == shard == slot_of(name) * shards // SLOTS
