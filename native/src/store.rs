//! What a log keeps, and where: the seam between the log's logic (logcore.rs) and its two stores.
//!
//! A `Batch` is what one flush hands over: for each group its changed entries, its whole state record and its changed
//! meta records; the batch is durable as a whole or not at all. The disk (disk.rs) and the simulator's memory
//! (memory.rs) are the two users of the seam and pass one contract test.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::eraftpb::Entry;

use crate::errors::Result;
use crate::writer::WriterState;

/// What changed in one group since the last flush.
#[derive(Default, Clone)]
pub struct Change {
    /// Entries at and below this index are dropped, before `entries` are appended.
    pub compact: Option<u64>,
    /// Contiguous; the first may overwrite what is stored, which then ends before it.
    pub entries: Vec<Entry>,
    pub metas: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// The encoded state record, filled in at the flush.
    pub record: Vec<u8>,
}

impl Change {
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while self.entries.last().is_some_and(|entry| entry.index >= first.index) {
            self.entries.pop();
        }
        self.entries.extend_from_slice(entries);
    }

    /// A snapshot replaces the log: nothing that was queued matters any more.
    pub fn reset(&mut self, index: u64) {
        self.entries.clear();
        self.compact = Some(self.compact.unwrap_or(0).max(index));
    }
}

#[derive(Default, Clone)]
pub struct Batch {
    pub changes: BTreeMap<u64, Change>,
    /// The encoded list of all groups, with the batch that last wrote each.
    pub index: Vec<u8>,
}

/// A store applies batches in order, durably. Reads see completed batches at least.
pub trait Store: Send {
    fn index(&self) -> Option<Vec<u8>>;
    fn groups(&self) -> Vec<u64>;
    fn record(&self, group: u64) -> Option<Vec<u8>>;
    fn metas(&self, group: u64) -> Vec<(Vec<u8>, Vec<u8>)>;
    /// The entry, its checksum verified; `Damaged` if it is missing or wrong.
    fn entry(&self, group: u64, index: u64) -> Result<Entry>;

    fn submit(&mut self, number: u64, batch: Batch);
    /// The highest durable batch; drains the eventfd.
    fn completed(&mut self) -> Result<u64>;
    fn fileno(&mut self) -> Result<i32>;
    /// Makes all submitted batches durable; with a state to wait on, it happens in the background.
    fn sync(&mut self) -> Option<Arc<WriterState>>;
    fn purge(&mut self, live_bytes: u64);
    fn stalled(&self) -> Option<String>;
    fn statistics(&self) -> Vec<(&'static str, u64)>;
    /// Ends the store; the rest of the work, which may block, is in the closure.
    fn close(&mut self) -> Option<Box<dyn FnOnce() + Send>>;

    fn crash(&mut self, seed: u64) -> Option<(Box<dyn Store>, u64)>;
    fn flip_bit(&mut self, seed: u64) -> Option<bool>;
}
