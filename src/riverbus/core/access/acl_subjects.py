"""What each noun touches: keys and how (read, written), channels, patterns. For ACLs, which judge nouns, not arguments.

The access is that of Redis' key specifications: reading a key's content needs `%R`, changing it `%W`; to ask whether it
is there, or to wait for it to change, needs any grant of it. A noun without a row here is a command that nobody thought
of: it is as if it touched everything (`UNKNOWN`), and only who may touch all keys and channels may use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from riverbus import access_commands, commands, rule_commands
from riverbus import keyspace_commands as keyspace
from riverbus.commands import Command
from riverbus.core.access.acl import READ, WRITE
from riverbus.messages import Kind

_XADD = int(Kind.XADD)
_ANY = 0


class Subjects(NamedTuple):
    keys: tuple[tuple[bytes, int], ...] = ()  # with READ, WRITE, both, or 0: any grant will do
    channels: tuple[bytes, ...] = ()
    patterns: tuple[bytes, ...] = ()


NOTHING = Subjects()
# The keys and channels that no pattern but allkeys and allchannels is meant to cover; a name is never so long.
UNKNOWN = Subjects(keys=((b"\0" * 65_537, READ | WRITE),), patterns=(b"\0" * 65_537,))


def subjects_of(command: Command) -> Subjects:
    how = _TABLE.get(type(command))
    return UNKNOWN if how is None else how(command)


def knows(noun: type) -> bool:
    """For the test that every command is thought of."""
    return noun in _TABLE


_How = Callable[[Any], Subjects]


def _nothing(_: Any) -> Subjects:
    return NOTHING


def _key(access: int) -> _How:
    return lambda noun: Subjects(((noun.key, access),))


def _keys(access: int) -> _How:
    return lambda noun: Subjects(tuple((key, access) for key in noun.keys))


def _channel_key(access: int) -> _How:
    return lambda noun: Subjects(((noun.channel, access),))


def _publish(noun: commands.Publish) -> Subjects:
    if noun.kind == _XADD:
        return Subjects(((noun.channel, WRITE),))
    return Subjects(channels=(noun.channel,))


def _publish_once(noun: keyspace.PublishOnce | keyspace.PublishRun) -> Subjects:
    return Subjects(channels=(noun.channel,))


def _subscribe(noun: commands.Subscribe) -> Subjects:
    return Subjects(patterns=noun.names) if noun.space == "pattern" else Subjects(channels=noun.names)


def _bus_subscribe(noun: commands.BusSubscribe) -> Subjects:
    return Subjects(channels=(noun.channel,))


def _xread(noun: commands.XRead) -> Subjects:
    return Subjects(tuple((key, READ) for key in noun.channels))


def _rename(noun: keyspace.Rename) -> Subjects:
    return Subjects(((noun.key, READ | WRITE), (noun.new_key, WRITE)))


def _set_string(noun: keyspace.SetString) -> Subjects:
    return Subjects(((noun.key, READ | WRITE if noun.get else WRITE),))


def _get_string(noun: keyspace.GetString) -> Subjects:
    """GETEX counts as a write to Redis, with options or without."""
    return Subjects(((noun.key, READ | WRITE if noun.command == "getex" else READ),))


_TABLE: dict[type, _How] = {
    **dict.fromkeys(
        (
            commands.Answered, commands.Malformed, commands.Hello, commands.Auth, commands.Ping, commands.Quit,
            commands.Reset, commands.Time, commands.Info, commands.ConfigGet, commands.ClientSetName,
            commands.ClientGetName, commands.ClientSetInfo, commands.ClientId, commands.ClientInfo, commands.ClientList,
            commands.ClientKill, commands.ClientNoEvict, commands.ClientNoTouch, commands.ClientReply,
            commands.Unsubscribe, commands.BusUnsubscribe, commands.PubsubChannels, commands.PubsubNumsub,
            commands.ClientPause, commands.ClientUnpause, commands.ClientUnblock, commands.ConfigSet,
            commands.ConfigResetStat, commands.Monitor, commands.Wait,
            access_commands.AclWhoAmI, access_commands.AclUsers, access_commands.AclList, access_commands.AclGetUser,
            access_commands.AclGenPass, access_commands.AclLog, access_commands.AclDryRun,
            access_commands.AclSetUser, access_commands.AclDelUser,
            rule_commands.RuleSet, rule_commands.RuleDel, rule_commands.BusRuleGet, rule_commands.BusRuleList,
            commands.PubsubNumpat, commands.Multi, commands.Exec, commands.Discard, commands.Unwatch,
            keyspace.Keys, keyspace.Scan, keyspace.RandomKey, keyspace.DbSize, keyspace.FlushAll,
        ),
        _nothing,
    ),
    commands.Publish: _publish,
    commands.Subscribe: _subscribe,
    commands.BusSubscribe: _bus_subscribe,
    commands.XRange: _channel_key(READ),
    commands.XLen: _channel_key(_ANY),
    commands.XRead: _xread,
    commands.XInfoStream: _channel_key(READ),
    commands.Watch: _keys(_ANY),
    keyspace.XAdd: _key(WRITE),
    keyspace.XCfgSet: _key(WRITE),
    keyspace.PublishOnce: _publish_once,
    keyspace.PublishRun: _publish_once,
    keyspace.XTrim: _key(WRITE),
    keyspace.XDel: _key(WRITE),
    keyspace.XDelEx: _key(WRITE),
    keyspace.XAckDel: _key(WRITE),
    keyspace.XSetId: _key(WRITE),
    keyspace.XGroupCreate: _key(WRITE),
    keyspace.XGroupSetId: _key(WRITE),
    keyspace.XGroupDestroy: _key(WRITE),
    keyspace.XGroupCreateConsumer: _key(WRITE),
    keyspace.XGroupDelConsumer: _key(WRITE),
    keyspace.XReadGroup: _keys(READ),
    keyspace.XAck: _key(WRITE),
    keyspace.XClaim: _key(WRITE),
    keyspace.XAutoClaim: _key(WRITE),
    keyspace.XPending: _key(READ),
    keyspace.XInfoGroups: _key(READ),
    keyspace.XInfoConsumers: _key(READ),
    keyspace.Del: _keys(WRITE),
    keyspace.Exists: _keys(_ANY),
    keyspace.Type: _key(_ANY),
    keyspace.Rename: _rename,
    keyspace.Object: _key(_ANY),
    keyspace.Expire: _key(WRITE),
    keyspace.Ttl: _key(READ),
    keyspace.Persist: _key(WRITE),
    keyspace.SetString: _set_string,
    keyspace.GetString: _get_string,
    keyspace.StrLen: _key(_ANY),
    keyspace.GetDel: _key(READ | WRITE),
    keyspace.GetEx: _key(READ | WRITE),
}  # fmt: skip
