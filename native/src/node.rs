//! One Raft group's node: raft-rs' RawNode, its ready states under way to the disk, and its seeded election timeout.
//!
//! Two-phase sends: what a leader sends goes at once (thesis 10.2.1); everything else waits until the batch with this
//! and all earlier ready states is durable. A ready state with nothing to make durable counts with the last batch
//! under way; if there is none, it is done at once and its messages join those to be sent now. It is one file, for
//! every method works on the same RawNode and the same queue of ready states.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, EntryType, Message, MessageType,
    Snapshot,
};
use raft::{RawNode, ReadOnlyOption, SnapshotStatus, StateRole, Storage};

use crate::errors::{Error, Result};
use crate::logcore::{lock, SharedCore};
use crate::random::Random;
use crate::ready::Parts;
use crate::storage::{NodeStorage, Offer};
use crate::validate::{decode, validate, Own, MESSAGE_BYTES_MAX};

pub struct Settings {
    pub seed: u64,
    pub applied: u64,
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    pub max_size_per_msg: u64,
    pub max_inflight_msgs: usize,
    pub max_uncommitted_size: u64,
    pub max_committed_size_per_ready: u64,
}

/// A ready state whose batch is not known to be durable.
struct UnderWay {
    batch: u64,
    number: u64,
    messages: Vec<Message>,
}

pub struct Node {
    pub raw: RawNode<NodeStorage>,
    core: SharedCore,
    group: u64,
    offer: Arc<Mutex<Offer>>,
    under_way: VecDeque<UnderWay>,
    /// Applied by the driver but not persisted yet (a snapshot): raft-rs may not be told before.
    applied_later: Option<u64>,
    random: Random,
    election_ticks: usize,
    /// (term, role, leader) for which the election timeout was drawn.
    drawn_for: (u64, StateRole, u64),
}

fn raft_error(error: raft::Error) -> Error {
    Error::Raft(error.to_string())
}

impl Node {
    pub fn new(core: SharedCore, group: u64, node: u64, settings: &Settings) -> Result<Node> {
        check_applied(&core, group, settings.applied)?;
        let config = raft::Config {
            id: node,
            election_tick: settings.election_ticks,
            heartbeat_tick: settings.heartbeat_ticks,
            applied: settings.applied,
            max_size_per_msg: settings.max_size_per_msg,
            max_inflight_msgs: settings.max_inflight_msgs,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            skip_bcast_commit: false,
            batch_append: true,
            max_uncommitted_size: settings.max_uncommitted_size,
            max_committed_size_per_ready: settings.max_committed_size_per_ready,
            ..raft::Config::default()
        };
        config.validate().map_err(|error| Error::Value(error.to_string()))?;
        let offer = Arc::new(Mutex::new(Offer::default()));
        let storage = NodeStorage { core: core.clone(), group, offer: offer.clone() };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = Node {
            raw: RawNode::new(&config, storage, &logger).map_err(raft_error)?,
            core,
            group,
            offer,
            under_way: VecDeque::new(),
            applied_later: None,
            random: Random::new(&[settings.seed, group, node]),
            election_ticks: settings.election_ticks,
            drawn_for: (u64::MAX, StateRole::Follower, 0),
        };
        lock(&node.core).applied(group, settings.applied)?;
        node.draw_timeout();
        Ok(node)
    }

