//! `riverbus._native`: Raft (raft-rs) and its durable log (raft-engine), behind the face of `_native.pyi`.
//!
//! The contract. All objects belong to one thread; calls are short and keep the GIL, except those that may block
//! (`Log.open`, `sync`, `close`). A driver's duties, in order, for each `Raft`:
//!
//! 1. On any input call `ready()` until it is None (`tick` and `step` say whether there is one; without `has_more`, and
//!    with nothing applied, it was the last): send `send_now`; install `snapshot`; apply `committed` in order
//!    (conf changes through `apply_conf`, even with empty data); answer `read_states`; then `applied(index)`.
//! 2. At the end of the turn `Log.flush()`, once for all groups: one write and one fdatasync by the writer thread.
//! 3. When `fileno()` is readable: `completed()`, then `persisted(completed)` of each `Raft`, send what it returns,
//!    and go to 1. Nothing that a follower or candidate says leaves before this.
//!
//! What holds:
//! - A batch is durable as a whole or not at all, in order; numbers go up over restarts. A change of the commit index
//!   alone is not flushed: it travels with the next batch. Everything else queued makes `flush` hand over.
//! - A full disk stalls the writer (`stalled()` says why) and loses nothing. Any other I/O error poisons the log: every
//!   call raises LogError; an fsync is never tried twice. Damage found at open or at a read raises LogDamaged and
//!   poisons as well: an acknowledged record is returned as written or not at all (record.rs, marker.rs).
//! - `step` refuses a malformed message with BadMessage and is unharmed. A panic inside raft-rs raises RaftPanic and
//!   poisons that Raft: its process should stop.
//! - `applied` at construction must be within [first index - 1, commit]; a snapshot's own index once it is installed
//!   may be reported as applied at once, it is passed on to raft-rs when it is durable.
//! - `propose` returns (index, term): another term at that index later means it was not accepted. `propose_conf` takes
//!   ("voter" | "learner" | "remove", node) pairs; with none it leaves a joint membership. Auto-leave is appended when
//!   the change is applied, and travels with the next heartbeat's answers.
//! - `read_index` is False where it would be dropped; True may still get lost on the way to the leader: ask again.
//! - `offer_snapshot` holds until compaction passes it; then, or before the first, `snapshot_wanted()` says what is
//!   needed. After MsgSnapshot the peer's progress is paused until `report(peer, "snapshot_ok" | "snapshot_failed")`.
//! - The same seed gives the same elections: the only randomness is the election timeout (random.rs).
//!
//! `cargo test` needs no maturin (without the feature pyo3/extension-module the test binary links libpython).

mod disk;
mod errors;
mod files;
mod group;
mod log;
mod logcore;
mod marker;
mod memory;
mod node;
mod raft;
mod random;
mod ready;
mod record;
mod storage;
mod store;
mod torn;
mod validate;
mod writer;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::install_panic_hook();
    let py = module.py();
    module.add_class::<log::Log>()?;
    module.add_class::<raft::Raft>()?;
    module.add_class::<ready::Ready>()?;
    module.add("RaftError", py.get_type::<errors::RaftError>())?;
    module.add("NotLeader", py.get_type::<errors::NotLeader>())?;
    module.add("ProposalDropped", py.get_type::<errors::ProposalDropped>())?;
    module.add("BadMessage", py.get_type::<errors::BadMessage>())?;
    module.add("RaftPanic", py.get_type::<errors::RaftPanic>())?;
    module.add("LogError", py.get_type::<errors::LogError>())?;
    module.add("LogDamaged", py.get_type::<errors::LogDamaged>())?;
    module.add("FOLLOWER", 0)?;
    module.add("CANDIDATE", 1)?;
    module.add("LEADER", 2)?;
    module.add("PRE_CANDIDATE", 3)?;
    module.add("ENTRY_NORMAL", 0)?;
    module.add("ENTRY_CONF_CHANGE", 2)?;
    Ok(())
}
