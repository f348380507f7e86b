"""An obviously correct bus to compare with: a list of messages per channel, trimmed by looking at all of them.

It knows no chunks, no memory limit and no tombstones: every message that ever was stays in `log`, with the place where
the retained ones begin. What tests apply to both it and the real bus is made by the strategies at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from riverbus.core.state.entries import BatchBuilder, encode_entry
from riverbus.core.state.rules import UNLIMITED, ChannelRule, Rules
from riverbus.messages import ID_MIN, Kind, Message, MessageId

START_MS = 1_000_000
CHANNELS = [b"a.one", b"a.two", b"b.one", b"c"]


class ModelChannel:
    def __init__(self, rule: ChannelRule) -> None:
        self.rule = rule
        self.log: list[Message] = []
        self.begin = 0
        self.is_explicit = False

    def append(self, time_ms: int, kind: int, payloads: Sequence[bytes]) -> MessageId:
        last = self.log[-1].id if self.log else ID_MIN
        first = MessageId(time_ms, 0) if time_ms > last.ms else last.plus(1)
        if kind == Kind.XADD and not self.is_explicit:
            self.begin += len(self.retained(time_ms)[0])
            self.is_explicit = True
        self.log += [Message(first.plus(at), kind, payload) for at, payload in enumerate(payloads)]
        if not self.is_explicit:
            self.begin = max(self.begin, len(self.log) - self.rule.count)
            while sum(len(message.body) for message in self.log[self.begin :]) > self.rule.bytes:
                self.begin += 1
        return first

    def retained(self, time_ms: int) -> tuple[list[Message], list[Message]]:
        """(what is trimmed by nothing but age, what is there)."""
        messages = self.log[self.begin :]
        if self.is_explicit:
            return [], messages
        is_young = [message.id.ms + self.rule.age_ms > time_ms for message in messages]
        begin = is_young.index(True) if True in is_young else len(messages)
        return messages[:begin], messages[begin:]

    def visible(self, time_ms: int) -> list[Message]:
        return self.retained(time_ms)[1]

    def gone_until(self, time_ms: int) -> MessageId:
        """Id of the newest message that is not there any more."""
        gone = len(self.log) - len(self.visible(time_ms))
        return self.log[gone - 1].id if gone else ID_MIN


class Model:
    def __init__(self, rules: Rules) -> None:
        self.time_ms = 0
        prefixes = {rule.match.rstrip("*").encode(): rule for rule in reversed(rules.channels)}
        self.channels = {}
        for name in CHANNELS:
            matching = [rule for prefix, rule in prefixes.items() if name.startswith(prefix)]
            self.channels[name] = ModelChannel(matching[-1] if matching else rules.default)

    def apply(self, entry: GivenEntry) -> list[MessageId]:
        self.time_ms = max(self.time_ms, entry.time_ms)
        return [self.channels[run.channel].append(self.time_ms, run.kind, run.payloads) for run in entry.runs]


class GivenRun(NamedTuple):
    channel: bytes
    kind: int
    payloads: list[bytes]


class GivenEntry(NamedTuple):
    time_ms: int
    runs: list[GivenRun]
    rules: bytes | None = None

    def encode(self) -> bytes:
        builder = BatchBuilder(1)
        for run in self.runs:
            builder.add_run(run.channel, run.kind, run.payloads)
        if self.rules is not None:
            builder.add_rules(self.rules)
        return encode_entry(self.time_ms, [builder.finish(1)])


@st.composite
def runs(draw: st.DrawFn, kinds: Sequence[int]) -> GivenRun:
    count = draw(st.sampled_from([1, 1, 1, 2, 5, 40]))
    size = draw(st.sampled_from([0, 1, 10, 100, 700, 3000]))
    salt = draw(st.integers(0, 250))
    payloads = [bytes([salt, at]) * ((size + at % 3 * (size > 1)) // 2) for at in range(count)]
    return GivenRun(draw(st.sampled_from(CHANNELS)), draw(st.sampled_from(kinds)), payloads)


def merged(entries_runs: list[GivenRun]) -> list[GivenRun]:
    """As `BatchBuilder` does: neighbours of one channel and kind are one run."""
    result: list[GivenRun] = []
    for run in entries_runs:
        if result and result[-1][:2] == run[:2]:
            result[-1] = GivenRun(run.channel, run.kind, result[-1].payloads + run.payloads)
        else:
            result.append(run)
    return result


@st.composite
def entry_lists(draw: st.DrawFn, kinds: Sequence[int] = (0, 1), entries_max: int = 40) -> list[GivenEntry]:
    time_ms = START_MS
    entries = []
    for _ in range(draw(st.integers(1, entries_max))):
        time_ms += draw(st.sampled_from([0, 0, 1, 7, 60, 300, -20, 1500]))
        entries.append(GivenEntry(time_ms, merged(draw(st.lists(runs(kinds), max_size=4)))))
    return entries


channel_rules = st.builds(
    ChannelRule,
    match=st.sampled_from(["a.*", "b.*", "*", "a.o*"]),
    count=st.sampled_from([0, 1, 3, 50, UNLIMITED]),
    age_ms=st.sampled_from([0, 50, 1000, UNLIMITED]),
    bytes=st.sampled_from([0, 100, 5000, 40_000, UNLIMITED]),
)
rule_sets = st.builds(
    Rules,
    channels=st.lists(channel_rules, max_size=2).map(tuple),
    default=channel_rules,
    shard_bytes_max=st.just(UNLIMITED),
)
