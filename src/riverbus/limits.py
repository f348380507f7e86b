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
TRANSACTION_BYTES_MAX = 8 * MIB  # of a transaction that is one operation of the log: no more than one message may be
IDEMPOTENCY_KEY_BYTES_MAX = 256  # kept per key of a window
STREAM_NODE_ENTRIES_MAX = 10_000  # of CONFIG SET stream-node-max-entries: what `~` may leave over
CLIENT_NAME_BYTES_MAX = 256
SESSIONS_MAX = 50_000  # connections of a node; each costs some 10 KiB with its buffers
CLIENT_PAUSE_S_MAX = 3600  # of CLIENT PAUSE: clients wait, and what they sent is held
AUTHENTICATION_DEADLINE_S = 10.0  # where users are configured, a connection that has not authenticated is closed then

# --- what is in flight ------------------------------------------------------------------------------------------------
SESSION_INFLIGHT_COMMANDS_MAX = 65_536  # then its socket is not read until some are answered
SESSION_INFLIGHT_BYTES_MAX = 32 * MIB
NODE_INFLIGHT_BYTES_MAX = 256 * MIB  # publishes waiting for a commit on one node; then -BUSY
OUTBOX_HIGH_BYTES = 1 * MIB  # a subscriber's socket buffer above which it is served from its cursor
OUTBOX_LOW_BYTES = 256 * KIB  # ... and below which it is served again
OUTBOX_REPLIES_BYTES_MAX = 64 * MIB  # replies that a client does not read; then it is disconnected
BEHIND_READ_BYTES = 256 * KIB  # read from a window for one lagging subscriber in one turn
BEHIND_CURSORS_MAX = 16_384  # channels of its patterns in which one slow subscriber may lag; then it is disconnected
BEHIND_VISITS_MAX = 256  # ... and of which it is served in one turn: each costs some microseconds even if it is short
SESSION_READS_PENDING_MAX = 16  # XRANGE and its like of one session behind their barrier; each reply may be large
PATTERN_CACHE_CHANNELS_MAX = 65_536  # channels whose matching patterns are remembered (at most twice as many)
ANSWER_BYTES_MAX = 8 * MIB  # a node's answer to PUBSUB CHANNELS or NUMPAT; above it the asker gets an error

# --- time -------------------------------------------------------------------------------------------------------------
TICK_S = 0.1  # Raft's tick, and the resolution of all deadlines of commands
ELECTION_TICKS = 10
HEARTBEAT_TICKS = 1
COMEBACK_TICKS = 40  # a restarted node that may have forgotten something lets the others elect without it that long
COMMAND_DEADLINE_S = 0.8  # looked at by ticks, so every write is answered by 0.9 s; promise 4 says 1 s
CLOCK_ENTRY_S = 10.0  # a shard with something to expire gets an entry with the time at least this often

# --- entries, snapshots and the log -----------------------------------------------------------------------------------
ENTRY_BYTES_TARGET = 256 * KIB  # a turn's batch is cut here: apply time of one entry stays near a millisecond
GATHER_S = 0.001  # publishes that keep arriving wait that long to share an entry; a lone one waits for one empty turn
ROUND_S = 0.005  # ... and for what was proposed before to be committed; then they share another round
RAFT_MESSAGE_BYTES_MAX = 1 * MIB  # raft-rs max_size_per_msg
RAFT_INFLIGHT_MESSAGES_MAX = 64
RAFT_UNCOMMITTED_BYTES_MAX = 32 * MIB
RAFT_COMMITTED_BYTES_PER_READY = 4 * MIB
PEER_FRAME_BYTES_MAX = 24 * MIB  # a raft message may carry one entry of a message of the largest size, twice framed
RELAY_BYTES_TARGET = 1 * MIB  # of a frame of messages of durability none, which are not kept
RELAY_BACKLOG_BYTES_MAX = 8 * MIB  # waiting for a peer: no more of them are added, so that Raft's messages still pass
PEER_OUTBOX_BYTES_MAX = 64 * MIB  # to a peer that does not read; then its link is dropped and made anew
SNAPSHOT_CHUNK_BYTES = 256 * KIB
SNAPSHOT_SLICE_S = 0.002  # work on a snapshot in one turn
LOG_TRAILING_BYTES = 64 * MIB  # log kept behind a snapshot, so that a restarted node catches up without one
LOG_TRAILING_S = 600.0
DISK_RESERVE_BYTES = 64 * MIB  # below this free space publishes are refused, so that Raft itself can still write

