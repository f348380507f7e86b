"""The replicated state of a shard: entries go in, the same comes out on every replica. It has no clock."""
