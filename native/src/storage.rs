//! raft-rs' view of a group's log: `raft::Storage` over the shared core, and the snapshot that Python offers.

use std::sync::{Arc, Mutex};

use raft::eraftpb::{ConfState, Entry, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::errors::Error;
use crate::logcore::{lock, SharedCore};

#[derive(Default)]
pub struct Offer {
    pub snapshot: Option<Snapshot>,
    /// The least index that a follower was found to need while there was nothing to offer.
    pub wanted: Option<u64>,
}

pub struct NodeStorage {
    pub core: SharedCore,
    pub group: u64,
    pub offer: Arc<Mutex<Offer>>,
}

fn store_error(error: Error) -> raft::Error {
    raft::Error::Store(StorageError::Other(format!("{error:?}").into()))
}

impl Storage for NodeStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut core = lock(&self.core);
        let record = &core.group(self.group).map_err(store_error)?.record;
        Ok(RaftState { hard_state: record.hard_state.clone(), conf_state: record.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let mut core = lock(&self.core);
        let record = &core.group(self.group).map_err(store_error)?.record;
        if low <= record.truncated_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > record.last_index + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        core.read(self.group, low, high, max_size.into().unwrap_or(u64::MAX)).map_err(store_error)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let mut core = lock(&self.core);
        let record = &core.group(self.group).map_err(store_error)?.record;
        match record.term_of(index) {
            Some(term) => Ok(term),
            None if index < record.truncated_index => Err(raft::Error::Store(StorageError::Compacted)),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(lock(&self.core).group(self.group).map_err(store_error)?.record.truncated_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(lock(&self.core).group(self.group).map_err(store_error)?.record.last_index)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let truncated = self.first_index()? - 1;
        let needed = request_index.max(truncated);
        let mut offer = self.offer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(snapshot) = &offer.snapshot {
            if snapshot.get_metadata().index >= needed {
                return Ok(snapshot.clone());
            }
        }
        offer.wanted = Some(offer.wanted.unwrap_or(0).max(needed));
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

/// None if raft-rs can restore it, else what is wrong (its own checks are panics).
pub fn conf_state_fault(conf: &ConfState) -> Option<&'static str> {
    let all = || conf.voters.iter().chain(&conf.learners);
    if conf.voters.is_empty() {
        return Some("membership without voters");
    }
    if all().chain(&conf.voters_outgoing).chain(&conf.learners_next).any(|id| *id == 0) {
        return Some("node id 0 in the membership");
    }
    for list in [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next] {
        let mut sorted = list.clone();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Some("a node twice in the membership");
        }
    }
    if conf.learners.iter().any(|id| conf.voters.contains(id) || conf.voters_outgoing.contains(id)) {
        return Some("a learner that is a voter");
    }
    if conf.learners_next.iter().any(|id| !conf.voters_outgoing.contains(id) || conf.voters.contains(id)) {
        return Some("a next learner that is no outgoing voter");
    }
    if conf.voters_outgoing.is_empty() && (conf.auto_leave || !conf.learners_next.is_empty()) {
        return Some("a joint membership without outgoing voters");
    }
    None
}
