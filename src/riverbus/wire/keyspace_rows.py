"""The rows of the command table that read or change keys: streams, groups, keys, strings.

Names, arities, flags and keys are Redis 7.2's (of 8.2 and later for what came with those), as in command_table.py.
"""

from __future__ import annotations

from functools import partial

from riverbus import keyspace_commands as keyspace
from riverbus.wire import parse_bus, parse_groups, parse_keys, parse_streams
from riverbus.wire.command_row import CommandRow
from riverbus.wire.row_makers import NO_CONTAINER, always, container, row

_stream = partial(row, group="stream", categories="stream")
_key = partial(row, group="generic", categories="keyspace")
_string = partial(row, group="string", categories="string")
_ONE = (1, 1, 1)
_SECOND = (2, 2, 1)
_ALL = (1, -1, 1)
_PER_ID = "O(1) for each id"
_RETURNED = "O(N) over the messages returned"
_SUM = "request_policy:multi_shard response_policy:agg_sum"

# fmt: off

STREAMS: list[CommandRow] = [
    _stream("xadd", -5, "write denyoom fast", parse_streams.parse_xadd, "5.0.0", "O(1), and O(N) over what is trimmed",
            "Append an entry of fields to a channel's log.",
            "<key> [NOMKSTREAM] [KEEPREF|DELREF|ACKED] [IDMPAUTO <producer>|IDMP <producer> <id>] "
            "[MAXLEN|MINID [=|~] <threshold> [LIMIT <count>]] <*|id> <field> <value> [<field> <value> ...]",
            keys=_ONE, key_flags="RW update", tips="nondeterministic_output"),
    _stream("xlen", 2, "readonly fast", parse_bus.parse_xlen, "5.0.0", "O(1)",
            "How many messages of a channel are kept.", "<key>", keys=_ONE, key_flags="RO"),
    _stream("xrange", -4, "readonly", parse_bus.parse_xrange, "5.0.0", _RETURNED,
            "Messages of a channel between two ids.", "<key> <start> <end> [COUNT <count>]",
            keys=_ONE, key_flags="RO access"),
    _stream("xrevrange", -4, "readonly", parse_bus.parse_xrevrange, "5.0.0", _RETURNED,
            "Messages of a channel between two ids, the newest first.", "<key> <end> <start> [COUNT <count>]",
            keys=_ONE, key_flags="RO access"),
    _stream("xread", -4, "readonly blocking movablekeys", parse_bus.parse_xread, "5.0.0",
            _RETURNED, "Messages of channels after ids, waiting for the first if asked to.",
            "[COUNT <count>] [BLOCK <milliseconds>] STREAMS <key> [<key> ...] <id|$|+> [<id|$|+> ...]",
            key_flags="RO access", key_keyword="STREAMS"),
    _stream("xdel", -3, "write fast", parse_streams.parse_xdel, "5.0.0", _PER_ID,
            "Delete entries of a stream.", "<key> <id> [<id> ...]", keys=_ONE, key_flags="RW delete"),
    _stream("xdelex", -5, "write fast", parse_streams.parse_xdelex, "8.2.0", _PER_ID,
            "Delete entries of a stream, and say what became of each and of who has it pending.",
            "<key> [KEEPREF|DELREF|ACKED] IDS <numids> <id> [<id> ...]", keys=_ONE, key_flags="RW delete"),
    _stream("xtrim", -4, "write", parse_streams.parse_xtrim, "5.0.0", "O(N) over what is trimmed",
            "Drop a stream's oldest entries.",
            "<key> MAXLEN|MINID [=|~] <threshold> [LIMIT <count>] [KEEPREF|DELREF|ACKED]",
            keys=_ONE, key_flags="RW delete", tips="nondeterministic_output"),
    _stream("xsetid", -3, "write denyoom fast", parse_streams.parse_xsetid, "5.0.0", "O(1)",
            "Set a stream's last id.", "<key> <last-id> [ENTRIESADDED <entries-added>] [MAXDELETEDID <id>]",
            keys=_ONE, key_flags="RW update"),
    _stream("xcfgset", -4, "write fast", parse_streams.parse_xcfgset, "8.6.0", "O(1)",
            "Set the window in which a stream knows XADD's idempotency keys.",
            "<key> [IDMP-DURATION <seconds>] [IDMP-MAXSIZE <entries>]", keys=_ONE, key_flags="RW update"),
    container(_stream("xinfo", -2, "", NO_CONTAINER, "5.0.0", "", "About channels' logs.", categories=""), "stream", [
        _stream("xinfo|consumers", 4, "readonly", parse_groups.parse_xinfo_consumers, "5.0.0", "O(1)",
                "A group's consumers.", "<key> <group>", keys=_SECOND, key_flags="RO access",
                tips="nondeterministic_output"),
        _stream("xinfo|groups", 3, "readonly", parse_groups.parse_xinfo_groups, "5.0.0", "O(1)",
                "A stream's groups.", "<key>", keys=_SECOND, key_flags="RO access"),
        _stream("xinfo|stream", -3, "readonly", parse_bus.parse_xinfo_stream, "5.0.0", "O(1)",
                "The state of a channel's log.", "<key> [FULL [COUNT <count>]]", keys=_SECOND, key_flags="RO access"),
    ]),
]

