"""The commands of the RESP front: one row each, and `noun_of`, which turns arguments into a noun by its row.

Names, arities, flags and keys are Redis 7.2's, so that clients plan with them as they do there. What `COMMAND` says and
which errors the wrong name, arity or subcommand gets follow from the rows. A command that isn't here doesn't exist.
"""

from __future__ import annotations

from functools import partial

from riverbus import commands
from riverbus.commands import Answered, Command
from riverbus.messages import ErrorReply
from riverbus.rule_commands import BusRuleList
from riverbus.wire import introspection, parse_bus, parse_connection, parse_rules
from riverbus.wire.acl_rows import acl_rows
from riverbus.wire.command_row import CommandRow
from riverbus.wire.keyspace_rows import GROUPS, KEYS, STREAMS, STRINGS
from riverbus.wire.parsing import CommandError, text_of, wrong_arity
from riverbus.wire.row_makers import NO_CONTAINER, always, container, row

ROWS: dict[bytes, CommandRow] = {}  # by lower-case name, in the order of COMMAND LIST; filled below
_ANY_CASE: dict[bytes, CommandRow] = {}  # lower and upper case, as nearly every client writes them
_UNKNOWN_ARGS_BYTES_MAX = 128  # how much of an unknown command its error repeats


def noun_of(args: list[bytes]) -> Command:
    """The noun of one command (at least its name). Never raises: what is wrong with it becomes `Answered`."""
    row = _ANY_CASE.get(args[0])
    if row is None:
        # A name in mixed case, or no command.
        row = ROWS.get(args[0].lower())
        if row is None:
            return Answered(_unknown_command(args))
    if row.subcommands and len(args) > 1:
        container = row.name.upper()
        row = row.subcommands.get(args[1].lower())
        if row is None:
            return Answered(ErrorReply(f"ERR unknown subcommand '{text_of(args[1])}'. Try {container} HELP."))
    count, arity = len(args), row.arity
    if count != arity and (arity > 0 or count < -arity):
        wrong = str(wrong_arity(row.name))
        return commands.Exec(wrong) if row.name == "exec" else Answered(ErrorReply(wrong))
    try:
        return row.parse(args)
    except CommandError as error:
        return Answered(ErrorReply(str(error)), row.name)


def may_be_shown(args: list[bytes], noun: Command) -> bool:
    """By MONITOR: not what can't run, nor what only admins may do, nor what holds a password."""
    row = introspection.find_for(ROWS, args)
    if row is None or (isinstance(noun, Answered) and not noun.command):
        return False
    return "admin" not in row.flags and row.name not in ("auth", "hello")


def _unknown_command(args: list[bytes]) -> ErrorReply:
    beginning = ""
    for arg in args[1:]:
        if len(beginning) >= _UNKNOWN_ARGS_BYTES_MAX:
            break
        beginning += f"'{text_of(arg, _UNKNOWN_ARGS_BYTES_MAX - len(beginning))}' "
    return ErrorReply(f"ERR unknown command '{text_of(args[0])}', with args beginning with: {beginning}")


_connection = partial(row, group="connection", categories="connection")
_server = partial(row, group="server")
_pubsub = partial(row, group="pubsub")
_scripting = partial(row, group="scripting")
_transactions = partial(row, group="transactions", categories="transaction")
_bus = partial(row, group="bus")

# --- the rows ---------------------------------------------------------------------------------------------------------
# fmt: off

_HANDSHAKE = "noscript loading stale fast no_auth allow_busy"
_CLIENT = "noscript loading stale"
_TRACKING_INFO = Answered({"flags": frozenset({b"off"}), "redirect": -1, "prefixes": []}, "client|trackinginfo")
_SUBSCRIBE = "pubsub noscript loading stale"

