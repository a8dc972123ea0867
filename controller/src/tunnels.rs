//! Tunnels: what listens on a node, or beside one, has an address at the controllers.
//!
//! Every controller carries every tunnel from its own replica: one task follows the state and keeps the [`Table`];
//! ports, health checks and what the ingress looks up follow from it. Connections travel in streams of the links
//! that nodes hold anyway. Nodes know nothing of tunnels: each connects to what it is asked for, or says why not.

pub mod access;
pub mod carry;
pub mod certificates;
mod changes;
mod check;
pub mod door;
#[cfg(test)]
pub mod fake_agent;
pub mod health;
mod listen;
pub mod live;
pub mod names;
pub mod open;
pub mod providers;
pub mod table;
#[cfg(test)]
mod tests;
mod udp;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hive_manifests::tunnel::TunnelTarget;
use hive_proto::flow::{FlowReader, FlowWriter};
use hive_proto::link::Stream;
use rustls::RootCertStore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::Links;
use crate::ingress::routes;
use crate::reconcile::{Looks, Outlook};
use crate::state::Key;
use crate::store::Replica;
use access::Doorman;
use access::clients::Proxies;
use certificates::Certificates;
use health::{Evidence, Health};
pub use listen::Listeners;
use listen::{Doors, Places};
use live::Live;
use names::Names;
use open::{OpenError, Opener};
use providers::Standings;
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
    pub names: Names,
    pub places: Places,
    doorman: Doorman,
    /// Who may say for whom it comes.
    proxies: Arc<Mutex<Arc<Proxies>>>,
    /// What providers say that run on this controller.
    pub standings: Standings,
    living: Arc<Mutex<BTreeMap<Key, Arc<Live>>>>,
    /// What carries connections: it is waited for when the controller stops.
    carried: TaskTracker,
    checks: TaskTracker,
}

impl Tunnels {
    pub fn new(links: Links) -> Self {
        let health = Health::default();
        Self {
            opener: Opener::new(links),
            standings: Standings::waking(health.wakes()),
            health,
            ..Self::default()
        }
    }

    /// `roots` vouch for the OpenID issuers that tunnels name.
    pub fn trusting(self, roots: RootCertStore) -> Self {
        Self {
            doorman: Doorman::new(roots),
            ..self
        }
    }

    /// Finds out who clients are.
    pub fn doorman(&self) -> &Doorman {
        &self.doorman
    }

    /// The proxies in front of this controller that may say for whom they come.
    pub fn proxies(&self) -> Arc<Proxies> {
        self.proxies
            .lock()
            .expect("no holder of the lock panics")
            .clone()
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
        let within = tunnel.spec.connect_timeout.0;
        let opening = self.opener.open(&tunnel.key, target, within);
        self.learn(live, target, opening).await
    }

    /// Begins a flow to a target, and remembers what that says of the way there.
    pub async fn open_flow(
        &self,
        live: &Live,
        target: &TunnelTarget,
    ) -> Result<(FlowReader, FlowWriter), OpenError> {
        let tunnel = live.tunnel();
        let within = tunnel.spec.connect_timeout.0;
        let opening = self.opener.open_flow(&tunnel.key, target, within);
        self.learn(live, target, opening).await
    }

    async fn learn<T>(
        &self,
        live: &Live,
        target: &TunnelTarget,
        opening: impl Future<Output = Result<T, OpenError>>,
    ) -> Result<T, OpenError> {
        let tunnel = live.tunnel();
        let began = Instant::now();
        let opened = opening.await;
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
        *self.proxies.lock().expect("no holder of the lock panics") = table.proxies.clone();
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
    let mut routes = routes::Follower::of(&replica.state());
    let mut certificates = Certificates::default();
    let mut doors = Doors::new(tunnels.clone(), at);
    let carried = tunnels.clone();
    Looks::new(&replica, RETRY, &cancel)
        .only_for(table::may_matter)
        .run(async move |_, state| {
            routes.follow(state);
            let table = follower.follow(state, &routes);
            for new in carried.take(&table) {
                carried.watch(new);
            }
            certificates.follow(state);
            carried.names.take(&table, &certificates);
            Outlook::settled_if(doors.follow(&table).await)
        })
        .await;
    // The ports are closed by now.
    tunnels.end(DRAIN).await;
}
