"""The rows of ACL. They are made by a function: two of them need the whole table, of which they are a part."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from riverbus import access_commands
from riverbus.commands import Answered, Command
from riverbus.wire import parse_acl
from riverbus.wire.command_row import CommandRow
from riverbus.wire.introspection import Rows
from riverbus.wire.row_makers import NO_CONTAINER, always, container, row

_FREE = "noscript loading stale"
_ADMIN = "admin " + _FREE
_server = partial(row, group="server")

# fmt: off


def acl_rows(rows: Rows, noun_of: Callable[[list[bytes]], Command]) -> CommandRow:
    """`rows` and `noun_of` are command_table.py's."""
    return container(_server("acl", -2, "", NO_CONTAINER, "6.0.0", "", "Users, and what they may do."), "", [
        _server("acl|cat", -2, _FREE, partial(parse_acl.parse_cat, rows), "6.0.0", "O(N) over the commands",
                "The categories of commands, or the commands of one.", "[<category>]"),
        _server("acl|deluser", -3, _ADMIN, parse_acl.parse_deluser, "6.0.0", "O(1) for each user",
                "Delete users; their connections are closed.", "<username> [<username> ...]"),
        _server("acl|dryrun", -4, _ADMIN, partial(parse_acl.parse_dryrun, rows, noun_of), "7.0.0", "O(1)",
                "May a user run a command?", "<username> <command> [<arg> ...]"),
        _server("acl|genpass", -2, _FREE, parse_acl.parse_genpass, "6.0.0", "O(1)",
                "A random password, in hexadecimal digits.", "[<bits>]"),
        _server("acl|getuser", 3, _ADMIN, parse_acl.parse_getuser, "6.0.0", "O(1)", "The rules of a user.",
                "<username>"),
        _server("acl|list", 2, _ADMIN, always(access_commands.AclList()), "6.0.0", "O(N) over the users",
                "All users' rules, one line each."),
        _server("acl|load", 2, _ADMIN, always(Answered(parse_acl.NO_ACL_FILE, "acl|load")), "6.0.0", "O(1)",
                "Refused: there is no ACL file."),
        _server("acl|log", -2, _ADMIN, parse_acl.parse_log, "6.0.0", "O(N) over the entries returned",
                "What this node refused lately, and whom.", "[<count> | RESET]"),
        _server("acl|save", 2, _ADMIN, always(Answered(parse_acl.NO_ACL_FILE, "acl|save")), "6.0.0", "O(1)",
                "Refused: there is no ACL file."),
        _server("acl|setuser", -3, _ADMIN, parse_acl.parse_setuser, "6.0.0", "O(N) over the rules",
                "Make or change a user, on all nodes.", "<username> [<rule> ...]"),
        _server("acl|users", 2, _ADMIN, always(access_commands.AclUsers()), "6.0.0", "O(N) over the users",
                "The names of all users."),
        _server("acl|whoami", 2, _FREE, always(access_commands.AclWhoAmI()), "6.0.0", "O(1)",
                "The user of this connection."),
    ])
