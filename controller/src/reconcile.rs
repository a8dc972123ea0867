//! The reconcilers: each looks at the whole state when something changed or time has passed, and
//! brings one aspect of it nearer to what was declared.
//!
//! They run on the leader only, and write by compare-and-swap: two leaders for a moment do no
//! harm. A restart is the ordinary path.

pub mod acme;
pub mod autoscale;
pub mod collect;
pub mod compile;
pub mod cron;
pub mod events;
mod followed;
pub mod garbage;
pub mod health;
mod looks;
pub mod membership;
pub mod namespaces;
pub mod pull;
pub mod quota;
pub mod roles;
pub mod rollout;
pub mod schedule;
pub mod status;
pub mod tunnels;
#[cfg(test)]
mod weight;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hive_identity::CertificateAuthority;
use hive_manifests::Resource;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::artifacts::{Artifacts, Registries};
use crate::controllers;
use crate::gateway::Presence;
use crate::objects;
use crate::peers::Peers;
use crate::references;
use crate::state::{Change, level};
use crate::store::Replica;
use crate::together::Together;
use crate::tunnels::Tunnels;
use crate::tunnels::providers::{self, Leading};
use compile::{Compilation, CompileWorker};
use cron::Cron;
pub use followed::Followed;
pub use looks::{Looks, Outlook};

/// Retries of what failed for a passing reason.
const RETRY: Duration = Duration::from_secs(5);

/// A lost node is noticed within its grace and this.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);

/// While pulls are under way, or wait for their next try.
const PULL_INTERVAL: Duration = Duration::from_millis(500);

/// Collecting is never urgent.
const COLLECT_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Reconcilers {
    pub replica: Replica,
    pub artifacts: Artifacts,
    pub registries: Registries,
    pub presence: Presence,
    /// Who leads asks the others how the ports of tunnels are there.
    pub peers: Peers,
    pub authority: Arc<CertificateAuthority>,
    /// A node that no controller heard of for this long is lost, and its work moves.
    pub node_grace: Duration,
    pub compile_worker: CompileWorker,
    /// What this controller's own kind of machine is called.
    pub own_target: &'static str,
    /// Makes the calls of schedules.
    pub cron: Cron,
    /// As this controller carries them.
    pub tunnels: Tunnels,
    /// What one controller alone does for tunnels of providers.
    pub providers: Leading,
}

