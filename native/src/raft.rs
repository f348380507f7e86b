//! The Python class `Raft`: each call guarded, so that a panic poisons this object and nothing else.

use std::sync::{Mutex, PoisonError};

use protobuf::Message as _;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use raft::eraftpb::{ConfState, Message, MessageType, Snapshot};

use crate::errors::{caught, Error, Result};
use crate::log::Log;
use crate::logcore::{lock, SharedCore};
use crate::node::{Node, Settings};
use crate::ready::{encode_all, role_number, snapshot_tuple, Ready};
use crate::storage::conf_state_fault;
use crate::validate::{decode, head};

#[pyclass(frozen, module = "riverbus._native")]
pub struct Raft {
    guarded: Mutex<Guarded>,
    core: SharedCore,
    node: u64,
}

struct Guarded {
    node: Node,
    panic: Option<String>,
}

impl Raft {
    /// Runs a call. The log's own fault comes first: raft-rs answers a failed read with a panic, or hides it.
    fn call<T>(&self, body: impl FnOnce(&mut Node) -> Result<T>) -> Result<T> {
        let mut guarded = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(panic) = &guarded.panic {
            return Err(Error::Panic(format!("unusable after a panic: {panic}")));
        }
        lock(&self.core).check()?;
        let node = &mut guarded.node;
        let outcome = caught(|| {
            let result = body(node);
            node.draw_timeout();
            result
        });
        if let Err(panic) = &outcome {
            guarded.panic = Some(panic.clone());
        }
        lock(&self.core).check()?;
        outcome.unwrap_or_else(|panic| Err(Error::Panic(panic)))
    }
}

fn parse_conf_state(bytes: &[u8]) -> Result<ConfState> {
    let conf_state = ConfState::parse_from_bytes(bytes).map_err(|error| Error::Value(error.to_string()))?;
    match conf_state_fault(&conf_state) {
        None => Ok(conf_state),
        Some(fault) => Err(Error::Value(fault.into())),
    }
}

#[pymethods]
impl Raft {
    #[new]
    #[pyo3(signature = (log, group, node, *, seed, applied, election_ticks, heartbeat_ticks, max_size_per_msg,
                        max_inflight_msgs, max_uncommitted_size, max_committed_size_per_ready))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        log: &Log,
        group: u64,
        node: u64,
        seed: u64,
        applied: u64,
        election_ticks: usize,
        heartbeat_ticks: usize,
        max_size_per_msg: u64,
        max_inflight_msgs: usize,
        max_uncommitted_size: u64,
        max_committed_size_per_ready: u64,
    ) -> PyResult<Raft> {
        let settings = Settings {
            seed,
            applied,
            election_ticks,
            heartbeat_ticks,
            max_size_per_msg,
            max_inflight_msgs,
            max_uncommitted_size,
            max_committed_size_per_ready,
        };
        let core = log.core.clone();
        let made = caught(|| Node::new(core.clone(), group, node, &settings));
        lock(&core).check()?;
        let inner = made.map_err(Error::Panic)??;
        Ok(Raft { guarded: Mutex::new(Guarded { node: inner, panic: None }), core, node })
    }

    #[staticmethod]
    fn bootstrap(log: &Log, group: u64, mut voters: Vec<u64>) -> PyResult<()> {
        voters.sort_unstable();
        let conf_state = ConfState { voters: voters.clone(), ..ConfState::default() };
        if let Some(fault) = conf_state_fault(&conf_state) {
            return Err(Error::Value(fault.into()).into());
        }
        Ok(lock(&log.core).bootstrap(group, voters)?)
    }

    #[staticmethod]
    fn is_bootstrapped(log: &Log, group: u64) -> PyResult<bool> {
        Ok(lock(&log.core).group(group)?.is_bootstrapped())
    }

    #[staticmethod]
    fn peek(raft_message: &[u8]) -> PyResult<(i32, u64, u64, u64)> {
        Ok(caught(|| head(raft_message)).map_err(Error::BadMessage)??)
    }

    #[staticmethod]
    fn peek_snapshot<'py>(py: Python<'py>, raft_message: &[u8]) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let message: Message = caught(|| decode(raft_message)).map_err(Error::BadMessage)??;
        if message.msg_type != MessageType::MsgSnapshot {
            return Ok(None);
        }
        snapshot_tuple(py, message.get_snapshot()).map(Some)
    }

    fn tick(&self) -> PyResult<bool> {
        Ok(self.call(|node| {
            if !node.is_installing() {
                node.raw.tick();
            }
            Ok(node.raw.has_ready())
        })?)
    }

    fn step(&self, raft_message: &[u8], sender: u64) -> PyResult<bool> {
        Ok(self.call(|node| {
            node.step(raft_message, sender)?;
            Ok(node.raw.has_ready())
        })?)
    }

    fn propose(&self, data: &[u8]) -> PyResult<(u64, u64)> {
        Ok(self.call(|node| node.propose(data))?)
    }

    fn propose_conf(&self, changes: Vec<(String, u64)>, context: &[u8]) -> PyResult<(u64, u64)> {
        Ok(self.call(|node| node.propose_conf(&changes, context))?)
    }

    fn apply_conf<'py>(&self, py: Python<'py>, index: u64, kind: u8, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let conf_state = self.call(|node| match kind {
            2 => node.apply_conf(index, data),
            _ => Err(Error::Value(format!("kind {kind} is no membership change"))),
        })?;
        conf_state_bytes(py, &conf_state)
    }

    fn conf_state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let conf_state = self.call(|node| Ok(node.conf_state()))?;
        conf_state_bytes(py, &conf_state)
    }

    fn read_index(&self, context: &[u8]) -> PyResult<bool> {
        let mut unique = self.node.to_le_bytes().to_vec();
        unique.extend_from_slice(context);
        Ok(self.call(|node| Ok(node.read_index(unique)))?)
    }

    fn transfer(&self, to: u64) -> PyResult<()> {
        Ok(self.call(|node| {
            node.require_leader()?;
            node.raw.transfer_leader(to);
            Ok(())
        })?)
    }

    fn campaign(&self) -> PyResult<()> {
        Ok(self.call(|node| {
            if node.is_installing() {
                return Ok(());
            }
            node.raw.campaign().map_err(|error| Error::Raft(error.to_string()))
        })?)
    }

    fn ready(&self, py: Python<'_>) -> PyResult<Option<Ready>> {
        let parts = self.call(Node::ready)?;
        parts.map(|parts| Ready::new(py, parts)).transpose()
    }

    fn persisted<'py>(&self, py: Python<'py>, batch: u64) -> PyResult<Bound<'py, PyList>> {
        let messages = self.call(|node| node.persisted(batch))?;
        encode_all(py, &messages)
    }

    fn applied(&self, index: u64) -> PyResult<()> {
        Ok(self.call(|node| node.applied(index))?)
    }

    fn offer_snapshot(&self, index: u64, term: u64, conf_state: &[u8], data: &[u8]) -> PyResult<()> {
        let mut snapshot = Snapshot::new();
        snapshot.data = bytes::Bytes::copy_from_slice(data);
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.set_conf_state(parse_conf_state(conf_state)?);
        Ok(self.call(|node| node.offer_snapshot(snapshot))?)
    }

    fn snapshot_wanted(&self) -> PyResult<Option<u64>> {
        Ok(self.call(|node| Ok(node.snapshot_wanted()))?)
    }

    fn report(&self, peer: u64, what: &str) -> PyResult<()> {
        Ok(self.call(|node| node.report(peer, what))?)
    }

    fn compact(&self, index: u64) -> PyResult<()> {
        Ok(self.call(|node| node.compact(index))?)
    }

    fn term_of(&self, index: u64) -> PyResult<Option<u64>> {
        Ok(self.call(|node| Ok(node.term_of(index)))?)
    }

    /// Term, vote, commit index, last index and its term: what of `status` is on disk, without the rest of it.
    fn hard_state(&self) -> PyResult<(u64, u64, u64, u64, u64)> {
        Ok(self.call(|node| {
            let raft = &node.raw.raft;
            let last = raft.raft_log.last_index();
            Ok((raft.term, raft.vote, raft.raft_log.committed, last, node.term_of(last).unwrap_or(0)))
        })?)
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let status = PyDict::new(py);
        self.call(|node| Ok(fill_status(py, &status, node)))??;
        Ok(status)
    }
}

