"""What drives a shard's Raft group on this node: proposals, barriers, snapshots, who leads."""
