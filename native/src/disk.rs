//! The store on disk: raft-engine, its writer thread, and what recovery must be told about it.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use raft::eraftpb::Entry;
use raft_engine::{Command, Config, Engine, LogBatch, ReadableSize, RecoveryMode};

use crate::errors::{caught, caught_everywhere, Error, Result};
use crate::files::Files;
use crate::marker::Marker;
use crate::record::Record;
use crate::store::{Batch, Store};
use crate::writer::{
    region, Entries, Job, Writer, WriterState, INDEX_KEY, INDEX_REGION, META_PREFIX, META_PRESENT, RECORD_KEY,
};

pub struct Disk {
    engine: Option<Arc<Engine<Files>>>,
    state: Arc<WriterState>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    handed: u64,
}

fn config(path: &Path, file_bytes: u64) -> Config {
    Config {
        dir: path.to_string_lossy().into_owned(),
        // A torn tail is dropped here and judged by the marker afterwards.
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        // One thread replays in file order: no merging of partial states.
        recovery_threads: 1,
        // Payloads are the client's; LZ4 would cost more time than the bytes it saves.
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(file_bytes),
        // The writer decides when purging pays; once asked, raft-engine purges.
        purge_threshold: ReadableSize(file_bytes),
        // A purged file is room on the disk, at once.
        enable_log_recycle: false,
        ..Config::default()
    }
}

impl Disk {
    /// Opens the directory; returns the store and the last batch that was reported durable.
    pub fn open(path: &Path, file_bytes: u64) -> Result<(Disk, u64)> {
        let log_error = |error: std::io::Error| Error::Log(format!("can't open {}: {error}", path.display()));
        create_directory(path).map_err(log_error)?;
        let (marker, reported) = Marker::open(path)?;
        let state = Arc::new(WriterState::new()?);
        let files = Arc::new(Files { state: state.clone() });
        let opened = caught_everywhere(|| Engine::open_with_file_system(config(path, file_bytes), files));
        let engine = match opened {
            Ok(Ok(engine)) => Arc::new(engine),
            Ok(Err(error)) => return Err(open_error(path, error)),
            Err(panic) => return Err(Error::Damaged(format!("recovery of {} failed: {panic}", path.display()))),
        };
        sync_all(path).map_err(log_error)?;
        state.progress().completed = reported;
        let (jobs, receiver) = mpsc::channel();
        let garbage_bytes_max = 2 * file_bytes;
        let (shared_engine, shared_state) = (engine.clone(), state.clone());
        let writer = Writer {
            engine: shared_engine,
            state: shared_state,
            marker,
            jobs: receiver,
            garbage_bytes_max,
            purge: None,
        };
        let thread =
            thread::Builder::new().name("riverbus-log".into()).spawn(move || writer.run()).map_err(log_error)?;
        let disk = Disk { engine: Some(engine), state, jobs: Some(jobs), thread: Some(thread), handed: 0 };
        disk.drop_stale_entries()?;
        disk.state.waits_for_room.store(true, Ordering::SeqCst);
        Ok((disk, reported))
    }

    /// Starts counting where recovery found the log to end.
    pub fn begin_at(&mut self, sequence: u64) {
        self.handed = sequence;
        self.state.progress().completed = sequence;
    }

    /// raft-engine may bring back compacted entries of files that are still there; the next append must join.
    fn drop_stale_entries(&self) -> Result<()> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let mut batch = LogBatch::default();
        for group in self.groups() {
            let record = engine.get(region(group), RECORD_KEY).and_then(|bytes| Record::decode(&bytes));
            let first = engine.first_index(region(group));
            if let (Some(record), Some(first)) = (record, first) {
                if first <= record.truncated_index {
                    batch.add_command(region(group), Command::Compact { index: record.truncated_index + 1 });
                }
            }
        }
        match caught(|| engine.write(&mut batch, false)) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error::Log(format!("compaction after recovery failed: {error}"))),
            Err(panic) => Err(Error::Log(format!("compaction after recovery failed: {panic}"))),
        }
    }
}

/// Makes the directory and what is missing above it, durably: an fsync of a file says nothing of the names above it.
fn create_directory(path: &Path) -> std::io::Result<()> {
    let parent_of = |path: &Path| path.parent().filter(|parent| !parent.as_os_str().is_empty()).map(Path::to_path_buf);
    let missing: Vec<&Path> =
        path.ancestors().take_while(|each| !each.as_os_str().is_empty() && !each.exists()).collect();
    fs::create_dir_all(path)?;
    // Its own name always: an earlier process may have been killed before it came to this.
    for each in std::iter::once(path).chain(missing) {
        File::open(parent_of(each).unwrap_or_else(|| ".".into()))?.sync_all()?;
    }
    Ok(())
}

/// What recovery read may be in the page cache only, left by a killed process: it counts as durable from now on.
fn sync_all(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if file.is_file() {
            File::open(file)?.sync_all()?;
        }
    }
    File::open(path)?.sync_all()
}

