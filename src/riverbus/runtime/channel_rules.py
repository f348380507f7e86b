"""The replicated channel rules (core/state/rules.py) that a configuration asks for."""

from __future__ import annotations

from riverbus.core.state.rules import ChannelRule, Rules
from riverbus.runtime.config import Config


def rules_of(config: Config) -> Rules:
    """The channel rules that the configuration asks for; what a rule leaves out is as in [history]."""
    default = config.history
    channels = tuple(
        ChannelRule(
            match=channel.match,
            count=default.count if channel.history.count is None else channel.history.count,
            age_ms=default.age if channel.history.age is None else channel.history.age,
            bytes=default.bytes if channel.history.bytes is None else channel.history.bytes,
            durability=channel.durability,
            window_ms=channel.window,
            payload=channel.payload,
        )
        for channel in config.channel
    )
    return Rules(
        channels=channels,
        default=ChannelRule(count=default.count, age_ms=default.age, bytes=default.bytes),
        shard_bytes_max=max(1, config.limits.retained // config.node.shards),
    )
