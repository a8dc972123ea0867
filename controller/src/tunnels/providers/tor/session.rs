//! The leader's session with Tor: services begin and end as tunnels come and go, and how they are is told.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::Resource;
use hive_manifests::tunnel::Provider as Kind;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::child::Pauses;
use super::super::{Part, Standings, Trouble};
use super::Tor;
use super::arti::Arti;
use super::identity::Identity;
use super::onions::{ONION_KEY, Onion, Wanted, secret_name};
use crate::objects::{self, EditError};
use crate::state::Key;
use crate::store::Replica;

/// How often it is asked how services are, and what was refused is tried again.
const ASK: Duration = Duration::from_secs(5);

/// What makes services findable: Arti, or what stands for it in a test.
pub trait Network {
    /// One that is served until it is dropped.
    type Service;

    fn launch(
        &mut self,
        tunnel: &Key,
        onion: &Onion,
        identity: Identity,
    ) -> Result<Self::Service, Trouble>;

    /// Why clients do not find a service, if so.
    fn look(&self, service: &mut Self::Service) -> Option<Trouble>;
}

/// What is served.
struct Served<S> {
    onion: Onion,
    host: String,
    /// Its key was seen in its Secret.
    is_kept: bool,
    service: S,
}

struct Session<'a, N: Network> {
    standings: &'a Standings,
    replica: &'a Replica,
    network: N,
    serving: BTreeMap<Key, Served<N::Service>>,
}

/// Serves what is wanted, with an Arti that runs while there is something. It does not return.
pub async fn run(tor: &Tor, replica: &Replica, mut wanted: watch::Receiver<Wanted>) {
    let standings = &tor.tunnels.standings;
    let mut pauses = Pauses::new();
    loop {
        if wanted.wait_for(|wanted| !wanted.is_empty()).await.is_err() {
            // Nobody says any more what is wanted.
            return std::future::pending().await;
        }
        pauses.begin();
        if let Err(trouble) = serve(tor, replica, &mut wanted).await {
            let keys: Vec<Key> = wanted.borrow().keys().cloned().collect();
            for key in keys {
                standings.trouble(&key, Part::Connector, trouble.clone());
            }
            sleep(pauses.next()).await;
        }
    }
}

/// Until nothing is wanted any more, or Arti fails.
async fn serve(
    tor: &Tor,
    replica: &Replica,
    wanted: &mut watch::Receiver<Wanted>,
) -> Result<(), Trouble> {
    let standings = &tor.tunnels.standings;
    let keys: Vec<Key> = wanted.borrow().keys().cloned().collect();
    for key in keys {
        // What a term before said is not so any more.
        standings.trouble(&key, Part::Connector, Trouble::starting(Kind::Tor));
    }
    let arti = Arti::start(tor).await?;
    let failing = arti.connect();
    let mut session = Session {
        standings,
        replica,
        network: arti,
        serving: BTreeMap::new(),
    };
    tokio::select! {
        () = session.follow(wanted) => Ok(()),
        trouble = failing => Err(trouble),
    }
}

impl<N: Network> Session<'_, N> {
    /// Returns when nothing is wanted any more.
    async fn follow(&mut self, wanted: &mut watch::Receiver<Wanted>) {
        loop {
            let now = wanted.borrow_and_update().clone();
            if now.is_empty() {
                return;
            }
            self.look(&now).await;
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = sleep(ASK) => {}
            }
        }
    }

    /// Serves what is wanted, and tells how it is.
    async fn look(&mut self, wanted: &Wanted) {
        self.serving.retain(|key, served| {
            let onion = wanted.get(key);
            onion.is_some_and(|onion| served.is_as_wanted(onion))
        });
        for (key, onion) in wanted {
            match self.serving.get_mut(key) {
                Some(served) => served.is_kept |= onion.key.is_some(),
                None => {
                    if let Err(trouble) = self.add(key, onion).await {
                        self.standings.trouble(key, Part::Connector, trouble);
                    }
                }
            }
        }
        for (key, served) in &mut self.serving {
            match self.network.look(&mut served.service) {
                Some(trouble) => self.standings.trouble(key, Part::Connector, trouble),
                None => {
                    let host = served.host.clone();
                    self.standings.well(key, Part::Connector, Some(host));
                }
            }
        }
    }

    /// What is wrong with one service is that one's trouble.
    async fn add(&mut self, key: &Key, onion: &Onion) -> Result<(), Trouble> {
        let identity = match &onion.key {
            Some(kept) => Identity::read(kept).ok_or_else(|| {
                let message = format!(
                    "secret {} has no key of an onion service: write one of C tor's under the key {ONION_KEY}, as \
                     ED25519-V3:<base64>, or delete the secret to have another address",
                    secret_name(key)
                );
                Trouble::new("SecretInvalid", message)
            })?,
            None => {
                let made = Identity::make();
                // An address that would be another one next time is none.
                keep(self.replica, key, &made).await.map_err(|error| {
                    let message = format!("the key of its address cannot be kept: {error}");
                    Trouble::new("KeyNotKept", message)
                })?;
                made
            }
        };
        let host = identity.host();
        // As it is written: the same key may be in two ways.
        let written = onion.key.clone().unwrap_or_else(|| identity.write());
        let service = self.network.launch(key, onion, identity)?;
        tracing::info!(tunnel = %key, "an onion service is served");
        let served = Served {
            onion: Onion {
                key: Some(written),
                ..onion.clone()
            },
            host,
            is_kept: onion.key.is_some(),
            service,
        };
        self.serving.insert(key.clone(), served);
        Ok(())
    }
}

impl<S> Served<S> {
    fn is_as_wanted(&self, wanted: &Onion) -> bool {
        let key = match &wanted.key {
            // It was made a moment ago, and is in no state yet. Or somebody deleted it, to have another address.
            None if !self.is_kept => &self.onion.key,
            key => key,
        };
        let wanted = Onion {
            key: key.clone(),
            ..wanted.clone()
        };
        self.onion == wanted
    }
}

/// Puts a service's key where who leads next finds it. It stays when the Tunnel goes: the address is known to people.
async fn keep(replica: &Replica, tunnel: &Key, made: &Identity) -> Result<(), EditError> {
    let key = Key::new(Resource::Secret, &*tunnel.namespace, secret_name(tunnel));
    let extra = json!({
        "type": "Opaque",
        "data": {
            ONION_KEY: BASE64.encode(made.write().expose()),
            "hostname": BASE64.encode(made.host()),
        },
    });
    let labels = json!({ "hive.dev/tunnel": tunnel.name });
    let body = objects::fresh(&key, labels, extra);
    // One that somebody else wrote meanwhile is the one: with it the service is made anew.
    objects::ensure(replica, key, body).await
}

#[cfg(test)]
mod tests;
