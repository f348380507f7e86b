//! What a Raft object has for its driver, and the way of messages to bytes.

use protobuf::{CodedOutputStream, Message as _};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use raft::eraftpb::{Entry, EntryType, Message, Snapshot};
use raft::{ReadState, StateRole};

/// Read contexts carry the node's id before the caller's bytes: raft-rs' leader drops a second request whose context
/// it knows, whoever sent it.
pub const CONTEXT_PREFIX_BYTES: usize = 8;

#[pyclass(frozen, get_all, module = "riverbus._native")]
pub struct Ready {
    /// (to, message), to be sent at once.
    send_now: Py<PyList>,
    /// (index, term, kind, data), to be applied in order.
    committed: Py<PyList>,
    /// (index, term, data) of a snapshot that has taken the place of the log.
    snapshot: Option<Py<PyTuple>>,
    /// (index, context): once `index` is applied, the read is fresh.
    read_states: Py<PyList>,
    leader: u64,
    role: u8,
    term: u64,
    must_sync: bool,
    /// There is another already; applying what is committed may bring one, too.
    has_more: bool,
}

pub struct Parts {
    pub send_now: Vec<Message>,
    pub committed: Vec<Entry>,
    pub snapshot: Snapshot,
    pub read_states: Vec<ReadState>,
    pub leader: u64,
    pub role: StateRole,
    pub term: u64,
    pub must_sync: bool,
    pub has_more: bool,
}

impl Ready {
    pub fn new(py: Python<'_>, parts: Parts) -> PyResult<Ready> {
        let committed = parts.committed.iter().map(|entry| {
            (entry.index, entry.term, kind(entry.entry_type), PyBytes::new(py, &entry.data)).into_pyobject(py)
        });
        let reads = parts.read_states.iter().map(|read| {
            let context = read.request_ctx.get(CONTEXT_PREFIX_BYTES..).unwrap_or_default();
            (read.index, PyBytes::new(py, context)).into_pyobject(py)
        });
        let snapshot =
            if parts.snapshot.is_empty() { None } else { Some(snapshot_tuple(py, &parts.snapshot)?.unbind()) };
        Ok(Ready {
            send_now: encode_all(py, &parts.send_now)?.unbind(),
            committed: PyList::new(py, committed.collect::<PyResult<Vec<_>>>()?)?.unbind(),
            snapshot,
            read_states: PyList::new(py, reads.collect::<PyResult<Vec<_>>>()?)?.unbind(),
            leader: parts.leader,
            role: role_number(parts.role),
            term: parts.term,
            must_sync: parts.must_sync,
            has_more: parts.has_more,
        })
    }
}

/// Conf changes of either kind are one to Python.
pub fn kind(kind: EntryType) -> u8 {
    match kind {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryType::EntryConfChangeV2 as u8,
    }
}

pub fn role_number(role: StateRole) -> u8 {
    match role {
        StateRole::Follower => 0,
        StateRole::Candidate => 1,
        StateRole::Leader => 2,
        StateRole::PreCandidate => 3,
    }
}

pub fn snapshot_tuple<'py>(py: Python<'py>, snapshot: &Snapshot) -> PyResult<Bound<'py, PyTuple>> {
    let metadata = snapshot.get_metadata();
    (metadata.index, metadata.term, PyBytes::new(py, &snapshot.data)).into_pyobject(py)
}

pub fn encode_all<'py>(py: Python<'py>, messages: &[Message]) -> PyResult<Bound<'py, PyList>> {
    let encoded = messages.iter().map(|message| (message.to, encode(py, message)?).into_pyobject(py));
    PyList::new(py, encoded.collect::<PyResult<Vec<_>>>()?)
}

/// Straight into the bytes object: a payload is copied once.
fn encode<'py>(py: Python<'py>, message: &Message) -> PyResult<Bound<'py, PyBytes>> {
    let size = message.compute_size() as usize;
    PyBytes::new_with(py, size, |buffer| {
        let mut output = CodedOutputStream::bytes(buffer);
        message
            .write_to_with_cached_sizes(&mut output)
            .map_err(|error| PyValueError::new_err(format!("message does not encode: {error}")))
    })
}
