"""Every bound of the bus, each with its reason. Relations between them are asserted at the end, at import."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# --- what a client may send -------------------------------------------------------------------------------------------
MESSAGE_BYTES_MAX = 8 * MIB  # one payload, or one XADD's fields; an entry must hold it, and a peer's link carry it
CHANNEL_BYTES_MAX = 1024  # channel names are kept per channel and per subscription
PATTERN_BYTES_MAX = 1024
COMMAND_ARGS_MAX = 65_536  # bounds the list that a parser makes before it knows the command
COMMAND_BYTES_MAX = 16 * MIB  # a whole command; one MESSAGE_BYTES_MAX payload and its framing, or many channel names
INLINE_BYTES_MAX = 64 * KIB  # an inline (telnet) command, as in Redis
PUBLISH_RUN_MESSAGES_MAX = 1024  # pipelined publishes to one channel that travel as one command
PUBLISH_RUN_BYTES_MAX = 64 * KIB  # ... and their bytes, unless a single payload is larger
SUBSCRIPTIONS_PER_SESSION_MAX = 65_536
TRANSACTION_COMMANDS_MAX = 16_384
CLIENT_NAME_BYTES_MAX = 256
SESSIONS_MAX = 50_000  # connections of a node; each costs some 10 KiB with its buffers

# --- what is in flight ------------------------------------------------------------------------------------------------
SESSION_INFLIGHT_COMMANDS_MAX = 65_536  # then its socket is not read until some are answered
SESSION_INFLIGHT_BYTES_MAX = 32 * MIB
NODE_INFLIGHT_BYTES_MAX = 256 * MIB  # publishes waiting for a commit on one node; then -BUSY
OUTBOX_HIGH_BYTES = 1 * MIB  # a subscriber's socket buffer above which it is served from its cursor
OUTBOX_LOW_BYTES = 256 * KIB  # ... and below which it is served again
OUTBOX_REPLIES_BYTES_MAX = 64 * MIB  # replies that a client does not read; then it is disconnected
BEHIND_READ_BYTES = 256 * KIB  # read from a window for one lagging subscriber in one turn

# --- time -------------------------------------------------------------------------------------------------------------
TICK_S = 0.1  # Raft's tick, and the resolution of all deadlines of commands
ELECTION_TICKS = 10
HEARTBEAT_TICKS = 1
COMMAND_DEADLINE_S = 0.9  # every write is answered by then; promise 4 says 1 s, redis-py re-sends after 5 s
CLOCK_ENTRY_S = 10.0  # a shard with something to expire gets an entry with the time at least this often

# --- entries, snapshots and the log -----------------------------------------------------------------------------------
ENTRY_BYTES_TARGET = 256 * KIB  # a turn's batch is cut here: apply time of one entry stays near a millisecond
RAFT_MESSAGE_BYTES_MAX = 1 * MIB  # raft-rs max_size_per_msg
RAFT_INFLIGHT_MESSAGES_MAX = 64
RAFT_UNCOMMITTED_BYTES_MAX = 32 * MIB
RAFT_COMMITTED_BYTES_PER_READY = 4 * MIB
PEER_FRAME_BYTES_MAX = 24 * MIB  # a raft message may carry one entry of a message of the largest size, twice framed
PEER_OUTBOX_BYTES_MAX = 64 * MIB  # to a peer that does not read; then its link is dropped and made anew
SNAPSHOT_CHUNK_BYTES = 256 * KIB
SNAPSHOT_SLICE_S = 0.002  # work on a snapshot in one turn
LOG_TRAILING_BYTES = 64 * MIB  # log kept behind a snapshot, so that a restarted node catches up without one
LOG_TRAILING_S = 600.0
DISK_RESERVE_BYTES = 64 * MIB  # below this free space publishes are refused, so that Raft itself can still write

# --- windows ----------------------------------------------------------------------------------------------------------
HISTORY_COUNT_DEFAULT = 10_000
HISTORY_AGE_MS_DEFAULT = 5 * 60 * 1000
HISTORY_BYTES_DEFAULT = 16 * MIB
NODE_RETAINED_BYTES_DEFAULT = 4 * GIB  # all windows of a node; each shard has its equal part

SHARDS_DEFAULT = 8
SHARDS_MAX = 64
SLOTS = 16_384  # as in Redis Cluster

assert MESSAGE_BYTES_MAX + 64 * KIB < COMMAND_BYTES_MAX
assert MESSAGE_BYTES_MAX + MIB < PEER_FRAME_BYTES_MAX
assert PUBLISH_RUN_BYTES_MAX <= ENTRY_BYTES_TARGET <= RAFT_MESSAGE_BYTES_MAX <= RAFT_UNCOMMITTED_BYTES_MAX
assert ENTRY_BYTES_TARGET < RAFT_COMMITTED_BYTES_PER_READY
assert MESSAGE_BYTES_MAX < RAFT_UNCOMMITTED_BYTES_MAX <= PEER_OUTBOX_BYTES_MAX
assert OUTBOX_LOW_BYTES < OUTBOX_HIGH_BYTES < OUTBOX_REPLIES_BYTES_MAX
assert BEHIND_READ_BYTES <= OUTBOX_HIGH_BYTES
assert TICK_S < COMMAND_DEADLINE_S < 1.0
assert TICK_S * ELECTION_TICKS >= 10 * TICK_S * HEARTBEAT_TICKS
assert SHARDS_DEFAULT <= SHARDS_MAX <= SLOTS
