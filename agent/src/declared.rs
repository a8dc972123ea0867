//! What the controllers declared, in one place: on the disk first, published second.
//!
//! Sessions bring new words in; whoever acts on them waits for a change and rereads. What is
//! published here is durable already; what a start finds in the ledger is, before a session begins.

use std::sync::{Arc, Mutex, PoisonError};

use hive_identity::StoreError;
use hive_proto::v1;
use tokio::sync::watch;

use crate::controllers::{ControllersFile, usable};
use crate::desired::{DesiredSet, Refused};
use crate::ledger::{Ledger, LedgerError};

/// A clone is the same cell.
#[derive(Clone)]
pub struct Declared {
    /// `None` of a simulated node, which remembers nothing.
    disk: Arc<Mutex<Option<Disk>>>,
    desired: watch::Sender<Arc<DesiredSet>>,
    /// host:port of each.
    controllers: watch::Sender<Arc<Vec<String>>>,
}

struct Disk {
    ledger: Arc<Ledger>,
    controllers: ControllersFile,
}

#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Declared {
    /// `also` are controllers named by the user for this start: they are tried beside those that
    /// are known until a controller says who they are now.
    pub fn new(
        ledger: Arc<Ledger>,
        desired: DesiredSet,
        controllers: ControllersFile,
        also: &[String],
    ) -> Result<Self, StoreError> {
        let known = controllers.load()?;
        let all = usable(known.iter().chain(also).map(String::as_str));
        let disk = Disk {
            ledger,
            controllers,
        };
        Ok(Self::on(Some(disk), desired, all))
    }

    /// Of a simulated node: nothing outlives it.
    #[cfg(feature = "sim")]
    pub fn forgetful(controllers: &[String]) -> Self {
        let all = usable(controllers.iter().map(String::as_str));
        Self::on(None, DesiredSet::none(), all)
    }

    fn on(disk: Option<Disk>, desired: DesiredSet, controllers: Vec<String>) -> Self {
        Self {
            disk: Arc::new(Mutex::new(disk)),
            desired: watch::Sender::new(Arc::new(desired)),
            controllers: watch::Sender::new(Arc::new(controllers)),
        }
    }

    pub fn desired(&self) -> watch::Receiver<Arc<DesiredSet>> {
        self.desired.subscribe()
    }

    pub fn controllers(&self) -> watch::Receiver<Arc<Vec<String>>> {
        self.controllers.subscribe()
    }

    /// Takes a new desired set if it may follow the held one. Blocks for one disk sync.
    pub fn declare(&self, offered: v1::Desired) -> Result<(), DeclareError> {
        // The lock spans check, write and publication, so that two sessions can't interleave.
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.desired.borrow().clone();
        let Some(next) = held.succeed(offered)? else {
            return Ok(());
        };
        if let Some(disk) = &*disk {
            disk.ledger.save_desired(&next)?;
        }
        tracing::info!(
            generation = next.generation,
            assignments = next.assignments.len(),
            "new desired state"
        );
        self.desired.send_replace(Arc::new(next));
        Ok(())
    }

    /// Takes a new list of controllers. An empty one would cut this node off for good, so it is
    /// ignored, and so is one of an earlier epoch. Blocks for one disk sync.
    pub fn declare_controllers(&self, told: &v1::Controllers) -> Result<(), StoreError> {
        let endpoints = told.endpoints.iter();
        let named = usable(endpoints.map(|endpoint| endpoint.link.as_str()));
        // One that was left behind by a recovery knows the swarm as it was.
        if named.is_empty() || told.epoch < self.desired.borrow().epoch {
            return Ok(());
        }
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = &*disk {
            disk.controllers.save(&named)?;
        }
        self.controllers.send_if_modified(|held| {
            let changed = **held != named;
            if changed {
                *held = Arc::new(named);
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

    fn told(links: &[&str]) -> v1::Controllers {
        let endpoint = |link: &&str| v1::Endpoint {
            link: (*link).into(),
            ..Default::default()
        };
        v1::Controllers {
            level: 0,
            endpoints: links.iter().map(endpoint).collect(),
            epoch: 0,
        }
    }

    #[test]
    fn controllers_named_by_the_user_are_tried_until_the_swarm_says_who_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let file = || ControllersFile::in_dir(dir.path());
        file().save(&["a:1".into()]).unwrap();
        let (ledger, desired) = Ledger::open(dir.path()).unwrap();
        let named = ["a:1".into(), "b:2".into()];
        let declared = Declared::new(Arc::new(ledger), desired, file(), &named).unwrap();
        let controllers = declared.controllers();
        assert_eq!(**controllers.borrow(), ["a:1", "b:2"]);
        declared.declare_controllers(&told(&[])).unwrap();
        assert_eq!(controllers.borrow().len(), 2);
        declared.declare_controllers(&told(&["c:3"])).unwrap();
        assert_eq!(**controllers.borrow(), ["c:3"]);
        assert_eq!(file().load().unwrap(), ["c:3"]);
    }
}
