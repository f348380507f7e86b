//! The errors of the crate and their way to Python; and the one place where panics are caught.
//!
//! raft-rs panics on broken invariants and raft-engine on a failed fsync. A panic that reached Python would be a
//! `PanicException`, which is no `Exception`: `caught` turns it into text, silently, and the owner poisons itself.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;

create_exception!(riverbus._native, RaftError, PyException);
create_exception!(riverbus._native, NotLeader, RaftError);
create_exception!(riverbus._native, ProposalDropped, RaftError);
create_exception!(riverbus._native, BadMessage, RaftError);
create_exception!(riverbus._native, RaftPanic, RaftError);
create_exception!(riverbus._native, LogError, PyException);
create_exception!(riverbus._native, LogDamaged, LogError);

/// Why a call failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// The leader's node id, 0 if unknown.
    NotLeader(u64),
    Dropped(String),
    BadMessage(String),
    Raft(String),
    Panic(String),
    Log(String),
    Damaged(String),
    Value(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        match error {
            Error::NotLeader(leader) => NotLeader::new_err((leader,)),
            Error::Dropped(text) => ProposalDropped::new_err(text),
            Error::BadMessage(text) => BadMessage::new_err(text),
            Error::Raft(text) => RaftError::new_err(text),
            Error::Panic(text) => RaftPanic::new_err(text),
            Error::Log(text) => LogError::new_err(text),
            Error::Damaged(text) => LogDamaged::new_err(text),
            Error::Value(text) => PyValueError::new_err(text),
        }
    }
}

thread_local! {
    static QUIET: Cell<usize> = const { Cell::new(0) };
}
/// Sections in which panics of any thread are expected (recovery runs in raft-engine's own pool).
static QUIET_EVERYWHERE: AtomicUsize = AtomicUsize::new(0);

/// Keeps panics that `caught` handles off stderr; all others are reported as before.
pub fn install_panic_hook() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let is_quiet = QUIET.with(Cell::get) > 0 || QUIET_EVERYWHERE.load(Ordering::Relaxed) > 0;
        if !is_quiet {
            previous(info);
        }
    }));
}

/// Runs `body`; a panic becomes its text.
pub fn caught<T>(body: impl FnOnce() -> T) -> std::result::Result<T, String> {
    QUIET.with(|quiet| quiet.set(quiet.get() + 1));
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    QUIET.with(|quiet| quiet.set(quiet.get() - 1));
    result.map_err(|payload| panic_text(payload.as_ref()))
}

/// As `caught`, for a body that uses other threads too.
pub fn caught_everywhere<T>(body: impl FnOnce() -> T) -> std::result::Result<T, String> {
    QUIET_EVERYWHERE.fetch_add(1, Ordering::Relaxed);
    let result = caught(body);
    QUIET_EVERYWHERE.fetch_sub(1, Ordering::Relaxed);
    result
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_string()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "panic without a message".to_string()
    }
}