_TABLE: list[CommandRow] = [
    # connection
    _connection("hello", -1, _HANDSHAKE, parse_connection.parse_hello, "6.0.0", "O(1)",
                "Choose the protocol's version; log in and name the connection on the way."),
    _connection("auth", -2, _HANDSHAKE, parse_connection.parse_auth, "1.0.0", "O(1)", "Log in."),
    _connection("ping", -1, "fast", parse_connection.parse_ping, "1.0.0", "O(1)", "Answer, or say the argument back.",
                tips="request_policy:all_shards response_policy:all_succeeded"),
    _connection("echo", 2, "loading stale fast", parse_connection.parse_echo, "1.0.0", "O(1)",
                "Say the argument back."),
    _connection("quit", -1, _HANDSHAKE, always(commands.Quit()), "1.0.0", "O(1)", "Close the connection."),
    row("wait", 3, "noscript", parse_connection.parse_wait, "3.0.0", "O(1)",
        "Wait until so many other nodes hold what was written; how many do.", "<numreplicas> <timeout>",
        group="generic", categories="connection", tips="request_policy:all_shards response_policy:agg_min"),
    _connection("reset", 1, _HANDSHAKE, always(commands.Reset()), "6.2.0", "O(1)",
                "Put the connection into the state of a new one."),
    _connection("select", 2, "loading stale fast", parse_connection.parse_select, "1.0.0", "O(1)",
                "Choose the database; there is only 0."),
    container(_connection("client", -2, "", NO_CONTAINER, "2.4.0", "", "About client connections.", categories=""),
               "connection", [
        _connection("client|getname", 2, _CLIENT, always(commands.ClientGetName()), "2.6.9", "O(1)",
                    "The connection's name."),
        _connection("client|caching", 3, _CLIENT, parse_connection.parse_client_caching, "6.0.0", "O(1)",
                    "There is no tracking: an error.", "(YES|NO)"),
        _connection("client|getredir", 2, _CLIENT, always(Answered(-1, "client|getredir")), "6.0.0", "O(1)",
                    "There is no tracking: -1."),
        _connection("client|id", 2, _CLIENT, always(commands.ClientId()), "5.0.0", "O(1)", "The connection's number."),
        _connection("client|info", 2, _CLIENT, always(commands.ClientInfo()), "6.2.0", "O(1)",
                    "This connection's line of CLIENT LIST.", tips="nondeterministic_output"),
        _connection("client|kill", -3, "admin " + _CLIENT, parse_connection.parse_client_kill, "2.4.0",
                    "O(N) over the node's connections", "Close connections that match.",
                    "<ip:port> | [ID <id>] [TYPE <type>] [USER <user>] [ADDR <ip:port>] [LADDR <ip:port>] "
                    "[SKIPME (YES|NO)]"),
        _connection("client|list", -2, "admin " + _CLIENT, parse_connection.parse_client_list, "2.4.0",
                    "O(N) over the node's connections", "One line for each connection of this node.",
                    "[TYPE (NORMAL|MASTER|REPLICA|PUBSUB) | ID <id> [<id> ...]]", tips="nondeterministic_output"),
        _connection("client|no-evict", 3, "admin " + _CLIENT, parse_connection.parse_client_no_evict, "7.0.0", "O(1)",
                    "Accepted; nothing is evicted by connection.", "(ON|OFF)"),
        _connection("client|no-touch", 3, _CLIENT, parse_connection.parse_client_no_touch, "7.2.0", "O(1)",
                    "Accepted; no access times are kept.", "(ON|OFF)"),
        _connection("client|pause", -3, "admin " + _CLIENT, parse_connection.parse_client_pause, "3.0.0", "O(1)",
                    "Let this node's clients wait for a while.", "<timeout> [WRITE|ALL]"),
        _connection("client|reply", 3, _CLIENT, parse_connection.parse_client_reply, "3.2.0", "O(1)",
                    "Answer this connection's commands, or don't.", "(ON|OFF|SKIP)"),
        _connection("client|setinfo", 4, _CLIENT, parse_connection.parse_client_setinfo, "7.2.0", "O(1)",
                    "Tell the client library's name or version.", "(LIB-NAME <name> | LIB-VER <version>)",
                    tips="request_policy:all_nodes response_policy:all_succeeded"),
        _connection("client|trackinginfo", 2, _CLIENT, always(_TRACKING_INFO), "6.2.0", "O(1)",
                    "There is no tracking: it is off."),
        _connection("client|unblock", -3, "admin " + _CLIENT, parse_connection.parse_client_unblock, "5.0.0", "O(1)",
                    "End the wait of a connection that is blocked.", "<client-id> [TIMEOUT|ERROR]"),
        _connection("client|unpause", 2, "admin " + _CLIENT, always(commands.ClientUnpause()), "6.2.0", "O(1)",
                    "End a CLIENT PAUSE."),
        _connection("client|setname", 3, _CLIENT, parse_connection.parse_client_setname, "2.6.9", "O(1)",
                    "Name the connection.", "<name>",
                    tips="request_policy:all_nodes response_policy:all_succeeded"),
    ]),
    # server
    acl_rows(ROWS, noun_of),
    container(_server("command", -1, "loading stale", partial(introspection.parse_command, ROWS), "2.8.13",
                       "O(N) over the commands", "Details of all commands.", categories="connection",
                       tips="nondeterministic_output_order"),
               "connection", [
        _server("command|count", 2, "loading stale", partial(introspection.parse_count, ROWS), "2.8.13", "O(1)",
                "How many commands there are.", categories="connection"),
        _server("command|docs", -2, "loading stale", partial(introspection.parse_docs, ROWS), "7.0.0",
                "O(N) over the commands asked for", "What commands are for.", "[<command> ...]",
                categories="connection", tips="nondeterministic_output_order"),
        _server("command|getkeys", -3, "loading stale", partial(introspection.parse_getkeys, ROWS), "2.8.13",
                "O(N) over the arguments", "The keys in a whole command.", "<command> [<arg> ...]",
                categories="connection"),
        _server("command|getkeysandflags", -3, "loading stale", partial(introspection.parse_getkeysandflags, ROWS),
                "7.0.0", "O(N) over the arguments", "The keys in a whole command, and how they are used.",
                "<command> [<arg> ...]", categories="connection"),
        _server("command|info", -2, "loading stale", partial(introspection.parse_info, ROWS), "2.8.13",
                "O(N) over the commands asked for", "Details of commands.", "[<command> ...]",
                categories="connection", tips="nondeterministic_output_order"),
        _server("command|list", -2, "loading stale", partial(introspection.parse_list, ROWS), "7.0.0",
                "O(N) over the commands", "The commands' names.",
                "[FILTERBY (MODULE <name> | ACLCAT <category> | PATTERN <pattern>)]",
                categories="connection", tips="nondeterministic_output_order"),
    ]),
    container(_server("config", -2, "", NO_CONTAINER, "2.0.0", "", "About the configuration."), "", [
        _server("config|resetstat", 2, "admin noscript loading stale", always(commands.ConfigResetStat()), "2.0.0",
                "O(1)", "Let INFO's counts begin anew.",
                tips="request_policy:all_nodes response_policy:all_succeeded"),
        _server("config|set", -4, "admin noscript loading stale", parse_connection.parse_config_set, "2.0.0",
                "O(N) over the parameters", "Change parameters of this node, until it stops.",
                "<parameter> <value> [<parameter> <value> ...]",
                tips="request_policy:all_nodes response_policy:all_succeeded"),
        _server("config|get", -3, "admin noscript loading stale", parse_connection.parse_config_get, "2.0.0",
                "O(N) over the parameters", "Parameters that match, and their values.", "<pattern> [<pattern> ...]"),
    ]),
    _server("monitor", 1, "admin noscript loading stale", always(commands.Monitor()), "1.0.0", "O(1)",
            "Show every command that arrives at this node."),
    _server("info", -1, "loading stale", parse_connection.parse_info, "1.0.0", "O(1)",
            "How this node is and what it has done.", categories="dangerous",
            tips="nondeterministic_output request_policy:all_shards response_policy:special"),
    _server("time", 1, "loading stale fast", always(commands.Time()), "2.6.0", "O(1)", "The node's clock.",
            tips="nondeterministic_output"),
    container(_scripting("function", -2, "", NO_CONTAINER, "7.0.0", "", "There are no functions here."),
               "scripting", [
        _scripting("function|flush", -2, "write noscript", parse_connection.parse_function_flush, "7.0.0", "O(1)",
                   "Accepted; there is nothing to flush.", "[ASYNC|SYNC]", categories="scripting",
                   tips="request_policy:all_shards response_policy:all_succeeded"),
    ]),
    container(_scripting("script", -2, "", NO_CONTAINER, "2.6.0", "", "There are no scripts here."), "scripting", [
        _scripting("script|flush", -2, "noscript", parse_connection.parse_script_flush, "2.6.0", "O(1)",
                   "Accepted; there is nothing to flush.", "[ASYNC|SYNC]", categories="scripting",
                   tips="request_policy:all_nodes response_policy:all_succeeded"),
    ]),
    # pub/sub
    _pubsub("publish", 3, "pubsub loading stale fast", parse_bus.parse_publish, "2.0.0",
            "O(N) over the receivers", "Send a message to a channel, and keep it in the channel's history."),
    _pubsub("spublish", 3, "pubsub loading stale fast", parse_bus.parse_spublish, "7.0.0",
            "O(N) over the receivers", "Send a message to a shard channel.",
            keys=(1, 1, 1), key_flags="not_key"),
    _pubsub("subscribe", -2, _SUBSCRIBE, parse_bus.parse_subscribe, "2.0.0", "O(N) over the channels",
            "Get what is published to channels from now on."),
    _pubsub("unsubscribe", -1, _SUBSCRIBE, parse_bus.parse_unsubscribe, "2.0.0", "O(N) over the channels",
            "End subscriptions to channels, or all of them."),
    _pubsub("psubscribe", -2, _SUBSCRIBE, parse_bus.parse_psubscribe, "2.0.0", "O(N) over the patterns",
            "Get what is published to channels that match patterns."),
    _pubsub("punsubscribe", -1, _SUBSCRIBE, parse_bus.parse_punsubscribe, "2.0.0", "O(N) over the patterns",
            "End subscriptions to patterns, or all of them."),
    _pubsub("ssubscribe", -2, _SUBSCRIBE, parse_bus.parse_ssubscribe, "7.0.0", "O(N) over the channels",
            "Get what is sent to shard channels.", keys=(1, -1, 1), key_flags="not_key"),
    _pubsub("sunsubscribe", -1, _SUBSCRIBE, parse_bus.parse_sunsubscribe, "7.0.0", "O(N) over the channels",
            "End subscriptions to shard channels, or all of them.", keys=(1, -1, 1), key_flags="not_key"),
    container(_pubsub("pubsub", -2, "", NO_CONTAINER, "2.8.0", "", "Who subscribes to what, in the whole cluster."),
               "", [
        _pubsub("pubsub|channels", -2, "pubsub loading stale", parse_bus.parse_pubsub_channels, "2.8.0",
                "O(N) over the active channels", "Channels with subscribers.", "[<pattern>]"),
        _pubsub("pubsub|numpat", 2, "pubsub loading stale", always(commands.PubsubNumpat()), "2.8.0", "O(1)",
                "How many patterns are subscribed to."),
        _pubsub("pubsub|numsub", -2, "pubsub loading stale", parse_bus.parse_pubsub_numsub, "2.8.0",
                "O(N) over the channels asked for", "Subscribers of channels, patterns left out.", "[<channel> ...]"),
        _pubsub("pubsub|shardchannels", -2, "pubsub loading stale", parse_bus.parse_pubsub_shardchannels, "7.0.0",
                "O(N) over the active channels", "Shard channels with subscribers.", "[<pattern>]"),
        _pubsub("pubsub|shardnumsub", -2, "pubsub loading stale", parse_bus.parse_pubsub_shardnumsub, "7.0.0",
                "O(N) over the channels asked for", "Subscribers of shard channels.", "[<shardchannel> ...]"),
    ]),
    *STREAMS,
    *GROUPS,
    *KEYS,
    *STRINGS,
    # transactions
    _transactions("multi", 1, "noscript loading stale fast allow_busy", always(commands.Multi()), "1.2.0", "O(1)",
                  "Begin to queue commands."),
    _transactions("exec", 1, "noscript loading stale skip_slowlog", always(commands.Exec()), "1.2.0",
                  "As the queued commands", "Run the queued commands."),
    _transactions("discard", 1, "noscript loading stale fast allow_busy", always(commands.Discard()), "2.0.0",
                  "O(N) over the queued commands", "Forget the queued commands."),
    _transactions("watch", -2, "noscript loading stale fast allow_busy", parse_bus.parse_watch, "2.2.0",
                  "O(1) for each key", "Let EXEC fail if a key changes before it.", keys=(1, -1, 1), key_flags="RO"),
    _transactions("unwatch", 1, "noscript loading stale fast allow_busy", always(commands.Unwatch()), "2.2.0",
                  "O(1)", "Forget the watched keys."),
    # Riverbus' own
    _bus("bus.publish", -3, "pubsub loading stale fast", parse_bus.parse_bus_publish, "0.1.0",
         "O(N) over the receivers", "PUBLISH that answers with the message's id, and has one effect for each key.",
         "<channel> <message> [KEY <key>]"),
    _bus("bus.publishrun", -5, "pubsub loading stale fast", parse_bus.parse_bus_publishrun, "0.1.0",
         "O(N) over the messages and the receivers",
         "Publish messages that their producer has numbered; a number has one effect.",
         "<channel> <producer> <sequence> <message> [<message> ...]"),
    _bus("bus.subscribe", -2, _SUBSCRIBE, parse_bus.parse_bus_subscribe, "0.1.0", "O(N) over the messages since the id",
         "Messages with their ids, from after an id (SINCE) and on into live ones, without a gap."),
    container(_bus("bus.rule", -2, "", NO_CONTAINER, "0.1.0", "", "What holds for channels, by pattern."), "", [
        _bus("bus.rule|set", -3, "admin write noscript", parse_rules.parse_set, "0.1.0", "O(N) over the rules",
             "Set a rule for the channels that match; what is left out is as in the configuration's [history].",
             "<pattern> [COUNT <n>] [AGE <time>] [BYTES <size>] [DURABILITY quorum|memory|none] [WINDOW <time>] "
             "[PAYLOAD <size>]"),
        _bus("bus.rule|del", 3, "admin write noscript", parse_rules.parse_del, "0.1.0", "O(N) over the rules",
             "Delete the rule that was set for this very pattern.", "<pattern>"),
        _bus("bus.rule|get", 3, "admin noscript", parse_rules.parse_get, "0.1.0", "O(N) over the rules",
             "The rule that was set for this very pattern.", "<pattern>"),
        _bus("bus.rule|list", 2, "admin noscript", always(BusRuleList()), "0.1.0", "O(N) over the rules",
             "All rules; the first whose pattern matches a channel holds for it."),
    ]),
    _bus("bus.unsubscribe", 2, _SUBSCRIBE, parse_bus.parse_bus_unsubscribe, "0.1.0", "O(1)",
         "End a BUS.SUBSCRIBE."),
]
# fmt: on

for _one in _TABLE:
    assert _one.name.encode() not in ROWS
    ROWS[_one.name.encode()] = _one
    _ANY_CASE[_one.name.encode()] = _ANY_CASE[_one.name.upper().encode()] = _one
