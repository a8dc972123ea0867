//! A node without a machine: what the controllers see of it is the agent's own code (identity,
//! links, session, desired state, plan, reports), and what would take a disk, a processor and a
//! sandbox is made up. Ten thousand of them fit into one process, for the controllers' benchmarks.
//!
//! Nothing of it is kept: a simulated node that is dropped never comes back under its name.

mod machine;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use hive_identity::{JoinToken, LiveCredentials};
use hive_proto::link::LinkSettings;
use hive_proto::v1;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::artifacts::ArtifactStore;
use crate::declared::Declared;
use crate::enrol::{Enrolled, Enrolment};
use crate::events::Events;
use crate::links::{Linking, Links, Streams};
use crate::logs::Logs;
use crate::metering::Metering;
use crate::reconcile::holdings::Holdings;
use crate::reconcile::report::Told;
use crate::reconcile::wanted::Host;
use crate::renew::Renewal;
use crate::serve::Server;
use crate::session::Session;
use crate::tunnels::{TunnelTargets, Tunnels};
use machine::Machine;

/// What a simulated machine offers: a board with 1 GiB and four small cores.
const MEMORY_BYTES: u64 = 1 << 30;
const CPU_MILLIS: u32 = 4000;
const STORAGE_BYTES: u64 = 16 << 30;

/// What a node is made of.
pub struct SimConfig {
    pub name: String,
    /// host:port of controllers to join at.
    pub controllers: Vec<String>,
    pub token: JoinToken,
    /// With a [`SharedSocket`](hive_proto::link::SharedSocket) where there are many nodes.
    pub links: LinkSettings,
    /// Where artifacts are fetched to; without it they are only said to have been.
    pub artifacts: Option<PathBuf>,
}

/// A node that joined. Dropped, it ends as if its plug was pulled.
pub struct SimAgent {
    told: watch::Sender<Arc<Told>>,
    held_with: watch::Sender<Option<String>>,
    links: Links,
    _parts: JoinSet<()>,
}

impl SimAgent {
    /// Enrols, and lives from then on.
    ///
    /// # Errors
    /// When the swarm refuses the node for good.
    pub async fn join(config: SimConfig) -> Result<Self> {
        let info = node_info();
        let enrolment = Enrolment {
            dir: None,
            name: &config.name,
            info: info.clone(),
            controllers: config.controllers.clone(),
            settings: config.links.clone(),
        };
        let Enrolled {
            credentials,
            controllers,
        } = enrolment.join(Some(&config.token)).await?;
        let endpoints: Vec<String> = controllers.into_iter().map(|one| one.link).collect();
        let declared = Declared::forgetful(&endpoints);
        let store = match &config.artifacts {
            Some(dir) => Some(ArtifactStore::open(dir).context("artifacts")?.0),
            None => None,
        };
        let host = Host::of(credentials.ca(), &info);
        let live = LiveCredentials::new(credentials);
        let (links, events) = (Links::default(), Events::default());
        let told = watch::Sender::<Arc<Told>>::default();
        let holdings = watch::Sender::<Holdings>::default();
        let held_with = watch::Sender::default();
        // Ends with the tasks that hold it: nobody asks a simulated node to stop in good order.
        let stop = CancellationToken::new();

        let mut parts = JoinSet::new();
        let linking = Linking {
            live: live.clone(),
            settings: config.links.clone(),
            streams: Streams {
                // Whatever is asked of a function here is answered as on a node that runs none.
                server: Server::new(watch::Sender::default().subscribe()),
                logs: Logs::default(),
                tunnels: Tunnels::new(TunnelTargets::none()),
                tasks: TaskTracker::new(),
                stop: stop.clone(),
            },
        };
        parts.spawn(
            links
                .clone()
                .keep(declared.controllers(), linking, stop.clone()),
        );
        let machine = Machine {
            desired: declared.desired(),
            host,
            store,
            links: links.clone(),
            events: events.clone(),
            told: told.clone(),
            holdings: holdings.clone(),
        };
        parts.spawn(machine.run());
        let renewal = Renewal {
            live,
            dir: None,
            info: info.clone(),
            declared: declared.clone(),
            links: links.clone(),
            settings: config.links,
        };
        parts.spawn(renewal.run(stop.clone()));
        let session = Session {
            info,
            declared,
            links: links.clone(),
            told: told.subscribe(),
            holdings: holdings.subscribe(),
            events,
            usage: Box::new(|_| usage()),
            metering: Metering::none(),
            held_with: held_with.clone(),
            moved: false,
        };
        parts.spawn(session.run(stop));
        Ok(Self {
            told,
            held_with,
            links,
            _parts: parts,
        })
    }

    /// Functions that it runs.
    pub fn running(&self) -> usize {
        let told = self.told.borrow();
        let statuses = told.statuses.iter();
        statuses
            .filter(|status| status.phase() == v1::Phase::Ready)
            .count()
    }

    /// Links that it has now.
    pub fn links(&self) -> usize {
        self.links.current().len()
    }

    /// The endpoint of the controller with which it holds its session.
    pub fn held_with(&self) -> Option<String> {
        self.held_with.borrow().clone()
    }
}

fn node_info() -> v1::NodeInfo {
    v1::NodeInfo {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        kernel: "simulated".into(),
        target: hive_functions::host_target().into(),
        wasmtime_version: hive_functions::engine_version(),
        memory_bytes: MEMORY_BYTES,
        cpu_millis: CPU_MILLIS,
        storage_bytes: STORAGE_BYTES,
        local_address: String::new(),
        labels: [("hive-sim".to_owned(), "true".to_owned())].into(),
    }
}

/// An idle board, which is never quite idle.
fn usage() -> v1::Usage {
    let random = RandomState::new().hash_one(0);
    let used = (300 << 20) + random % (4 << 20);
    v1::Usage {
        cpu_millis: 10 + (random >> 32) as u32 % 30,
        memory_used_bytes: used,
        memory_available_bytes: MEMORY_BYTES - used,
        storage_free_bytes: STORAGE_BYTES / 2,
        network_received_bytes: 10_000_000 + random % 1_000_000,
        network_sent_bytes: 5_000_000 + random % 1_000_000,
        temperature_celsius: Some(45.0 + (random % 30) as f32 / 10.0),
        agent_memory_bytes: 9 << 20,
        ..Default::default()
    }
}
