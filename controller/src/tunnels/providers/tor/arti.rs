//! Arti in this process: one client of the Tor network, which serves any number of onion services.
//!
//! On disk is what it knows of the network, and which relays it enters by. Keys are in memory only, so what it wrote of
//! services is worth nothing to the next Arti, and is removed.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arti_client::config::{ConfigurationSource, ConfigurationSources};
use arti_client::{TorClient, TorClientConfig};
use futures::StreamExt;
use tor_config::sources::MustRead;
use tor_hscrypto::pk::HsClientDescEncKey;
use tor_hsservice::config::restricted_discovery::HsClientNickname;
use tor_hsservice::config::{OnionServiceConfig, OnionServiceConfigBuilder, TokenBucketConfig};
use tor_hsservice::status::State;
use tor_hsservice::{HsNickname, RunningOnionService};
use tor_rtcompat::PreferredRuntime;

use super::super::Trouble;
use super::Tor;
use super::directory::Directories;
use super::door::Door;
use super::identity::Identity;
use super::onions::Onion;
use super::session::Network;
use crate::state::Key;

/// Streams of one circuit at once, of one client as a rule; one that opens more loses the circuit. A browser opens some
/// six for a host.
const MAX_STREAMS: u32 = 128;

/// Relays at which clients ask for the service: as many as Tor uses where nothing else is said.
const INTRODUCTIONS: u8 = 3;

/// Clients that such a relay lets through: so many a second, after so many at once. The figures of C tor's defence
/// against floods.
const CLIENTS_A_SECOND: u32 = 25;
const CLIENTS_AT_ONCE: u32 = 200;

/// What Arti does where the file of `--tor-config` says nothing else. Bytes that wait for a slow client or relay are some MB;
/// beyond this it gives up the circuits that have waited for longest. By itself it would take most of a small machine.
const DEFAULTS: &str = "[system.memory]\nmax = \"256 MiB\"\n";

/// Names what Arti keeps of a service. Each time another one: what was let go may not have ended yet.
static LAUNCHED: AtomicU64 = AtomicU64::new(0);

pub struct Arti {
    client: Arc<TorClient<PreferredRuntime>>,
    tor: Tor,
}

/// An onion service that runs until this is dropped.
pub struct Service {
    running: Arc<RunningOnionService>,
    _door: Door,
    was_published: bool,
}

impl Arti {
    pub async fn start(tor: &Tor) -> Result<Self, Trouble> {
        // Arti takes whatever is the process's own.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = configure(&tor.dir, tor.config.as_deref())?;
        let forgotten = forget_services(&tor.dir);
        forgotten.map_err(|error| {
            let message = format!("{} cannot be written: {error}", tor.dir.display());
            Trouble::new("TorFailed", message)
        })?;
        // An Arti of a term before may still hold the locks of its files. Then this one does without what they guard
        // until it has them.
        let created = TorClient::<PreferredRuntime>::builder()
            .config(config)
            .dirmgr_builder::<Directories>(Arc::new(Directories))
            .create_unbootstrapped_async()
            .await;
        let client = created.map_err(failed)?;
        tracing::info!("Arti started");
        Ok(Self {
            client,
            tor: tor.clone(),
        })
    }

    /// Makes the way to Tor, and says why if it cannot be made. Otherwise it does not return.
    pub fn connect(&self) -> impl Future<Output = Trouble> + Send + use<> {
        let client = self.client.clone();
        async move {
            match client.bootstrap().await {
                Ok(()) => std::future::pending().await,
                Err(error) => failed(error),
            }
        }
    }

    /// Why nobody is reached yet, or any more.
    fn connecting(&self) -> Option<Trouble> {
        let status = self.client.bootstrap_status();
        if status.ready_for_traffic() {
            return None;
        }
        let percent = (status.as_frac() * 100.0).round();
        let message = match status.blocked() {
            Some(blockage) => format!(
                "the way to Tor is stuck at {percent} %: {}: let this controller out to the internet",
                blockage.message()
            ),
            None => format!("the way to Tor is being made: {percent} %"),
        };
        Some(Trouble::new("TorConnecting", message))
    }
}

impl Network for Arti {
    type Service = Service;

    fn launch(
        &mut self,
        tunnel: &Key,
        onion: &Onion,
        identity: Identity,
    ) -> Result<Service, Trouble> {
        let config = service(&onion.clients)?;
        let launched = self
            .client
            .launch_onion_service_with_hsid(config, identity.into_keypair());
        let (running, requests) = launched
            .map_err(refused)?
            .ok_or_else(|| Trouble::new("TorRefused", "Arti has it disabled"))?;
        let door = Door::open(&self.tor, tunnel, onion, requests.boxed());
        Ok(Service {
            running,
            _door: door,
            was_published: false,
        })
    }

