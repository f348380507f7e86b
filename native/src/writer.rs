//! The writer thread: one at a time, in order, coalescing what has queued up; it never takes the GIL.
//!
//! After each completed write: marker (no fsync), completed number, eventfd. A write that failed poisons the log for
//! good: the state of the file is not known then, and an fsync that failed must never be tried again (its second
//! success means nothing). A full disk is no failure: files.rs waits inside the write until there is room.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use raft_engine::{Command, Engine, LogBatch, MessageExt};

use crate::errors::{caught, Error, Result};
use crate::files::Files;
use crate::group::entry_bytes;
use crate::marker::Marker;
use crate::store::Batch;

/// Queued batches are written together up to this size.
const COALESCED_BYTES_MAX: u64 = 16 << 20;

/// raft-engine's regions: 0 is the log's own, a group's is one higher.
pub const INDEX_REGION: u64 = 0;
pub const INDEX_KEY: &[u8] = b"index";
pub const RECORD_KEY: &[u8] = b"record";
pub const META_PREFIX: u8 = b'm';
/// First byte of a meta record's value. raft-engine's own delete does not last: its recovery brings back what was
/// rewritten before it was deleted.
pub const META_PRESENT: u8 = 1;
const META_ABSENT: u8 = 0;

pub fn region(group: u64) -> u64 {
    group + 1
}

pub struct Entries;

impl MessageExt for Entries {
    type Entry = raft::eraftpb::Entry;

    fn index(entry: &Self::Entry) -> u64 {
        entry.index
    }
}

pub struct EventFd(OwnedFd);

impl EventFd {
    pub fn new() -> Result<EventFd> {
        // SAFETY: eventfd has no preconditions; the descriptor it returns is ours alone.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(Error::Log(format!("eventfd: {}", std::io::Error::last_os_error())));
        }
        // SAFETY: as above.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn fileno(&self) -> i32 {
        self.0.as_raw_fd()
    }

    pub fn signal(&self) {
        let one = 1u64;
        // SAFETY: writes the eight bytes of `one`; a full counter (EAGAIN) is signalled anyway.
        unsafe { libc::write(self.fileno(), (&raw const one).cast(), 8) };
    }

    pub fn drain(&self) {
        let mut count = 0u64;
        // SAFETY: reads eight bytes into `count`; EAGAIN if there was no signal.
        unsafe { libc::read(self.fileno(), (&raw mut count).cast(), 8) };
    }
}

#[derive(Default)]
pub struct Progress {
    pub completed: u64,
    pub failure: Option<String>,
    pub stalled: Option<String>,
}

#[derive(Default)]
pub struct Counters {
    pub bytes_written: AtomicU64,
    pub syncs: AtomicU64,
    pub sync_ns_total: AtomicU64,
    pub sync_ns_max: AtomicU64,
    pub batches: AtomicU64,
    pub writes: AtomicU64,
    pub queue_depth: AtomicU64,
    pub purges: AtomicU64,
    /// Asked for and not over: while there is one, files may vanish.
    pub purges_pending: AtomicU64,
    pub disk_bytes: AtomicU64,
}

/// Shared by the writer, its files, and the caller's thread.
pub struct WriterState {
    progress: Mutex<Progress>,
    changed: Condvar,
    pub event: EventFd,
    pub counters: Counters,
    /// Off while the log is opened: there a full disk is an error.
    pub waits_for_room: AtomicBool,
    pub is_closing: AtomicBool,
    /// After a failure no byte is written any more, not even by raft-engine's destructors.
    pub is_dead: AtomicBool,
}

impl WriterState {
    pub fn new() -> Result<WriterState> {
        Ok(WriterState {
            progress: Mutex::new(Progress::default()),
            changed: Condvar::new(),
            event: EventFd::new()?,
            counters: Counters::default(),
            waits_for_room: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            is_dead: AtomicBool::new(false),
        })
    }

    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn complete(&self, number: u64) {
        self.progress().completed = number;
        self.changed.notify_all();
        self.event.signal();
    }

