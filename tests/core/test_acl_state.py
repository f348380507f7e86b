"""The replicated users: what operations make of them, the same on every replica, and whole in snapshots."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus import limits
from riverbus.access_commands import AclDelUser, AclSetUser
from riverbus.core.access import acl_state
from riverbus.core.access.acl import default_user
from riverbus.core.access.acl_state import AclState
from riverbus.core.state.bus import Bus, WriteResult
from riverbus.core.state.entries import BatchBuilder, encode_entry
from riverbus.core.state.rules import Rules
from riverbus.core.state.snapshot import BusRestore
from riverbus.messages import ErrorReply, Status


def apply(bus: Bus, *nouns: AclSetUser | AclDelUser) -> list[object]:
    builder = BatchBuilder(1)
    for noun in nouns:
        builder.add_write(noun)
    applied = bus.apply(bus.applied_index + 1, encode_entry(bus.time_ms + 1, [builder.finish(1)]))
    bus.invariants()
    replies: list[object] = []
    for result in applied.results[0].results:
        assert isinstance(result, WriteResult)
        replies.append(result.reply)
    return replies


def restored(bus: Bus, slice_bytes: int = 512) -> Bus:
    writer, reader = bus.begin_snapshot(), BusRestore(Rules())
    while (piece := writer.next_slice(slice_bytes)) is not None:
        reader.feed(piece)
    return reader.finish()


def lines(bus: Bus) -> list[str]:
    return [user.describe() for user in bus.users.users.values()]


def test_users_are_made_changed_and_deleted() -> None:
    bus = Bus(Rules())
    assert apply(bus, AclSetUser(b"a", (b"on", b"+get")), AclSetUser(b"a", (b"~x",))) == [Status("OK"), Status("OK")]
    assert lines(bus) == ["user a on ~x resetchannels -@all +get"]
    (reply,) = apply(bus, AclSetUser(b"a", (b"off", b"nonsense")))
    assert reply == ErrorReply("ERR Error in ACL SETUSER modifier 'nonsense': Syntax error")
    assert lines(bus) == ["user a on ~x resetchannels -@all +get"]
    assert apply(bus, AclDelUser((b"a", b"b", b"a", b"default"))) == [1]
    assert lines(bus) == []


def test_default_begins_as_who_may_do_everything() -> None:
    bus = Bus(Rules())
    apply(bus, AclSetUser(b"default", (b"-get",)))
    assert lines(bus) == ["user default on nopass ~* &* +@all -get"]
    assert default_user().describe() == "user default on nopass ~* &* +@all"


def test_rules_that_this_version_does_not_know_are_kept_as_they_stand() -> None:
    """A newer node let them in: every replica must have the same user, whatever it makes of it."""
    bus = Bus(Rules())
    assert apply(bus, AclSetUser(b"a", (b"+getfromthefuture", b"-@newcategory"))) == [Status("OK")]
    assert lines(bus) == ["user a off resetchannels -@all +getfromthefuture -@newcategory"]
    assert lines(restored(bus)) == lines(bus)


def test_bounds_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acl_state, "ACL_USERS_MAX", 3)
    bus = Bus(Rules())
    replies = apply(bus, *(AclSetUser(b"u%d" % number, ()) for number in range(5)))
    assert [type(reply) for reply in replies] == [Status] * 3 + [ErrorReply] * 2
    (reply,) = apply(bus, AclSetUser(b"u1", (b"~" + b"x" * limits.ACL_USER_BYTES_MAX,)))
    assert "would take more than" in str(reply)
    monkeypatch.setattr(acl_state, "ACL_STATE_BYTES_MAX", 200)
    (reply,) = apply(bus, AclSetUser(b"u1", (b"~" + b"x" * 200,)))
    assert "all users' rules together" in str(reply)


def test_memory_is_accounted_for() -> None:
    bus = Bus(Rules())
    before = bus.memory_bytes
    apply(bus, AclSetUser(b"a", (b"~" + b"x" * 5000,)))
    assert bus.memory_bytes - before > 5000
    apply(bus, AclDelUser((b"a",)))
    assert bus.memory_bytes == before


def test_a_snapshot_is_of_its_moment_while_users_change() -> None:
    bus = Bus(Rules())
    apply(bus, *(AclSetUser(b"u%d" % number, (b"on", b"~k%d" % number)) for number in range(1500)))
    expected, hashed, index = lines(bus), bus.running_hash, bus.applied_index
    writer, reader = bus.begin_snapshot(), BusRestore(Rules())
    number = 0
    while (piece := writer.next_slice(4096)) is not None:
        reader.feed(piece)
        apply(bus, AclSetUser(b"u%d" % number, (b"off",)), AclDelUser((b"u%d" % (number + 700),)))
        number += 1
    copy = reader.finish()
    assert lines(copy) == expected
    assert (copy.running_hash, copy.applied_index) == (hashed, index)
    copy.invariants()


def test_damage_is_found() -> None:
    state = AclState()
    for data in (b"", b"\xc1", b"\x91\x92\xa1a\x91\xc4\x03foo", b"\x91\xa1a"):
        with pytest.raises(ValueError, match="can't be read"):
            state.restore(data)
    good = acl_state.encode_users([default_user()])
    state.restore(good)
    with pytest.raises(ValueError, match="twice"):
        state.restore(good)


RULES = st.sampled_from(
    [b"on", b"off", b"+get", b"-@read", b"~a", b"~*", b"&c", b"resetkeys", b"nonsense", b"(~b +set)"]
)
NOUNS = st.one_of(
    st.builds(AclSetUser, st.sampled_from([b"a", b"b", b"default"]), st.lists(RULES, max_size=4).map(tuple)),
    st.builds(AclDelUser, st.lists(st.sampled_from([b"a", b"b", b"default"]), max_size=3).map(tuple)),
)


@settings(max_examples=50)
@given(st.lists(NOUNS, max_size=20))
def test_replicas_agree_and_a_restored_one_goes_on_as_they_do(nouns: list[AclSetUser | AclDelUser]) -> None:
    one, other = Bus(Rules()), Bus(Rules())
    half = len(nouns) // 2
    for noun in nouns[:half]:
        assert apply(one, noun) == apply(other, noun)
    other = restored(other)
    for noun in nouns[half:]:
        assert apply(one, noun) == apply(other, noun)
    assert lines(one) == lines(other)
    assert one.running_hash == other.running_hash
