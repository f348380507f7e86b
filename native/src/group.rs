//! One group's log as its Raft object sees it: the newest state, ahead of what is durable.
//!
//! Invariants: `sizes` has one element per retained entry; `cache` is a contiguous tail of the log and holds at least
//! all entries that are not durable yet (the store may not have them) — so a read below the cache finds the store's
//! copy final. Eviction never passes the applied index: what is to be applied next never needs a disk read.

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::Entry;

use crate::errors::{Error, Result};
use crate::record::{meta_share, Record};
use crate::store::Store;

/// Kept in any case, even when the log's other groups fill the whole cache.
pub const CACHE_GROUP_BYTES: u64 = 8 << 20;
/// Over all groups of a log.
pub const CACHE_LOG_BYTES: u64 = 64 << 20;
/// Bytes of an entry beside its data, for the accounts of memory and disk.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

#[derive(Default)]
pub struct Group {
    pub record: Record,
    pub metas: BTreeMap<Vec<u8>, Vec<u8>>,
    pub applied: u64,
    pub damage: Option<String>,
    sizes: VecDeque<u32>,
    retained_bytes: u64,
    cache: VecDeque<Entry>,
    cache_bytes: u64,
    /// The last index that is durable, and what each batch under way will add.
    durable: u64,
    under_way: VecDeque<(u64, u64)>,
}

pub fn entry_bytes(entry: &Entry) -> u64 {
    entry.data.len() as u64 + entry.context.len() as u64 + ENTRY_OVERHEAD_BYTES
}

impl Group {
    /// Reads and verifies all that the store has of a group; `sequence` is what the index says.
    pub fn recover(store: &dyn Store, group: u64, sequence: u64) -> Result<Group> {
        let damaged = |what: String| Error::Damaged(format!("group {group}: {what}"));
        let bytes = store.record(group).ok_or_else(|| damaged("state record is missing".into()))?;
        let record = Record::decode(&bytes).ok_or_else(|| damaged("state record does not decode".into()))?;
        if record.sequence != sequence {
            return Err(damaged(format!("state record is of batch {}, not {sequence}", record.sequence)));
        }
        if let Some(fault) = record.fault() {
            return Err(damaged(fault));
        }
        let metas: BTreeMap<Vec<u8>, Vec<u8>> = store.metas(group).into_iter().collect();
        if metas.iter().fold(0, |digest, (key, value)| digest ^ meta_share(key, value)) != record.meta_digest {
            return Err(damaged("meta records differ from their digest".into()));
        }
        let mut state = Group { metas, durable: record.last_index, ..Group::default() };
        for index in record.truncated_index + 1..=record.last_index {
            let entry = store.entry(group, index)?;
            if record.term_of(index) != Some(entry.term) {
                return Err(damaged(format!("entry {index} is of term {}, not as recorded", entry.term)));
            }
            state.account(&entry);
            state.cache_bytes += entry_bytes(&entry);
            state.cache.push_back(entry);
            while state.cache_bytes > CACHE_GROUP_BYTES {
                state.drop_oldest_cached();
            }
        }
        state.record = record;
        Ok(state)
    }

    pub fn damaged(what: String) -> Group {
        Group { damage: Some(what), ..Group::default() }
    }

    pub fn append(&mut self, entries: &[Entry]) -> Result<()> {
        let Some(first) = entries.first() else { return Ok(()) };
        if first.index <= self.record.truncated_index || first.index > self.record.last_index + 1 {
            return Err(Error::Log(format!(
                "entries from {} do not join the log [{}, {}]",
                first.index, self.record.truncated_index, self.record.last_index
            )));
        }
        if first.index <= self.record.last_index {
            self.cut_back(first.index);
        }
        for (expected, entry) in (first.index..).zip(entries) {
            debug_assert_eq!(entry.index, expected);
            self.record.push(entry.index, entry.term);
            self.account(entry);
            self.cache_bytes += entry_bytes(entry);
            self.cache.push_back(entry.clone());
        }
        Ok(())
    }

    /// A snapshot took the place of the whole log.
    pub fn reset(&mut self, index: u64, term: u64) {
        self.sizes.clear();
        self.cache.clear();
        self.under_way.clear();
        (self.retained_bytes, self.cache_bytes, self.durable) = (0, 0, index);
        self.record.runs.clear();
        self.record.truncated_index = index;
        self.record.truncated_term = term;
        self.record.last_index = index;
        self.record.hard_state.commit = self.record.hard_state.commit.max(index);
    }

