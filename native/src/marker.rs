//! The marker: the last batch that was reported durable, in two checksummed slots written in turn.
//!
//! raft-engine takes a corrupt tail for a torn write and drops it; the marker tells the two apart: a log that ends
//! before it has lost acknowledged records. It is not synced (the batch is, before it), so after a power cut it may
//! lag behind, never run ahead.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::errors::{Error, Result};

const NAME: &str = "marker";
/// A slot to a sector: a torn write spoils one of them.
const SLOT_BYTES: usize = 512;
const MAGIC: u64 = 0x3152_4B4D_5355_4252;

pub struct Marker {
    file: File,
    next_slot: u64,
}

fn encode(sequence: u64) -> [u8; 20] {
    let mut slot = [0; 20];
    slot[..8].copy_from_slice(&MAGIC.to_le_bytes());
    slot[8..16].copy_from_slice(&sequence.to_le_bytes());
    let sum = crc32fast::hash(&slot[..16]);
    slot[16..].copy_from_slice(&sum.to_le_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<u64> {
    let sequence = u64::from_le_bytes(slot.get(8..16)?.try_into().ok()?);
    (slot[..20] == encode(sequence)).then_some(sequence)
}

impl Marker {
    /// The marker and the sequence it holds; created if the directory has no log yet.
    pub fn open(directory: &Path) -> Result<(Marker, u64)> {
        let path = directory.join(NAME);
        if !path.exists() {
            if has_log_files(directory).map_err(|error| io_error("read", directory, &error))? {
                return Err(Error::Damaged(format!("{} is missing beside a log", path.display())));
            }
            create(directory).map_err(|error| io_error("create", &path, &error))?;
        }
        let mut bytes = Vec::new();
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let mut file = file.map_err(|error| io_error("open", &path, &error))?;
        file.read_to_end(&mut bytes).map_err(|error| io_error("read", &path, &error))?;
        let slots: Vec<Option<u64>> = bytes.chunks(SLOT_BYTES).take(2).map(decode).collect();
        let Some(sequence) = slots.iter().copied().flatten().max() else {
            return Err(Error::Damaged(format!("{} has no slot that is whole", path.display())));
        };
        let newest = slots.iter().position(|slot| *slot == Some(sequence)).unwrap_or(0);
        Ok((Marker { file, next_slot: 1 - newest as u64 }, sequence))
    }

    pub fn advance(&mut self, sequence: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(sequence), self.next_slot * SLOT_BYTES as u64)?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

fn io_error(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::Log(format!("can't {what} {}: {error}", path.display()))
}

fn has_log_files(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name.to_string_lossy().ends_with(".raftlog") || name.to_string_lossy().ends_with(".rewrite") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whole or not at all: written beside its name, renamed, the directory synced.
fn create(directory: &Path) -> io::Result<()> {
    let temporary = directory.join("marker.new");
    let mut bytes = vec![0; 2 * SLOT_BYTES];
    bytes[..20].copy_from_slice(&encode(0));
    let mut file = File::create(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(NAME))?;
    File::open(directory)?.sync_all()
}
