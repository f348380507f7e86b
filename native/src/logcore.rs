//! The log's logic over either store: what is pending, handed over, durable; and recovery with verification.
//!
//! Order of durable steps: a Raft object queues (append, hard state, install, meta) -> `flush` gives the whole pending
//! batch a number and hands it over -> the store makes it durable, in order -> `completed` reports it. A change of
//! the commit index alone needs no flush of its own: it stays queued and travels with the next batch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use raft::eraftpb::{ConfState, Entry, HardState};

use crate::errors::{Error, Result};
use crate::group::{Group, CACHE_LOG_BYTES};
use crate::record::Index;
use crate::store::{Batch, Change, Store};

/// The pretended snapshot that all first replicas start from (as TiKV does): no empty newcomer looks like it.
pub const BOOTSTRAP_INDEX: u64 = 5;
pub const BOOTSTRAP_TERM: u64 = 5;

pub struct LogCore {
    store: Box<dyn Store>,
    groups: BTreeMap<u64, Group>,
    index: Index,
    pending: BTreeMap<u64, Change>,
    must_sync: bool,
    completed: u64,
    /// Set once and for ever: damage, a failed write, a crash of the simulator, the close.
    fault: Option<Error>,
}

pub type SharedCore = Arc<Mutex<LogCore>>;

