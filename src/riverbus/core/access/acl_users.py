"""The users that this node knows, and what its sessions may do: those of its configuration, and the replicated ones.

The configuration goes first: a user of it is as it says on this node, and can't be changed by ACL SETUSER. Where it has
users, `default` is one of them; it is off unless it is configured itself. Without any there is `default`, who may do
everything without a password, until ACL SETUSER says otherwise.

What changed takes effect here, at once, for every session of the user: its rights are replaced, what it subscribes to
without a grant ends its connection, and so does the end of the user. Users are known by what this node has applied: one
that is cut off judges by what it last knew (docs/security.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from riverbus.commands import Monitor
from riverbus.core.access.acl import User, default_user
from riverbus.core.access.acl_log import AclLog
from riverbus.core.access.acl_rights import Denial, Rights, rights_of
from riverbus.core.access.acl_state import DEFAULT
from riverbus.core.access.logins import FailedLogins
from riverbus.core.clients.introspection import client_line
from riverbus.core.clients.pubsub_commands import unsubscribe_all
from riverbus.core.counters import USER_REVOKED
from riverbus.limits import FAILED_LOGINS_MAX

if TYPE_CHECKING:
    from riverbus.core.access.acl_state import AclState
    from riverbus.core.clients.session import Session
    from riverbus.core.clients.sessions import Sessions
    from riverbus.core.ports import Backend

AUTH = "auth"  # a reason of ACL LOG, beside those of a Denial
USERS_SHARD = 0  # in whose replicated state the users are


_OPEN, _SHUT = default_user(), User(DEFAULT)


class Users:
    """See the module. One a node, held by `Sessions`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._access = backend.access()
        self._seen: AclState | None = None  # the replicated state that was looked at
        self._changes = 0  # ... when it had so many
        self._compiled: dict[str, tuple[User, Rights | None]] = {}
        self.is_current = False  # since the start, the replicated users were once as fresh as any node's
        self.log = AclLog()
        self.failures = FailedLogins(FAILED_LOGINS_MAX)

    # --- who there is -----------------------------------------------------------------------------------------------

    def get(self, name: str) -> User | None:
        configured = self._access.users()
        found = configured.get(name)
        if found is None and not (configured and name == DEFAULT):
            found = self._backend.replicated_users().users.get(name)
        if found is None and name == DEFAULT:
            found = _SHUT if configured else _OPEN
        return found

    def names(self) -> list[str]:
        return sorted({DEFAULT, *self._access.users(), *self._backend.replicated_users().users})

    def lines(self) -> list[str]:
        """Those of ACL LIST."""
        return [user.describe() for name in self.names() if (user := self.get(name)) is not None]

    def has_command(self, name: str) -> bool:
        return name in self._access.categories()

    def has_subcommands(self, name: str) -> bool:
        return any(each.startswith(name + "|") for each in self._access.categories())

    def is_configured(self, name: str) -> bool:
        """True: only the configuration can change this user."""
        configured = self._access.users()
        return name in configured or (bool(configured) and name == DEFAULT)

    def is_open(self) -> bool:
        """True: a new connection is `default`'s without a password."""
        default = self.get(DEFAULT)
        return default is not None and default.is_on and default.is_nopass

    def is_passwordless(self) -> bool:
        default = self.get(DEFAULT)
        return default is not None and default.is_nopass

    def rights(self, name: str) -> Rights | None:
        """None: everything. Compiled once for each change of the user."""
        user = self.get(name) or User(name)
        compiled = self._compiled.get(name)
        if compiled is None or compiled[0] != user:
            compiled = self._compiled[name] = (user, rights_of(user, self._access.categories()))
        return compiled[1]

    # --- logging in -------------------------------------------------------------------------------------------------

    def check_password(self, name: str, password: bytes, done: Callable[[bool], None]) -> None:
        """`done` once, now or later. The work is the same whether there is such a user or not."""
        user = self.get(name)
        hashes = () if user is None else tuple(user.hashes)

        def checked(is_right: bool) -> None:
            now_user = self.get(name)  # it may have been changed while a slow check went on
            if now_user is None or now_user != user or not now_user.is_on:
                done(False)
            else:
                done(is_right or now_user.is_nopass)

        self._access.check_password(name, password, hashes, checked)

    def on_log_in(self, session: Session, name: str) -> None:
        session.user = name
        session.is_authenticated = True
        session.rights = self.rights(name)
        session.pipeline.update_plain()

    # --- changes ----------------------------------------------------------------------------------------------------

    def look(self, sessions: Sessions) -> None:
        """After entries of shard 0 were applied, or its state replaced: what has changed for whom?"""
        state = self._backend.replicated_users()
        if state is self._seen and state.changes == self._changes:
            return
        self._seen, self._changes = state, state.changes
        self._compiled = {name: held for name, held in self._compiled.items() if self.get(name) is not None}
        is_open = self.is_open()
        for session in list(sessions.by_id.values()):
            if session.is_authenticated:
                self._renew(session)
            elif is_open:
                self.on_log_in(session, DEFAULT)

    def _renew(self, session: Session) -> None:
        if self.get(session.user) is None:
            _end(session)
            return
        rights = self.rights(session.user)
        if rights is session.rights:
            return
        session.rights = rights
        session.pipeline.update_plain()
        if rights is None:
            return
        held = [(space, name) for space, names in session.subscribed.items() for name in names]
        is_watching = session in session.registry.monitors and rights.denial(Monitor()) is not None
        if is_watching or not all(rights.may_hear(space, name) for space, name in held):
            _end(session)
        elif session.blocked_read is not None:
            session.pipeline.judge_blocked()

    # --- refusals ---------------------------------------------------------------------------------------------------

    def on_denied(self, session: Session, denial: Denial, context: str) -> None:
        self._note(session, denial.reason, context, denial.object, session.user)

    def on_failed_login(self, session: Session, name: str, command: bytes) -> None:
        context = "toplevel" if session.transaction is None and session.pipeline.execution is None else "multi"
        self.failures.on_failure(session.address, self._backend.time())
        self._note(session, AUTH, context, command, name)

    def _note(self, session: Session, reason: str, context: str, object_: bytes, user: str) -> None:
        now, wall_ms = self._backend.time(), self._backend.wall_ms()
        self.log.add(reason, context, object_, user, client_line(session, session.last_command), now, wall_ms)


def _end(session: Session) -> None:
    """The session's user, or its right to what it is subscribed to, is no more. What is in flight is still answered."""
    session.counters.dropped[USER_REVOKED] += 1
    if session.is_blocked or session.blocked_read is not None:
        session.disconnect(None)
    else:
        unsubscribe_all(session)
        session.registry.monitors.remove(session)
        session.close_when_answered()
