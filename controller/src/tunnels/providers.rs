//! Who brings connections of tunnels from somewhere else to this controller: Cloudflare's network, Tor.
//!
//! Every controller knows every tunnel and can reach every target, so a provider does one thing: what arrives at its
//! own address it hands to the ingress, or to [`carry`](super::carry), of the controller that it runs on. A tunnel of
//! provider Hive needs none: it is reached at the controllers themselves. Agents know of no provider.

mod child;
pub mod cloudflare;
pub mod hold;
mod leading;
mod secret;
pub mod tor;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use hive_manifests::Resource;
use hive_manifests::tunnel::Provider as Kind;
use tokio::sync::Notify;

pub use child::Launcher;
pub use leading::Leading;
pub use secret::Token;

use super::table::Tunnel;
use crate::ingress::routes::is_settings;
use crate::state::{Change, Key, State};

/// Brings the connections of a set of tunnels.
pub trait Provider {
    /// With what one of them is served. Another one is served anew.
    type Job: Clone + PartialEq;

    const KIND: Kind;

    /// What is to be done for a tunnel, by the state.
    fn job(&self, tunnel: &Tunnel, state: &State) -> Result<Self::Job, Trouble>;

    /// Serves these tunnels from now on, and no others. How they are is told to the [`Standings`].
    fn serve(&mut self, jobs: BTreeMap<Key, Self::Job>);
}

/// Why a provider does not bring connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In one CamelCase word.
    pub reason: &'static str,
    /// In one sentence for people, without any secret.
    pub message: String,
}

impl Trouble {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// Of a tunnel that was not looked at yet.
    fn starting(kind: Kind) -> Self {
        let message = format!(
            "the way to {} is being made, which takes some seconds",
            kind.as_str()
        );
        Self::new("Starting", message)
    }
}

/// How a provider stands with a tunnel on this controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub trouble: Option<Trouble>,
    /// The host under which clients find it, where the provider gave it one.
    pub host: Option<String>,
}

/// What this controller's providers say of tunnels. A clone is the same.
#[derive(Clone, Default)]
pub struct Standings {
    known: Arc<Mutex<BTreeMap<(Key, Part), Standing>>>,
    /// Somebody waits to write it down.
    wakes: Arc<Notify>,
}

/// Which part of a provider says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// What is declared elsewhere, by the leader.
    Account,
    /// What carries.
    Connector,
}

impl Standings {
    /// Those that wake when something is another: the leader's look at tunnels.
    pub fn waking(wakes: Arc<Notify>) -> Self {
        Self {
            known: Arc::default(),
            wakes,
        }
    }

    /// How a provider stands with a tunnel that it serves; of several troubles the first cause.
    pub fn of(&self, tunnel: &Key, kind: Kind) -> Standing {
        let known = self.lock();
        let said = |part| known.get(&(tunnel.clone(), part)).cloned();
        let connector = said(Part::Connector).unwrap_or_else(|| Standing {
            trouble: Some(Trouble::starting(kind)),
            host: None,
        });
        match said(Part::Account) {
            Some(account) if account.trouble.is_some() => Standing {
                trouble: account.trouble,
                ..connector
            },
            _ => connector,
        }
    }

    /// All that is known, to see whether something is new.
    pub fn snapshot(&self) -> BTreeMap<(Key, Part), Standing> {
        self.lock().clone()
    }

    pub fn say(&self, tunnel: &Key, part: Part, standing: Standing) {
        let mut known = self.lock();
        let before = known.insert((tunnel.clone(), part), standing.clone());
        drop(known);
        if before.as_ref() == Some(&standing) {
            return;
        }
        match &standing.trouble {
            Some(Trouble { reason, message }) => {
                tracing::warn!(%tunnel, reason, message, "a provider does not bring connections");
            }
            None => tracing::info!(%tunnel, "a provider brings connections"),
        }
        self.wakes.notify_one();
    }

    pub fn trouble(&self, tunnel: &Key, part: Part, trouble: Trouble) {
        let standing = Standing {
            trouble: Some(trouble),
            host: None,
        };
        self.say(tunnel, part, standing);
    }

    pub fn well(&self, tunnel: &Key, part: Part, host: Option<String>) {
        let standing = Standing {
            trouble: None,
            host,
        };
        self.say(tunnel, part, standing);
    }

