//! How fresh an answer must be, and waiting until this replica is that fresh.
//!
//! As Kubernetes has it: no resourceVersion asks for the newest (the leader is asked how far it
//! is), `0` for whatever is here, another for nothing older than it.

use std::sync::Arc;
use std::time::Duration;

use super::Api;
use super::errors::ApiError;
use crate::state::{Key, Object, State};

/// How long a replica may take to reach a revision that a client saw elsewhere. Replication takes
/// milliseconds; more means that it is cut off, or that the revision is from another swarm.
const CATCH_UP: Duration = Duration::from_secs(3);

impl Api {
    /// The newest state: it holds all that was acknowledged before this call, wherever.
    pub(super) async fn newest(&self) -> Result<State, ApiError> {
        self.replica
            .read_barrier()
            .await
            .map_err(ApiError::replicating)?;
        Ok(self.replica.state())
    }

    /// A state as new as `resourceVersion` asks for.
    pub(super) async fn state_at_least(&self, revision: Option<u64>) -> Result<State, ApiError> {
        match revision {
            None => self.newest().await,
            Some(0) => Ok(self.replica.state()),
            Some(revision) => self.reach(revision).await.ok_or_else(|| {
                ApiError::TimedOut(format!(
                    "Too large resource version: {revision}, current: {}",
                    self.replica.state().revision()
                ))
            }),
        }
    }

    /// The state once it has reached `revision`; `None` when that takes too long.
    pub(super) async fn reach(&self, revision: u64) -> Option<State> {
        let mut revisions = self.replica.revisions();
        let reached = tokio::time::timeout(CATCH_UP, revisions.wait_for(|now| *now >= revision));
        matches!(reached.await, Ok(Ok(_))).then(|| self.replica.state())
    }

    /// An object that is to be changed or deleted. What is here may be old, which compare-and-swap
    /// finds out; only its absence must be certain.
    pub(super) async fn find(&self, key: &Key) -> Result<Arc<Object>, ApiError> {
        if let Some(object) = self.replica.state().get(key) {
            return Ok(object.clone());
        }
        let state = self.newest().await?;
        state
            .get(key)
            .cloned()
            .ok_or_else(|| ApiError::not_found(key))
    }
}