# --- the Python client ------------------------------------------------------------------------------------------------
CLIENT_INFLIGHT_BYTES_MAX = 8 * MIB  # commands not answered yet; then publish waits, in the order of the calls
CLIENT_BUFFER_HIGH_BYTES = 4 * MIB  # received and not taken yet by the program; then the socket is not read
CLIENT_BUFFER_LOW_BYTES = 1 * MIB  # ... and below which it is read again
PLUG_QUEUE_COUNT_MAX = 1000  # of a plug's (riverbus.contrib) consumer that is late; then it reads the channel's history
CLIENT_PAGE_BYTES_TARGET = 1 * MIB  # one page of a history read; far below OUTBOX_REPLIES_BYTES_MAX
CLIENT_PLAIN_CHANNELS_MAX = 65_536  # of durability none: remembered, so that each costs one refusal and no more
CLIENT_BACKOFF_MIN_S = 0.02  # between tries to reach a node; doubles up to the max, with jitter
CLIENT_BACKOFF_MAX_S = 0.5  # below an election's time, so that a client is back soon after one

# --- keys -------------------------------------------------------------------------------------------------------------
GROUPS_PER_STREAM_MAX = 1024  # each is looked at when an entry is deleted by ACKED or DELREF
CONSUMERS_PER_GROUP_MAX = 65_536  # kept until XGROUP DELCONSUMER; a snapshot copies those of a group at once
READ_GROUP_BYTES_MAX = 16 * MIB  # handed out by one XREADGROUP, XCLAIM or XAUTOCLAIM, unless one entry is larger
READ_GROUP_ENTRIES_MAX = 65_536  # ... and new entries: an apply of 10 ms, and a reply of 100
READ_GROUP_PENDING_MAX = 4096  # ... and pending ones, which are moved one by one: an apply of some 50 ms
IDMP_DURATION_S_DEFAULT = 100  # XADD IDMP: as Redis 8.6
IDMP_SIZE_DEFAULT = 100  # keys of one producer: as Redis 8.6
IDMP_PRODUCERS_MAX = 1024  # of one stream; the one that was silent longest is forgotten first
PUBLISH_KEYS_MS = 5 * 60 * 1000  # BUS.PUBLISH KEY: far longer than any client retries
PUBLISH_KEYS_MAX = 131_072  # of a shard, some 200 bytes each; the oldest are forgotten first
PUBLISH_STRETCHES_MAX = 131_072  # BUS.PUBLISHRUN: runs that a shard remembers, some 250 bytes each; the oldest go first
PUBLISH_PRODUCERS_MAX = 16_384  # ... and the producers that sent them: a snapshot copies their names at once
PUBLISH_WINDOW_MS_MIN = 1000  # of a rule: longer than a command's deadline
PUBLISH_WINDOW_MS_MAX = 24 * 60 * 60 * 1000  # ... and what the counts above can still mean

