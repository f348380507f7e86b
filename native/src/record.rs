//! The state record of a group, and the index of all groups: what recovery is checked against.
//!
//! A record says everything that must be found again beside it: first and last index, the term of every retained
//! entry (as runs: an index and a term identify an entry's content, Raft paper section 5.3), and a digest of the meta
//! records. The index says which groups exist and which batch last wrote each, so that neither a lost record nor an
//! older one goes unnoticed. Both carry a CRC32 of their own beside raft-engine's.

use std::collections::BTreeMap;

use raft::eraftpb::{ConfState, HardState};

use crate::random::mix;

const VERSION: u8 = 1;

#[derive(Default, Clone, Debug, PartialEq)]
pub struct Record {
    /// The batch that wrote this record.
    pub sequence: u64,
    pub hard_state: HardState,
    pub truncated_index: u64,
    pub truncated_term: u64,
    pub last_index: u64,
    pub conf_state: ConfState,
    /// The entry whose application gave `conf_state`.
    pub conf_index: u64,
    pub meta_digest: u64,
    /// (first index, term), ascending; covers truncated_index+1 ..= last_index.
    pub runs: Vec<(u64, u64)>,
}

impl Record {
    pub fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.truncated_index {
            return Some(self.truncated_term);
        }
        if index < self.truncated_index || index > self.last_index {
            return None;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).map(|run| self.runs[run].1)
    }

    /// Ends the log before `index`.
    pub fn cut_back(&mut self, index: u64) {
        self.last_index = index - 1;
        while self.runs.last().is_some_and(|(first, _)| *first >= index) {
            self.runs.pop();
        }
    }

    pub fn push(&mut self, index: u64, term: u64) {
        if self.runs.last().is_none_or(|(_, last_term)| *last_term != term) {
            self.runs.push((index, term));
        }
        self.last_index = index;
    }

    /// Drops entries at and below `index`, whose term is kept.
    pub fn cut_front(&mut self, index: u64) {
        if let Some(term) = self.term_of(index) {
            self.truncated_term = term;
            self.truncated_index = index;
            if index == self.last_index {
                self.runs.clear();
            }
            while self.runs.get(1).is_some_and(|(first, _)| *first <= index + 1) {
                self.runs.remove(0);
            }
        }
    }

    /// None if all is consistent in itself, else what is not.
    pub fn fault(&self) -> Option<String> {
        let commit = self.hard_state.commit;
        if self.last_index < self.truncated_index {
            return Some(format!("last index {} before truncated index {}", self.last_index, self.truncated_index));
        }
        if commit < self.truncated_index || commit > self.last_index {
            return Some(format!(
                "commit index {commit} outside of the log [{}, {}]",
                self.truncated_index, self.last_index
            ));
        }
        if self.conf_index > commit {
            return Some(format!("membership as of index {} beyond commit index {commit}", self.conf_index));
        }
        let mut previous = (0, self.truncated_term);
        for run in &self.runs {
            if run.0 <= previous.0 || run.1 < previous.1 || run.0 > self.last_index {
                return Some(format!("terms out of order at index {}", run.0));
            }
            previous = *run;
        }
        if self.last_index > self.truncated_index && self.term_of(self.truncated_index + 1).is_none() {
            return Some(format!("no term for index {}", self.truncated_index + 1));
        }
        if previous.1 > self.hard_state.term {
            return Some(format!("entries of term {} beyond term {}", previous.1, self.hard_state.term));
        }
        None
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160 + 16 * self.runs.len());
        out.push(VERSION);
        for value in [
            self.sequence,
            self.hard_state.term,
            self.hard_state.vote,
            self.hard_state.commit,
            self.truncated_index,
            self.truncated_term,
            self.last_index,
            self.conf_index,
            self.meta_digest,
            u64::from(self.conf_state.auto_leave),
        ] {
            put(&mut out, value);
        }
        for ids in conf_lists(&self.conf_state) {
            put(&mut out, ids.len() as u64);
            ids.iter().for_each(|id| put(&mut out, *id));
        }
        put(&mut out, self.runs.len() as u64);
        for (first, term) in &self.runs {
            put(&mut out, *first);
            put(&mut out, *term);
        }
        sealed(out)
    }

    pub fn decode(bytes: &[u8]) -> Option<Record> {
        let mut input = Input(unsealed(bytes)?);
        let mut record = Record { sequence: input.take()?, ..Record::default() };
        record.hard_state.term = input.take()?;
        record.hard_state.vote = input.take()?;
        record.hard_state.commit = input.take()?;
        record.truncated_index = input.take()?;
        record.truncated_term = input.take()?;
        record.last_index = input.take()?;
        record.conf_index = input.take()?;
        record.meta_digest = input.take()?;
        record.conf_state.auto_leave = input.take()? != 0;
        record.conf_state.voters = input.take_list()?;
        record.conf_state.learners = input.take_list()?;
        record.conf_state.voters_outgoing = input.take_list()?;
        record.conf_state.learners_next = input.take_list()?;
        let runs = input.take()?;
        for _ in 0..runs {
            record.runs.push((input.take()?, input.take()?));
        }
        input.0.is_empty().then_some(record)
    }
}

