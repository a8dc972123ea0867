//! Which nodes any controller is linked to, as the leader hears it every second.
//!
//! Soft state (heartbeats stay out of Raft): a new leader starts with nothing and grants every
//! node the full grace.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hive_proto::v1::{ControllerFacts, PresenceReport};
use tokio_util::sync::CancellationToken;

use super::Nodes;
use crate::controllers;
use crate::peers::Peers;
use crate::store::Replica;

/// How often each controller tells the leader which nodes it is linked to.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
pub struct Presence {
    last_seen: Arc<Mutex<HashMap<String, Instant>>>,
    /// What each controller said of itself last.
    facts: Arc<Mutex<BTreeMap<u64, ControllerFacts>>>,
}

impl Presence {
    /// Takes a report of a controller.
    pub fn heard(&self, controller: u64, nodes: Vec<String>) {
        tracing::trace!(controller, nodes = nodes.len(), "presence");
        let now = Instant::now();
        let mut last_seen = self.last_seen.lock().expect("no holder of the lock panics");
        for node in nodes {
            last_seen.insert(node, now);
        }
    }

    /// Takes down what a controller says of itself.
    pub fn introduced(&self, controller: u64, facts: ControllerFacts) {
        self.facts
            .lock()
            .expect("no holder of the lock panics")
            .insert(controller, facts);
    }

    /// What the controllers said of themselves, by id. One of the first release says nothing, and
    /// is here with the facts that this leaves.
    pub fn facts(&self) -> BTreeMap<u64, ControllerFacts> {
        self.facts
            .lock()
            .expect("no holder of the lock panics")
            .clone()
    }

    /// When each node was last seen by any controller.
    pub fn last_seen(&self) -> HashMap<String, Instant> {
        self.last_seen
            .lock()
            .expect("no holder of the lock panics")
            .clone()
    }

    /// Forgets nodes that are part of the swarm no more.
    pub fn forget_others(&self, enrolled: impl Fn(&str) -> bool) {
        self.last_seen
            .lock()
            .expect("no holder of the lock panics")
            .retain(|node, _| enrolled(node));
    }

    /// Forgets everything: what was heard in an earlier term as leader says nothing now.
    pub fn clear(&self) {
        self.last_seen
            .lock()
            .expect("no holder of the lock panics")
            .clear();
        self.facts
            .lock()
            .expect("no holder of the lock panics")
            .clear();
    }
}

/// Reports the nodes linked here to whoever leads, at once when they change. A report that gets
/// lost is made good by the next.
pub async fn report(
    replica: Replica,
    peers: Peers,
    nodes: Nodes,
    presence: Presence,
    cancel: CancellationToken,
) {
    let mut linked = nodes.present();
    let mut leadership = replica.leadership();
    loop {
        let names: Vec<String> = linked.borrow_and_update().iter().cloned().collect();
        let leader = leadership.borrow_and_update().leader;
        match leader {
            Some(id) if id == replica.id() => presence.heard(id, names),
            Some(id) => {
                let send = async {
                    let mut client = peers.requests(id).ok()?;
                    client
                        .report_presence(PresenceReport {
                            nodes: names,
                            facts: Some(controllers::own_facts(&replica)),
                        })
                        .await
                        .ok()
                };
                if let Ok(None) | Err(_) = tokio::time::timeout(REPORT_INTERVAL, send).await {
                    tracing::debug!(leader = id, "cannot report presence");
                }
            }
            None => {}
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(REPORT_INTERVAL) => {}
            Ok(()) = linked.changed() => {}
            Ok(()) = leadership.changed() => {}
        }
    }
}