GROUPS: list[CommandRow] = [
    container(_stream("xgroup", -2, "", NO_CONTAINER, "5.0.0", "", "Groups of consumers.", categories=""), "stream", [
        _stream("xgroup|create", -5, "write denyoom", parse_groups.parse_xgroup_create, "5.0.0", "O(1)",
                "Make a group, which reads on from an id.", "<key> <group> <id|$> [MKSTREAM] [ENTRIESREAD <count>]",
                keys=_SECOND, key_flags="RW insert"),
        _stream("xgroup|createconsumer", 5, "write denyoom", parse_groups.parse_xgroup_createconsumer, "6.2.0", "O(1)",
                "Make a consumer.", "<key> <group> <consumer>", keys=_SECOND, key_flags="RW insert"),
        _stream("xgroup|delconsumer", 5, "write", parse_groups.parse_xgroup_delconsumer, "5.0.0",
                "O(N) over what it has pending", "Delete a consumer and what it has pending.",
                "<key> <group> <consumer>", keys=_SECOND, key_flags="RW delete"),
        _stream("xgroup|destroy", 4, "write", parse_groups.parse_xgroup_destroy, "5.0.0",
                "O(N) over what is pending", "Delete a group.", "<key> <group>", keys=_SECOND, key_flags="RW delete"),
        _stream("xgroup|setid", -5, "write", parse_groups.parse_xgroup_setid, "5.0.0", "O(1)",
                "Set where a group reads on.", "<key> <group> <id|$> [ENTRIESREAD <count>]",
                keys=_SECOND, key_flags="RW update"),
    ]),
    _stream("xreadgroup", -7, "write blocking movablekeys", parse_groups.parse_xreadgroup, "5.0.0", _RETURNED,
            "Entries for a consumer of a group: new ones, which become pending, or its own pending ones.",
            "GROUP <group> <consumer> [COUNT <count>] [BLOCK <milliseconds>] [NOACK] [CLAIM <min-idle>] "
            "STREAMS <key> [<key> ...] <id|>> [<id|>> ...]",
            key_flags="RO access", key_keyword="STREAMS", key_keyword_from=4),
    _stream("xack", -4, "write fast", parse_groups.parse_xack, "5.0.0", _PER_ID,
            "Entries are done: they are pending no more.", "<key> <group> <id> [<id> ...]",
            keys=_ONE, key_flags="RW update"),
    _stream("xackdel", -6, "write fast", parse_streams.parse_xackdel, "8.2.0", _PER_ID,
            "Acknowledge entries and delete them.", "<key> <group> [KEEPREF|DELREF|ACKED] IDS <numids> <id> [<id> ...]",
            keys=_ONE, key_flags="RW delete"),
    _stream("xpending", -3, "readonly", parse_groups.parse_xpending, "5.0.0", "O(N) over what is returned",
            "What a group has pending.", "<key> <group> [[IDLE <min-idle>] <start> <end> <count> [<consumer>]]",
            keys=_ONE, key_flags="RO access", tips="nondeterministic_output"),
    _stream("xclaim", -6, "write fast", parse_groups.parse_xclaim, "5.0.0", _PER_ID,
            "Make pending entries another consumer's.",
            "<key> <group> <consumer> <min-idle> <id> [<id> ...] [IDLE <ms>] [TIME <unix-ms>] [RETRYCOUNT <count>] "
            "[FORCE] [JUSTID] [LASTID <id>]",
            keys=_ONE, key_flags="RW update", tips="nondeterministic_output"),
    _stream("xautoclaim", -6, "write fast", parse_groups.parse_xautoclaim, "6.2.0", "O(1) for a small COUNT",
            "Make entries that are pending for long another consumer's.",
            "<key> <group> <consumer> <min-idle> <start> [COUNT <count>] [JUSTID]",
            keys=_ONE, key_flags="RW access delete", tips="nondeterministic_output"),
]