impl Reconcilers {
    /// Runs the reconcilers whenever this controller leads, until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut leadership = self.replica.leadership();
        loop {
            let led = *leadership.borrow_and_update();
            if led.is_leader {
                tracing::info!("leading");
                let term = cancel.child_token();
                let mut tasks = self.clone().start(&term);
                loop {
                    tokio::select! {
                        // A stop ends the reconcilers too: that is no accident.
                        biased;
                        () = cancel.cancelled() => break,
                        // Also what was lost and won back before this looks again is another term: what the
                        // reconcilers remember is of before others led.
                        changed = leadership.changed() => {
                            if changed.is_err() {
                                break;
                            }
                            if *leadership.borrow() != led {
                                // Without a pause, should it lead.
                                leadership.mark_changed();
                                break;
                            }
                        }
                        // A reconciler ends only by a panic: without it the swarm would stand
                        // still unseen.
                        ended = tasks.join_next() => {
                            tracing::error!(?ended, "a reconciler ended; starting all anew");
                            break;
                        }
                    }
                }
                term.cancel();
                tasks.shutdown().await;
                tracing::info!("no longer leading");
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                // Also when nothing changed: after a panic the next round starts from here.
                () = tokio::time::sleep(RETRY) => {}
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
    }

    fn start(self, cancel: &CancellationToken) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let replica = &self.replica;
        self.presence.clear();

        let (together, written) = Together::new(replica.clone(), cancel.clone());
        tasks.spawn(written);
        let looks = || Looks::new(replica, RETRY, cancel);
        let seen = schedule::Seen::heeding(self.presence.holdings().clone());
        let (writer, known) = (together.clone(), seen.clone());
        let traffic = self.presence.traffic().clone();
        let mut rollouts = rollout::Rollouts::default();
        tasks.spawn(
            looks()
                .only_for(of_rollouts)
                .with_rests()
                .run(async move |_, state| rollouts.pass(&writer, &known, &traffic, state).await),
        );
        let (writer, known) = (together.clone(), seen.clone());
        tasks.spawn(
            looks()
                .only_for(of_functions)
                .with_rests()
                .run(async move |_, state| schedule::pass(&writer, &known, state).await),
        );
        let (writer, known, traffic) = (
            together.clone(),
            seen.clone(),
            self.presence.traffic().clone(),
        );
        tasks.spawn(
            looks()
                .only_for(|change| change.key.resource == Resource::Function)
                .woken_by(self.presence.traffic().asked())
                .with_rests()
                .run(async move |_, state| autoscale::pass(&writer, &known, &traffic, state).await),
        );
        let mut statuses = status::Statuses::new(seen, &replica.state());
        tasks.spawn(
            looks()
                .only_for(of_statuses)
                .with_rests()
                .run(async move |replica, state| statuses.pass(replica, state).await),
        );
        tasks.spawn(
            looks()
                .only_for(namespaces::concerns)
                .run(async |replica, state| namespaces::pass(replica, state).await),
        );
        let mut garbage = garbage::Collection::default();
        tasks.spawn(
            looks()
                .only_for(garbage::concerns)
                .run(async move |replica, state| garbage.pass(replica, state).await),
        );
        tasks.spawn(
            looks()
                .only_for(quota::concerns)
                .run(async |replica, state| quota::pass(replica, state).await),
        );
        tasks.spawn(
            looks()
                .only_for(roles::concerns)
                .run(async |replica, state| roles::pass(replica, state).await),
        );
        let mut tried = 0;
        let presence = self.presence.clone();
        tasks.spawn(
            looks()
                .only_for(|_| false)
                .run(async move |replica, state| {
                    let outlook = membership::pass(replica, state, &mut tried).await;
                    // Raised once all members have introduced themselves.
                    if state.level() < level::OWN {
                        controllers::raise_level(replica, state, &presence).await;
                        return Outlook::Again;
                    }
                    outlook
                }),
        );

        let looks_at_nodes = Looks::new(replica, HEALTH_INTERVAL, cancel)
            .only_for(|change| change.key.resource == Resource::Node)
            .with_rests();
        let (presence, since, grace) = (self.presence.clone(), Instant::now(), self.node_grace);
        let (mut roll, checked) = (health::Roll::default(), together.clone());
        tasks.spawn(looks_at_nodes.run(async move |_, state| {
            health::pass(&checked, state, &mut roll, &presence, since, grace).await;
            presence.forget_others(|node| state.get(&objects::node_key(node)).is_some());
            // Nodes fall silent by time alone.
            Outlook::Again
        }));

        let mut compilation = Compilation::new(
            together.clone(),
            self.artifacts.clone(),
            self.authority.clone(),
            self.compile_worker.clone(),
            self.own_target,
        );
        tasks.spawn(
            looks()
                .only_for(of_components)
                .run(async move |_, state| compilation.pass(state).await),
        );

        let mut pulls = pull::Pulls::new(
            replica.clone(),
            self.artifacts.clone(),
            self.registries.clone(),
        );
        let looks_at_images = Looks::new(replica, PULL_INTERVAL, cancel).only_for(of_images);
        tasks.spawn(
            looks_at_images
                .with_rests()
                .run(async move |_, state| pulls.pass(state).await),
        );

        let (cron, mut agenda) = (self.cron.clone(), cron::Agenda::default());
        tasks.spawn(
            looks()
                .only_for(cron::concerns)
                .with_rests()
                .run(async move |replica, state| cron.pass(&mut agenda, replica, state).await),
        );

        let own = replica.id();
        let doors = tunnels::Doors::new(own, self.tunnels.clone(), self.peers.clone());
        let mut proofs = tunnels::Proofs::new(own, self.tunnels.clone(), doors, &replica.state());
        tasks.spawn(
            looks()
                .only_for(tunnels::concerns)
                .woken_by(self.tunnels.health.wakes())
                .with_rests()
                .run(async move |replica, state| proofs.pass(replica, state).await),
        );

        let wake = Arc::new(Notify::new());
        let mut certificates = acme::Certificates::new(&replica.state(), wake.clone());
        tasks.spawn(
            looks()
                .only_for(acme::concerns)
                .woken_by(wake)
                .with_rests()
                .run(async move |replica, _| certificates.pass(replica).await),
        );

        let mut accounts = self.providers.accounts(self.tunnels.standings.clone());
        tasks.spawn(
            looks()
                .only_for(providers::may_matter)
                .run(async move |replica, state| accounts.pass(replica, state).await),
        );
        let onions = self.providers.onions(replica.clone(), cancel.child_token());
        tasks.spawn(onions);

        let mut unused = collect::Unused::default();
        let collects = Looks::new(replica, COLLECT_INTERVAL, cancel).only_for(|_| false);
        tasks.spawn(collects.run(async move |_, state| {
            collect::pass(&together, state, &mut unused).await;
            // Things grow old by time alone.
            Outlook::Again
        }));
        tasks
    }
}

/// What scheduling and functions' statuses are made of: also whether what functions refer to is there. The
/// settings hold the swarm's domain.
fn of_functions(change: &Change) -> bool {
    match change.key.resource {
        Resource::Function | Resource::Assignment | Resource::Node => true,
        Resource::ConfigMap if change.key.namespace == SYSTEM_NAMESPACE => true,
        _ => references::may_matter(change),
    }
}

/// A tunnel may have what a function claims.
fn of_statuses(change: &Change) -> bool {
    change.key.resource == Resource::Tunnel || of_functions(change)
}

fn of_rollouts(change: &Change) -> bool {
    change.key.resource == Resource::ControllerRevision || of_functions(change)
}

/// Secrets say who one is to registries.
fn of_images(change: &Change) -> bool {
    matches!(change.key.resource, Resource::Function | Resource::Secret)
}

fn of_components(change: &Change) -> bool {
    matches!(change.key.resource, Resource::Function | Resource::Node)
}
