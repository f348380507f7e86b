"""Stories of a Raft group: every fact of consensus.md that the driver relies on, against the real crate in memory."""

import pytest

from riverbus._native import (
    FOLLOWER,
    LEADER,
    Log,
    LogError,
    NotLeader,
    ProposalDropped,
    Raft,
    RaftError,
)
from tests.native.cluster import GROUP, Cluster, Node, make_raft


def test_a_single_voter_commits_and_never_gets_stuck() -> None:
    cluster = Cluster([1])
    node = cluster.elect(1)
    for number in range(5):
        assert node.raft.propose(b"entry %d" % number) == (7 + number, 6)
        cluster.deliver()
    assert cluster.payloads(1) == [b"entry %d" % number for number in range(5)]
    assert node.entries[0] == (6, 6, b"")
    assert node.raft.read_index(b"now")
    cluster.deliver()
    assert node.reads == [(11, b"now")]


def test_three_nodes_elect_replicate_and_apply_the_same() -> None:
    cluster = Cluster()
    leader = cluster.elect(2)
    for number in range(10):
        leader.raft.propose(b"entry %d" % number)
    cluster.deliver()
    cluster.tick(2)
    assert cluster.payloads(1) == cluster.payloads(2) == cluster.payloads(3) == [b"entry %d" % n for n in range(10)]
    assert [node.raft.status()["leader"] for node in cluster.nodes.values()] == [2, 2, 2]


def test_a_leaders_entries_leave_before_its_disk_and_a_followers_answer_does_not() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.raft.propose(b"x")
    ready = leader.raft.ready()
    assert ready is not None
    assert ready.must_sync
    assert sorted(to for to, _ in ready.send_now) == [2, 3]
    follower = cluster.nodes[2]
    follower.raft.step(next(data for to, data in ready.send_now if to == 2), 1)
    answer = follower.raft.ready()
    assert answer is not None
    assert answer.must_sync
    assert answer.send_now == []
    batch = follower.log.flush()
    assert follower.raft.persisted(batch) == []  # handed over is not durable
    assert follower.log.completed() < batch
    assert follower.log.sync() == batch
    assert [to for to, _ in follower.raft.persisted(batch)] == [1]
    assert follower.raft.persisted(batch) == []


def test_entries_sent_again_behind_a_commit_notice_follow_the_right_index() -> None:
    """raft-rs would put them into the notice, which follows a later index. Found by tests/faults, scenario weather."""
    cluster = Cluster()
    leader, second, third = cluster.elect(1), cluster.nodes[2], cluster.nodes[3]
    leader.raft.propose(b"lost on its way to node 2")
    for message in [data for to, data in leader.take() if to == 3]:
        third.raft.step(message, 1)
    for _, data in third.take():
        leader.raft.step(data, 3)  # it is committed: a notice of that is queued for node 2
    leader.raft.report(2, "unreachable")
    leader.raft.propose(b"next")
    appends = [data for to, data in leader.take() if to == 2]
    assert appends
    for data in appends:
        second.raft.step(data, 1)
    cluster.deliver()
    cluster.tick(2)
    assert cluster.payloads(2) == [b"lost on its way to node 2", b"next"]


def test_nothing_to_persist_with_nothing_under_way_is_sent_at_once() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.raft.tick()
    ready = leader.raft.ready()
    assert ready is not None
    heartbeat = next(data for to, data in ready.send_now if to == 2)
    cluster.nodes[2].raft.step(heartbeat, 1)
    answer = cluster.nodes[2].raft.ready()
    assert answer is not None
    assert not answer.must_sync
    assert [to for to, _ in answer.send_now] == [1]


def test_nothing_to_persist_waits_behind_what_is_under_way() -> None:
    cluster = Cluster()
    leader, follower = cluster.elect(1), cluster.nodes[2]
    leader.raft.propose(b"x")
    ready = leader.raft.ready()
    assert ready is not None
    follower.raft.step(next(data for to, data in ready.send_now if to == 2), 1)
    assert follower.raft.ready() is not None
    leader.raft.tick()
    ready = leader.raft.ready()
    assert ready is not None
    follower.raft.step(next(data for to, data in ready.send_now if to == 2), 1)
    second = follower.raft.ready()
    assert second is not None
    assert second.send_now == []
    assert len(follower.raft.persisted(follower.flush())) == 2


def test_a_commit_index_alone_needs_no_flush() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.raft.propose(b"x")
    cluster.deliver()
    follower = cluster.nodes[3]
    before = follower.log.flush()
    leader.raft.tick()
    cluster.deliver()
    assert follower.applied == leader.applied
    assert follower.log.flush() == before