fn conf_state_bytes<'py>(py: Python<'py>, conf_state: &ConfState) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = conf_state.write_to_bytes().map_err(|error| Error::Raft(error.to_string()))?;
    Ok(PyBytes::new(py, &bytes))
}

fn fill_status<'py>(py: Python<'py>, status: &Bound<'py, PyDict>, node: &Node) -> PyResult<()> {
    let raft = &node.raw.raft;
    let log = &raft.raft_log;
    status.set_item("node", raft.id)?;
    status.set_item("role", role_number(raft.state))?;
    status.set_item("term", raft.term)?;
    status.set_item("vote", raft.vote)?;
    status.set_item("leader", raft.leader_id)?;
    status.set_item("commit", log.committed)?;
    status.set_item("persisted", log.persisted)?;
    status.set_item("applied", log.applied)?;
    status.set_item("first", log.first_index())?;
    status.set_item("last", log.last_index())?;
    status.set_item("election_timeout", raft.randomized_election_timeout())?;
    status.set_item("transferee", raft.lead_transferee)?;
    status.set_item("has_pending_conf", raft.has_pending_conf())?;
    status.set_item("has_pending_snapshot", node.raw.snap().is_some())?;
    let conf_state = node.conf_state();
    for (name, mut ids) in [
        ("voters", conf_state.voters),
        ("learners", conf_state.learners),
        ("voters_outgoing", conf_state.voters_outgoing),
        ("learners_next", conf_state.learners_next),
    ] {
        ids.sort_unstable();
        status.set_item(name, ids)?;
    }
    let progress = PyDict::new(py);
    if node.is_leader() {
        let mut peers: Vec<_> = raft.prs().iter().collect();
        peers.sort_unstable_by_key(|(id, _)| **id);
        for (id, peer) in peers {
            let fields = PyDict::new(py);
            fields.set_item("matched", peer.matched)?;
            fields.set_item("next", peer.next_idx)?;
            fields.set_item("state", format!("{:?}", peer.state).to_lowercase())?;
            fields.set_item("paused", peer.is_paused())?;
            fields.set_item("recent_active", peer.recent_active)?;
            fields.set_item("pending_snapshot", peer.pending_snapshot)?;
            progress.set_item(id, fields)?;
        }
    }
    status.set_item("progress", progress)
}
