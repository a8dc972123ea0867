//! How fresh an answer must be, and waiting until this replica is that fresh.
//!
//! As Kubernetes has it: no resourceVersion asks for the newest (the leader is asked how far it
//! is), `0` for whatever is here, another for nothing older than it.

use std::sync::Arc;
use std::time::Duration;

use super::Api;
use super::errors::ApiError;
use super::query::{Query, VersionMatch};
use crate::state::{Key, Object, State, View};

/// How long a replica may take to reach a revision that a client saw elsewhere. Replication takes
/// milliseconds; more means that it is cut off, or that the revision is from another swarm.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Of which revision a list is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One that holds all that was acknowledged before the request.
    Newest,
    /// Whatever is here.
    Any,
    NotOlderThan(u64),
    Exact(u64),
}

impl Wanted {
    /// What a list asks for, as Kubernetes documents it. `going_on` is the revision in the list's
    /// continue token, if it has one.
    pub fn by(query: &Query, going_on: Option<Option<u64>>) -> Result<Self, ApiError> {
        let refuse = |why: &str| Err(ApiError::BadRequest(why.to_owned()));
        if query.send_initial_events.is_some() {
            return refuse("sendInitialEvents is forbidden for list: it is an option of watch");
        }
        let (revision, matching) = (query.resource_version, query.resource_version_match);
        if let Some(first_page) = going_on {
            return match (matching, revision) {
                (Some(_), _) => {
                    refuse("resourceVersionMatch is forbidden when continue is provided")
                }
                (None, Some(1..)) => {
                    refuse("specifying resource version is not allowed when using continue")
                }
                // A token without a revision is from a client that gave the first page's up.
                (None, None | Some(0)) => Ok(first_page.map_or(Self::Newest, Self::Exact)),
            };
        }
        match (matching, revision) {
            (Some(_), None) => {
                refuse("resourceVersionMatch is forbidden unless resourceVersion is provided")
            }
            (Some(VersionMatch::Exact), Some(0)) => {
                refuse("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
            }
            (None, None) => Ok(Self::Newest),
            (None | Some(VersionMatch::NotOlderThan), Some(0)) => Ok(Self::Any),
            (Some(VersionMatch::Exact), Some(revision)) => Ok(Self::Exact(revision)),
            // From before there was resourceVersionMatch: the first page of a known revision.
            (None, Some(revision)) if query.limit.is_some() => Ok(Self::Exact(revision)),
            (None | Some(VersionMatch::NotOlderThan), Some(revision)) => {
                Ok(Self::NotOlderThan(revision))
            }
        }
    }
}

impl Api {
    /// The objects that a list is of; `None` when its revision is no longer known.
    pub(super) async fn view(&self, wanted: Wanted) -> Result<Option<View>, ApiError> {
        let state = match wanted {
            Wanted::Newest => self.newest().await?,
            Wanted::Any => self.replica.state(),
            Wanted::NotOlderThan(revision) => self.state_at_least(Some(revision)).await?,
            Wanted::Exact(revision) => {
                let state = self.state_at_least(Some(revision)).await?;
                return Ok(state.at(revision).ok());
            }
        };
        Ok(Some(state.view()))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Kubernetes' tables of resourceVersion and resourceVersionMatch, line by line.
    #[test]
    fn lists_are_as_fresh_as_kubernetes_says() {
        use Wanted::{Any, Exact, Newest, NotOlderThan};
        const OLD: &str = "resourceVersionMatch=NotOlderThan";
        const EXACT: &str = "resourceVersionMatch=Exact";
        let going_on = Some(Some(5));
        let given_up = Some(None);
        for (query, token, expected) in [
            ("", None, Some(Newest)),
            ("resourceVersion=", None, Some(Newest)),
            ("resourceVersion=0", None, Some(Any)),
            ("resourceVersion=7", None, Some(NotOlderThan(7))),
            ("limit=2", None, Some(Newest)),
            ("limit=2&resourceVersion=0", None, Some(Any)),
            ("limit=2&resourceVersion=7", None, Some(Exact(7))),
            ("limit=2", going_on, Some(Exact(5))),
            ("", going_on, Some(Exact(5))),
            ("limit=2&resourceVersion=0", going_on, Some(Exact(5))),
            ("limit=2&resourceVersion=7", going_on, None),
            ("limit=2", given_up, Some(Newest)),
            ("limit=2&resourceVersion=7", given_up, None),
            (EXACT, None, None),
            (&format!("{EXACT}&resourceVersion=0"), None, None),
            (&format!("{EXACT}&resourceVersion=7"), None, Some(Exact(7))),
            (
                &format!("{EXACT}&resourceVersion=7&limit=2"),
                None,
                Some(Exact(7)),
            ),
            (&format!("{EXACT}&limit=2"), going_on, None),
            (&format!("{EXACT}&resourceVersion=7"), going_on, None),
            (OLD, None, None),
            (&format!("{OLD}&resourceVersion=0"), None, Some(Any)),
            (
                &format!("{OLD}&resourceVersion=7"),
                None,
                Some(NotOlderThan(7)),
            ),
            (
                &format!("{OLD}&resourceVersion=7&limit=2"),
                None,
                Some(NotOlderThan(7)),
            ),
            (&format!("{OLD}&limit=2"), going_on, None),
            ("sendInitialEvents=true", None, None),
        ] {
            let parsed = Query::parse(Some(query)).unwrap();
            let wanted = Wanted::by(&parsed, token).ok();
            assert_eq!(wanted, expected, "{query:?}, continuing {token:?}");
        }
    }
}
