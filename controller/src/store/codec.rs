//! How log entries and Raft's messages look as bytes.
//!
//! Log and network share the encoding of an entry, so that replication copies bytes and parses
//! nothing but the log id. A message opens with its version, so that a controller of another
//! version is refused in words and never misread.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::state::MalformedCommand;

use super::types::{Entry, LeaderId, LogId, Payload, Proposal, TooLarge, TypeConfig, Vote};

/// First byte of every message. Raised when a receiver of the older form could misread the newer.
const MESSAGE_VERSION: u8 = 2;

/// Term, node and index.
pub const LOG_ID_BYTES: usize = 24;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("ends too early")]
    Short,
    #[error("version {0} of the message is not known here: are all controllers of one version?")]
    Version(u8),
    #[error("an index that no entry has")]
    Index,
    #[error("unknown kind of entry {0}")]
    EntryKind(u8),
    #[error("is not the JSON expected")]
    Json(#[from] serde_json::Error),
    #[error("the command")]
    Command(#[from] MalformedCommand),
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

pub fn put_log_id(out: &mut impl BufMut, id: &LogId) {
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.leader_id.node_id);
    out.put_u64_le(id.index);
}

pub fn get_log_id(input: &mut impl Buf) -> Result<LogId, CodecError> {
    if input.remaining() < LOG_ID_BYTES {
        return Err(CodecError::Short);
    }
    let leader_id = LeaderId {
        term: input.get_u64_le(),
        node_id: input.get_u64_le(),
    };
    let index = input.get_u64_le();
    // Everyone counts on with the next one.
    if index == u64::MAX {
        return Err(CodecError::Index);
    }
    Ok(LogId { leader_id, index })
}

pub fn put_entry(out: &mut impl BufMut, entry: &Entry) {
    put_log_id(out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(BLANK),
        EntryPayload::Normal(proposal) => {
            out.put_u8(NORMAL);
            out.put_slice(proposal.encoded());
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(MEMBERSHIP);
            let encoded = serde_json::to_vec(membership)
                .expect("ids and addresses have a JSON form, and ids become string keys");
            out.put_slice(&encoded);
        }
    }
}

pub fn get_entry(mut input: Bytes) -> Result<Entry, CodecError> {
    let log_id = get_log_id(&mut input)?;
    if input.is_empty() {
        return Err(CodecError::Short);
    }
    let payload: Payload = match input.get_u8() {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(Proposal::from_encoded(input)?),
        MEMBERSHIP => EntryPayload::Membership(serde_json::from_slice(&input)?),
        other => return Err(CodecError::EntryKind(other)),
    };
    Ok(Entry { log_id, payload })
}

/// Bytes that an entry takes in memory and on disk, near enough to bound caches and batches.
pub fn entry_size(entry: &Entry) -> usize {
    /// Log id, kind, framing, and the index's own bookkeeping.
    const OVERHEAD: usize = 96;
    /// Memberships are rare and small: a few addresses.
    const MEMBERSHIP_BYTES: usize = 1024;
    OVERHEAD
        + match &entry.payload {
            EntryPayload::Blank => 0,
            EntryPayload::Normal(proposal) => proposal.encoded().len(),
            EntryPayload::Membership(_) => MEMBERSHIP_BYTES,
        }
}

pub fn put_message(message: &impl Serialize) -> Bytes {
    let mut out = vec![MESSAGE_VERSION];
    serde_json::to_writer(&mut out, message)
        .expect("Raft's messages have string keys only, and a Vec takes any write");
    out.into()
}

pub fn get_message<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    Ok(serde_json::from_slice(versioned(body)?)?)
}

fn versioned(body: &[u8]) -> Result<&[u8], CodecError> {
    match body.split_first() {
        None => Err(CodecError::Short),
        Some((&MESSAGE_VERSION, rest)) => Ok(rest),
        Some((&other, _)) => Err(CodecError::Version(other)),
    }
}

/// All of an append but its entries, which follow it length by length.
#[derive(Serialize, Deserialize)]
struct AppendHeader {
    vote: Vote,
    prev_log_id: Option<LogId>,
    leader_commit: Option<LogId>,
}