    /// Forgets what a part said of tunnels that are not its own any more.
    pub fn keep(&self, part: Part, is_own: impl Fn(&Key) -> bool) {
        let mut known = self.lock();
        known.retain(|(tunnel, of), _| *of != part || is_own(tunnel));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Key, Part), Standing>> {
        self.known.lock().expect("no holder of the lock panics")
    }
}

/// Goes on to other tunnels: the provider serves its own, apart from those that are being deleted.
pub fn follow<P: Provider>(
    provider: &mut P,
    standings: &Standings,
    part: Part,
    tunnels: &BTreeMap<Key, Arc<Tunnel>>,
    state: &State,
) {
    let is_deleted = |key: &Key| state.get(key).is_none_or(|it| it.is_being_deleted());
    let own = tunnels.iter();
    let own = own.filter(|(key, it)| it.spec.provider == P::KIND && !is_deleted(key));
    let own: BTreeMap<_, _> = own.collect();
    standings.keep(part, |key| {
        let known = tunnels.get(key);
        own.contains_key(key) || known.is_some_and(|it| it.spec.provider != P::KIND)
    });
    let mut jobs = BTreeMap::new();
    for (key, tunnel) in own {
        match provider.job(tunnel, state) {
            Ok(job) => drop(jobs.insert(key.clone(), job)),
            Err(trouble) => standings.trouble(key, part, trouble),
        }
    }
    provider.serve(jobs);
}

/// Whether a change can matter to what a provider serves: tokens are in Secrets.
pub fn may_matter(change: &Change) -> bool {
    matches!(change.key.resource, Resource::Tunnel | Resource::Secret) || is_settings(change)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::objects;
    use crate::state::Command;
    use crate::tunnels::table::Follower;

    /// Serves tunnels whose host does not begin with "bad".
    #[derive(Default)]
    struct Fake(Vec<String>);

    impl Provider for Fake {
        type Job = String;
        const KIND: Kind = Kind::Tor;

        fn job(&self, tunnel: &Tunnel, _: &State) -> Result<String, Trouble> {
            match tunnel.host.starts_with("bad") {
                true => Err(Trouble::new("Bad", "it is bad")),
                false => Ok(tunnel.host.clone()),
            }
        }

        fn serve(&mut self, jobs: BTreeMap<Key, String>) {
            self.0 = jobs.into_values().collect();
        }
    }

    fn key(name: &str) -> Key {
        Key::new(Resource::Tunnel, "default", name)
    }

    #[test]
    fn a_provider_serves_its_tunnels_until_they_are_to_go() {
        let mut state = State::default();
        let mut put = |name: &str, provider: &str, deleted: bool| {
            let spec = json!({
                "provider": provider,
                "http": { "host": format!("{name}.org") },
                "targets": [{ "node": "pi", "port": 1 }],
            });
            let mut body = objects::fresh(&key(name), json!({}), json!({ "spec": spec }));
            if deleted {
                body["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                body["metadata"]["finalizers"] = json!(["a.b/c"]);
            }
            let (key, body) = (key(name), body.into());
            state.apply(Command::Create { key, body }).unwrap();
        };
        put("a", "Tor", false);
        put("bad", "Tor", false);
        put("b", "Tor", true);
        put("c", "Cloudflare", false);
        put("d", "Hive", false);
        let (mut fake, standings) = (Fake::default(), Standings::default());
        standings.well(&key("c"), Part::Connector, None);
        standings.well(&key("gone"), Part::Connector, None);
        let tunnels = Follower::default().tunnels(&state);
        follow(&mut fake, &standings, Part::Connector, &tunnels, &state);
        assert_eq!(fake.0, ["a.org"]);
        let told = standings.snapshot();
        let names: Vec<_> = told.keys().map(|(key, _)| &*key.name).collect();
        // What another provider said is its own.
        assert_eq!(names, ["bad", "c"]);
        let reason = |name| {
            let standing = standings.of(&key(name), Kind::Tor);
            standing.trouble.map(|trouble| trouble.reason)
        };
        assert_eq!(reason("a"), Some("Starting"));
        assert_eq!(reason("bad"), Some("Bad"));
        standings.well(&key("a"), Part::Connector, Some("x.onion".into()));
        assert_eq!(reason("a"), None);
        // Without what is declared elsewhere nothing is carried.
        standings.trouble(&key("a"), Part::Account, Trouble::new("Denied", "no"));
        assert_eq!(reason("a"), Some("Denied"));
        let host = standings.of(&key("a"), Kind::Tor).host;
        assert_eq!(host.as_deref(), Some("x.onion"));
    }
}
