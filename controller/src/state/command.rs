//! The only way to write: one enum, matched exhaustively by `State::apply`.
//! Times, ids and random numbers are put in by the proposer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Key, Member, Object};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Stores a new object. `body` is complete but for its resourceVersion.
    Create {
        key: Key,
        body: Value,
    },
    /// Replaces a whole object if its revision is still `expect` (compare-and-swap; `None` = whatever it is).
    /// A body equal to what is stored changes nothing and takes no revision.
    Replace {
        key: Key,
        body: Value,
        expect: Option<u64>,
    },
    Delete {
        key: Key,
        expect: Option<u64>,
        uid: Option<String>,
    },
    /// A majority of controllers holds the artifact durably. Of one that is registered already it
    /// says that it is about to be named: it is not forgotten by what was decided before.
    RegisterArtifact {
        sha256: String,
        size: u64,
    },
    /// Forgets an artifact unless it was registered anew since revision `registered`.
    ForgetArtifact {
        sha256: String,
        registered: u64,
    },
    /// Gives a fresh Raft id to a controller that joins.
    AdmitController {
        member: Member,
    },
    /// A known controller listens elsewhere now. Idempotent.
    MoveController {
        id: u64,
        member: Member,
    },
    RemoveController {
        id: u64,
    },
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    Created(Arc<Object>),
    Replaced(Arc<Object>),
    /// The body was what is stored already.
    Unchanged(Arc<Object>),
    /// The object as it was, with the revision of its deletion.
    Deleted(Arc<Object>),
    Controller(u64),
    Done,
}

/// Why a committed command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    #[error("already exists")]
    AlreadyExists,
    #[error("not found")]
    NotFound,
    /// The object is at another revision, or has another uid, than the writer thought.
    #[error("changed in the meantime: it is at revision {current} now")]
    Conflict { current: u64 },
}

pub type Reply = Result<Outcome, Rejection>;