    fn look(&self, service: &mut Service) -> Option<Trouble> {
        let connecting = self.connecting();
        if connecting.is_some() {
            return connecting;
        }
        let status = service.running.status();
        match status.state() {
            State::Running | State::DegradedReachable => {
                service.was_published = true;
                None
            }
            // It is being published anew, which leaves what was published as it is.
            State::Bootstrapping if service.was_published => None,
            State::Bootstrapping | State::Shutdown => {
                let message = "its address is being published, which takes a minute or so";
                Some(Trouble::new("TorPublishing", message))
            }
            state => {
                service.was_published = false;
                let problem = status.current_problem();
                tracing::debug!(?state, ?problem, "an onion service is not found");
                let message = format!(
                    "clients do not find its address ({state:?}): Arti goes on trying, and logs why at the level debug"
                );
                Some(Trouble::new("TorUnpublished", message))
            }
        }
    }
}

/// What Arti is to do, by defaults, the file of whoever runs this controller, and what is not theirs to say.
fn configure(dir: &Path, file: Option<&Path>) -> Result<TorClientConfig, Trouble> {
    let invalid = |error: anyhow::Error| {
        let from = match file {
            Some(file) => format!("the file of --tor-config, {}", file.display()),
            None => "Arti's configuration".to_owned(),
        };
        Trouble::new("TorConfigInvalid", format!("{from}: {error:#}"))
    };
    let mut sources = ConfigurationSources::new_empty();
    let defaults = ConfigurationSource::from_verbatim(DEFAULTS.to_owned());
    sources.push_source(defaults, MustRead::MustRead);
    if let Some(file) = file {
        sources.push_source(ConfigurationSource::from_path(file), MustRead::MustRead);
    }
    let own = ConfigurationSource::from_verbatim(storage(dir));
    sources.push_source(own, MustRead::MustRead);
    let read = sources.load().map_err(|error| invalid(error.into()))?;
    tor_config::resolve::<TorClientConfig>(&read).map_err(|error| invalid(error.into()))
}

/// Files below `dir`, and no file of keys: Arti's TOML.
fn storage(dir: &Path) -> String {
    // What JSON quotes, TOML understands.
    let quoted = |name: &str| serde_json::Value::from(dir.join(name).to_string_lossy()).to_string();
    format!(
        "[storage]\n\
         state_dir = {{ literal = {} }}\n\
         cache_dir = {{ literal = {} }}\n\
         [storage.keystore]\n\
         enabled = true\n\
         [storage.keystore.primary]\n\
         kind = \"ephemeral\"\n",
        quoted("state"),
        quoted("cache"),
    )
}

/// Removes what an Arti before wrote of services whose keys went with it. What one of them writes at this moment stays:
/// in this process no service has its name again, and the next process removes it.
fn forget_services(dir: &Path) -> io::Result<()> {
    use io::ErrorKind::{DirectoryNotEmpty, NotFound};
    match std::fs::remove_dir_all(dir.join("state").join("hss")) {
        Err(error) if matches!(error.kind(), NotFound | DirectoryNotEmpty) => Ok(()),
        removed => removed,
    }
}

/// An onion service for these clients; for everybody if there are none.
fn service(clients: &[String]) -> Result<OnionServiceConfig, Trouble> {
    let number = LAUNCHED.fetch_add(1, Ordering::Relaxed);
    let name = HsNickname::new(format!("onion-{number}")).map_err(refused)?;
    let mut builder = OnionServiceConfigBuilder::default();
    builder
        .nickname(name)
        .num_intro_points(INTRODUCTIONS)
        .max_concurrent_streams_per_circuit(MAX_STREAMS)
        .rate_limit_at_intro(Some(TokenBucketConfig::new(
            CLIENTS_A_SECOND,
            CLIENTS_AT_ONCE,
        )));
    if !clients.is_empty() {
        builder.restricted_discovery().enabled(true);
    }
    for (index, client) in clients.iter().enumerate() {
        let key = client.parse::<HsClientDescEncKey>().map_err(|error| {
            let message = format!(
                "spec.tor.authorizedClients[{index}] is no public key of a client: {:#}",
                anyhow::Error::new(error)
            );
            Trouble::new("ClientInvalid", message)
        })?;
        let name = format!("client-{index}");
        let name = name.parse::<HsClientNickname>().map_err(refused)?;
        let keys = builder.restricted_discovery().static_keys();
        keys.access().push((name, key));
    }
    builder.build().map_err(refused)
}

fn refused(error: impl Into<anyhow::Error>) -> Trouble {
    let message = format!("Arti does not serve it: {:#}", error.into());
    Trouble::new("TorRefused", message)
}

fn failed(error: arti_client::Error) -> Trouble {
    let message = format!("{:#}: Arti is started anew", anyhow::Error::new(error));
    Trouble::new("TorFailed", message)
}

#[cfg(test)]
mod tests;
