//! The simulator's store: what is durable, in maps; what is submitted but not synced, in a list.
//!
//! Entries are kept as checksummed bytes, so that damage is found as on disk. A crash keeps what was synced and, by the
//! seed, what torn.rs leaves of what was not. Damage is, by the seed, a flipped bit, a lost sector, or the image that
//! there was at the last crash in place of the present one (as if an old copy were restored; what was reported as
//! durable, the disk's marker.rs, stays known).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use protobuf::Message as _;
use raft::eraftpb::Entry;

use crate::errors::{Error, Result};
use crate::random::Random;
use crate::store::{Batch, Store};
use crate::torn;
use crate::writer::{EventFd, WriterState};

/// Shared with what was durable at the last crash, until one of them is damaged.
#[derive(Clone)]
struct Stored {
    bytes: Arc<Vec<u8>>,
    sum: u32,
}

impl Stored {
    fn new(bytes: Vec<u8>) -> Stored {
        Stored { sum: crc32fast::hash(&bytes), bytes: Arc::new(bytes) }
    }
}

/// Something on the disk that a bit can be flipped in.
enum Target<'a> {
    Plain(&'a mut Vec<u8>),
    Shared(&'a mut Arc<Vec<u8>>),
}

impl Target<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Target::Plain(record) => record.is_empty(),
            Target::Shared(record) => record.is_empty(),
        }
    }

    fn bytes(&mut self) -> &mut Vec<u8> {
        match self {
            Target::Plain(record) => record,
            Target::Shared(record) => Arc::make_mut(record),
        }
    }
}

#[derive(Default, Clone)]
struct StoredGroup {
    record: Vec<u8>,
    entries: BTreeMap<u64, Stored>,
    metas: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Default, Clone)]
struct Durable {
    groups: BTreeMap<u64, StoredGroup>,
    index: Option<Vec<u8>>,
    number: u64,
    bytes_written: u64,
}

impl Durable {
    fn apply(&mut self, number: u64, batch: Batch) {
        for (group, change) in batch.changes {
            let stored = self.groups.entry(group).or_default();
            if let Some(index) = change.compact {
                stored.entries = stored.entries.split_off(&(index + 1));
            }
            if let Some(first) = change.entries.first() {
                stored.entries.split_off(&first.index);
            }
            for entry in &change.entries {
                let bytes = entry.write_to_bytes().unwrap_or_default();
                self.bytes_written += bytes.len() as u64;
                stored.entries.insert(entry.index, Stored::new(bytes));
            }
            for (key, value) in change.metas {
                match value {
                    Some(value) => stored.metas.insert(key, value),
                    None => stored.metas.remove(&key),
                };
            }
            stored.record = change.record;
        }
        self.index = Some(batch.index);
        self.number = number;
    }

    /// All records that a bit can be flipped in, in a fixed order.
    fn records(&mut self) -> Vec<Target<'_>> {
        let mut records: Vec<Target<'_>> = self.index.iter_mut().map(Target::Plain).collect();
        for group in self.groups.values_mut() {
            records.push(Target::Plain(&mut group.record));
            records.extend(group.entries.values_mut().map(|stored| Target::Shared(&mut stored.bytes)));
            records.extend(group.metas.values_mut().map(Target::Plain));
        }
        records.retain(|record| !record.is_empty());
        records
    }
}

const SECTOR_BYTES: usize = 512;

pub struct Memory {
    seed: u64,
    durable: Durable,
    /// The last batch that was ever reported as durable; outlives damage.
    reported: u64,
    /// What was durable at the last crash.
    old: Option<Durable>,
    unsynced: VecDeque<(u64, Batch)>,
    event: Option<EventFd>,
    syncs: u64,
}

impl Memory {
    pub fn new(seed: u64) -> Memory {
        let durable = Durable::default();
        Memory { seed, durable, reported: 0, old: None, unsynced: VecDeque::new(), event: None, syncs: 0 }
    }
}

