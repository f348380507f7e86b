"""The rule of runtime/identity.py as a model: which simulated directories may be linked, and who founds the cluster.

A disk draws its incarnation when it is made, and is fresh until it has the incarnations of all members on record. The
member of the lowest id founds, once it is linked to all others at one time and all are fresh; whoever is fresh adopts a
record that has its very incarnation in it. So a wiped node, whose incarnation nobody knows, is refused for ever.
"""

from __future__ import annotations

from random import Random


class SimIdentity:
    """One directory's. `record` has the incarnation of every member; empty while fresh."""

    def __init__(self, node: int, random: Random) -> None:
        self.node = node
        self.incarnation = random.getrandbits(128)
        self.record: dict[int, int] = {}

    @property
    def is_founded(self) -> bool:
        return bool(self.record)

    def found(self, others: list[SimIdentity]) -> None:
        assert not any(each.is_founded for each in (self, *others)), "a cluster is founded once"
        self.record = {each.node: each.incarnation for each in (self, *others)}


def may_link(one: SimIdentity, other: SimIdentity) -> bool:
    """What the two ends of a handshake decide; a fresh one that is on the other's record adopts it."""
    for fresh, founded in ((one, other), (other, one)):
        if not fresh.is_founded and founded.is_founded and founded.record[fresh.node] == fresh.incarnation:
            fresh.record = dict(founded.record)
    if not one.is_founded and not other.is_founded:
        return True  # strangers, until one of them founds
    return one.record == other.record and one.record.get(other.node) == other.incarnation
