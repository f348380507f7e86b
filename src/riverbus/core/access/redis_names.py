"""Commands that Redis 7.2 has and this bus hasn't (COMMAND LIST, less those of the command table).

Rules that name them are taken and mean nothing here, so that a user's rules need not change with the URL.
"""

_NAMES = """
append asking bgrewriteaof bgsave bitcount bitfield bitfield_ro bitop bitpos blmove blmpop blpop brpop brpoplpush
bzmpop bzpopmax bzpopmin client|tracking cluster cluster|addslots cluster|addslotsrange cluster|bumpepoch
cluster|count-failure-reports cluster|countkeysinslot cluster|delslots cluster|delslotsrange cluster|failover
cluster|flushslots cluster|forget cluster|getkeysinslot cluster|help cluster|info cluster|keyslot cluster|links
cluster|meet cluster|myid cluster|myshardid cluster|nodes cluster|replicas cluster|replicate cluster|reset
cluster|saveconfig cluster|set-config-epoch cluster|setslot cluster|shards cluster|slaves cluster|slots
config|rewrite copy debug decr decrby dump eval eval_ro evalsha evalsha_ro failover fcall fcall_ro function|delete
function|dump function|kill function|list function|load function|restore function|stats geoadd geodist geohash
geopos georadius georadius_ro georadiusbymember georadiusbymember_ro geosearch geosearchstore getbit getrange getset
hdel hexists hget hgetall hincrby hincrbyfloat hkeys hlen hmget hmset hrandfield hscan hset hsetnx hstrlen hvals
incr incrby incrbyfloat lastsave latency latency|doctor latency|graph latency|help latency|histogram latency|history
latency|latest latency|reset lcs lindex linsert llen lmove lmpop lolwut lpop lpos lpush lpushx lrange lrem lset
ltrim memory memory|doctor memory|help memory|malloc-stats memory|purge memory|stats memory|usage mget migrate
module module|help module|list module|load module|loadex module|unload move mset msetnx pfadd pfcount pfdebug
pfmerge pfselftest psync readonly readwrite replconf replicaof restore restore-asking role rpop rpoplpush rpush
rpushx sadd save scard script|debug script|exists script|kill script|load sdiff sdiffstore setbit setrange shutdown
sinter sintercard sinterstore sismember slaveof slowlog slowlog|get slowlog|help slowlog|len slowlog|reset smembers
smismember smove sort sort_ro spop srandmember srem sscan substr sunion sunionstore swapdb sync waitaof zadd zcard
zcount zdiff zdiffstore zincrby zinter zintercard zinterstore zlexcount zmpop zmscore zpopmax zpopmin zrandmember
zrange zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange
zrevrangebylex zrevrangebyscore zrevrank zscan zscore zunion zunionstore
"""

ABSENT = frozenset(_NAMES.split())
