//! What the leader is to serve: an onion service for each tunnel of this provider, by the state.

use std::collections::BTreeMap;

use hive_manifests::Resource;
use hive_manifests::tunnel::{Protocol, Provider as Kind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::{Provider, Token, Trouble, secret};
use super::{Tor, follow_state, session};
use crate::state::{Key, State};
use crate::store::Replica;
use crate::tunnels::table::Tunnel;

/// Key of the Secret's data: the service's key as C tor writes it.
pub const ONION_KEY: &str = "key";

/// The port of an onion service that answers requests.
const HTTP_PORT: u16 = 80;

/// An onion service as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onion {
    /// Of its Tunnel.
    pub uid: String,
    /// `None` of one that never was: it is made.
    pub key: Option<Token>,
    /// At which its clients connect.
    pub port: u16,
    /// Keys of those who can find it, as the spec has them; empty for everybody.
    pub clients: Vec<String>,
    /// The host under which the ingress knows it; `None` where connections are carried as they are.
    pub host: Option<String>,
}

/// What the session with Tor is told to serve.
pub type Wanted = BTreeMap<Key, Onion>;

struct Onions {
    wanted: watch::Sender<Wanted>,
}

/// The Secret in which a service's key is.
pub fn secret_name(tunnel: &Key) -> String {
    format!("{}-onion", tunnel.name)
}

impl Provider for Onions {
    type Job = Onion;
    const KIND: Kind = Kind::Tor;

    fn job(&self, tunnel: &Tunnel, state: &State) -> Result<Onion, Trouble> {
        let key = &tunnel.key;
        let name = secret_name(key);
        let there = Key::new(Resource::Secret, &*key.namespace, &*name);
        let known = match state.get(&there) {
            None => None,
            Some(_) => Some(secret::read(state, &key.namespace, &name, ONION_KEY)?),
        };
        let is_http = tunnel.spec.protocol == Protocol::Http;
        let port = match is_http {
            true => HTTP_PORT,
            false => tunnel.spec.port.unwrap_or(HTTP_PORT),
        };
        let said = tunnel.spec.tor.clone().unwrap_or_default();
        Ok(Onion {
            uid: tunnel.uid.clone(),
            key: known,
            port,
            clients: said.authorized_clients,
            host: is_http.then(|| tunnel.host.clone()),
        })
    }

    fn serve(&mut self, jobs: Wanted) {
        self.wanted.send_if_modified(|known| {
            let is_other = *known != jobs;
            *known = jobs;
            is_other
        });
    }
}

/// Serves the onion services of all tunnels, until cancelled.
pub async fn serve(tor: Tor, replica: Replica, cancel: CancellationToken) {
    let standings = tor.tunnels.standings.clone();
    let (wanted, seen) = watch::channel(Wanted::new());
    let following = follow_state(Onions { wanted }, standings, &replica, &cancel);
    let serving = session::run(&tor, &replica, seen);
    // What is cancelled lets go of Arti, which ends then.
    tokio::join!(following, cancel.run_until_cancelled(serving));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use serde_json::json;

    use super::*;
    use crate::fixture::declare;
    use crate::tunnels::providers::{Part, Standings, follow};

    #[test]
    fn a_service_is_what_its_tunnel_says_with_the_key_of_its_secret() {
        let mut state = State::default();
        let client = format!("descriptor:x25519:{}", "a2".repeat(26));
        let targets = json!([{ "node": "pi", "port": 22 }]);
        for (name, spec) in [
            (
                "web",
                json!({ "http": { "host": "web.example.org" }, "targets": targets }),
            ),
            (
                "ssh",
                json!({
                    "protocol": "TCP",
                    "port": 2222,
                    "targets": targets,
                    "tor": { "authorizedClients": [client] },
                }),
            ),
            ("bad", json!({ "targets": targets })),
        ] {
            let mut spec = spec;
            spec["provider"] = json!("Tor");
            let key = Key::new(Resource::Tunnel, "default", name);
            declare(&mut state, key, json!({ "spec": spec }));
        }
        let secret = |name: &str| Key::new(Resource::Secret, "default", name);
        let data = json!({ "data": { "key": BASE64.encode("ED25519-V3:a2V5") } });
        declare(&mut state, secret("ssh-onion"), data);
        declare(&mut state, secret("bad-onion"), json!({ "data": {} }));

        let (wanted, seen) = watch::channel(Wanted::new());
        let (mut onions, standings) = (Onions { wanted }, Standings::default());
        let table = crate::tunnels::table::Table::of(&state);
        // No controller listens for it.
        assert!(table.ports.is_empty());
        let part = Part::Connector;
        follow(&mut onions, &standings, part, &table.tunnels, &state);
        let wanted = seen.borrow().clone();
        let of = |name| wanted.get(&Key::new(Resource::Tunnel, "default", name));
        let web = of("web").unwrap();
        assert_eq!((web.port, &web.key), (80, &None));
        assert_eq!(web.host.as_deref(), Some("web.example.org"));
        assert!(web.clients.is_empty());
        let ssh = of("ssh").unwrap();
        assert_eq!((ssh.port, &ssh.host), (2222, &None));
        assert_eq!(ssh.key, Some(Token::new("ED25519-V3:a2V5")));
        assert_eq!(ssh.clients, [client]);
        // Its address must not become another one.
        assert_eq!(of("bad"), None);
        let key = Key::new(Resource::Tunnel, "default", "bad");
        let trouble = standings.of(&key, Kind::Tor).trouble.unwrap();
        assert_eq!(trouble.reason, "SecretInvalid");
    }
}
