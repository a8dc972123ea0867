//! Wires the parts together, in the order that lets a node serve before it has heard of anybody:
//! ledger, functions, local address, and only then the ledger's writes and links.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hive_identity::{Credentials, LiveCredentials, Subject};
use hive_proto::link::LinkSettings;
use hive_proto::v1;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::artifacts::ArtifactStore;
use crate::config::{Config, Listen};
use crate::controllers::ControllersFile;
use crate::declared::Declared;
use crate::enrol::{Enrolled, Enrolment};
use crate::events::Events;
use crate::key_value::KeyValues;
use crate::ledger::Ledger;
use crate::links::{Linking, Links, Streams};
use crate::logs::Logs;
use crate::metering::Metering;
use crate::os;
use crate::pressure::Pressure;
use crate::reconcile::execute::{Reconciler, Surroundings};
use crate::reconcile::holdings::Holdings;
use crate::reconcile::report::Told;
use crate::reconcile::wanted::Host;
use crate::renew::Renewal;
use crate::resources::{self, Resources};
use crate::runtime::LazyRuntime;
use crate::scratch::Scratches;
use crate::serve::table::Table;
use crate::serve::{Instance, Server, local};
use crate::session::Session;
use crate::tunnels::Tunnels;
use crate::usage::{Meters, Usages};

/// For requests under way when the agent is told to stop, and for telling what they used. Twice as long as most
/// take; less than service managers wait before they kill.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A running agent. Dropped without [`Agent::stop`], it ends as if killed.
pub struct Agent {
    local_address: Option<SocketAddr>,
    /// Each runs as long as the agent; one that ends by itself is an error.
    parts: JoinSet<&'static str>,
    /// Answers to requests.
    answers: TaskTracker,
    stop: CancellationToken,
    /// Links and the session go last: answers travel on them, and what they cost.
    stop_links: CancellationToken,
    links: JoinSet<()>,
    metering: Metering,
    meters: Meters,
}

impl Agent {
    /// Starts everything, enrolling first if this machine hasn't joined yet.
    pub async fn start(config: Config) -> Result<Self> {
        os::create_private_dir(&config.data_dir)
            .with_context(|| format!("cannot make {}", config.data_dir.display()))?;
        let memory = resources::memory(&config);
        let artifacts = config.data_dir.join("artifacts");
        let runtime = LazyRuntime::new(memory);
        if ArtifactStore::holds_any(&artifacts) {
            runtime.start_ahead();
        }
        let (ledger, desired, damage) = Ledger::open_or_start_over(&config.data_dir)?;
        if let Some(damage) = damage {
            tracing::error!(%damage, "started a new ledger; the old one is ledger.redb.damaged");
        }
        let known = ControllersFile::in_dir(&config.data_dir);
        let ledger = Arc::new(ledger);
        let metering = Metering::open(ledger.clone())?;
        let declared = Declared::new(ledger.clone(), desired, known, &config.controllers)?;
        let listener = match config.listen {
            Listen::None => None,
            Listen::On(address) => Some(local::bind(address).await?),
        };
        let local_address = match &listener {
            Some(listener) => Some(listener.local_addr()?),
            None => None,
        };
        let shown = local_address.map(reachable).unwrap_or_default();
        let info = resources::node_info(&config, memory, shown);
        let settings = LinkSettings::default();

        let credentials = match Credentials::load(&config.data_dir) {
            Ok(credentials) => credentials,
            Err(missing) if missing.is_missing() => {
                let enrolment = Enrolment {
                    dir: Some(&config.data_dir),
                    name: &config.name,
                    info: info.clone(),
                    controllers: declared.controllers().borrow().to_vec(),
                    settings: settings.clone(),
                };
                let Enrolled {
                    credentials,
                    controllers,
                } = enrolment.join(config.token.as_ref()).await?;
                // Who lets this node in is of no earlier epoch than it knows, or says so later.
                let epoch = declared.desired().borrow().epoch;
                declared.declare_controllers(&v1::Controllers {
                    endpoints: controllers,
                    epoch,
                    ..Default::default()
                })?;
                tracing::info!(
                    node = config.name,
                    cluster = credentials.ca().cluster(),
                    "joined"
                );
                credentials
            }
            Err(error) => return Err(error.into()),
        };
        let Subject::Node { name } = &credentials.own().subject else {
            bail!(
                "{} holds the identity of {}, not of a node: give the agent a directory of its own",
                config.data_dir.display(),
                credentials.own().subject
            );
        };
        let name = name.clone();
        tracing::info!(node = name, key = %credentials.key().fingerprint(), "starting");

        let host = Host::of(credentials.ca(), &info);
        let live = LiveCredentials::new(credentials);
        let (store, found) = ArtifactStore::open(&artifacts)?;
        let links = Links::default();
        let (logs, events, meters) = (Logs::default(), Events::default(), Meters::default());
        let key_values = KeyValues::in_dir(config.data_dir.clone());
        let scratches = Scratches::in_dir(&config.data_dir);
        let table = watch::Sender::<Arc<Table<Instance>>>::default();
        let told = watch::Sender::<Arc<Told>>::default();
        let holdings = watch::Sender::<Holdings>::default();
        let (stop, stop_links) = (CancellationToken::new(), CancellationToken::new());
        let answers = TaskTracker::new();
        let server = Server::new(table.subscribe());
        let pressure = Pressure::default();

        let mut parts = JoinSet::new();
        let watching = pressure.clone().run(runtime.clone(), stop.clone());
        parts.spawn(named("memory", watching));
        let surroundings = Surroundings {
            desired: declared.desired(),
            host,
            runtime,
            idle_after: config.idle_after,
            store,
            links: links.clone(),
            logs: logs.clone(),
            key_values: key_values.clone(),
            scratches,
            events: events.clone(),
            meters: meters.clone(),
            table,
            told: told.clone(),
            holdings: holdings.clone(),
        };
        let reconciler = Reconciler::new(surroundings, found).run(stop.clone());
        parts.spawn(named("reconciler", reconciler));
        let tending = key_values.tend(declared.desired(), stop.clone());
        parts.spawn(named("functions' stores", tending));
        let every = config.meter_interval;
        let counting = metering
            .clone()
            .run(meters.clone(), every, name, stop.clone());
        parts.spawn(named("metering", counting));
        if let Some(listener) = listener {
            let serving = local::serve(listener, server.clone(), answers.clone(), stop.clone());
            parts.spawn(named("local address", serving));
        }

        let streams = Streams {
            server,
            logs,
            tunnels: Tunnels::new(config.tunnel_targets),
            tasks: answers.clone(),
            stop: stop.clone(),
        };
        let linking = Linking {
            live: live.clone(),
            settings: settings.clone(),
            streams,
        };
        // Controllers hear of nothing that a power cut could take back: what was used after it would go by a
        // number that they have counted. Whom this node serves itself need not wait for the disk.
        tokio::task::spawn_blocking(move || ledger.settle()).await??;
        let resources = Resources::new(&config.data_dir, config.metered);
        let mut usages = Usages::new(resources, meters.clone(), pressure);
        let mut linked = JoinSet::new();
        let keep = links.clone();
        linked.spawn(keep.keep(declared.controllers(), linking, stop_links.clone()));
        let renewal = Renewal {
            live,
            dir: Some(config.data_dir),
            info: info.clone(),
            declared: declared.clone(),
            links: links.clone(),
            settings,
        };
        parts.spawn(named("renewal", renewal.run(stop.clone())));
        let session = Session {
            info,
            declared,
            links,
            told: told.subscribe(),
            holdings: holdings.subscribe(),
            events,
            metering: metering.clone(),
            usage: Box::new(move |scope| usages.usage(scope)),
            held_with: watch::Sender::default(),
            moved: false,
        };
        linked.spawn(session.run(stop_links.clone()));
        Ok(Self {
            local_address,
            parts,
            answers,
            stop,
            stop_links,
            links: linked,
            metering,
            meters,
        })
    }

