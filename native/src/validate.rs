//! What a peer's message must satisfy before raft-rs sees it (consensus.md section 6).
//!
//! raft-rs panics on some malformed messages and believes others; a peer's fault must be an error that harms nobody.
//! The sender is who the link authenticated. That it is a member is not asked: a lagging node's membership may be
//! older than the leader's, and raft-rs ignores what strangers answer.

use protobuf::wire_format::WireType;
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType, Snapshot};

use crate::errors::{Error, Result};
use crate::storage::conf_state_fault;

pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
const ENTRIES_MAX: usize = 1 << 16;
/// How far a peer's term may be ahead: a forged one near 2^64 would make the next campaign overflow.
const TERM_LEAD_MAX: u64 = 1 << 20;
/// No index gets there; sums with it can't overflow.
const INDEX_MAX: u64 = 1 << 60;
const CONTEXT_BYTES_MAX: usize = 4096;

/// What of the node's own state the checks need.
pub struct Own {
    pub node: u64,
    pub term: u64,
    pub last_index: u64,
    pub is_leader: bool,
}

pub fn decode(bytes: &[u8]) -> Result<Message> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(bad(format!("{} bytes", bytes.len())));
    }
    head(bytes)?; // rust-protobuf takes an entry that the end cuts off for an empty one
    let bytes = bytes::Bytes::copy_from_slice(bytes);
    let message: Message = protobuf::Message::parse_from_carllerche_bytes(&bytes)
        .map_err(|error| bad(format!("does not decode: {error}")))?;
    Ok(message)
}

/// Type, sender, target and term; of the rest, that it is all there. A message may be long, and `step` decodes it anyway.
pub fn head(bytes: &[u8]) -> Result<(i32, u64, u64, u64)> {
    let broken = |error: protobuf::ProtobufError| bad(format!("does not decode: {error}"));
    let mut input = protobuf::CodedInputStream::from_bytes(bytes);
    let (mut kind, mut to, mut from, mut term) = (0, 0, 0, 0);
    while !input.eof().map_err(broken)? {
        match input.read_tag_unpack().map_err(broken)? {
            (1, WireType::WireTypeVarint) => kind = input.read_int32().map_err(broken)?,
            (2, WireType::WireTypeVarint) => to = input.read_uint64().map_err(broken)?,
            (3, WireType::WireTypeVarint) => from = input.read_uint64().map_err(broken)?,
            (4, WireType::WireTypeVarint) => term = input.read_uint64().map_err(broken)?,
            (1..=4, _) => return Err(bad("does not decode: a field of another type")),
            (_, other) => input.skip_field(other).map_err(broken)?,
        }
    }
    Ok((kind, from, to, term))
}

fn bad(what: impl Into<String>) -> Error {
    Error::BadMessage(what.into())
}

fn must(is_so: bool, what: &str) -> Result<()> {
    if is_so {
        Ok(())
    } else {
        Err(bad(what))
    }
}

pub fn validate(message: &Message, sender: u64, own: &Own) -> Result<()> {
    must(message.unknown_fields.fields.is_none(), "unknown fields or values")?;
    must(message.from == sender && sender != 0, "not from the sender of the link")?;
    must(sender != own.node, "from this node itself")?;
    must(message.to == own.node, "for another node")?;
    must(is_peer_type(message.msg_type), "a type that peers don't send")?;
    let is_read = message.msg_type == MessageType::MsgReadIndex;
    must((message.term == 0) == is_read, "term 0, or a read with a term")?;
    must(message.term <= own.term + TERM_LEAD_MAX, "term far ahead")?;
    let indices = [message.index, message.commit, message.reject_hint, message.log_term, message.commit_term];
    must(indices.iter().all(|index| *index <= INDEX_MAX), "index out of range")?;
    must(message.request_snapshot == 0, "a snapshot request, which nobody makes")?;
    must(message.context.len() <= CONTEXT_BYTES_MAX, "context too long")?;
    must(message.priority == 0 && message.deprecated_priority == 0, "a priority, which nobody has")?;
    must(message.snapshot.is_some() == (message.msg_type == MessageType::MsgSnapshot), "a snapshot out of place")?;
    validate_by_type(message, own)
}

