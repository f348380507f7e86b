"""Messages of peers: what is wrong is refused, and the node that got it goes on as before; what is right says so."""

import random

import pytest

from riverbus._native import BadMessage, Log, Raft, RaftPanic
from tests.native.cluster import GROUP, Cluster, make_raft

APPEND, APPEND_RESPONSE, VOTE, SNAPSHOT, HEARTBEAT, READ_INDEX = 3, 4, 5, 7, 8, 15


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(**fields: int | bytes | list[bytes]) -> bytes:
    """A Raft message in protobuf, by hand: the numbers are those of eraftpb.proto."""
    numbers = {"type": 1, "to": 2, "sender": 3, "term": 4, "log_term": 5, "index": 6, "entries": 7, "commit": 8,
               "snapshot": 9, "reject": 10, "reject_hint": 11, "context": 12, "request_snapshot": 13}  # fmt: skip
    return encoded({numbers[name]: value for name, value in ({"to": 1, "sender": 2, "term": 6} | fields).items()})


def entry(index: int, term: int, kind: int = 0, data: bytes = b"x") -> bytes:
    return encoded({1: kind, 2: term, 3: index, 4: data})


def snapshot(index: int, term: int, voters: bytes) -> bytes:
    return encoded({1: b"data", 2: encoded({1: encoded({1: voters}), 2: index, 3: term})})


def encoded(fields: dict[int, int | bytes | list[bytes]]) -> bytes:
    out = b""
    for number, value in fields.items():
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
            continue
        for item in value if isinstance(value, list) else [value]:
            out += varint(number << 3 | 2) + varint(len(item)) + item
    return out


