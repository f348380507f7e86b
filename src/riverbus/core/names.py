"""What each noun of commands.py is called by Redis, in full and in lower case: for errors, counters and CLIENT LIST."""

from __future__ import annotations

from riverbus import commands
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
    commands.BusSubscribe: "bus.subscribe",
    commands.BusUnsubscribe: "bus.unsubscribe",
    commands.PubsubNumpat: "pubsub|numpat",
    commands.XLen: "xlen",
    commands.XRead: "xread",
    commands.XInfoStream: "xinfo|stream",
    commands.Multi: "multi",
    commands.Exec: "exec",
    commands.Discard: "discard",
    commands.Watch: "watch",
    commands.Unwatch: "unwatch",
}
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
        case _:
            return _NAMES[type(command)]