fn conf_lists(conf: &ConfState) -> [&Vec<u64>; 4] {
    [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next]
}

/// All groups, each with the batch that last wrote it; and the batch that wrote this.
#[derive(Default, Clone, Debug, PartialEq)]
pub struct Index {
    pub sequence: u64,
    pub groups: BTreeMap<u64, u64>,
}

impl Index {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + 16 * self.groups.len());
        out.push(VERSION);
        put(&mut out, self.sequence);
        for (group, sequence) in &self.groups {
            put(&mut out, *group);
            put(&mut out, *sequence);
        }
        sealed(out)
    }

    pub fn decode(bytes: &[u8]) -> Option<Index> {
        let mut input = Input(unsealed(bytes)?);
        let mut index = Index { sequence: input.take()?, groups: BTreeMap::new() };
        while !input.0.is_empty() {
            index.groups.insert(input.take()?, input.take()?);
        }
        Some(index)
    }
}

/// One meta record's share of `Record::meta_digest`; the shares are combined with xor.
pub fn meta_share(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    mix(u64::from(hasher.finalize()) | (key.len() as u64) << 32) ^ mix(value.len() as u64)
}

fn put(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn sealed(mut out: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn unsealed(bytes: &[u8]) -> Option<&[u8]> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let is_whole = crc32fast::hash(body).to_le_bytes() == sum && body.first() == Some(&VERSION);
    is_whole.then(|| &body[1..])
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*head))
    }

    fn take_list(&mut self) -> Option<Vec<u64>> {
        let count = self.take()?;
        (0..count).map(|_| self.take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        let mut record =
            Record { sequence: 7, truncated_index: 5, truncated_term: 5, last_index: 5, ..Record::default() };
        record.hard_state.term = 9;
        record.hard_state.commit = 6;
        record.conf_state.voters = vec![1, 2, 3];
        for (index, term) in [(6, 6), (7, 6), (8, 8), (9, 8)] {
            record.push(index, term);
        }
        record
    }

    #[test]
    fn record_survives_encoding_and_any_flipped_bit_is_noticed() {
        let record = sample();
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Some(record));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(&damaged), None);
        }
    }

    #[test]
    fn terms_follow_cuts_at_both_ends() {
        let mut record = sample();
        assert_eq!(
            (5..11).map(|i| record.term_of(i)).collect::<Vec<_>>(),
            [Some(5), Some(6), Some(6), Some(8), Some(8), None]
        );
        record.cut_front(7);
        assert_eq!((6..10).map(|i| record.term_of(i)).collect::<Vec<_>>(), [None, Some(6), Some(8), Some(8)]);
        assert_eq!(record.runs, [(8, 8)]);
        record.cut_back(9);
        record.push(9, 9);
        assert_eq!(record.term_of(9), Some(9));
        record.cut_front(9);
        assert!(record.runs.is_empty());
        record.push(10, 9);
        assert_eq!(record.term_of(10), Some(9));
    }

    #[test]
    fn a_commit_index_outside_of_the_log_is_a_fault() {
        let mut record = sample();
        assert_eq!(record.fault(), None);
        record.hard_state.commit = 10;
        assert!(record.fault().unwrap().contains("commit index 10"));
        record.hard_state.commit = 4;
        assert!(record.fault().is_some());
    }
}
