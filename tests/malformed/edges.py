"""The edges by name: what `python -m tests.malformed` runs, and what regressions replay."""

from __future__ import annotations

from tests.malformed import entry_edge, http_edge, peer_edge, raft_edge, resp_edge
from tests.malformed.driver import Edge

EDGES = {
    edge.name: edge
    for edge in (
        Edge("resp", resp_edge.RespSubject, resp_edge.generator, 400),
        Edge("peer", peer_edge.PeerSubject, peer_edge.generator, 400),
        Edge("http", http_edge.HttpSubject, http_edge.generator, 200),
        Edge("raft", raft_edge.RaftSubject, raft_edge.generator, 200),
        Edge("entry", entry_edge.EntrySubject, entry_edge.generator, 200),
    )
}
