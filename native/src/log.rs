//! The Python class `Log`: a thin shell over the core; calls that may block do so without the GIL.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::disk::Disk;
use crate::errors::{caught, Error, Result};
use crate::logcore::{lock, LogCore, SharedCore};
use crate::memory::Memory;
use crate::record::Index;
use crate::store::Store;

/// Rotation costs a file, two truncates and three syncs; a purge frees whole files.
const FILE_BYTES: u64 = 32 << 20;
const FILE_BYTES_MIN: u64 = 16 << 10;
const FILE_BYTES_MAX: u64 = 1 << 30;

#[pyclass(frozen, module = "riverbus._native")]
pub struct Log {
    pub core: SharedCore,
}

impl Log {
    fn over(core: LogCore) -> Log {
        Log { core: Arc::new(Mutex::new(core)) }
    }

    fn open_disk(path: PathBuf, file_bytes: u64) -> Result<LogCore> {
        if !(FILE_BYTES_MIN..=FILE_BYTES_MAX).contains(&file_bytes) {
            return Err(Error::Value(format!("files of {file_bytes} bytes")));
        }
        let (mut disk, reported) = Disk::open(&path, file_bytes)?;
        if let Some(index) = disk.index().and_then(|bytes| Index::decode(&bytes)) {
            disk.begin_at(index.sequence);
        }
        LogCore::recover(Box::new(disk), reported, true)
    }
}

#[pymethods]
impl Log {
    #[staticmethod]
    #[pyo3(signature = (path, *, file_bytes = FILE_BYTES))]
    fn open(py: Python<'_>, path: PathBuf, file_bytes: u64) -> PyResult<Log> {
        let opened = py.detach(|| caught(|| Log::open_disk(path, file_bytes)));
        let core = opened.map_err(|panic| Error::Damaged(format!("recovery failed: {panic}")))??;
        Ok(Log::over(core))
    }

    #[staticmethod]
    fn in_memory(seed: u64) -> PyResult<Log> {
        Ok(Log::over(LogCore::recover(Box::new(Memory::new(seed)), 0, false)?))
    }

    fn flush(&self) -> PyResult<u64> {
        Ok(lock(&self.core).flush()?)
    }

    fn fileno(&self) -> PyResult<i32> {
        Ok(lock(&self.core).store().fileno()?)
    }

    fn completed(&self) -> PyResult<u64> {
        Ok(lock(&self.core).completed()?)
    }

    fn sync(&self, py: Python<'_>) -> PyResult<u64> {
        let (number, waiter) = {
            let mut core = lock(&self.core);
            core.check()?;
            (core.next_number() - 1, core.store().sync())
        };
        if let Some(state) = waiter {
            py.detach(|| state.wait(number));
        }
        Ok(lock(&self.core).completed()?)
    }

    fn crash(&self, seed: u64) -> PyResult<Log> {
        let mut core = lock(&self.core);
        core.check()?;
        let Some((store, completed)) = core.store().crash(seed) else {
            return Err(Error::Log("only a log in memory can crash".into()).into());
        };
        core.poison(Error::Log("the log has crashed".into()));
        Ok(Log::over(LogCore::recover(store, completed, false)?))
    }

    fn flip_bit(&self, seed: u64) -> PyResult<bool> {
        let flipped = lock(&self.core).store().flip_bit(seed);
        Ok(flipped.ok_or_else(|| Error::Log("only a log in memory can be damaged".into()))?)
    }

    #[pyo3(signature = (group, key, value))]
    fn put_meta(&self, group: u64, key: &[u8], value: Option<&[u8]>) -> PyResult<()> {
        Ok(lock(&self.core).put_meta(group, key, value)?)
    }

    fn get_meta<'py>(&self, py: Python<'py>, group: u64, key: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let mut core = lock(&self.core);
        Ok(core.group(group)?.metas.get(key).map(|value| PyBytes::new(py, value)))
    }

    fn groups(&self) -> PyResult<Vec<u64>> {
        let core = lock(&self.core);
        core.check()?;
        Ok(core.groups())
    }

    fn compact(&self, group: u64, index: u64) -> PyResult<()> {
        Ok(lock(&self.core).compact(group, index)?)
    }

    fn purge(&self) -> PyResult<()> {
        Ok(lock(&self.core).purge()?)
    }

    fn first_index(&self, group: u64) -> PyResult<u64> {
        Ok(lock(&self.core).group(group)?.record.truncated_index + 1)
    }

    fn last_index(&self, group: u64) -> PyResult<u64> {
        Ok(lock(&self.core).group(group)?.record.last_index)
    }

    fn stalled(&self) -> Option<String> {
        lock(&self.core).store().stalled()
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let statistics = PyDict::new(py);
        let mut core = lock(&self.core);
        for (name, value) in core.store().statistics() {
            statistics.set_item(name, value)?;
        }
        for (name, value) in core.sizes() {
            statistics.set_item(name, value)?;
        }
        Ok(statistics)
    }

    fn close(&self, py: Python<'_>) {
        let finish = {
            let mut core = lock(&self.core);
            core.poison(Error::Log("the log is closed".into()));
            core.store().close()
        };
        if let Some(finish) = finish {
            py.detach(finish);
        }
    }
}