KEYS: list[CommandRow] = [
    _key("del", -2, "write", parse_keys.parse_del, "1.0.0", "O(N) over the keys", "Delete keys.", "<key> [<key> ...]",
         keys=_ALL, key_flags="RM delete", tips=_SUM),
    _key("unlink", -2, "write fast", parse_keys.parse_unlink, "4.0.0", "O(N) over the keys", "Delete keys.",
         "<key> [<key> ...]", keys=_ALL, key_flags="RM delete", tips=_SUM),
    _key("exists", -2, "readonly fast", parse_keys.parse_exists, "1.0.0", "O(N) over the keys",
         "How many of the keys there are.", "<key> [<key> ...]", keys=_ALL, key_flags="RO", tips=_SUM),
    _key("touch", -2, "readonly fast", parse_keys.parse_touch, "3.2.1", "O(N) over the keys",
         "How many of the keys there are; no access times are kept.", "<key> [<key> ...]",
         keys=_ALL, key_flags="RO", tips=_SUM),
    _key("type", 2, "readonly fast", parse_keys.parse_type, "1.0.0", "O(1)", "A key's type.", "<key>",
         keys=_ONE, key_flags="RO"),
    _key("keys", 2, "readonly", parse_keys.parse_keys, "1.0.0", "O(N) over all keys", "Keys that match.", "<pattern>",
         categories="keyspace dangerous", tips="request_policy:all_shards nondeterministic_output_order"),
    _key("scan", -2, "readonly", parse_keys.parse_scan, "2.8.0", "O(1) for each call", "All keys, step by step.",
         "<cursor> [MATCH <pattern>] [COUNT <count>] [TYPE <type>]",
         tips="nondeterministic_output request_policy:special response_policy:special"),
    _key("randomkey", 1, "readonly", always(keyspace.RandomKey(0)), "1.0.0", "O(1)", "Any key.",
         tips="request_policy:all_shards response_policy:special nondeterministic_output"),
    _key("dbsize", 1, "readonly fast", always(keyspace.DbSize()), "1.0.0", "O(1)", "How many keys there are.",
         group="server", tips="request_policy:all_shards response_policy:agg_sum"),
    _key("rename", 3, "write", parse_keys.parse_rename, "1.0.0", "O(1)",
         "Give a key another name; both must be of one shard.", "<key> <newkey>", keys=(1, 2, 1),
         key_flags="RW access delete"),
    _key("renamenx", 3, "write fast", parse_keys.parse_renamenx, "1.0.0", "O(1)",
         "RENAME if the new name is free.", "<key> <newkey>", keys=(1, 2, 1), key_flags="RW access delete"),
    container(_key("object", -2, "", NO_CONTAINER, "2.2.3", "", "About the inner form of keys.", categories=""),
              "keyspace", [
        _key("object|encoding", 3, "readonly", parse_keys.parse_object, "2.2.3", "O(1)", "How a value is kept.",
             "<key>", keys=_SECOND, key_flags="RO"),
        _key("object|freq", 3, "readonly", parse_keys.parse_object, "4.0.0", "O(1)", "Not kept.", "<key>",
             keys=_SECOND, key_flags="RO"),
        _key("object|idletime", 3, "readonly", parse_keys.parse_object, "2.2.3", "O(1)", "Not kept.", "<key>",
             keys=_SECOND, key_flags="RO"),
        _key("object|refcount", 3, "readonly", parse_keys.parse_object, "2.2.3", "O(1)", "Always 1.", "<key>",
             keys=_SECOND, key_flags="RO"),
    ]),
    _key("flushdb", -1, "write", parse_keys.parse_flushdb, "1.0.0", "O(N) over all keys", "Delete all keys.",
         "[ASYNC|SYNC]", group="server", categories="keyspace dangerous",
         tips="request_policy:all_shards response_policy:all_succeeded"),
    _key("flushall", -1, "write", parse_keys.parse_flushall, "1.0.0", "O(N) over all keys", "Delete all keys.",
         "[ASYNC|SYNC]", group="server", categories="keyspace dangerous",
         tips="request_policy:all_shards response_policy:all_succeeded"),
    *[
        _key(name, -3, "write fast", parse, since, "O(1)", summary, f"<key> <{unit}> [NX|XX|GT|LT]",
             keys=_ONE, key_flags="RW update")
        for name, parse, since, unit, summary in (
            ("expire", parse_keys.parse_expire, "1.0.0", "seconds", "Let a key end after seconds."),
            ("pexpire", parse_keys.parse_pexpire, "2.6.0", "milliseconds", "Let a key end after milliseconds."),
            ("expireat", parse_keys.parse_expireat, "1.2.0", "unix-seconds", "Let a key end at a time."),
            ("pexpireat", parse_keys.parse_pexpireat, "2.6.0", "unix-milliseconds", "Let a key end at a time."),
        )
    ],
    *[
        _key(name, 2, "readonly fast", parse, since, "O(1)", summary, "<key>", keys=_ONE, key_flags="RO access",
             tips=tips)
        for name, parse, since, tips, summary in (
            ("ttl", parse_keys.parse_ttl, "1.0.0", "nondeterministic_output", "Seconds until a key ends."),
            ("pttl", parse_keys.parse_pttl, "2.6.0", "nondeterministic_output", "Milliseconds until a key ends."),
            ("expiretime", parse_keys.parse_expiretime, "7.0.0", "", "When a key ends, in Unix seconds."),
            ("pexpiretime", parse_keys.parse_pexpiretime, "7.0.0", "", "When a key ends, in Unix milliseconds."),
        )
    ],
    _key("persist", 2, "write fast", parse_keys.parse_persist, "2.2.0", "O(1)", "Let a key not end.", "<key>",
         keys=_ONE, key_flags="RW update"),
]