    pub fn fail(&self, reason: &str) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.progress().failure.get_or_insert_with(|| reason.to_string());
        self.changed.notify_all();
        self.event.signal();
    }

    /// Blocks until batch `number` is durable or will never be.
    pub fn wait(&self, number: u64) {
        let mut progress = self.progress();
        while progress.completed < number && progress.failure.is_none() {
            progress = self.changed.wait(progress).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

pub enum Job {
    Write(u64, Batch),
    Purge(u64),
}

pub struct Writer {
    pub engine: Arc<Engine<Files>>,
    pub state: Arc<WriterState>,
    pub marker: Marker,
    pub jobs: Receiver<Job>,
    /// Garbage that is left alone: purging sooner would rewrite live entries again and again.
    pub garbage_bytes_max: u64,
    pub purge: Option<JoinHandle<()>>,
}

impl Writer {
    /// Until the queue is closed and empty. After a failure, discards what comes.
    pub fn run(mut self) {
        let mut held = None;
        let mut buffer = LogBatch::default();
        while let Some(job) = held.take().or_else(|| self.jobs.recv().ok()) {
            if self.state.is_dead.load(Ordering::SeqCst) {
                continue;
            }
            let outcome = match job {
                Job::Write(number, batch) => {
                    let (batches, next) = self.coalesce(number, batch);
                    held = next;
                    self.write(&mut buffer, batches)
                }
                Job::Purge(live_bytes) => self.start_purge(live_bytes),
            };
            if let Err(reason) = outcome {
                self.state.fail(&reason);
            }
        }
        self.wait_for_purge();
        // The engine's destructor truncates and syncs; its panics are expected after a failure.
        let Writer { engine, .. } = self;
        let _ = caught(move || drop(engine));
    }

    fn coalesce(&self, number: u64, batch: Batch) -> (Vec<(u64, Batch)>, Option<Job>) {
        let mut bytes = batch_bytes(&batch);
        let mut batches = vec![(number, batch)];
        while bytes < COALESCED_BYTES_MAX {
            match self.jobs.try_recv() {
                Ok(Job::Write(number, batch)) => {
                    bytes += batch_bytes(&batch);
                    batches.push((number, batch));
                }
                Ok(other) => return (batches, Some(other)),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        (batches, None)
    }

    fn write(&mut self, buffer: &mut LogBatch, batches: Vec<(u64, Batch)>) -> std::result::Result<(), String> {
        let count = batches.len() as u64;
        if batches.iter().any(|(_, batch)| self.overwrites(batch)) {
            self.wait_for_purge();
        }
        let mut last = (0, Vec::new());
        for (number, batch) in batches {
            last = (number, fill(buffer, batch)?);
        }
        let (number, index) = last;
        buffer.put(INDEX_REGION, INDEX_KEY.to_vec(), index).map_err(|error| error.to_string())?;
        let engine = &self.engine;
        let written = caught(|| engine.write(buffer, true))
            .map_err(|panic| format!("write failed: {}", plain(panic)))?
            .map_err(|error| format!("write failed: {error}"))?;
        // A file system that copies on write may want room for that, too.
        let (state, marker) = (Arc::clone(&self.state), &mut self.marker);
        let advanced = state.with_room(|| marker.advance(number));
        advanced.map_err(|error| format!("write failed: marker: {error}"))?;
        let counters = &self.state.counters;
        counters.bytes_written.fetch_add(written as u64, Ordering::Relaxed);
        counters.batches.fetch_add(count, Ordering::Relaxed);
        counters.writes.fetch_add(1, Ordering::Relaxed);
        counters.queue_depth.fetch_sub(count, Ordering::Relaxed);
        self.state.complete(number);
        Ok(())
    }

    /// Whether entries take the place of others: while raft-engine rewrites those, it panics.
    fn overwrites(&self, batch: &Batch) -> bool {
        batch.changes.iter().any(|(group, change)| {
            let first = change.entries.first().map(|entry| entry.index);
            first.is_some_and(|first| self.engine.last_index(region(*group)).is_some_and(|last| first <= last))
        })
    }

    fn wait_for_purge(&mut self) {
        if let Some(purge) = self.purge.take() {
            // Its failures are in the state, panics among them.
            let _ = purge.join();
        }
    }

    /// Deletes files once garbage outweighs what is alive; what blocks them is rewritten by raft-engine. That may be
    /// many writes and syncs, so a thread of its own does it (raft-engine allows that) while batches go on: on this
    /// one it held up commits for a second. One round a call: further ones make raft-engine rewrite what is in use.
    fn start_purge(&mut self, live_bytes: u64) -> std::result::Result<(), String> {
        let used = self.engine.get_used_size() as u64;
        self.state.counters.disk_bytes.store(used, Ordering::Relaxed);
        let is_running = self.purge.as_ref().is_some_and(|purge| !purge.is_finished());
        if is_running || used <= 2 * live_bytes + self.garbage_bytes_max {
            self.state.counters.purges_pending.fetch_sub(1, Ordering::Relaxed);
            return Ok(());
        }
        self.state.counters.purges.fetch_add(1, Ordering::Relaxed);
        let (engine, state) = (Arc::clone(&self.engine), Arc::clone(&self.state));
        let purge = move || {
            let purged = caught(|| engine.purge_expired_files());
            state.counters.purges_pending.fetch_sub(1, Ordering::Relaxed);
            let outcome = match purged {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => plain(panic),
            };
            state.fail(&format!("purge failed: {outcome}"));
        };
        let spawned = std::thread::Builder::new().name("riverbus-purge".into()).spawn(purge);
        self.purge = Some(spawned.map_err(|error| format!("purge failed: {error}"))?);
        Ok(())
    }
}

/// raft-engine syncs its directory by itself, and panics if that fails: the error is in the panic's text.
fn plain(panic: String) -> String {
    let code = panic.split_once("Os { code: ").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
    match code.map(std::io::Error::from_raw_os_error) {
        Some(error) => format!("fsync of the log's directory failed: {error}"),
        None => panic,
    }
}

fn batch_bytes(batch: &Batch) -> u64 {
    batch.changes.values().flat_map(|change| &change.entries).map(entry_bytes).sum()
}

/// Adds a batch to raft-engine's; returns the index record, of which only the last is written.
fn fill(buffer: &mut LogBatch, batch: Batch) -> std::result::Result<Vec<u8>, String> {
    let text = |error: raft_engine::Error| error.to_string();
    for (group, change) in batch.changes {
        let region = region(group);
        if let Some(index) = change.compact {
            buffer.add_command(region, Command::Compact { index: index + 1 });
        }
        buffer.add_entries::<Entries>(region, &change.entries).map_err(text)?;
        for (key, value) in change.metas {
            let mut prefixed = vec![META_PREFIX];
            prefixed.extend_from_slice(&key);
            match value {
                Some(value) => buffer.put(region, prefixed, [&[META_PRESENT], value.as_slice()].concat()),
                None => buffer.put(region, prefixed, vec![META_ABSENT]),
            }
            .map_err(text)?;
        }
        buffer.put(region, RECORD_KEY.to_vec(), change.record).map_err(text)?;
    }
    Ok(batch.index)
}
