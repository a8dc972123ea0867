//! How long a request waits for the other controllers: one deadline for all that it asks of them.
//!
//! It begins with the first wait, not with the request: a body on a slow line takes its time. A write
//! that succeeded begins it anew: a deletion of many objects goes on as long as it gets somewhere.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use super::Api;
use super::errors::ApiError;
use crate::state::{Command, Outcome, State};
use crate::store::ProposeError;

/// An election takes a few seconds at most; who has waited for longer is cut off, and its client had
/// better ask another controller.
const PATIENCE: Duration = Duration::from_secs(10);

tokio::task_local! {
    /// Of the request that is being answered, once it has waited.
    static DEADLINE: Cell<Option<Instant>>;
}

/// Answers one request.
pub(super) async fn one<T>(answer: impl Future<Output = T>) -> T {
    DEADLINE.scope(Cell::new(None), answer).await
}

/// What is left for the next wait. Outside of a request each has all.
fn left() -> Duration {
    let left = DEADLINE.try_with(|deadline| {
        let now = Instant::now();
        let at = deadline.get().unwrap_or(now + PATIENCE);
        deadline.set(Some(at));
        at.saturating_duration_since(now)
    });
    left.unwrap_or(PATIENCE)
}

impl Api {
    /// Performs a command of the request that is being answered.
    pub(super) async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let outcome = self.replica.propose_within(command, left()).await;
        if outcome.is_ok() {
            // An error means that there is none to begin anew.
            let _ = DEADLINE.try_with(|deadline| deadline.set(None));
        }
        outcome
    }

    /// The newest state: it holds all that was acknowledged before this call, wherever.
    pub(super) async fn newest(&self) -> Result<State, ApiError> {
        self.replica
            .read_barrier_within(left())
            .await
            .map_err(ApiError::replicating)?;
        Ok(self.replica.state())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_of_a_request_have_one_deadline() {
        assert_eq!(left(), PATIENCE, "outside of a request");
        one(async {
            let first = left();
            let second = left();
            assert_eq!(first, PATIENCE);
            let late = Instant::now() - PATIENCE;
            assert!(second <= first && second > Duration::ZERO);
            DEADLINE.with(|deadline| deadline.set(Some(late)));
            assert_eq!(left(), Duration::ZERO, "it is used up");
        })
        .await;
        one(async { assert_eq!(left(), PATIENCE, "of another request") }).await;
    }
}