# --- subscribers with a durable name ----------------------------------------------------------------------------------
DURABLE_NAME_BYTES_MAX = 128  # behind `durable:`; it stands in the log with every cursor
DURABLE_KEEP_MS_DEFAULT = 10 * 60 * 1000  # a cursor outlives its connection so long; twice the history's default age
DURABLE_SAVE_MS_DEFAULT = 250  # cursors are written to the log no more often: what a node's death may double
DURABLE_SAVE_BYTES_TARGET = 128 * KIB  # ... and so many bytes of them at once, of a node and shard; the rest next time
DURABLE_NAMES_MAX = 16_384  # with a cursor, of a shard; what was not used for longest is forgotten first
DURABLE_CURSORS_MAX = 65_536  # of a shard: a snapshot copies references to them at once, in a millisecond or two
DURABLE_BYTES_MAX = 64 * MIB  # ... and all of them together, with what patterns remember of their channels
DURABLE_CURSORS_PER_NAME_MAX = 1024  # of a shard
DURABLE_TARGETS_MAX = 1024  # channels, patterns and shard channels of one connection with a durable name
DURABLE_CONNECTIONS_MAX = 8  # of one name whose places are remembered
DURABLE_EXACT_MAX = 256  # channels of a pattern and shard whose exact place is saved; of more, some messages come twice
DURABLE_OPEN_S = 5.0  # a SUBSCRIBE waits so long for its cursors; then the client had better try another node
DURABLE_SCAN_CHANNELS = 4096  # of a shard looked at in one turn for what a pattern's subscriber missed: 1 ms
DURABLE_SCAN_CURSORS = 2048  # ... while fewer than so many channels of it wait to be read
DURABLE_FLIGHTS_MAX = 4096  # writes to a subscriber that its kernel has not acknowledged, kept apart

# --- users and their rights -------------------------------------------------------------------------------------------
ACL_NAME_BYTES_MAX = 256  # of a user; it stands in every line of CLIENT LIST
ACL_USER_BYTES_MAX = 64 * KIB  # a user's rules, as ACL LIST prints them
ACL_USERS_MAX = 10_000  # made by ACL SETUSER; each is some KiB on every node
ACL_STATE_BYTES_MAX = 8 * MIB  # ... and all their rules together
ACL_MEMO_MAX = 4096  # channels for which a restricted user's right to publish is remembered
ACL_LOG_ENTRIES_MAX = 128  # as Redis' acllog-max-len
ACL_LOG_TEXT_BYTES_MAX = 512  # of a key or a user's name that a stranger gave, in one entry
PASSWORD_BYTES_MAX = 4 * KIB  # of AUTH: what is longer is refused unhashed
ADDRESSES_MAX = 16_384  # whose failed logins and connections are counted; the oldest is forgotten first
FAILED_LOGINS_MAX = 100  # of one address within FAILED_LOGINS_S; generous to programs, hopeless for guessing
FAILED_LOGINS_S = 60.0
PASSWORD_CHECKS_MAX = 32  # slow (scrypt) checks at once: some 16 MiB and 50 ms each, on one thread
TLS_HANDSHAKES_MAX = 1024  # clients' connections in their TLS handshake; one more is closed at once
TLS_HANDSHAKE_S = 10.0
CERTIFICATES_LOOK_S = 10.0  # how often TLS files are looked at for a change

# --- links between nodes ----------------------------------------------------------------------------------------------
NODES_MAX = 64  # members of a cluster; a HELLO names them all
HANDSHAKE_FRAME_BYTES_MAX = 4 * KIB  # all that a stranger can make a node buffer
HANDSHAKE_DEADLINE_S = 5.0
HANDSHAKES_MAX = 64  # connections that have not proved themselves yet; one more is closed at once
PEER_CONNECT_S = 2.0  # shorter than TCP's second SYN retry, so that a healed partition is noticed soon
PEER_RECONNECT_MIN_S = 0.05
PEER_RECONNECT_MAX_S = 1.0
PEER_PING_S = 1.0
PEER_SILENCE_S = 3.0  # a link that said nothing for so long is half open: dropped and made anew
SNAPSHOT_FETCH_STALL_S = 10.0  # a bulk connection on which nothing moves is given up
SNAPSHOT_FETCH_RETRIES = 3  # ... and tried again from where it ended; then the fetch has failed
SNAPSHOT_FETCHES_MAX = 2  # at once, per fetching node
SNAPSHOT_SERVES_MAX = 16  # at once, per serving node
SNAPSHOT_BYTES_PER_S = 100 * MIB  # what a node sends of snapshots, all peers together
SNAPSHOT_SYNC_BYTES = 16 * MIB  # written between two fdatasyncs: one flush at the end would stall the log's
SNAPSHOT_BACKLOG_BYTES_MAX = 8 * MIB  # fetched and not yet written; then the socket is not read

