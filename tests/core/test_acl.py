"""ACL rules: what they make of a user, how that is printed, and that printing and reading again changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.commands import Publish, Subscribe, XRange, XRead
from riverbus.core.access.acl import (
    RuleError,
    User,
    apply_rule,
    changed,
    check_names,
    checked_name,
    hashed,
    merged,
    read_user,
    rules_of,
)
from riverbus.core.access.acl_rights import Rights, allowed_commands, rights_of
from riverbus.keyspace_commands import Rename, SetString, XAdd
from riverbus.messages import ID_MAX, ID_MIN, Kind

CATEGORIES = {
    "get": frozenset({"read", "string", "fast"}),
    "set": frozenset({"write", "string", "slow"}),
    "rename": frozenset({"write", "keyspace", "slow"}),
    "keys": frozenset({"read", "keyspace", "slow", "dangerous"}),
    "client": frozenset({"slow"}),
    "client|id": frozenset({"connection", "slow"}),
    "client|kill": frozenset({"connection", "slow", "admin", "dangerous"}),
    "xadd": frozenset({"write", "stream", "fast"}),
    "xread": frozenset({"read", "stream", "slow", "blocking"}),
    "xrange": frozenset({"read", "stream", "slow"}),
    "publish": frozenset({"pubsub", "fast"}),
    "spublish": frozenset({"pubsub", "fast"}),
    "ssubscribe": frozenset({"pubsub", "slow"}),
    "subscribe": frozenset({"pubsub", "slow"}),
    "psubscribe": frozenset({"pubsub", "slow"}),
    "auth": frozenset({"fast", "connection"}),
}


class Names:
    def has_command(self, name: str) -> bool:
        return name in CATEGORIES

    def has_subcommands(self, name: str) -> bool:
        return any(each.startswith(name + "|") for each in CATEGORIES)


def user_of(*rules: str) -> User:
    return read_user("u", rules)


def rights(*rules: str) -> Rights:
    found = rights_of(user_of(*rules), CATEGORIES)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ("", "user u off resetchannels -@all"),
        ("on nopass ~* &* +@all", "user u on nopass ~* &* +@all"),
        ("~a* %R~b %RW~c %W~d &x &y", "user u off ~a* %R~b ~c %W~d resetchannels &x &y -@all"),
        ("%R~a %W~a ~a", "user u off ~a resetchannels -@all"),
        ("+@all -@dangerous +keys -get +client|id -client|kill",
         "user u off resetchannels +@all -@dangerous +keys -get +client|id -client|kill"),
        ("+get +set -get +@read -@read +client|id +client -client|kill",
         "user u off resetchannels -@all +set -get -@read +client -client|kill"),
        ("+client|id +client|kill -client", "user u off resetchannels -@all -client"),
        ("+@all -@all +GET -@READ", "user u off resetchannels -@all +get -@read"),
        ("allkeys allchannels allcommands resetkeys resetchannels nocommands", "user u off resetchannels -@all"),
        ("nopass #" + "a" * 64, "user u off #" + "a" * 64 + " resetchannels -@all"),
        ("#" + "a" * 64 + " nopass", "user u off nopass resetchannels -@all"),
        ("#" + "a" * 64 + " #" + "b" * 64 + " !" + "a" * 64, "user u off #" + "b" * 64 + " resetchannels -@all"),
        ("on ~* &* +@all reset", "user u off resetchannels -@all"),
        ("sanitize-payload skip-sanitize-payload", "user u off resetchannels -@all"),
    ],
)  # fmt: skip
def test_rules_make_the_line_that_redis_prints(rules: str, line: str) -> None:
    assert user_of(*rules.split()).describe() == line


def test_selectors_are_read_and_printed() -> None:
    user = user_of("+get", "(~x +get)", "(%W~y* -@all +set)", "()")
    assert user.describe() == (
        "user u off resetchannels -@all +get (~x resetchannels -@all +get) "
        "(%W~y* resetchannels -@all +set) (resetchannels -@all)"
    )
    apply_rule(user, "clearselectors")
    assert user.selectors == []


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ("foo", "Syntax error"),
        ("+", "Syntax error"),
        ("%Q~z", "Syntax error"),
        ("%~z", "Syntax error"),
        ("%RR~z", "Syntax error"),
        ("%Rz", "Syntax error"),
        ("(foo)", "Syntax error"),
        ("(on)", "Syntax error"),
        ("+get|", "Syntax error"),
        ("+client|id|x", "Allowing first-arg of a subcommand is not supported"),
        ("~* ~z", "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any "
         "effect. Try 'resetkeys' to start with an empty list of patterns"),
        ("&* &z", "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any "
         "effect. Try 'resetchannels' to start with an empty list of channels"),
        ("#abc", "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"),
        ("#" + "A" * 64,
         "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"),
        ("!" + "a" * 64, "The password you are trying to remove from the user does not exist"),
    ],
)  # fmt: skip
def test_a_bad_rule_is_refused_with_redis_words(rules: str, reason: str) -> None:
    with pytest.raises(RuleError) as error:
        user_of(*rules.split())
    assert error.value.reason == reason
    assert error.value.rule == rules.split()[-1]


@pytest.mark.parametrize("rule", ["+foo", "-foo", "+@foo", "+@", "+client|foo", "-client|foo", "(+foo)", "-@all|x"])
def test_names_that_do_not_exist_are_refused(rule: str) -> None:
    with pytest.raises(RuleError, match="Unknown command or category name in ACL") as error:
        check_names([rule], Names())
    assert error.value.rule == rule


def test_commands_of_redis_that_are_not_here_may_be_named_and_grant_nothing() -> None:
    rules = ["+@all", "-mget", "+script|load", "-eval"]
    check_names(rules, Names())
    user = user_of(*rules, "~*", "&*")
    assert user.root.commands == rules[1:]
    assert allowed_commands(user.root, CATEGORIES) == frozenset(CATEGORIES)


def test_first_arguments_of_commands_are_refused() -> None:
    with pytest.raises(RuleError, match="first argument"):
        check_names(["+get|x"], Names())
    with pytest.raises(RuleError, match="Allowing first-arg of a subcommand"):
        check_names(["+client|id|x"], Names())
    check_names(["+GET", "-@read", "+@ALL", "-client|id", "(+set -@write)", "~x", "on"], Names())


def test_passwords_become_digests_before_anything_else() -> None:
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hashed(b">abc") == "#" + digest
    assert hashed(b"<abc") == "!" + digest
    assert hashed(b"~\xff") == "~\udcff"


def test_selectors_in_several_arguments_are_one() -> None:
    assert merged([b"on", b"(~a", b"+get)", b"(x)", b"~x)"]) == [b"on", b"(~a +get)", b"(x)", b"~x)"]
    with pytest.raises(RuleError, match=r"Unmatched parenthesis in acl selector starting at '\(~a \+get'"):
        merged([b"(~a", b"+get"])


def test_a_change_is_whole_or_not_at_all() -> None:
    user = user_of("on", "+get")
    with pytest.raises(RuleError):
        changed(user, ["+set", "~a", "nonsense"])
    assert user == user_of("on", "+get")
    assert changed(user, ["+set"]).root.commands == ["+get", "+set"]
    with pytest.raises(RuleError, match="more than"):
        changed(user, ["~" + "x" * 70_000])


@pytest.mark.parametrize("name", [b"", b"a b", b"a\nb", b"a\0", b"\xff", b"a" * 257, "a\u2028b".encode(), b"\x1b[2J"])
def test_names_that_would_spoil_a_line_are_refused(name: bytes) -> None:
    with pytest.raises(RuleError, match="Usernames"):
        checked_name(name)


def test_a_name_of_any_language_is_good() -> None:
    assert checked_name("Zoë".encode()) == "Zoë"


# --- rights -----------------------------------------------------------------------------------------------------------


def test_all_rights_are_none_to_ask() -> None:
    assert rights_of(user_of("~*", "&*", "+@all"), CATEGORIES) is None
    for rules in (["~*", "&*", "+@all", "-get"], ["~*", "+@all"], ["&*", "+@all"], ["~*", "&*", "-@all", "+@read"]):
        assert rights_of(user_of(*rules), CATEGORIES) is not None


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        ("+@all -@dangerous +keys", set(CATEGORIES) - {"client|kill"}),
        ("+@read -@dangerous", {"get", "xread", "xrange"}),
        ("+client -client|kill", {"client", "client|id"}),
        ("+client|id", {"client|id"}),
        ("+@all -@all", set()),
        ("+get -@string +get", {"get"}),
        ("+unheardof +@unheardof +set", {"set"}),
    ],
)
def test_command_rules_hold_in_their_order(rules: str, allowed: set[str]) -> None:
    assert allowed_commands(user_of(*rules.split()).root, CATEGORIES) == allowed


def denied(who: Rights, command: object) -> tuple[str, bytes] | None:
    denial = who.denial(command)  # type: ignore[arg-type]
    return None if denial is None else tuple(denial)  # type: ignore[return-value]


def read_of(key: bytes) -> XRange:
    return XRange(key, ID_MIN, ID_MAX, None, False)


def test_keys_are_judged_by_what_is_done_to_them() -> None:
    who = rights("+@all", "~both:*", "%R~read:*", "%W~write:*")
    assert denied(who, read_of(b"both:1")) is None
    assert denied(who, read_of(b"read:1")) is None
    assert denied(who, read_of(b"write:1")) == ("key", b"write:1")
    assert denied(who, SetString(b"write:1", b"x")) is None
    assert denied(who, SetString(b"write:1", b"x", get=True)) == ("key", b"write:1")
    assert denied(who, SetString(b"read:1", b"x")) == ("key", b"read:1")
    assert denied(who, Rename(b"both:1", b"write:1")) is None
    assert denied(who, Rename(b"write:1", b"both:1")) == ("key", b"write:1")
    assert denied(who, XRead((b"read:1", b"secret"), (ID_MIN, ID_MIN), None, None)) == ("key", b"secret")
    assert denied(who, XAdd(b"read:1", b"")) == ("key", b"read:1")
    assert denied(who, Publish(b"read:1", Kind.XADD, [b""], "id")) == ("key", b"read:1")


def test_channels_match_and_patterns_must_be_granted_letter_for_letter() -> None:
    who = rights("+@all", "~*", "&news.*", "&one")
    assert denied(who, Publish(b"news.uk", Kind.PUBLISH, [b""])) is None
    assert denied(who, Publish(b"other", Kind.PUBLISH, [b""])) == ("channel", b"other")
    assert denied(who, Publish(b"other", Kind.SPUBLISH, [b""])) == ("channel", b"other")
    assert denied(who, Subscribe("channel", (b"one", b"two"))) == ("channel", b"two")
    assert denied(who, Subscribe("shard", (b"two",))) == ("channel", b"two")
    assert denied(who, Subscribe("pattern", (b"news.*",))) is None
    for pattern in (b"news.uk.*", b"n*", b"*", b"on[e]"):
        assert denied(who, Subscribe("pattern", (pattern,))) == ("channel", pattern)
    assert who.may_hear("bus", b"news.1")
    assert not who.may_hear("pattern", b"news.1")


def test_one_selector_must_allow_all_of_a_command() -> None:
    who = rights("+get", "~a", "(+xread %R~b ~c)", "(+xread ~d)")
    assert denied(who, XRead((b"b", b"c"), (ID_MIN, ID_MIN), None, None)) is None
    assert denied(who, XRead((b"b", b"d"), (ID_MIN, ID_MIN), None, None)) == ("key", b"b")
    assert denied(who, XRead((b"a",), (ID_MIN,), None, None)) == ("key", b"a")
    assert denied(who, SetString(b"a", b"")) == ("command", b"set")


def test_a_command_nobody_thought_of_is_for_those_who_may_touch_everything() -> None:
    class Novel:
        pass

    from riverbus.core.access.acl_subjects import subjects_of

    subjects = subjects_of(Novel())  # type: ignore[arg-type]
    assert subjects.keys
    assert subjects.patterns


# --- printing and reading ---------------------------------------------------------------------------------------------

NAMES = st.sampled_from([*CATEGORIES, "@read", "@dangerous", "@all", "@pubsub"])
PATTERNS = st.text(st.characters(exclude_characters=" \t\n\v\f\r\0", exclude_categories=["Cs"]), max_size=4)
GRANTS = st.one_of(
    st.sampled_from(["allkeys", "resetkeys", "allchannels", "resetchannels", "allcommands", "nocommands"]),
    st.sampled_from(["%RW~*", "%R~*", "~*", "&*"]),
    st.tuples(st.sampled_from("+-"), NAMES).map("".join),
    st.tuples(st.sampled_from(["~", "%R~", "%W~", "%rw~", "&"]), PATTERNS).map("".join),
    st.binary(max_size=3).map(lambda raw: hashed(b"~" + raw)),
)
RULES = st.one_of(
    GRANTS,
    st.sampled_from(["on", "off", "nopass", "resetpass", "reset", "clearselectors"]),
    st.sampled_from("abc").map(lambda digit: "#" + digit * 64),
    st.sampled_from("abc").map(lambda digit: "!" + digit * 64),
    st.lists(GRANTS, max_size=4).map(lambda grants: f"({' '.join(grants)})"),
)


@settings(max_examples=300)
@given(st.lists(RULES, max_size=12))
def test_a_user_printed_and_read_again_is_the_same_user(rules: list[str]) -> None:
    user = User("u")
    for rule in rules:
        try:
            user = changed(user, [rule])
        except RuleError:
            continue
    again = read_user("u", rules_of(user))
    assert again == user
    assert again.describe() == user.describe()
    for one, other in zip((user.root, *user.selectors), (again.root, *again.selectors), strict=True):
        assert allowed_commands(one, CATEGORIES) == allowed_commands(other, CATEGORIES)