BAD = {
    "not protobuf": b"\xff\xff\xff",
    "empty": b"",
    "from another": message(type=HEARTBEAT, sender=3),
    "to another": message(type=HEARTBEAT, to=3),
    "term 0": message(type=VOTE, term=0),
    "far term": message(type=VOTE, term=2**64 - 1),
    "unknown type": message(type=99),
    "hup": message(type=0),
    "beat": message(type=1),
    "propose": message(type=2, entries=[entry(0, 0)]),
    "propose without entries": message(type=2),
    "unreachable": message(type=10),
    "snapshot status": message(type=11),
    "check quorum": message(type=12),
    "transfer": message(type=13),
    "commit beyond the log": message(type=HEARTBEAT, term=9, commit=1000),
    "entries with a gap": message(type=APPEND, term=9, index=6, log_term=6, entries=[entry(8, 9)]),
    "previous entry without its term": message(type=APPEND, term=9, index=50, log_term=0, commit=50),
    "entries of term 0": message(type=APPEND, term=9, index=6, log_term=0, entries=[entry(7, 0)]),
    "entries of a later term": message(type=APPEND, term=9, index=6, log_term=6, entries=[entry(7, 10)]),
    "terms going back": message(type=APPEND, term=9, index=6, log_term=6, entries=[entry(7, 9), entry(8, 8)]),
    "unknown entry kind": message(type=APPEND, term=9, index=6, log_term=6, entries=[entry(7, 9, 7)]),
    "old conf change": message(type=APPEND, term=9, index=6, log_term=6, entries=[entry(7, 9, 1)]),
    "broken conf change": message(type=APPEND, term=9, index=6, log_term=6, entries=[entry(7, 9, 2, b"\xff")]),
    "huge index": message(type=APPEND, term=9, index=2**64 - 1, log_term=6),
    "read without context": message(type=READ_INDEX, term=0),
    "read with a term": message(type=READ_INDEX, entries=[entry(0, 0)]),
    "ack of the future": message(type=APPEND_RESPONSE, index=1000),
    "second leader": message(type=APPEND, index=6, log_term=6),
    "snapshot without content": message(type=SNAPSHOT, term=9),
    "snapshot without voters": message(type=SNAPSHOT, term=9, snapshot=snapshot(9, 9, b"")),
    "snapshot with a voter twice": message(type=SNAPSHOT, term=9, snapshot=snapshot(9, 9, b"\x01\x01")),
    "snapshot of a later term": message(type=SNAPSHOT, term=9, snapshot=snapshot(9, 10, b"\x01\x02")),
    "snapshot at 0": message(type=SNAPSHOT, term=9, snapshot=snapshot(0, 9, b"\x01\x02")),
    "snapshot out of place": message(type=HEARTBEAT, snapshot=snapshot(9, 6, b"\x01\x02")),
    "snapshot request": message(type=APPEND_RESPONSE, reject=1, request_snapshot=7),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_message_is_refused_and_harms_nobody(name: str) -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    before = leader.raft.status()
    with pytest.raises(BadMessage):
        leader.raft.step(BAD[name], 2)
    assert leader.raft.status() == before
    leader.raft.propose(b"works")
    cluster.deliver()
    assert cluster.payloads(1) == [b"works"]


def test_an_unknown_sender_or_oneself_is_refused() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    for sender in (0, 1):
        with pytest.raises(BadMessage):
            leader.raft.step(message(type=HEARTBEAT, sender=sender, term=9), sender)


def test_the_answer_of_a_node_that_left_is_ignored() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.raft.step(message(type=APPEND_RESPONSE, sender=9, index=6), 9)
    assert leader.raft.status()["role"] == 2


def mutated(data: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        how = draw.randrange(5)
        at = draw.randrange(len(out) + 1)
        if how == 0 and out:
            out[at % len(out)] ^= 1 << draw.randrange(8)
        elif how == 1:
            del out[at : at + draw.randint(1, 4)]
        elif how == 2:
            out[at:at] = draw.randbytes(draw.randint(1, 4))
        elif how == 3 and out:
            out[at % len(out)] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
        else:
            out += varint(draw.randint(1, 14) << 3) + varint(draw.choice([0, 1, 5, 6, 7, 2**20, 2**63, 2**64 - 1]))
    return bytes(out)


def test_mutated_messages_never_panic() -> None:
    """Each mutant goes to a node in mid-story; refused or believed (it is authenticated), it must not panic."""
    draw = random.Random(5)
    samples: list[tuple[int, int, bytes]] = []
    cluster = Cluster()

    def record(source: int, target: int, data: bytes) -> bool:
        samples.append((source, target, data))
        return True

    cluster.filter = record
    leader = cluster.elect(1)
    for number in range(8):
        leader.raft.propose(b"entry %d" % number)
        cluster.nodes[2].raft.read_index(b"read %d" % number)
        cluster.tick()
    cluster.nodes[3].raft.campaign()
    cluster.tick(2)
    samples += [(2, 1, data) for data in BAD.values()]
    cluster.filter = lambda source, target, data: True
    refused = 0
    for count in range(30_000):
        if count % 100 == 0:
            cluster = Cluster(seed=count)
            cluster.elect(draw.choice([1, 2, 3]))
            for _ in range(draw.randrange(3)):
                cluster.tick()
        source, target, data = draw.choice(samples)
        node = cluster.nodes[target]
        try:
            node.raft.step(mutated(data, draw), source)
        except BadMessage:
            refused += 1
        if draw.random() < 0.1:
            node.raft.tick()
        while (ready := node.raft.ready()) is not None:
            for index, _, kind, content in ready.committed:
                if kind:
                    node.raft.apply_conf(index, kind, content)
                node.raft.applied(index)
        if ready is None:
            node.raft.persisted(node.flush())
    assert 10_000 < refused < 30_000


def test_a_panic_poisons_the_object_and_not_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    """No message brings one about, so the test breaks the rules: two Raft objects on one log."""
    log = Log.in_memory(1)
    Raft.bootstrap(log, GROUP, [1])
    first, second = (make_raft(log, 1, applied=5) for _ in range(2))
    first.campaign()
    for _ in range(3):
        while first.ready() is not None:
            pass
        log.flush()
        first.persisted(log.sync())
    with pytest.raises(RaftPanic, match="assertion"):
        second.campaign()
    with pytest.raises(RaftPanic, match="unusable after a panic"):
        second.tick()
    first.propose(b"x")
    assert capfd.readouterr().err == ""


def test_a_message_says_whether_it_made_something_ready() -> None:
    cluster = Cluster()
    leader, follower = cluster.elect(1), cluster.nodes[2]
    leader.raft.tick()
    ready = leader.raft.ready()
    assert ready is not None
    assert follower.raft.step(next(data for to, data in ready.send_now if to == 2), 1)
    answer = follower.raft.ready()
    assert answer is not None
    assert not answer.has_more
    assert not leader.raft.step(answer.send_now[0][1], 2)  # the leader has nothing to say to it
    assert leader.raft.ready() is None