/// A panic while the lock was held is answered by poisoning above; the lock itself stays usable.
pub fn lock(core: &SharedCore) -> MutexGuard<'_, LogCore> {
    core.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl LogCore {
    /// Recovers all groups. Damage of a group is an error at once if `is_strict`, else when the group is used.
    pub fn recover(store: Box<dyn Store>, completed: u64, is_strict: bool) -> Result<LogCore> {
        let mut index = Index::default();
        let mut damage = None;
        if let Some(bytes) = store.index() {
            match Index::decode(&bytes) {
                Some(decoded) => index = decoded,
                None => damage = Some("the index of groups does not decode".to_string()),
            }
        }
        if index.sequence < completed {
            damage.get_or_insert(format!(
                "batch {completed} was reported durable but the log ends with batch {}: its tail is lost or damaged",
                index.sequence
            ));
        }
        if let Some(group) = store.groups().into_iter().find(|group| !index.groups.contains_key(group)) {
            damage.get_or_insert(format!("group {group} is not in the index of groups"));
        }
        let mut groups = BTreeMap::new();
        for (group, sequence) in &index.groups {
            let state = match Group::recover(store.as_ref(), *group, *sequence) {
                Ok(state) => state,
                Err(error) if is_strict => return Err(error),
                Err(error) => Group::damaged(damage_text(error)),
            };
            groups.insert(*group, state);
        }
        if let (true, Some(damage)) = (is_strict, &damage) {
            return Err(Error::Damaged(damage.clone()));
        }
        let completed = index.sequence;
        let fault = damage.map(Error::Damaged);
        Ok(LogCore { store, groups, index, pending: BTreeMap::new(), must_sync: false, completed, fault })
    }

    pub fn check(&self) -> Result<()> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    pub fn poison(&mut self, error: Error) {
        self.fault.get_or_insert(error);
    }

    pub fn store(&mut self) -> &mut dyn Store {
        self.store.as_mut()
    }

    /// The group's state; `Damaged` if recovery found it so.
    pub fn group(&mut self, group: u64) -> Result<&mut Group> {
        self.check()?;
        if group > u64::MAX - 2 {
            return Err(Error::Value(format!("group {group} is out of range")));
        }
        let state = self.groups.entry(group).or_default();
        match &state.damage {
            Some(damage) => Err(Error::Damaged(damage.clone())),
            None => Ok(state),
        }
    }

    pub fn groups(&self) -> Vec<u64> {
        self.groups
            .iter()
            .filter(|(_, state)| state.has_raft_state() || state.damage.is_some())
            .map(|(id, _)| *id)
            .collect()
    }

    pub fn append(&mut self, group: u64, entries: &[Entry]) -> Result<()> {
        self.group(group)?.append(entries)?;
        self.change(group, true).append(entries);
        self.evict();
        Ok(())
    }

    pub fn set_hard_state(&mut self, group: u64, hard_state: HardState, must_sync: bool) -> Result<()> {
        self.group(group)?.record.hard_state = hard_state;
        self.change(group, must_sync);
        Ok(())
    }

    pub fn set_conf_state(&mut self, group: u64, conf_state: ConfState, index: u64) -> Result<()> {
        let record = &mut self.group(group)?.record;
        record.conf_state = conf_state;
        record.conf_index = index;
        self.change(group, true);
        Ok(())
    }

    /// Queues the replacement of the whole log by a snapshot.
    pub fn install(&mut self, group: u64, index: u64, term: u64, conf_state: ConfState) -> Result<()> {
        let state = self.group(group)?;
        state.reset(index, term);
        state.record.conf_state = conf_state;
        state.record.conf_index = index;
        self.change(group, true).reset(index);
        Ok(())
    }

    pub fn bootstrap(&mut self, group: u64, voters: Vec<u64>) -> Result<()> {
        if self.group(group)?.has_raft_state() {
            return Err(Error::Raft(format!("group {group} exists already")));
        }
        let conf_state = ConfState { voters, ..ConfState::default() };
        self.install(group, BOOTSTRAP_INDEX, BOOTSTRAP_TERM, conf_state)?;
        self.group(group)?.record.hard_state.term = BOOTSTRAP_TERM;
        Ok(())
    }

    pub fn put_meta(&mut self, group: u64, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.group(group)?.put_meta(key, value);
        self.change(group, true).metas.push((key.to_vec(), value.map(<[u8]>::to_vec)));
        Ok(())
    }

    pub fn compact(&mut self, group: u64, index: u64) -> Result<()> {
        if self.group(group)?.compact(index)? {
            let change = self.change(group, true);
            change.compact = Some(change.compact.unwrap_or(0).max(index));
        }
        Ok(())
    }

    pub fn read(&mut self, group: u64, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>> {
        self.check()?;
        let state = self.groups.entry(group).or_default();
        let result = state.read(self.store.as_ref(), group, low, high, bytes_max);
        if let Err(error) = &result {
            self.poison(error.clone());
        }
        result
    }

    pub fn applied(&mut self, group: u64, index: u64) -> Result<()> {
        self.group(group)?.applied = index;
        self.evict();
        Ok(())
    }

    /// Hands the pending batch over if it has to be durable; returns the last number handed over.
    pub fn flush(&mut self) -> Result<u64> {
        self.check()?;
        if !self.must_sync {
            return Ok(self.index.sequence);
        }
        let number = self.index.sequence + 1;
        let mut batch = Batch { changes: std::mem::take(&mut self.pending), index: Vec::new() };
        for (group, change) in &mut batch.changes {
            let state = self.groups.entry(*group).or_default();
            state.handed_over(number);
            change.record = state.record.encode();
            self.index.groups.insert(*group, number);
        }
        self.index.sequence = number;
        batch.index = self.index.encode();
        self.must_sync = false;
        self.store.submit(number, batch);
        Ok(number)
    }

    /// The number that the pending batch will get.
    pub fn next_number(&self) -> u64 {
        self.index.sequence + 1
    }

    pub fn completed(&mut self) -> Result<u64> {
        self.check()?;
        let completed = match self.store.completed() {
            Ok(completed) => completed,
            Err(error) => {
                self.poison(error.clone());
                return Err(error);
            }
        };
        if completed > self.completed {
            self.completed = completed;
            for state in self.groups.values_mut() {
                state.batch_completed(completed);
            }
            self.evict();
        }
        Ok(self.completed)
    }

    /// As last seen by `completed`.
    pub fn completed_seen(&self) -> u64 {
        self.completed
    }

    pub fn purge(&mut self) -> Result<()> {
        self.check()?;
        let live = self.groups.values().map(Group::live_bytes).sum();
        self.store.purge(live);
        Ok(())
    }

    pub fn sizes(&self) -> [(&'static str, u64); 2] {
        let sum = |bytes: fn(&Group) -> u64| self.groups.values().map(bytes).sum();
        [("cache_bytes", sum(Group::cache_bytes)), ("live_bytes", sum(Group::live_bytes))]
    }

    fn change(&mut self, group: u64, must_sync: bool) -> &mut Change {
        self.must_sync |= must_sync;
        self.pending.entry(group).or_default()
    }

    fn evict(&mut self) {
        let mut total: u64 = self.groups.values().map(Group::cache_bytes).sum();
        for state in self.groups.values_mut() {
            if total <= CACHE_LOG_BYTES {
                break;
            }
            total -= state.evict(total - CACHE_LOG_BYTES);
        }
    }
}

fn damage_text(error: Error) -> String {
    match error {
        Error::Damaged(text) => text,
        other => format!("{other:?}"),
    }
}
