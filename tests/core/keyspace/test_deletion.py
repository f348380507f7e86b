"""Messages taken out of the middle of a channel, against a list."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from riverbus.commands import XRange
from riverbus.keyspace_commands import Trim, XDel, XTrim
from riverbus.messages import ID_MAX, ID_MIN, Kind, MessageId
from tests.core.keyspace.shard import Shard, body

runs = st.lists(st.tuples(st.sampled_from([1, 1, 2, 9, 200]), st.sampled_from([1, 60, 900])), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(given_runs=runs, data=st.data())
def test_what_is_deleted_is_gone_and_the_rest_is_read_as_before(
    given_runs: list[tuple[int, int]], data: st.DataObject
) -> None:
    shard = Shard()
    there: dict[MessageId, bytes] = {}
    for count, size in given_runs:
        bodies = [body(b"%d" % at + b"x" * size) for at in range(count)]
        first = shard.publish(b"s", *bodies, kind=Kind.XADD)
        assert isinstance(first, MessageId)
        there |= {first.plus(at): each for at, each in enumerate(bodies)}
        shard.at_ms += data.draw(st.integers(0, 1))
    for _ in range(data.draw(st.integers(1, 6))):
        if not there:
            break
        known = list(there)
        start = data.draw(st.integers(0, len(known) - 1))
        step, count = data.draw(st.sampled_from([1, 2, 7])), data.draw(st.sampled_from([1, 3, 50]))
        chosen = known[start::step][:count]
        strangers = [MessageId(1, 1), ID_MAX, chosen[0]]
        assert shard.do(XDel(b"s", tuple(chosen + strangers))) == len(chosen)
        for each in chosen:
            del there[each]
        if data.draw(st.integers(0, 4)) == 0:
            keep = data.draw(st.integers(0, len(there)))
            assert shard.do(XTrim(b"s", Trim(maxlen=keep))) == len(there) - keep
            there = {each: there[each] for each in list(there)[len(there) - keep :]}
        bus = shard.bus
        assert {message.id: message.body for message in bus.range(b"s", ID_MIN, ID_MAX)} == there
        assert [message.id for message in bus.range(b"s", ID_MIN, ID_MAX, reverse=True)] == list(there)[::-1]
        read = bus.read_after(b"s", ID_MIN)
        assert [m for _, f, payloads in read.runs for m in payloads] == list(there.values())
        assert not read.more
        assert bus.length(b"s") == len(there)


def test_a_deletion_is_no_gap_but_trimming_is() -> None:
    shard = Shard()
    shard.add(b"s", "1-0 2-0 3-0")
    shard.do(XDel(b"s", (MessageId(1, 0), MessageId(3, 0))))
    read = shard.bus.read_after(b"s", ID_MIN)
    assert (read.gap_until, read.cursor, read.more) == (None, MessageId(3, 0), False)
    shard.do(XTrim(b"s", Trim(maxlen=0)))
    assert shard.bus.read_after(b"s", ID_MIN).gap_until == MessageId(3, 0)
    assert shard.ask(XRange(b"s", ID_MIN, ID_MAX, None, False)) == []
