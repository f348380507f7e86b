"""Each command a row: what carries it out, what it must wait for, and in which states it may be asked.

A handler takes the session and the noun and returns the reply; `NOTHING` if it has put itself in line, or is silent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from riverbus import access_commands, commands, keyspace_commands, rule_commands
from riverbus.core.access import acl_commands as acl
from riverbus.core.clients import connection_commands as connection
from riverbus.core.clients import group_reads, node_commands, transactions
from riverbus.core.clients import history_commands as history
from riverbus.core.clients import key_commands as keys
from riverbus.core.clients import pubsub_commands as pubsub
from riverbus.core.clients import rule_commands as rules
from riverbus.core.clients.inflight import Order
from riverbus.messages import Reply

if TYPE_CHECKING:
    from riverbus.core.clients.session import Session


class Row(NamedTuple):
    run: Callable[[Session, Any], Reply]  # takes the noun that is the row's key
    order: Order = Order.FREE
    needs_no_auth: bool = False
    is_for_subscribers: bool = False  # may be sent by a RESP2 connection that has subscriptions
    is_immediate: bool = False  # is not queued by MULTI
    order_of: Callable[[Session, Any], Order] | None = None  # where it depends on the noun: instead of `order`


TABLE: dict[type, Row] = {
    commands.Answered: Row(connection.answered),
    commands.Malformed: Row(connection.malformed, needs_no_auth=True, is_for_subscribers=True, is_immediate=True),
    commands.Hello: Row(connection.hello, Order.ALONE, needs_no_auth=True),
    commands.Auth: Row(connection.auth, needs_no_auth=True),
    commands.Ping: Row(connection.ping, is_for_subscribers=True),
    commands.Quit: Row(connection.quit_, needs_no_auth=True, is_for_subscribers=True, is_immediate=True),
    commands.Reset: Row(connection.reset, Order.ALONE, needs_no_auth=True, is_for_subscribers=True, is_immediate=True),
    commands.Time: Row(connection.time),
    commands.Info: Row(connection.info),
    commands.ConfigGet: Row(connection.config_get),
    commands.ClientSetName: Row(connection.set_name),
    commands.ClientGetName: Row(connection.get_name),
    commands.ClientSetInfo: Row(connection.set_info),
    commands.ClientId: Row(connection.client_id),
    commands.ClientInfo: Row(connection.client_info),
    commands.ClientList: Row(connection.client_list),
    commands.ClientKill: Row(connection.client_kill, Order.AFTER_WRITES),
    commands.ClientNoEvict: Row(connection.wish),
    commands.ClientNoTouch: Row(connection.wish),
    commands.ClientReply: Row(connection.client_reply),
    commands.ClientPause: Row(node_commands.client_pause),
    commands.ClientUnpause: Row(node_commands.client_unpause),
    commands.ClientUnblock: Row(node_commands.client_unblock),
    commands.ConfigSet: Row(node_commands.config_set, Order.AFTER_WRITES),
    commands.ConfigResetStat: Row(node_commands.config_reset_stat),
    commands.Monitor: Row(node_commands.monitor, Order.AFTER_WRITES),
    commands.Wait: Row(node_commands.wait, Order.READ),
    access_commands.AclWhoAmI: Row(acl.who_am_i),
    access_commands.AclUsers: Row(acl.users, Order.READ),
    access_commands.AclList: Row(acl.list_, Order.READ),
    access_commands.AclGetUser: Row(acl.get_user, Order.READ),
    access_commands.AclGenPass: Row(acl.gen_pass),
    access_commands.AclLog: Row(acl.log),
    access_commands.AclDryRun: Row(acl.dry_run),
    access_commands.AclSetUser: Row(acl.set_user, Order.WRITE),
    access_commands.AclDelUser: Row(acl.del_user, Order.WRITE),
    commands.Publish: Row(pubsub.publish, Order.WRITE),
    commands.Subscribe: Row(pubsub.subscribe, Order.AFTER_WRITES, is_for_subscribers=True),
    commands.Unsubscribe: Row(pubsub.unsubscribe, Order.AFTER_WRITES, is_for_subscribers=True),
    commands.BusSubscribe: Row(pubsub.bus_subscribe, Order.AFTER_WRITES, is_for_subscribers=True),
    commands.BusUnsubscribe: Row(pubsub.bus_unsubscribe, Order.AFTER_WRITES, is_for_subscribers=True),
    commands.PubsubChannels: Row(pubsub.pubsub_channels),
    commands.PubsubNumsub: Row(pubsub.pubsub_numsub),
    commands.PubsubNumpat: Row(pubsub.pubsub_numpat),
    rule_commands.RuleSet: Row(rules.change, Order.WRITE),
    rule_commands.RuleDel: Row(rules.change, Order.WRITE),
    rule_commands.BusRuleGet: Row(rules.get, Order.READ),
    rule_commands.BusRuleList: Row(rules.list_, Order.READ),
    commands.XRange: Row(history.xrange, Order.READ),
    commands.XLen: Row(history.xlen, Order.READ),
    commands.XRead: Row(history.xread, Order.READ),
    commands.XInfoStream: Row(keys.read_channel, Order.READ),
    keyspace_commands.XAdd: Row(keys.trimming_write, Order.WRITE),
    keyspace_commands.XTrim: Row(keys.trimming_write, Order.WRITE),
    keyspace_commands.PublishOnce: Row(keys.publish_once, Order.WRITE),
    keyspace_commands.PublishRun: Row(keys.publish_run, Order.WRITE),
    keyspace_commands.XReadGroup: Row(group_reads.xreadgroup, Order.WRITE, order_of=group_reads.order_of),
    **dict.fromkeys(
        (
            keyspace_commands.XCfgSet,
            keyspace_commands.XDel,
            keyspace_commands.XDelEx,
            keyspace_commands.XAckDel,
            keyspace_commands.XSetId,
            keyspace_commands.XGroupCreate,
            keyspace_commands.XGroupSetId,
            keyspace_commands.XGroupDestroy,
            keyspace_commands.XGroupCreateConsumer,
            keyspace_commands.XGroupDelConsumer,
            keyspace_commands.XAck,
            keyspace_commands.XClaim,
            keyspace_commands.XAutoClaim,
            keyspace_commands.Expire,
            keyspace_commands.Persist,
            keyspace_commands.SetString,
            keyspace_commands.GetDel,
            keyspace_commands.GetEx,
        ),
        Row(keys.write, Order.WRITE),
    ),
    **dict.fromkeys(
        (
            keyspace_commands.XPending,
            keyspace_commands.XInfoGroups,
            keyspace_commands.XInfoConsumers,
            keyspace_commands.Type,
            keyspace_commands.Object,
            keyspace_commands.Ttl,
            keyspace_commands.GetString,
            keyspace_commands.StrLen,
        ),
        Row(keys.read, Order.READ),
    ),
    keyspace_commands.Del: Row(keys.delete, Order.WRITE),
    keyspace_commands.FlushAll: Row(keys.flush_all, Order.WRITE),
    keyspace_commands.Rename: Row(keys.rename, Order.WRITE),
    keyspace_commands.Exists: Row(keys.exists, Order.READ),
    keyspace_commands.Keys: Row(keys.keys, Order.READ),
    keyspace_commands.Scan: Row(keys.scan, Order.READ),
    keyspace_commands.RandomKey: Row(keys.random_key, Order.READ),
    keyspace_commands.DbSize: Row(keys.db_size, Order.READ),
    commands.Multi: Row(transactions.multi, is_immediate=True),
    commands.Exec: Row(transactions.exec_, Order.ALONE, is_immediate=True),
    commands.Discard: Row(transactions.discard, is_immediate=True),
    commands.Watch: Row(transactions.watch, Order.AFTER_WRITES, is_immediate=True),
    commands.Unwatch: Row(transactions.unwatch),
}