    /// raft-rs draws from the thread's generator at each of these changes; ours takes its place.
    pub fn draw_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        let now = (raft.term, raft.state, raft.leader_id);
        if self.drawn_for != now {
            self.drawn_for = now;
            let ticks = self.election_ticks + self.random.below(self.election_ticks as u64) as usize;
            raft.set_randomized_election_timeout(ticks);
        }
    }

    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// A snapshot is installed and not on disk yet. raft-rs counts what it covers as not applied until then, and
    /// panics when a campaign looks for those entries: so none may begin.
    pub fn is_installing(&self) -> bool {
        self.applied_later.is_some()
    }

    pub fn step(&mut self, bytes: &[u8], sender: u64) -> Result<()> {
        let message = decode(bytes)?;
        let raft = &self.raw.raft;
        let own =
            Own { node: raft.id, term: raft.term, last_index: raft.raft_log.last_index(), is_leader: self.is_leader() };
        validate(&message, sender, &own)?;
        if message.msg_type == MessageType::MsgTimeoutNow && self.is_installing() {
            return Ok(());
        }
        if message.msg_type == MessageType::MsgReadIndex && !self.is_leader() {
            // Passing it on would carry a third node's name; its asker asks again.
            return Ok(());
        }
        let is_notice = self.is_commit_notice(&message);
        let queued = self.raw.raft.msgs.len();
        match self.raw.step(message) {
            // An answer from a node that has left the membership.
            Ok(()) | Err(raft::Error::StepPeerNotFound) => {}
            Err(error) => return Err(Error::BadMessage(error.to_string())),
        }
        let messages = &mut self.raw.raft.msgs;
        if is_notice
            && messages.len() == queued + 1
            && messages.last().is_some_and(|last| last.msg_type == MessageType::MsgAppendResponse && !last.reject)
        {
            messages.pop();
        }
        Ok(())
    }

    /// An append without entries, whose only news is that more is committed. Its acceptance tells the leader nothing
    /// that the answer to the entries did not: left out, it saves a third of the leader's incoming messages. Where the
    /// answer to the entries was lost, or the leader probes, an append without news follows the next heartbeat, and
    /// that one is answered.
    fn is_commit_notice(&self, message: &Message) -> bool {
        let raft = &self.raw.raft;
        message.msg_type == MessageType::MsgAppend
            && message.entries.is_empty()
            && message.term == raft.term
            && message.from == raft.leader_id
            && message.commit > raft.raft_log.committed
    }

    pub fn propose(&mut self, data: &[u8]) -> Result<(u64, u64)> {
        self.require_leader()?;
        if data.len() > MESSAGE_BYTES_MAX / 4 {
            return Err(Error::Value(format!("an entry of {} bytes", data.len())));
        }
        let mut entry = raft::eraftpb::Entry::new();
        entry.data = bytes::Bytes::copy_from_slice(data);
        self.propose_entry(entry)
    }

    pub fn propose_conf(&mut self, changes: &[(String, u64)], context: &[u8]) -> Result<(u64, u64)> {
        self.require_leader()?;
        if self.raw.raft.has_pending_conf() {
            return Err(Error::Dropped("a membership change is under way".into()));
        }
        let mut change = ConfChangeV2::new();
        change.set_transition(ConfChangeTransition::Auto);
        for (what, node) in changes {
            let mut single = ConfChangeSingle::new();
            single.node_id = *node;
            single.change_type = match what.as_str() {
                "voter" => ConfChangeType::AddNode,
                "learner" => ConfChangeType::AddLearnerNode,
                "remove" => ConfChangeType::RemoveNode,
                _ => return Err(Error::Value(format!("{what:?} is not voter, learner or remove"))),
            };
            if *node == 0 {
                return Err(Error::Value("node id 0".into()));
            }
            change.changes.push(single);
        }
        let mut entry = raft::eraftpb::Entry::new();
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        // Leaving a joint membership is the empty change, as raft-rs itself writes it.
        if !changes.is_empty() {
            entry.data = change.write_to_bytes().map_err(|error| Error::Value(error.to_string()))?.into();
        }
        entry.context = bytes::Bytes::copy_from_slice(context);
        let (index, term) = self.propose_entry(entry)?;
        let is_kept = self
            .raw
            .raft
            .raft_log
            .unstable_entries()
            .last()
            .is_some_and(|entry| entry.index == index && entry.entry_type == EntryType::EntryConfChangeV2);
        if !is_kept {
            return Err(Error::Dropped("the membership change is not valid now".into()));
        }
        Ok((index, term))
    }

    fn propose_entry(&mut self, entry: raft::eraftpb::Entry) -> Result<(u64, u64)> {
        let mut message = Message::new();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.raw.raft.id;
        message.mut_entries().push(entry);
        match self.raw.raft.step(message) {
            Ok(()) => Ok((self.raw.raft.raft_log.last_index(), self.raw.raft.term)),
            Err(raft::Error::ProposalDropped) if self.raw.raft.lead_transferee.is_some() => {
                Err(Error::Dropped("leadership is being transferred".into()))
            }
            Err(raft::Error::ProposalDropped) => Err(Error::Dropped("too much is uncommitted".into())),
            Err(error) => Err(raft_error(error)),
        }
    }

    pub fn require_leader(&self) -> Result<()> {
        if self.is_leader() {
            Ok(())
        } else {
            Err(Error::NotLeader(self.raw.raft.leader_id))
        }
    }

    /// Applies a committed change and queues the new membership. One that recovery found applied is not applied again.
    pub fn apply_conf(&mut self, index: u64, data: &[u8]) -> Result<ConfState> {
        let change = ConfChangeV2::parse_from_bytes(data).map_err(|error| Error::Value(error.to_string()))?;
        let known = lock(&self.core).group(self.group)?.record.conf_index;
        if index > known {
            // A change that cannot be made (no leader proposes one) changes nothing, on every replica alike.
            let conf_state = self.raw.apply_conf_change(&change).unwrap_or_else(|_| self.conf_state());
            lock(&self.core).set_conf_state(self.group, conf_state.clone(), index)?;
        }
        Ok(self.conf_state())
    }

    pub fn conf_state(&self) -> ConfState {
        self.raw.raft.prs().conf().to_conf_state()
    }

    /// False where raft-rs would drop the request without a word.
    pub fn read_index(&mut self, context: Vec<u8>) -> bool {
        let raft = &self.raw.raft;
        let is_possible = match raft.state {
            StateRole::Leader => raft.commit_to_current_term(),
            StateRole::Follower => raft.leader_id != 0,
            StateRole::Candidate | StateRole::PreCandidate => false,
        };
        if is_possible {
            self.raw.read_index(context);
        }
        is_possible
    }

    pub fn ready(&mut self) -> Result<Option<Parts>> {
        if !self.raw.has_ready() {
            return Ok(None);
        }
        let mut ready = self.raw.ready();
        let number = ready.number();
        let must_sync = ready.must_sync();
        let snapshot = ready.snapshot().clone();
        let mut waiting = ready.take_persisted_messages();
        waiting.retain_mut(|message| self.mend_append(message));
        let mut send_now = ready.take_messages();
        send_now.retain_mut(|message| self.mend_append(message));
        let mut parts = Parts {
            send_now,
            committed: ready.take_committed_entries(),
            read_states: ready.take_read_states(),
            snapshot,
            leader: self.raw.raft.leader_id,
            role: self.raw.raft.state,
            term: self.raw.raft.term,
            must_sync,
            has_more: false,
        };
        let next_batch = self.queue(&ready, &parts.snapshot)?;
        self.raw.advance_append_async(ready);
        if must_sync {
            self.under_way.push_back(UnderWay { batch: next_batch, number, messages: waiting });
        } else if let Some(last) = self.under_way.back_mut() {
            last.number = number;
            last.messages.extend(waiting);
        } else {
            self.raw.on_persist_ready(number);
            parts.send_now.extend(waiting);
        }
        parts.has_more = self.raw.has_ready();
        Ok(Some(parts))
    }

    /// Where raft-rs batches appends it puts entries into a queued one that has none, whatever index that one follows
    /// (util::is_continuous_ents): after a commit notice and a lost link it is an index that the entries come before,
    /// over which a follower would panic. Such a message is made to follow its first entry; false: it cannot be sent.
    fn mend_append(&self, message: &mut Message) -> bool {
        let Some(first) = message.entries.first().map(|entry| entry.index) else { return true };
        if message.msg_type != MessageType::MsgAppend || first == message.index + 1 {
            return true;
        }
        let Ok(term) = self.raw.raft.raft_log.term(first - 1) else { return false };
        message.index = first - 1;
        message.log_term = term;
        true
    }

    /// Queues what a ready state wants durable; returns the number that its batch will have.
    fn queue(&self, ready: &raft::Ready, snapshot: &Snapshot) -> Result<u64> {
        let mut core = lock(&self.core);
        if !snapshot.is_empty() {
            let metadata = snapshot.get_metadata();
            core.install(self.group, metadata.index, metadata.term, metadata.get_conf_state().clone())?;
        }
        if !ready.entries().is_empty() {
            core.append(self.group, ready.entries())?;
        }
        if let Some(hard_state) = ready.hs() {
            core.set_hard_state(self.group, hard_state.clone(), ready.must_sync())?;
        }
        Ok(core.next_number())
    }

    /// Batches up to `batch` are durable: what waited for them may be sent.
    pub fn persisted(&mut self, batch: u64) -> Result<Vec<Message>> {
        let batch = batch.min(lock(&self.core).completed_seen());
        let mut messages = Vec::new();
        let mut number = 0;
        while self.under_way.front().is_some_and(|state| state.batch <= batch) {
            if let Some(state) = self.under_way.pop_front() {
                number = state.number;
                messages.extend(state.messages);
            }
        }
        if number > 0 {
            self.raw.on_persist_ready(number);
        }
        if let Some(index) = self.applied_later.take() {
            self.applied(index)?;
        }
        Ok(messages)
    }

    pub fn applied(&mut self, index: u64) -> Result<()> {
        let log = &self.raw.raft.raft_log;
        if index < log.applied || index > log.committed {
            let bounds = (log.applied, log.committed);
            return Err(Error::Value(format!("applied {index} is not within [{}, {}]", bounds.0, bounds.1)));
        }
        if index > log.persisted {
            self.applied_later = Some(index);
            return Ok(());
        }
        self.raw.advance_apply_to(index);
        lock(&self.core).applied(self.group, index)
    }

    pub fn offer_snapshot(&mut self, snapshot: Snapshot) -> Result<()> {
        let metadata = snapshot.get_metadata();
        let log = &self.raw.raft.raft_log;
        if metadata.index == 0 || metadata.index > log.committed {
            return Err(Error::Value(format!("a snapshot at {} with commit index {}", metadata.index, log.committed)));
        }
        let mut offer = self.offer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        offer.snapshot = Some(snapshot);
        offer.wanted = None;
        Ok(())
    }

    pub fn snapshot_wanted(&self) -> Option<u64> {
        self.offer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).wanted
    }

    pub fn report(&mut self, peer: u64, what: &str) -> Result<()> {
        match what {
            "unreachable" => self.raw.report_unreachable(peer),
            "snapshot_ok" => self.raw.report_snapshot(peer, SnapshotStatus::Finish),
            "snapshot_failed" => self.raw.report_snapshot(peer, SnapshotStatus::Failure),
            _ => return Err(Error::Value(format!("{what:?} is not unreachable, snapshot_ok or snapshot_failed"))),
        }
        Ok(())
    }

    pub fn compact(&mut self, index: u64) -> Result<()> {
        let applied = self.raw.raft.raft_log.applied;
        if index > applied {
            return Err(Error::Value(format!("can't compact to {index}, applied is {applied}")));
        }
        lock(&self.core).compact(self.group, index)
    }

    pub fn term_of(&self, index: u64) -> Option<u64> {
        let first = self.raw.store().first_index().ok()?;
        let is_known = index + 1 >= first && index <= self.raw.raft.raft_log.last_index();
        is_known.then(|| self.raw.raft.raft_log.term(index).ok()).flatten()
    }
}

/// A restart needs truncated <= applied <= commit: anything else is damage, never evened out with min() or max().
fn check_applied(core: &SharedCore, group: u64, applied: u64) -> Result<()> {
    let mut core = lock(core);
    let record = &core.group(group)?.record;
    let (truncated, commit) = (record.truncated_index, record.hard_state.commit);
    if applied < truncated || applied > commit {
        return Err(Error::Damaged(format!(
            "group {group}: applied index {applied} is outside of the log's [{truncated}, {commit}]"
        )));
    }
    Ok(())
}
