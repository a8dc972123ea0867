//! The Raft types of this program: what is proposed, what comes back, who is a member.
//!
//! A command is encoded once by its proposer and decoded once by each state machine; log and
//! network carry the bytes as they are. Nothing here does I/O.

use std::fmt;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::type_config::alias;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::runtime::Runtime;
use crate::state::{Command, MalformedCommand, Member, Reply};

openraft::declare_raft_types!(
    /// Ids are never used twice, terms are counted by Raft, a member's node is where it listens.
    pub TypeConfig:
        D = Proposal,
        R = Reply,
        NodeId = u64,
        Node = Member,
        AsyncRuntime = Runtime,
);

pub type LogId = alias::LogIdOf<TypeConfig>;
pub type LeaderId = alias::LeaderIdOf<TypeConfig>;
pub type Vote = alias::VoteOf<TypeConfig>;
pub type Entry = alias::EntryOf<TypeConfig>;
pub type Payload = EntryPayload<Proposal, u64, Member>;
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;

/// The largest encoded command. An object is at most 1 MiB as it is sent; the rest is room for its
/// key, for defaults, and for text that takes more room where it is escaped.
pub const MAX_PROPOSAL_BYTES: usize = 1024 * 1024 + 256 * 1024;

/// An encoded [`Command`]. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(Bytes);

/// A command is larger than one log entry may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the command takes {bytes} bytes encoded; at most {MAX_PROPOSAL_BYTES} are possible")]
pub struct TooLarge {
    pub bytes: usize,
}

impl Proposal {
    pub fn encode(command: &Command) -> Result<Self, TooLarge> {
        Self::from_encoded(command.encode())
    }

    /// Takes bytes that were encoded elsewhere.
    pub fn from_encoded(encoded: Bytes) -> Result<Self, TooLarge> {
        if encoded.len() > MAX_PROPOSAL_BYTES {
            return Err(TooLarge {
                bytes: encoded.len(),
            });
        }
        Ok(Self(encoded))
    }

    pub fn encoded(&self) -> &Bytes {
        &self.0
    }

    /// # Errors
    /// When a newer version of this program proposed a command that this one does not know.
    pub fn decode(&self) -> Result<Command, MalformedCommand> {
        Command::decode(self.0.clone())
    }
}

// Commands can hold secrets: only their size is printed.
impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

// openraft asks for serde on everything that is proposed. Our own log and network do not use it.
impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Self::from_encoded(bytes.into()).map_err(serde::de::Error::custom)
    }
}
