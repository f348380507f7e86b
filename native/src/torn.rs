//! What a power loss leaves of batches that were written and not synced, for the simulator's store (memory.rs).
//!
//! The batches are laid out one after the other, each with its length and checksum, as in a file. Then sectors of 512
//! bytes are lost: all, none, those behind some byte (of one sector, bytes are written in order), or any. What is lost
//! reads as zeros. Recovery reads from the start, and ends at the first batch that is not whole: so a torn batch and
//! all behind it are gone, whatever else was kept. That is raft-engine's rule, too.

use protobuf::Message as _;
use raft::eraftpb::Entry;

use crate::random::Random;
use crate::store::{Batch, Change};

const SECTOR_BYTES: usize = 512;
const HEAD_BYTES: usize = 8;

/// The batches that survive, in order; never more than were written.
pub fn survivors(written: &[(u64, Batch)], random: &mut Random) -> Vec<(u64, Batch)> {
    let mut image = Vec::new();
    for (number, batch) in written {
        let body = encode(*number, batch);
        image.extend_from_slice(&(body.len() as u32).to_le_bytes());
        image.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        image.extend_from_slice(&body);
    }
    let start = random.below(SECTOR_BYTES as u64) as usize;
    tear(&mut image, start, random);
    recovered(&image)
}

/// `start`: where in its sector the image begins; what stands before it was synced.
fn tear(image: &mut [u8], start: usize, random: &mut Random) {
    match random.below(4) {
        0 => {}
        1 => image.fill(0),
        2 => {
            let kept = random.below(image.len() as u64 + 1) as usize;
            image[kept..].fill(0);
        }
        _ => {
            let one_in = [2, 8, 64][random.below(3) as usize];
            let mut at = 0;
            while at < image.len() {
                let end = image.len().min(at + SECTOR_BYTES - (start + at) % SECTOR_BYTES);
                if random.below(one_in) == 0 {
                    image[at..end].fill(0);
                }
                at = end;
            }
        }
    }
}

fn recovered(image: &[u8]) -> Vec<(u64, Batch)> {
    let mut found = Vec::new();
    let mut rest = image;
    while let Some((head, behind)) = rest.split_at_checked(HEAD_BYTES) {
        let (length, sum) = head.split_at(4);
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default()) as usize;
        let Some((body, behind)) = behind.split_at_checked(length) else { break };
        if length == 0 || crc32fast::hash(body).to_le_bytes() != sum {
            break;
        }
        let Some(batch) = decode(body) else { break };
        found.push(batch);
        rest = behind;
    }
    found
}

fn encode(number: u64, batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, number);
    put_bytes(&mut out, &batch.index);
    put(&mut out, batch.changes.len() as u64);
    for (group, change) in &batch.changes {
        put(&mut out, *group);
        put(&mut out, change.compact.map_or(u64::MAX, |index| index));
        put_bytes(&mut out, &change.record);
        put(&mut out, change.entries.len() as u64);
        for entry in &change.entries {
            put_bytes(&mut out, &entry.write_to_bytes().unwrap_or_default());
        }
        put(&mut out, change.metas.len() as u64);
        for (key, value) in &change.metas {
            put_bytes(&mut out, key);
            put(&mut out, u64::from(value.is_some()));
            put_bytes(&mut out, value.as_deref().unwrap_or_default());
        }
    }
    out
}

fn decode(body: &[u8]) -> Option<(u64, Batch)> {
    let mut input = Input(body);
    let number = input.take()?;
    let mut batch = Batch { index: input.take_bytes()?, ..Batch::default() };
    for _ in 0..input.take()? {
        let group = input.take()?;
        let compact = input.take()?;
        let mut change = Change { compact: (compact != u64::MAX).then_some(compact), ..Change::default() };
        change.record = input.take_bytes()?;
        for _ in 0..input.take()? {
            change.entries.push(Entry::parse_from_bytes(&input.take_bytes()?).ok()?);
        }
        for _ in 0..input.take()? {
            let key = input.take_bytes()?;
            let is_some = input.take()? == 1;
            let value = input.take_bytes()?;
            change.metas.push((key, is_some.then_some(value)));
        }
        batch.changes.insert(group, change);
    }
    input.0.is_empty().then_some((number, batch))
}

fn put(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*head))
    }

    fn take_bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.take()?;
        let (head, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(head.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches() -> Vec<(u64, Batch)> {
        (1..=6)
            .map(|number| {
                let mut change = Change { record: vec![number as u8; 40], ..Change::default() };
                for index in 0..3 {
                    let mut entry = Entry::new();
                    entry.index = number * 3 + index;
                    entry.term = 5;
                    entry.data = vec![number as u8; 300].into();
                    change.entries.push(entry);
                }
                change.metas.push((b"key".to_vec(), (number % 2 == 0).then(|| vec![1, 2, 3])));
                change.compact = (number == 4).then_some(7);
                (number, Batch { changes: [(3, change)].into(), index: vec![9; 20] })
            })
            .collect()
    }

    #[test]
    fn a_batch_survives_encoding() {
        for (number, batch) in batches() {
            let (same_number, same) = decode(&encode(number, &batch)).unwrap();
            assert_eq!(same_number, number);
            assert_eq!(encode(number, &same), encode(number, &batch));
        }
    }

    #[test]
    fn what_survives_is_a_prefix_of_whole_batches_of_any_length() {
        let written = batches();
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..400 {
            let kept = survivors(&written, &mut Random::new(&[seed]));
            lengths.insert(kept.len());
            for (one, other) in kept.iter().zip(&written) {
                assert_eq!(encode(one.0, &one.1), encode(other.0, &other.1));
            }
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), (0..=written.len()).collect::<Vec<_>>());
    }

    #[test]
    fn batches_are_torn_and_what_is_behind_a_torn_one_is_not_taken() {
        let written = batches();
        let mut image = Vec::new();
        for (number, batch) in &written {
            let body = encode(*number, batch);
            image.extend_from_slice(&(body.len() as u32).to_le_bytes());
            image.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
            image.extend_from_slice(&body);
        }
        let (mut torn_inside, mut kept_behind) = (0, 0);
        for seed in 0..400 {
            let mut torn = image.clone();
            tear(&mut torn, 100, &mut Random::new(&[seed]));
            let kept: usize = recovered(&torn).iter().map(|(n, b)| encode(*n, b).len() + HEAD_BYTES).sum();
            torn_inside +=
                usize::from(torn[kept..].iter().zip(&image[kept..]).take(8).all(|(a, b)| a == b) && kept < image.len());
            kept_behind += usize::from(torn[kept..].iter().rev().take(64).any(|byte| *byte != 0));
        }
        assert!(torn_inside > 40 && kept_behind > 40, "{torn_inside} {kept_behind}");
    }
}