impl Store for Memory {
    fn index(&self) -> Option<Vec<u8>> {
        self.durable.index.clone()
    }

    fn groups(&self) -> Vec<u64> {
        self.durable.groups.keys().copied().collect()
    }

    fn record(&self, group: u64) -> Option<Vec<u8>> {
        self.durable.groups.get(&group).map(|stored| stored.record.clone())
    }

    fn metas(&self, group: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        let stored = self.durable.groups.get(&group);
        stored.map(|stored| stored.metas.clone().into_iter().collect()).unwrap_or_default()
    }

    fn entry(&self, group: u64, index: u64) -> Result<Entry> {
        let damaged = |what| Error::Damaged(format!("group {group}: entry {index} {what}"));
        let stored = self.durable.groups.get(&group).and_then(|stored| stored.entries.get(&index));
        let stored = stored.ok_or_else(|| damaged("is missing"))?;
        if crc32fast::hash(&stored.bytes) != stored.sum {
            return Err(damaged("fails its checksum"));
        }
        Entry::parse_from_bytes(&stored.bytes).map_err(|_| damaged("does not decode"))
    }

    fn submit(&mut self, number: u64, batch: Batch) {
        self.unsynced.push_back((number, batch));
    }

    fn completed(&mut self) -> Result<u64> {
        if let Some(event) = &self.event {
            event.drain();
        }
        Ok(self.durable.number)
    }

    fn fileno(&mut self) -> Result<i32> {
        if self.event.is_none() {
            self.event = Some(EventFd::new()?);
        }
        Ok(self.event.as_ref().map_or(-1, EventFd::fileno))
    }

    fn sync(&mut self) -> Option<Arc<WriterState>> {
        self.syncs += 1;
        let is_new = !self.unsynced.is_empty();
        for (number, batch) in self.unsynced.drain(..) {
            self.durable.apply(number, batch);
            self.reported = number;
        }
        if let (true, Some(event)) = (is_new, &self.event) {
            event.signal();
        }
        None
    }

    fn purge(&mut self, _live_bytes: u64) {}

    fn stalled(&self) -> Option<String> {
        None
    }

    fn statistics(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("bytes_written", self.durable.bytes_written),
            ("batches", self.durable.number),
            ("syncs", self.syncs),
            ("queue_depth", self.unsynced.len() as u64),
        ]
    }

    fn close(&mut self) -> Option<Box<dyn FnOnce() + Send>> {
        None
    }

    fn crash(&mut self, seed: u64) -> Option<(Box<dyn Store>, u64)> {
        let mut random = Random::new(&[self.seed, seed]);
        let mut survivor = Memory::new(random.next());
        survivor.durable = self.durable.clone();
        survivor.old = Some(self.durable.clone());
        survivor.reported = self.reported;
        for (number, batch) in torn::survivors(self.unsynced.make_contiguous(), &mut random) {
            survivor.durable.apply(number, batch);
            survivor.reported = number;
        }
        self.unsynced.clear();
        Some((Box::new(survivor), self.reported))
    }

    fn flip_bit(&mut self, seed: u64) -> Option<bool> {
        let mut random = Random::new(&[self.seed, seed]);
        let kind = random.below(10);
        if kind == 0 {
            // Without writes since the last crash it is what there is: no damage.
            if let Some(old) = self.old.take().filter(|old| old.number < self.durable.number) {
                self.durable = old;
                return Some(true);
            }
        }
        let mut records = self.durable.records();
        if records.is_empty() {
            return Some(false);
        }
        let chosen = random.below(records.len() as u64) as usize;
        let record = records[chosen].bytes();
        let bit = random.below(record.len() as u64 * 8);
        let at = (bit / 8) as usize;
        if kind < 3 {
            let end = record.len().min(at + SECTOR_BYTES);
            record[at..end].fill(0);
        }
        record[at] ^= 1 << (bit % 8);
        Some(true)
    }
}
