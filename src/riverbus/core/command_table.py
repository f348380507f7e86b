"""Each command a row: what carries it out, what it must wait for, and in which states it may be asked.

A handler takes the session and the noun and returns the reply; `NOTHING` if it has put itself in line, or is silent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from riverbus import commands
from riverbus.core import connection_commands as connection
from riverbus.core import history_commands as history
from riverbus.core import pubsub_commands as pubsub
from riverbus.core import transactions
from riverbus.core.inflight import Order
from riverbus.messages import Reply

if TYPE_CHECKING:
    from riverbus.core.session import Session


class Row(NamedTuple):
    run: Callable[[Session, Any], Reply]  # takes the noun that is the row's key
    order: Order = Order.FREE
    needs_no_auth: bool = False
    is_for_subscribers: bool = False  # may be sent by a RESP2 connection that has subscriptions
    is_immediate: bool = False  # is not queued by MULTI


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
    commands.ClientNoEvict: Row(connection.accepted),
    commands.ClientNoTouch: Row(connection.accepted),
    commands.ClientReply: Row(connection.client_reply),
    commands.Publish: Row(pubsub.publish, Order.WRITE),
    commands.Subscribe: Row(pubsub.subscribe, Order.AFTER_WRITES, is_for_subscribers=True),
    commands.Unsubscribe: Row(pubsub.unsubscribe, Order.AFTER_WRITES, is_for_subscribers=True),
    commands.BusSubscribe: Row(pubsub.bus_subscribe, Order.AFTER_WRITES, is_for_subscribers=True),
    commands.BusUnsubscribe: Row(pubsub.bus_unsubscribe, Order.AFTER_WRITES, is_for_subscribers=True),
    commands.PubsubChannels: Row(pubsub.pubsub_channels),
    commands.PubsubNumsub: Row(pubsub.pubsub_numsub),
    commands.PubsubNumpat: Row(pubsub.pubsub_numpat),
    commands.XRange: Row(history.xrange, Order.READ),
    commands.XLen: Row(history.xlen, Order.READ),
    commands.XRead: Row(history.xread, Order.READ),
    commands.XInfoStream: Row(history.xinfo_stream, Order.READ),
    commands.Multi: Row(transactions.multi, is_immediate=True),
    commands.Exec: Row(transactions.exec_, Order.ALONE, is_immediate=True),
    commands.Discard: Row(transactions.discard, is_immediate=True),
    commands.Watch: Row(transactions.watch, Order.AFTER_WRITES, is_immediate=True),
    commands.Unwatch: Row(transactions.unwatch),
}