pub fn put_append(request: &AppendEntriesRequest<TypeConfig>) -> Bytes {
    let header = serde_json::to_vec(&AppendHeader {
        vote: request.vote,
        prev_log_id: request.prev_log_id,
        leader_commit: request.leader_commit,
    })
    .expect("numbers have a JSON form");
    let entries: usize = request.entries.iter().map(entry_size).sum();
    let mut out = BytesMut::with_capacity(header.len() + entries + 8);
    out.put_u8(MESSAGE_VERSION);
    put_framed(&mut out, |out| out.put_slice(&header));
    for entry in &request.entries {
        put_framed(&mut out, |out| put_entry(out, entry));
    }
    out.freeze()
}

pub fn get_append(mut body: Bytes) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
    versioned(&body)?;
    body.advance(1);
    let header: AppendHeader = serde_json::from_slice(&get_framed(&mut body)?)?;
    let mut entries = Vec::new();
    while !body.is_empty() {
        entries.push(get_entry(get_framed(&mut body)?)?);
    }
    Ok(AppendEntriesRequest {
        vote: header.vote,
        prev_log_id: header.prev_log_id,
        entries,
        leader_commit: header.leader_commit,
    })
}

fn put_framed(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32_le(0);
    write(out);
    let length = u32::try_from(out.len() - start - 4).expect("a message is a few MiB at most");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn get_framed(input: &mut Bytes) -> Result<Bytes, CodecError> {
    if input.len() < 4 {
        return Err(CodecError::Short);
    }
    let length = input.get_u32_le() as usize;
    if input.len() < length {
        return Err(CodecError::Short);
    }
    Ok(input.split_to(length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::state::{Command, Member};
    use proptest::prelude::*;

    fn log_id(term: u64, node_id: u64, index: u64) -> LogId {
        LogId {
            leader_id: LeaderId { term, node_id },
            index,
        }
    }

    fn payload() -> impl Strategy<Value = Payload> {
        prop_oneof![
            Just(EntryPayload::Blank),
            proptest::collection::vec(any::<u8>(), 0..200)
                .prop_map(|b| EntryPayload::Normal(Proposal::from_encoded(b.into()).unwrap())),
            proptest::collection::btree_map(1u64..9, "[a-z]{1,8}:[0-9]{1,4}", 1..4).prop_map(|m| {
                let nodes: std::collections::BTreeMap<u64, Member> = m
                    .into_iter()
                    .map(|(id, link)| {
                        let member = Member {
                            link,
                            ..Member::default()
                        };
                        (id, member)
                    })
                    .collect();
                let ids = nodes.keys().copied().collect();
                EntryPayload::Membership(openraft::Membership::new(vec![ids], nodes).unwrap())
            }),
        ]
    }

    proptest! {
        #[test]
        fn an_append_survives_the_wire(
            payloads in proptest::collection::vec(payload(), 0..5),
            term in any::<u64>(), node in any::<u64>(), first in 1u64..1 << 60,
        ) {
            let entries: Vec<Entry> = payloads
                .into_iter()
                .zip(first..)
                .map(|(payload, index)| Entry { log_id: log_id(term, node, index), payload })
                .collect();
            let request = AppendEntriesRequest::<TypeConfig> {
                vote: Vote { leader_id: LeaderId { term, node_id: node }, committed: true },
                prev_log_id: Some(log_id(term, node, first - 1)),
                entries,
                leader_commit: None,
            };
            let back = get_append(put_append(&request)).unwrap();
            prop_assert_eq!(back.entries, request.entries);
            prop_assert_eq!(back.prev_log_id, request.prev_log_id);
            prop_assert_eq!(back.vote, request.vote);
        }

        #[test]
        fn garbage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut versioned = vec![MESSAGE_VERSION];
            versioned.extend_from_slice(&bytes);
            let _ = get_append(Bytes::from(bytes.clone()));
            let _ = get_append(Bytes::from(versioned));
            let _ = get_entry(Bytes::from(bytes));
        }
    }

    #[test]
    fn another_version_is_named() {
        let error = get_message::<u64>(b"\x077").unwrap_err();
        assert!(error.to_string().contains("version 7"), "{error}");
    }

    #[test]
    fn a_command_too_large_for_an_entry_is_refused() {
        let command = Command::RegisterArtifact {
            sha256: "a".repeat(MAX),
            size: 1,
        };
        const MAX: usize = super::super::types::MAX_PROPOSAL_BYTES;
        assert!(Proposal::encode(&command).unwrap_err().bytes > MAX);
    }
}
