//! How errors look in gRPC: the one place that maps them to status codes.

use tonic::Status;

use crate::artifacts::FetchError;
use crate::controllers::RemoveError;
use crate::objects::EditError;
use crate::store::{HandleError, ProposeError};

pub fn from_propose(error: ProposeError) -> Status {
    let message = error.to_string();
    match error {
        ProposeError::Rejected(_) => Status::aborted(message),
        ProposeError::TooLarge(_) => Status::invalid_argument(message),
        // It may have been done: not to be taken for "try the next controller".
        ProposeError::TimedOut => Status::deadline_exceeded(message),
        _ => Status::unavailable(message),
    }
}

pub fn from_edit(error: EditError) -> Status {
    let message = error.to_string();
    match error {
        EditError::NotFound(_) => Status::not_found(message),
        EditError::Contended(_) => Status::aborted(message),
        EditError::Propose { source, .. } => from_propose(source),
    }
}

pub fn from_fetch(error: FetchError) -> Status {
    let message = error.to_string();
    match error {
        FetchError::Nowhere(_) => Status::not_found(message),
        FetchError::Io { .. } | FetchError::Rotten(_) => Status::unavailable(message),
    }
}

pub fn from_remove(error: RemoveError) -> Status {
    let message = error.to_string();
    match error {
        RemoveError::Refused(_) => Status::aborted(message),
        RemoveError::Unknown { .. } => Status::not_found(message),
        RemoveError::NotLeader => Status::failed_precondition(message),
        RemoveError::Unconfirmed { .. } => Status::deadline_exceeded(message),
        RemoveError::Propose(error) => from_propose(error),
    }
}

/// A controller that is no longer one asked.
pub fn removed_controller(raft_id: u64) -> Status {
    Status::permission_denied(format!("controller {raft_id} was removed from the swarm"))
}

pub fn from_handle(error: HandleError) -> Status {
    error.into()
}