STRINGS: list[CommandRow] = [
    _string("set", -3, "write denyoom", parse_keys.parse_set, "1.0.0", "O(1)", "Set a string, whatever the key held.",
            "<key> <value> [NX|XX] [GET] [EX <s>|PX <ms>|EXAT <unix-s>|PXAT <unix-ms>|KEEPTTL]",
            keys=_ONE, key_flags="RW access update variable_flags"),
    _string("setex", 4, "write denyoom", parse_keys.parse_setex, "2.0.0", "O(1)", "SET with EX.",
            "<key> <seconds> <value>", keys=_ONE, key_flags="OW update"),
    _string("psetex", 4, "write denyoom", parse_keys.parse_psetex, "2.6.0", "O(1)", "SET with PX.",
            "<key> <milliseconds> <value>", keys=_ONE, key_flags="OW update"),
    _string("setnx", 3, "write denyoom fast", parse_keys.parse_setnx, "1.0.0", "O(1)", "SET with NX.",
            "<key> <value>", keys=_ONE, key_flags="OW insert"),
    _string("get", 2, "readonly fast", parse_keys.parse_get, "1.0.0", "O(1)", "A string.", "<key>",
            keys=_ONE, key_flags="RO access"),
    _string("getdel", 2, "write fast", parse_keys.parse_getdel, "6.2.0", "O(1)", "A string, which is deleted.", "<key>",
            keys=_ONE, key_flags="RW access delete"),
    _string("getex", -2, "write fast", parse_keys.parse_getex, "6.2.0", "O(1)", "A string, whose end is set.",
            "<key> [EX <s>|PX <ms>|EXAT <unix-s>|PXAT <unix-ms>|PERSIST]", keys=_ONE, key_flags="RW access update"),
    _string("strlen", 2, "readonly fast", parse_keys.parse_strlen, "2.2.0", "O(1)", "A string's length.", "<key>",
            keys=_ONE, key_flags="RO"),
]
# fmt: on