def test_a_cut_off_leader_steps_down_and_its_entries_are_overwritten() -> None:
    cluster = Cluster()
    old = cluster.elect(1)
    cluster.cut = {1}
    assert old.raft.propose(b"lost") == (7, 6)
    cluster.deliver()
    cluster.tick(40)
    new = cluster.leader()
    assert new is not None
    assert old.raft.status()["role"] != LEADER  # check_quorum
    index, term = new.raft.propose(b"kept")
    cluster.deliver()
    cluster.cut = set()
    cluster.tick(5)
    assert (index, term, b"kept") in old.entries
    assert old.raft.term_of(7) != 6
    assert cluster.payloads(1) == cluster.payloads(2) == cluster.payloads(3) == [b"kept"]


def test_a_node_that_was_cut_off_does_not_disturb_with_its_term() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    term = leader.raft.status()["term"]
    cluster.cut = {3}
    cluster.tick(100)
    cluster.cut = set()
    cluster.tick(5)
    assert leader.raft.status()["role"] == LEADER
    assert leader.raft.status()["term"] == term  # pre_vote


def test_acknowledged_entries_survive_the_crash_of_all() -> None:
    for seed in range(20):
        cluster = Cluster(seed=seed)
        leader = cluster.elect(1)
        for number in range(6):
            leader.raft.propose(b"entry %d" % number)
        cluster.deliver()
        leader.raft.propose(b"never acknowledged")
        leader.raft.ready()
        leader.log.flush()
        for number, node in cluster.nodes.items():
            node.crash(seed * 10 + number)
        cluster.tick(60)
        found = cluster.leader()
        assert found is not None
        found.raft.propose(b"after")
        cluster.deliver()
        cluster.tick(2)
        payloads = [data for data in cluster.payloads(1) if data != b"never acknowledged"]
        assert payloads == [b"entry %d" % number for number in range(6)] + [b"after"]
        assert cluster.payloads(1) == cluster.payloads(2) == cluster.payloads(3)


def test_a_follower_that_fell_off_the_log_gets_the_offered_snapshot() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.cut = {3}
    for number in range(20):
        leader.raft.propose(b"entry %d" % number)
        cluster.deliver()
    leader.raft.compact(leader.applied - 2)
    assert leader.log.first_index(GROUP) == leader.applied - 1
    assert leader.raft.snapshot_wanted() is None
    cluster.cut = set()
    cluster.tick(3)
    assert leader.raft.snapshot_wanted() == leader.applied - 2
    leader.save()
    assert leader.raft.snapshot_wanted() is None
    sent: list[tuple[int, int, bytes]] = []

    def watch(source: int, target: int, data: bytes) -> bool:
        snapshot = Raft.peek_snapshot(data)
        if snapshot is not None:
            sent.append(snapshot)
            assert Raft.peek(data)[1:3] == (source, target)
        return True

    cluster.filter = watch
    cluster.tick(3)
    progress = leader.raft.status()["progress"]
    assert isinstance(progress, dict)
    follower = cluster.nodes[3]
    assert sent == follower.snapshots == [(26, 6, b"snapshot at 26")]
    assert progress[3]["state"] == "probe" or progress[3]["matched"] == 26
    leader.raft.report(3, "snapshot_ok")
    leader.raft.propose(b"after")
    cluster.deliver()
    cluster.tick(2)
    assert cluster.payloads(3) == [b"after"]
    follower.crash()
    cluster.tick(3)
    assert follower.log.first_index(GROUP) == 27
    assert cluster.payloads(3) == [b"after"]


def test_a_lost_snapshot_is_sent_again_only_after_the_report() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.cut = {3}
    leader.raft.propose(b"x")
    cluster.deliver()
    leader.raft.compact(leader.applied)
    leader.save()
    cluster.cut = set()
    snapshots = 0

    def lose(source: int, target: int, data: bytes) -> bool:
        nonlocal snapshots
        is_snapshot = Raft.peek_snapshot(data) is not None
        snapshots += is_snapshot
        return not is_snapshot

    cluster.filter = lose
    cluster.tick(20)
    assert snapshots == 1
    leader.raft.report(3, "snapshot_failed")
    cluster.tick(3)
    assert snapshots == 2


