//! Tunnels: what listens on a node, or beside one, has an address at the controllers.
//!
//! Every controller carries every tunnel from its own replica: one task follows the state and keeps the [`Table`];
//! ports, health checks and what the ingress looks up follow from it. Connections travel in streams of the links
//! that nodes hold anyway. Nodes know nothing of tunnels: each connects to what it is asked for, or says why not.

mod carry;
mod check;
#[cfg(test)]
pub mod fake_agent;
pub mod health;
mod listen;
pub mod live;
pub mod open;
pub mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hive_manifests::tunnel::TunnelTarget;
use hive_proto::link::Stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::Links;
use crate::reconcile::{Looks, Outlook};
use crate::state::Key;
use crate::store::Replica;
use health::{Evidence, Health};
use listen::Doors;
pub use listen::Listeners;
use live::Live;
use open::{OpenError, Opener};
use table::{Follower, Table};

/// A controller that just started is dialled by the nodes within this time as a rule. Who connects
/// before rather waits than is refused.
const LINK_PATIENCE: Duration = Duration::from_secs(5);

/// A port that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Connections under way when the controller stops may end by themselves for this long. Those of terminals and
/// databases do not, and their clients are as well served by another controller.
const DRAIN: Duration = Duration::from_secs(5);

/// The tunnels of the swarm as this controller carries them. A clone is the same.
#[derive(Clone, Default)]
pub struct Tunnels {
    pub opener: Opener,
    pub health: Health,
    pub listeners: Listeners,
    living: Arc<Mutex<BTreeMap<Key, Arc<Live>>>>,
    /// What carries connections: it is waited for when the controller stops.
    carried: TaskTracker,
    checks: TaskTracker,
}

impl Tunnels {
    pub fn new(links: Links) -> Self {
        Self {
            opener: Opener::new(links),
            ..Self::default()
        }
    }

    /// A tunnel by its name; `None` of one that this controller does not know yet, or no more.
    pub fn get(&self, tunnel: &Key) -> Option<Arc<Live>> {
        self.living().get(tunnel).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Live>> {
        self.living().values().cloned().collect()
    }

    /// Opens a connection to a target of a tunnel, and remembers what that says of the target.
    pub async fn open(&self, live: &Live, target: &TunnelTarget) -> Result<Stream, OpenError> {
        let tunnel = live.tunnel();
        let began = Instant::now();
        let within = tunnel.spec.connect_timeout.0;
        let opened = self.opener.open(&tunnel.key, target, within).await;
        let (key, by) = (&tunnel.key, Evidence::Connection);
        match &opened {
            Ok(_) => self.health.answered(key, target, by, began.elapsed()),
            Err(error) => {
                live.count_failure(error.reason());
                let message = error.to_string();
                self.health.failed(key, target, by, error.reason(), message);
            }
        }
        opened
    }

    fn living(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Live>>> {
        self.living.lock().expect("no holder of the lock panics")
    }

    /// Goes on to a table: tunnels that are no more end, with all that they carry; those that changed go on. Returned
    /// are the new ones.
    pub(crate) fn take(&self, table: &Table) -> Vec<Arc<Live>> {
        let mut living = self.living();
        living.retain(|key, live| {
            let now = table.tunnels.get(key);
            let lives = now.is_some_and(|now| now.uid == live.tunnel().uid);
            if !lives {
                live.ended().cancel();
                self.health.forget(key);
            }
            lives
        });
        let mut new = Vec::new();
        for (key, tunnel) in &table.tunnels {
            match living.get(key) {
                Some(live) => {
                    if live.change(tunnel) {
                        self.health.take(tunnel);
                    }
                }
                None => {
                    let live = Arc::new(Live::new(tunnel.clone()));
                    self.health.take(tunnel);
                    living.insert(key.clone(), live.clone());
                    new.push(live);
                }
            }
        }
        new
    }

    /// Asks the targets of a tunnel how they are until it ends.
    fn watch(&self, live: Arc<Live>) {
        self.checks.spawn(check::run(self.clone(), live));
    }

    /// Runs what carries a connection, which must heed [`Live::ended`].
    pub fn spawn(&self, carrying: impl Future<Output = ()> + Send + 'static) {
        self.carried.spawn(carrying);
    }

    /// Waits for what is under way, and cuts what is not done by then.
    async fn end(&self, patience: Duration) {
        self.carried.close();
        let carried = tokio::time::timeout(patience, self.carried.wait()).await;
        if carried.is_err() {
            let cut = self.carried.len();
            tracing::info!(cut, "connections of tunnels were cut after {patience:?}");
        }
        self.take(&Table::default());
        self.carried.wait().await;
        self.checks.close();
        self.checks.wait().await;
    }
}

/// Follows the state and listens at `at` for the tunnels that have a port, until cancelled; then ends all tunnels.
pub async fn serve(tunnels: Tunnels, replica: Replica, at: IpAddr, cancel: CancellationToken) {
    let mut follower = Follower::default();
    let mut doors = Doors::new(tunnels.clone(), at);
    let carried = tunnels.clone();
    Looks::new(&replica, RETRY, &cancel)
        .only_for(table::may_matter)
        .run(async move |_, state| {
            let table = follower.follow(state);
            for new in carried.take(&table) {
                carried.watch(new);
            }
            Outlook::settled_if(doors.follow(&table).await)
        })
        .await;
    // The ports are closed by now.
    tunnels.end(DRAIN).await;
}