    /// Where functions are served locally.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    /// Waits for a part to end that shouldn't.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            Some(ended) = self.parts.join_next() => match ended {
                Ok(part) => anyhow::anyhow!("the {part} ended by itself"),
                Err(error) => anyhow::Error::new(error).context("a part of the agent broke off"),
            },
            Some(ended) = self.links.join_next() => match ended {
                Ok(()) => anyhow::anyhow!("the links or the session ended by themselves"),
                Err(error) => anyhow::Error::new(error).context("the links or the session broke off"),
            },
        }
    }

    /// Lets requests under way end, within ten seconds, tells what they used, and says goodbye to the
    /// controllers.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.answers.close();
        let drained = async {
            while self.parts.join_next().await.is_some() {}
            self.answers.wait().await;
        };
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        if tokio::time::timeout_at(deadline, drained).await.is_err() {
            tracing::warn!(
                open = self.answers.len(),
                "stopping with requests under way"
            );
        }
        self.meter_last(deadline).await;
        self.stop_links.cancel();
        while self.links.join_next().await.is_some() {}
    }

    /// Writes down what was used since the last time, and lets the controllers take it, if they can be reached.
    async fn meter_last(&self, deadline: Instant) {
        let (metering, meters) = (self.metering.clone(), self.meters.clone());
        let counting = tokio::task::spawn_blocking(move || metering.count(&meters));
        match counting.await {
            Ok(Ok(())) => {
                // Else it is told after the next start.
                let _ = tokio::time::timeout_at(deadline, self.metering.settled()).await;
            }
            Ok(Err(error)) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "what functions used at last is not written down"
            ),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

async fn named(name: &'static str, part: impl Future<Output = ()>) -> &'static str {
    part.await;
    name
}

/// The address as others on the network reach it.
fn reachable(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    match own_ip() {
        Some(ip) => SocketAddr::new(ip, address.port()).to_string(),
        None => String::new(),
    }
}

/// The address with which this machine would reach others. No packet is sent: the system only
/// chooses a route, to an address that is kept for documentation (RFC 5737).
fn own_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