fn open_error(path: &Path, error: raft_engine::Error) -> Error {
    let text = format!("{}: {error}", path.display());
    match error {
        raft_engine::Error::Io(error) if error.kind() != std::io::ErrorKind::InvalidData => Error::Log(text),
        // Another process holds the lock.
        raft_engine::Error::Other(_) => Error::Log(text),
        _ => Error::Damaged(text),
    }
}

impl Store for Disk {
    fn index(&self) -> Option<Vec<u8>> {
        self.engine.as_ref()?.get(INDEX_REGION, INDEX_KEY)
    }

    fn groups(&self) -> Vec<u64> {
        let regions = self.engine.as_ref().map(|engine| engine.raft_groups()).unwrap_or_default();
        let mut groups: Vec<u64> =
            regions.into_iter().filter(|region| *region != INDEX_REGION).map(|region| region - 1).collect();
        groups.sort_unstable();
        groups
    }

    fn record(&self, group: u64) -> Option<Vec<u8>> {
        self.engine.as_ref()?.get(region(group), RECORD_KEY)
    }

    fn metas(&self, group: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut metas = Vec::new();
        if let Some(engine) = &self.engine {
            // An error leaves records out, which the digest notices.
            let _ = engine.scan_raw_messages(region(group), None, None, false, |key, value| {
                if let (Some((&META_PREFIX, key)), Some((&META_PRESENT, value))) =
                    (key.split_first(), value.split_first())
                {
                    metas.push((key.to_vec(), value.to_vec()));
                }
                true
            });
        }
        metas
    }

    fn entry(&self, group: u64, index: u64) -> Result<Entry> {
        let engine = self.engine.as_ref().ok_or_else(|| Error::Log("the log is closed".into()))?;
        let damaged = |what: String| Error::Damaged(format!("group {group}: entry {index} {what}"));
        let read = caught(|| engine.get_entry::<Entries>(region(group), index)).map_err(&damaged)?;
        match read {
            Ok(Some(entry)) if entry.index == index => Ok(entry),
            Ok(Some(entry)) => Err(damaged(format!("reads as entry {}", entry.index))),
            Ok(None) => Err(damaged("is missing".into())),
            Err(raft_engine::Error::Io(error)) => {
                Err(Error::Log(format!("group {group}: reading entry {index}: {error}")))
            }
            Err(error) => Err(damaged(format!("can't be read: {error}"))),
        }
    }

    fn submit(&mut self, number: u64, batch: Batch) {
        self.handed = number;
        self.state.counters.queue_depth.fetch_add(1, Ordering::Relaxed);
        if let Some(jobs) = &self.jobs {
            // Fails only if the thread is gone, which `completed` reports.
            let _ = jobs.send(Job::Write(number, batch));
        }
    }

    fn completed(&mut self) -> Result<u64> {
        self.state.event.drain();
        let progress = self.state.progress();
        match &progress.failure {
            Some(failure) => Err(Error::Log(failure.clone())),
            None => Ok(progress.completed),
        }
    }

    fn fileno(&mut self) -> Result<i32> {
        Ok(self.state.event.fileno())
    }

    fn sync(&mut self) -> Option<Arc<WriterState>> {
        Some(self.state.clone())
    }

    fn purge(&mut self, live_bytes: u64) {
        if let Some(jobs) = &self.jobs {
            self.state.counters.purges_pending.fetch_add(1, Ordering::Relaxed);
            let _ = jobs.send(Job::Purge(live_bytes));
        }
    }

    fn stalled(&self) -> Option<String> {
        self.state.progress().stalled.clone()
    }

    fn statistics(&self) -> Vec<(&'static str, u64)> {
        let counters = &self.state.counters;
        [
            ("bytes_written", &counters.bytes_written),
            ("batches", &counters.batches),
            ("writes", &counters.writes),
            ("syncs", &counters.syncs),
            ("sync_ns_total", &counters.sync_ns_total),
            ("sync_ns_max", &counters.sync_ns_max),
            ("queue_depth", &counters.queue_depth),
            ("purges", &counters.purges),
            ("purges_pending", &counters.purges_pending),
            ("disk_bytes", &counters.disk_bytes),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
        .to_vec()
    }

    fn close(&mut self) -> Option<Box<dyn FnOnce() + Send>> {
        self.state.is_closing.store(true, Ordering::SeqCst);
        self.jobs.take();
        let engine = self.engine.take();
        let thread = self.thread.take()?;
        Some(Box::new(move || {
            drop(engine);
            let _ = thread.join();
        }))
    }

    fn crash(&mut self, _seed: u64) -> Option<(Box<dyn Store>, u64)> {
        None
    }

    fn flip_bit(&mut self, _seed: u64) -> Option<bool> {
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(finish) = self.close() {
            finish();
        }
    }
}
