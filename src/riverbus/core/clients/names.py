"""What each noun of commands.py is called by Redis, in full and in lower case: for errors, counters and CLIENT LIST."""

from __future__ import annotations

from riverbus import access_commands, commands, keyspace_commands, rule_commands
from riverbus.commands import Command
from riverbus.messages import Kind

_NAMES: dict[type, str] = {
    commands.Malformed: "malformed",
    commands.Hello: "hello",
    commands.Auth: "auth",
    commands.Ping: "ping",
    commands.Quit: "quit",
    commands.Reset: "reset",
    commands.Time: "time",
    commands.Info: "info",
    commands.ConfigGet: "config|get",
    commands.ClientSetName: "client|setname",
    commands.ClientGetName: "client|getname",
    commands.ClientSetInfo: "client|setinfo",
    commands.ClientId: "client|id",
    commands.ClientInfo: "client|info",
    commands.ClientList: "client|list",
    commands.ClientKill: "client|kill",
    commands.ClientNoEvict: "client|no-evict",
    commands.ClientNoTouch: "client|no-touch",
    commands.ClientReply: "client|reply",
    access_commands.AclWhoAmI: "acl|whoami",
    access_commands.AclUsers: "acl|users",
    access_commands.AclList: "acl|list",
    access_commands.AclGetUser: "acl|getuser",
    access_commands.AclGenPass: "acl|genpass",
    access_commands.AclLog: "acl|log",
    access_commands.AclDryRun: "acl|dryrun",
    access_commands.AclSetUser: "acl|setuser",
    access_commands.AclDelUser: "acl|deluser",
    commands.ClientPause: "client|pause",
    commands.ClientUnpause: "client|unpause",
    commands.ClientUnblock: "client|unblock",
    commands.ConfigSet: "config|set",
    commands.ConfigResetStat: "config|resetstat",
    commands.Monitor: "monitor",
    commands.Wait: "wait",
    commands.BusSubscribe: "bus.subscribe",
    commands.BusUnsubscribe: "bus.unsubscribe",
    commands.PubsubNumpat: "pubsub|numpat",
    rule_commands.BusRuleGet: "bus.rule|get",
    rule_commands.BusRuleList: "bus.rule|list",
    rule_commands.RuleSet: "bus.rule|set",
    rule_commands.RuleDel: "bus.rule|del",
    commands.XLen: "xlen",
    commands.XRead: "xread",
    commands.XInfoStream: "xinfo|stream",
    commands.Multi: "multi",
    commands.Exec: "exec",
    commands.Discard: "discard",
    commands.Watch: "watch",
    commands.Unwatch: "unwatch",
    keyspace_commands.XAdd: "xadd",
    keyspace_commands.XCfgSet: "xcfgset",
    keyspace_commands.PublishOnce: "bus.publish",
    keyspace_commands.PublishRun: "bus.publishrun",
    keyspace_commands.XTrim: "xtrim",
    keyspace_commands.XDel: "xdel",
    keyspace_commands.XDelEx: "xdelex",
    keyspace_commands.XAckDel: "xackdel",
    keyspace_commands.XSetId: "xsetid",
    keyspace_commands.XGroupCreate: "xgroup|create",
    keyspace_commands.XGroupSetId: "xgroup|setid",
    keyspace_commands.XGroupDestroy: "xgroup|destroy",
    keyspace_commands.XGroupCreateConsumer: "xgroup|createconsumer",
    keyspace_commands.XGroupDelConsumer: "xgroup|delconsumer",
    keyspace_commands.XReadGroup: "xreadgroup",
    keyspace_commands.XAck: "xack",
    keyspace_commands.XClaim: "xclaim",
    keyspace_commands.XAutoClaim: "xautoclaim",
    keyspace_commands.XPending: "xpending",
    keyspace_commands.XInfoGroups: "xinfo|groups",
    keyspace_commands.XInfoConsumers: "xinfo|consumers",
    keyspace_commands.Type: "type",
    keyspace_commands.Keys: "keys",
    keyspace_commands.Scan: "scan",
    keyspace_commands.RandomKey: "randomkey",
    keyspace_commands.DbSize: "dbsize",
    keyspace_commands.Persist: "persist",
    keyspace_commands.StrLen: "strlen",
    keyspace_commands.GetDel: "getdel",
    keyspace_commands.GetEx: "getex",
}
_NAMED_BY_COMMAND = (
    keyspace_commands.Del
    | keyspace_commands.Exists
    | keyspace_commands.FlushAll
    | keyspace_commands.Expire
    | keyspace_commands.SetString
    | keyspace_commands.GetString
)
_TTL_NAMES = {(True, False): "ttl", (False, False): "pttl", (True, True): "expiretime", (False, True): "pexpiretime"}
_PREFIXES = {"channel": "", "pattern": "p", "shard": "s"}


def publish_name(kind: int, style: str) -> str:
    if kind == Kind.XADD:
        return "xadd"
    if style == "id":
        return "bus.publish"
    return "publish" if kind == Kind.PUBLISH else "spublish"


PUBLISH_NAMES = {(int(kind), style): publish_name(kind, style) for kind in Kind for style in ("receivers", "id")}


def name_of(command: Command) -> str:
    """The full name, as in `client|list`; `unknown` for what is no command."""
    match command:
        case commands.Publish(_, kind, _, style):
            return publish_name(kind, style)
        case commands.Answered(_, name):
            return name or "unknown"
        case commands.Subscribe(space, _):
            return _PREFIXES[space] + "subscribe"
        case commands.Unsubscribe(space, _):
            return _PREFIXES[space] + "unsubscribe"
        case commands.PubsubChannels(_, shard):
            return "pubsub|shardchannels" if shard else "pubsub|channels"
        case commands.PubsubNumsub(_, shard):
            return "pubsub|shardnumsub" if shard else "pubsub|numsub"
        case commands.XRange():
            return "xrevrange" if command.reverse else "xrange"
        case keyspace_commands.Rename():
            return "renamenx" if command.nx else "rename"
        case keyspace_commands.Object():
            return f"object|{command.subcommand}"
        case keyspace_commands.Ttl():
            return _TTL_NAMES[command.in_seconds, command.is_absolute]
        case _:
            if isinstance(command, _NAMED_BY_COMMAND):
                return command.command
            return _NAMES[type(command)]