    /// Drops entries at and below `index`; says whether there were any.
    pub fn compact(&mut self, index: u64) -> Result<bool> {
        if index <= self.record.truncated_index {
            return Ok(false);
        }
        if index > self.durable || index > self.record.hard_state.commit {
            return Err(Error::Value(format!(
                "can't compact to {index}: durable {}, committed {}",
                self.durable, self.record.hard_state.commit
            )));
        }
        for _ in self.record.truncated_index..index {
            self.retained_bytes -= u64::from(self.sizes.pop_front().unwrap_or(0));
        }
        while self.cache.front().is_some_and(|entry| entry.index <= index) {
            self.drop_oldest_cached();
        }
        self.record.cut_front(index);
        Ok(true)
    }

    pub fn handed_over(&mut self, batch: u64) {
        self.record.sequence = batch;
        self.under_way.push_back((batch, self.record.last_index));
    }

    pub fn batch_completed(&mut self, batch: u64) {
        while self.under_way.front().is_some_and(|(number, _)| *number <= batch) {
            if let Some((_, last)) = self.under_way.pop_front() {
                self.durable = last;
            }
        }
    }

    /// Frees cached bytes, the oldest first; returns how many.
    pub fn evict(&mut self, wanted: u64) -> u64 {
        let before = self.cache_bytes;
        let limit = self.durable.min(self.applied);
        while self.cache_bytes > CACHE_GROUP_BYTES
            && before - self.cache_bytes < wanted
            && self.cache.front().is_some_and(|entry| entry.index <= limit)
        {
            self.drop_oldest_cached();
        }
        before - self.cache_bytes
    }

    /// Entries low..high up to `bytes_max`, at least one; from the cache where it reaches.
    pub fn read(&self, store: &dyn Store, group: u64, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>> {
        let mut out = Vec::new();
        let mut bytes = 0u64;
        let cached_from = self.cache.front().map_or(u64::MAX, |entry| entry.index);
        for index in low..high {
            bytes = bytes.saturating_add(u64::from(self.sizes[(index - self.record.truncated_index - 1) as usize]));
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            if index >= cached_from {
                out.push(self.cache[(index - cached_from) as usize].clone());
                continue;
            }
            let entry = store.entry(group, index)?;
            if self.record.term_of(index) != Some(entry.term) {
                return Err(Error::Damaged(format!("group {group}: entry {index} is not the one that was written")));
            }
            out.push(entry);
        }
        Ok(out)
    }

    pub fn put_meta(&mut self, key: &[u8], value: Option<&[u8]>) {
        let old = match value {
            Some(value) => {
                self.record.meta_digest ^= meta_share(key, value);
                self.metas.insert(key.to_vec(), value.to_vec())
            }
            None => self.metas.remove(key),
        };
        if let Some(old) = old {
            self.record.meta_digest ^= meta_share(key, &old);
        }
    }

    pub fn cache_bytes(&self) -> u64 {
        self.cache_bytes
    }

    pub fn live_bytes(&self) -> u64 {
        self.retained_bytes + self.metas.values().map(|value| value.len() as u64).sum::<u64>()
    }

    /// Whether a Raft log exists here: made by bootstrap, by a snapshot, or grown.
    pub fn is_bootstrapped(&self) -> bool {
        self.record.last_index > 0
    }

    pub fn has_raft_state(&self) -> bool {
        self.is_bootstrapped() || self.record.hard_state.term > 0
    }

    fn account(&mut self, entry: &Entry) {
        let bytes = entry_bytes(entry);
        self.sizes.push_back(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.retained_bytes += u64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    fn cut_back(&mut self, index: u64) {
        for _ in index..=self.record.last_index {
            self.retained_bytes -= u64::from(self.sizes.pop_back().unwrap_or(0));
        }
        while self.cache.back().is_some_and(|entry| entry.index >= index) {
            if let Some(entry) = self.cache.pop_back() {
                self.cache_bytes -= entry_bytes(&entry);
            }
        }
        self.durable = self.durable.min(index - 1);
        for (_, last) in &mut self.under_way {
            *last = (*last).min(index - 1);
        }
        self.record.cut_back(index);
    }

    fn drop_oldest_cached(&mut self) {
        if let Some(entry) = self.cache.pop_front() {
            self.cache_bytes -= entry_bytes(&entry);
        }
    }
}