def test_membership_goes_joint_and_leaves_by_an_empty_change(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.add(4)
    cluster.add(5)
    kinds: list[tuple[int, bytes]] = []
    index, _ = leader.raft.propose_conf([("voter", 4), ("learner", 5), ("remove", 3)], b"why")
    with pytest.raises(ProposalDropped):
        leader.raft.propose_conf([("voter", 9)], b"")
    apply_conf = Node.apply_conf

    def watch(node: Node, at: int, kind: int, data: bytes) -> None:
        if node is leader:
            kinds.append((at, data))
        apply_conf(node, at, kind, data)

    monkeypatch.setattr(Node, "apply_conf", watch)
    cluster.deliver()
    assert leader.raft.status()["voters_outgoing"] == [1, 2, 3]
    leader.save()  # the newcomers start from a snapshot
    cluster.tick(3)  # the leader appends the way out of the joint membership; the next heartbeat's answers carry it
    for peer in (4, 5):
        leader.raft.report(peer, "snapshot_ok")
    cluster.tick(3)
    assert [at for at, _ in kinds] == [index, index + 1]
    assert kinds[1][1] == b""
    status = leader.raft.status()
    assert (status["voters"], status["learners"], status["voters_outgoing"]) == ([1, 2, 4], [5], [])
    assert cluster.nodes[4].raft.status()["voters"] == [1, 2, 4]
    cluster.nodes[4].crash()
    assert cluster.nodes[4].raft.status()["voters"] == [1, 2, 4]  # not applied twice, although entries are


def test_an_invalid_membership_change_says_so() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    with pytest.raises(ProposalDropped):
        leader.raft.propose_conf([], b"")  # nothing to leave
    with pytest.raises(ValueError, match="voter, learner or remove"):
        leader.raft.propose_conf([("king", 4)], b"")
    with pytest.raises(NotLeader):
        cluster.nodes[2].raft.propose_conf([("voter", 4)], b"")


def test_leadership_is_handed_over() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    with pytest.raises(NotLeader):
        cluster.nodes[2].raft.transfer(3)
    leader.raft.transfer(3)
    with pytest.raises(ProposalDropped, match="transferred"):
        leader.raft.propose(b"x")
    cluster.deliver()
    assert cluster.nodes[3].raft.status()["role"] == LEADER
    assert leader.raft.status()["role"] == FOLLOWER


def test_reads_are_fresh_on_every_node_and_refused_where_raft_would_drop_them() -> None:
    cluster = Cluster()
    assert not cluster.nodes[2].raft.read_index(b"a")  # no leader
    leader = cluster.elect(1)
    leader.raft.propose(b"x")
    cluster.deliver()
    for node in cluster.nodes.values():
        assert node.raft.read_index(b"same context")
    cluster.deliver()
    for node in cluster.nodes.values():
        assert node.reads == [(7, b"same context")]
    cluster.nodes[2].raft.campaign()
    assert not cluster.nodes[2].raft.read_index(b"b")  # candidate


def test_a_new_leader_refuses_reads_until_it_has_committed_in_its_term() -> None:
    cluster = Cluster()
    node = cluster.nodes[1]
    node.raft.campaign()
    cluster.filter = lambda source, target, data: Raft.peek(data)[0] not in (3, 4)  # no appends
    cluster.deliver()
    assert node.raft.status()["role"] == LEADER
    assert not node.raft.read_index(b"x")


def test_proposals_need_the_leader_and_room() -> None:
    cluster = Cluster()
    cluster.elect(1)
    with pytest.raises(NotLeader) as error:
        cluster.nodes[2].raft.propose(b"x")
    assert error.value.args == (1,)
    log = Log.in_memory(1)
    Raft.bootstrap(log, GROUP, [1, 2])
    small = make_raft(log, 1, applied=5, max_uncommitted_size=1000, max_size_per_msg=1000)
    with pytest.raises(NotLeader) as error:
        small.propose(b"x")
    assert error.value.args == (0,)
    leader = cluster.nodes[1]
    cluster.cut = {2, 3}
    for _ in range(32):
        leader.raft.propose(bytes(1 << 20))
    with pytest.raises(ProposalDropped, match="uncommitted"):
        leader.raft.propose(bytes(1 << 20))


def test_elections_are_the_same_for_the_same_seed() -> None:
    def story(seed: int) -> list[object]:
        cluster = Cluster(seed=seed)
        seen: list[object] = []
        for _ in range(60):
            cluster.tick()
            for node in cluster.nodes.values():
                status = node.raft.status()
                seen.append((status["term"], status["role"], status["leader"], status["election_timeout"]))
        return seen

    assert story(3) == story(3)
    assert len({str(story(seed)) for seed in range(6)}) == 6


def test_a_newcomer_is_not_taken_for_a_bootstrapped_node() -> None:
    node = Node(9, None)
    assert not Raft.is_bootstrapped(node.log, GROUP)
    assert node.log.groups() == []
    for _ in range(100):
        node.raft.tick()
    assert node.take() == []  # it can't campaign: it has no membership
    bootstrapped = Node(1, [1, 2, 3])
    assert Raft.is_bootstrapped(bootstrapped.log, GROUP)
    with pytest.raises(RaftError, match="exists"):
        Raft.bootstrap(bootstrapped.log, GROUP, [1])
    with pytest.raises(ValueError, match="voters"):
        Raft.bootstrap(node.log, GROUP, [])


def test_applied_must_be_within_the_log() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.raft.propose(b"x")
    cluster.deliver()
    with pytest.raises(ValueError, match="not within"):
        leader.raft.applied(99)
    with pytest.raises(ValueError, match="can't compact"):
        leader.raft.compact(99)
    log = leader.log.crash(1)
    for applied in (4, 99):
        with pytest.raises(LogError, match="applied index"):
            make_raft(log, 1, applied=applied)
    assert leader.entries[0][0] == 6
    with pytest.raises(LogError, match="crashed"):
        leader.raft.tick()
