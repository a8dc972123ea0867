//! What the controllers declared, in one place: kept in the ledger first, published second.
//!
//! Sessions bring new words in; whoever acts on them waits for a change and rereads. What is
//! published here is durable already.

use std::sync::{Arc, Mutex, PoisonError};

use hive_proto::v1;
use tokio::sync::watch;

use crate::desired::{DesiredSet, Refused};
use crate::ledger::{Contents, Ledger, LedgerError};

/// More controllers than any swarm has; each costs an agent a link.
const MAX_CONTROLLERS: usize = 16;

/// A clone is the same cell.
#[derive(Clone)]
pub struct Declared {
    ledger: Arc<Mutex<Ledger>>,
    desired: watch::Sender<Arc<DesiredSet>>,
    controllers: watch::Sender<Arc<Vec<v1::Endpoint>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Declared {
    /// `also` are controllers named by the user for this start: they are tried beside those in
    /// the ledger until a controller says who they are now.
    pub fn new(ledger: Ledger, contents: Contents, also: &[String]) -> Self {
        let mut controllers = contents.controllers;
        for link in also {
            if !controllers.iter().any(|endpoint| endpoint.link == *link) {
                controllers.push(v1::Endpoint {
                    link: link.clone(),
                    ..Default::default()
                });
            }
        }
        Self {
            ledger: Arc::new(Mutex::new(ledger)),
            desired: watch::Sender::new(Arc::new(contents.desired)),
            controllers: watch::Sender::new(Arc::new(controllers)),
        }
    }

    pub fn desired(&self) -> watch::Receiver<Arc<DesiredSet>> {
        self.desired.subscribe()
    }

    pub fn controllers(&self) -> watch::Receiver<Arc<Vec<v1::Endpoint>>> {
        self.controllers.subscribe()
    }

    /// Takes a new desired set if it may follow the held one. Blocks for one disk sync.
    pub fn declare(&self, offered: v1::Desired) -> Result<(), DeclareError> {
        // The lock spans check, write and publication, so that two sessions can't interleave.
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.desired.borrow().clone();
        let Some(next) = held.succeed(offered)? else {
            return Ok(());
        };
        ledger.save_desired(&next)?;
        tracing::info!(
            generation = next.generation,
            assignments = next.assignments.len(),
            "new desired state"
        );
        self.desired.send_replace(Arc::new(next));
        Ok(())
    }

    /// Takes a new list of controllers. An empty one would cut this node off for good, so it is
    /// ignored. Blocks for one disk sync.
    pub fn declare_controllers(&self, endpoints: Vec<v1::Endpoint>) -> Result<(), LedgerError> {
        let endpoints: Vec<_> = endpoints
            .into_iter()
            .filter(|endpoint| !endpoint.link.is_empty())
            .take(MAX_CONTROLLERS)
            .collect();
        if endpoints.is_empty() {
            return Ok(());
        }
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.save_controllers(&endpoints)?;
        self.controllers.send_if_modified(|held| {
            let changed = **held != endpoints;
            if changed {
                *held = Arc::new(endpoints);
            }
            changed
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn endpoint(link: &str) -> v1::Endpoint {
        v1::Endpoint {
            link: link.into(),
            ..Default::default()
        }
    }

    #[test]
    fn controllers_named_by_the_user_are_tried_until_the_swarm_says_who_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, contents) = Ledger::open(dir.path()).unwrap();
        ledger.save_controllers(&[endpoint("a:1")]).unwrap();
        drop((ledger, contents));

        let (ledger, contents) = Ledger::open(dir.path()).unwrap();
        let declared = Declared::new(ledger, contents, &["a:1".into(), "b:2".into()]);
        let controllers = declared.controllers();
        assert_eq!(**controllers.borrow(), [endpoint("a:1"), endpoint("b:2")]);
        declared.declare_controllers(vec![]).unwrap();
        assert_eq!(controllers.borrow().len(), 2);
        declared.declare_controllers(vec![endpoint("c:3")]).unwrap();
        assert_eq!(**controllers.borrow(), [endpoint("c:3")]);
    }
}