fn is_peer_type(kind: MessageType) -> bool {
    use MessageType::*;
    matches!(
        kind,
        MsgAppend
            | MsgAppendResponse
            | MsgRequestVote
            | MsgRequestVoteResponse
            | MsgRequestPreVote
            | MsgRequestPreVoteResponse
            | MsgSnapshot
            | MsgHeartbeat
            | MsgHeartbeatResponse
            | MsgTimeoutNow
            | MsgReadIndex
            | MsgReadIndexResp
    )
}

fn validate_by_type(message: &Message, own: &Own) -> Result<()> {
    let is_current = message.term == own.term;
    match message.msg_type {
        MessageType::MsgAppend => {
            must(!(is_current && own.is_leader), "a second leader in the term")?;
            validate_entries(message)
        }
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            must(message.entries.len() == 1, "a read without its context")?;
            validate_entry(&message.entries[0])?;
            must(message.entries[0].data.len() <= CONTEXT_BYTES_MAX, "context too long")
        }
        MessageType::MsgSnapshot => {
            must(message.entries.is_empty(), "entries out of place")?;
            must(!(is_current && own.is_leader), "a second leader in the term")?;
            validate_snapshot(message.get_snapshot(), message.term)
        }
        MessageType::MsgHeartbeat => {
            must(message.entries.is_empty(), "entries out of place")?;
            must(!(is_current && own.is_leader), "a second leader in the term")?;
            must(message.commit <= own.last_index, "a commit index beyond the log")
        }
        MessageType::MsgAppendResponse => {
            must(message.entries.is_empty(), "entries out of place")?;
            let is_known = message.reject || message.index <= own.last_index;
            must(!(is_current && own.is_leader) || is_known, "acknowledges what was never sent")
        }
        _ => must(message.entries.is_empty(), "entries out of place"),
    }
}

fn validate_entries(message: &Message) -> Result<()> {
    must(message.entries.len() <= ENTRIES_MAX, "too many entries")?;
    must(message.log_term <= message.term, "a previous entry of a later term")?;
    // raft-rs takes term 0 for the term of every index it does not have.
    must((message.log_term == 0) == (message.index == 0), "a previous entry without its term")?;
    let mut previous = (message.index, message.log_term);
    for entry in message.entries.iter() {
        validate_entry(entry)?;
        must(entry.index == previous.0 + 1, "entries that are not contiguous")?;
        must(entry.term >= previous.1 && entry.term <= message.term && entry.term > 0, "entry terms out of order")?;
        previous = (entry.index, entry.term);
    }
    Ok(())
}

fn validate_entry(entry: &Entry) -> Result<()> {
    must(entry.unknown_fields.fields.is_none(), "unknown fields or values in an entry")?;
    match entry.entry_type {
        EntryType::EntryNormal => Ok(()),
        EntryType::EntryConfChangeV2 => {
            let change: ConfChangeV2 = protobuf::Message::parse_from_bytes(&entry.data)
                .map_err(|error| bad(format!("a membership change that does not decode: {error}")))?;
            must(change.changes.iter().all(|change| change.node_id != 0), "a membership change of node 0")
        }
        EntryType::EntryConfChange => Err(bad("a membership change of the old kind")),
    }
}

fn validate_snapshot(snapshot: &Snapshot, term: u64) -> Result<()> {
    let metadata = snapshot.get_metadata();
    must(snapshot.unknown_fields.fields.is_none(), "unknown fields in a snapshot")?;
    must(metadata.index > 0 && metadata.index <= INDEX_MAX, "a snapshot's index out of range")?;
    must(metadata.term > 0 && metadata.term <= term, "a snapshot's term out of range")?;
    validate_conf_state(metadata.get_conf_state())
}

pub fn validate_conf_state(conf: &ConfState) -> Result<()> {
    conf_state_fault(conf).map_or(Ok(()), |fault| Err(bad(fault)))
}
