//! Waiting for a condition, with a deadline that says what was missing.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Between two looks. Short beside everything that is waited for, long enough that looking does
/// not take the processors from what is looked at.
const POLL: Duration = Duration::from_millis(25);

/// What takes longer has failed, on the slowest machine that builds this in debug.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Looks until there is an answer. `Err` says why there is none yet.
///
/// # Panics
///
/// At the deadline, with what was waited for and why it was not so at the last look.
pub async fn until<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + deadline;
    let mut why = "it was never looked at".to_owned();
    let looking = async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(error) => why = error.to_string(),
            }
            tokio::time::sleep_until((Instant::now() + POLL).into()).await;
        }
    };
    match tokio::time::timeout_at(end.into(), looking).await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {deadline:?}: {why}"),
    }
}

/// `Ok` where the condition holds, else what was found instead.
pub fn holds(condition: bool, found: impl Display) -> Result<(), String> {
    match condition {
        true => Ok(()),
        false => Err(found.to_string()),
    }
}