# --- windows ----------------------------------------------------------------------------------------------------------
HISTORY_COUNT_DEFAULT = 10_000
HISTORY_AGE_MS_DEFAULT = 5 * 60 * 1000
HISTORY_BYTES_DEFAULT = 16 * MIB
RULE_MEMO_MAX = 65_536  # channels whose rule a node remembers; then it begins anew
RULES_MAX = 256  # set by BUS.RULE: each is matched against every new channel
TOMBSTONES_MAX = 65_536  # last ids of dropped channels, kept per shard: some 250 bytes each, and ids and gaps exact
NODE_RETAINED_BYTES_DEFAULT = 4 * GIB  # all windows of a node; each shard has its equal part

SHARDS_DEFAULT = 8
SHARDS_MAX = 64
SLOTS = 16_384  # as in Redis Cluster

assert MESSAGE_BYTES_MAX + 64 * KIB < COMMAND_BYTES_MAX
assert MESSAGE_BYTES_MAX + MIB < PEER_FRAME_BYTES_MAX
assert PUBLISH_RUN_BYTES_MAX <= ENTRY_BYTES_TARGET <= RAFT_MESSAGE_BYTES_MAX <= RAFT_UNCOMMITTED_BYTES_MAX
assert ENTRY_BYTES_TARGET < RAFT_COMMITTED_BYTES_PER_READY
assert MESSAGE_BYTES_MAX < RAFT_UNCOMMITTED_BYTES_MAX <= PEER_OUTBOX_BYTES_MAX
assert RELAY_BYTES_TARGET + MESSAGE_BYTES_MAX < PEER_FRAME_BYTES_MAX
assert RELAY_BACKLOG_BYTES_MAX + PEER_FRAME_BYTES_MAX < PEER_OUTBOX_BYTES_MAX
assert OUTBOX_LOW_BYTES < OUTBOX_HIGH_BYTES < OUTBOX_REPLIES_BYTES_MAX
assert BEHIND_READ_BYTES <= OUTBOX_HIGH_BYTES
assert ANSWER_BYTES_MAX < PEER_FRAME_BYTES_MAX
assert TRANSACTION_BYTES_MAX <= MESSAGE_BYTES_MAX
assert len(b"durable:") + DURABLE_NAME_BYTES_MAX <= CLIENT_NAME_BYTES_MAX
assert DURABLE_TARGETS_MAX <= DURABLE_CURSORS_PER_NAME_MAX
assert DURABLE_TARGETS_MAX * (CHANNEL_BYTES_MAX + 64) < MESSAGE_BYTES_MAX  # one DurableOpen
assert DURABLE_EXACT_MAX * (CHANNEL_BYTES_MAX + 64) < MESSAGE_BYTES_MAX  # one cursor
assert COMEBACK_TICKS >= 2 * 2 * ELECTION_TICKS, "others need two election timeouts, of up to twice ELECTION_TICKS"
assert TICK_S < COMMAND_DEADLINE_S < 1.0 - TICK_S, "a deadline is noticed a tick late, and the reply has to travel"
assert TICK_S * ELECTION_TICKS >= 10 * TICK_S * HEARTBEAT_TICKS
assert SHARDS_DEFAULT <= SHARDS_MAX <= SLOTS
assert READ_GROUP_PENDING_MAX <= READ_GROUP_ENTRIES_MAX
assert CLIENT_BUFFER_LOW_BYTES < CLIENT_BUFFER_HIGH_BYTES
assert CLIENT_BACKOFF_MIN_S < CLIENT_BACKOFF_MAX_S
assert 64 + 24 * NODES_MAX < HANDSHAKE_FRAME_BYTES_MAX
assert 2 * PEER_PING_S < PEER_SILENCE_S
assert PEER_RECONNECT_MIN_S < PEER_RECONNECT_MAX_S <= PEER_CONNECT_S < HANDSHAKE_DEADLINE_S
assert SNAPSHOT_CHUNK_BYTES + KIB < PEER_FRAME_BYTES_MAX
