//! Which tunnels there are, and which of them has which port. Pure: the same on every controller that applied the
//! same state.

use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(test)]
use hive_manifests::tunnel::TunnelTarget;
use hive_manifests::tunnel::{Protocol, TunnelSpec};
use hive_manifests::{Resource, Tunnel as Declared};

use crate::ingress::routes::{domain, is_settings, routes_of};
use crate::reconcile::Followed;
use crate::state::{Change, Key, Object, State};

/// A tunnel as controllers carry it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tunnel {
    pub key: Key,
    /// One that was deleted and made anew is another.
    pub uid: String,
    /// Of its spec.
    pub generation: i64,
    /// In text that sorts.
    created: String,
    pub spec: TunnelSpec,
    /// What clients call an HTTP tunnel; empty for one of TCP.
    pub host: String,
}

/// All tunnels of the swarm at one revision.
#[derive(Debug, Default, PartialEq)]
pub struct Table {
    pub tunnels: BTreeMap<Key, Arc<Tunnel>>,
    /// Who has a port, on every controller.
    pub ports: BTreeMap<u16, Key>,
    /// Tunnels that do not have the port that they ask for.
    pub refused: BTreeMap<Key, PortRefused>,
}

/// Why a tunnel does not have its port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRefused {
    #[error(
        "port {port} is that of tunnel {}/{}, which is older: choose another port",
        .with.namespace,
        .with.name
    )]
    Conflict { port: u16, with: Key },
    #[error(
        "port {port} is where controller {controller} listens for its {what}: choose another port"
    )]
    InUse {
        port: u16,
        controller: u64,
        what: &'static str,
    },
}

impl PortRefused {
    /// In one CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "PortConflict",
            Self::InUse { .. } => "PortInUse",
        }
    }
}

/// Makes tables of states, one after the other; a tunnel that did not change is not read again.
pub struct Follower {
    declared: Followed<Tunnel>,
}

impl Default for Follower {
    fn default() -> Self {
        Self {
            declared: Followed::new(Resource::Tunnel, Tunnel::of),
        }
    }
}

impl Follower {
    /// The table of a state, which is no older than the one before.
    pub fn follow(&mut self, state: &State) -> Table {
        self.declared.follow(state);
        let domain = domain(state);
        let tunnels = self.declared.iter().map(|(key, tunnel)| {
            let tunnel = tunnel.clone().in_domain(domain);
            (key.clone(), Arc::new(tunnel))
        });
        Table::with(tunnels.collect(), &taken(state))
    }
}

impl Table {
    pub fn of(state: &State) -> Self {
        Follower::default().follow(state)
    }

    /// Of several tunnels that ask for a port the oldest has it.
    fn with(
        tunnels: BTreeMap<Key, Arc<Tunnel>>,
        taken: &BTreeMap<u16, (u64, &'static str)>,
    ) -> Self {
        let mut ports: BTreeMap<u16, Key> = BTreeMap::new();
        let mut refused = BTreeMap::new();
        let mut asking: Vec<_> = tunnels.values().collect();
        asking.sort_by(|a, b| (&a.created, &a.key).cmp(&(&b.created, &b.key)));
        for tunnel in asking {
            let Some(port) = tunnel.port() else { continue };
            let refusal = match (taken.get(&port), ports.get(&port)) {
                (Some((controller, what)), _) => PortRefused::InUse {
                    port,
                    controller: *controller,
                    what,
                },
                (None, Some(with)) => PortRefused::Conflict {
                    port,
                    with: with.clone(),
                },
                (None, None) => {
                    ports.insert(port, tunnel.key.clone());
                    continue;
                }
            };
            refused.insert(tunnel.key.clone(), refusal);
        }
        Self {
            tunnels,
            ports,
            refused,
        }
    }
}

impl Tunnel {
    /// `None` of what this version of the program cannot read: it leads nowhere.
    fn of(object: &Object) -> Option<Self> {
        let declared: Declared = object.parse().ok()?;
        let created = declared.metadata.creation_timestamp?;
        Some(Self {
            key: object.key().clone(),
            uid: object.uid().to_owned(),
            generation: declared.metadata.generation.unwrap_or_default(),
            created: created.0.to_string(),
            spec: declared.spec,
            host: String::new(),
        })
    }

    fn in_domain(mut self, domain: &str) -> Self {
        if self.spec.protocol == Protocol::Http {
            let http = self.spec.http.clone().unwrap_or_default();
            let routes = routes_of(&self.key.name, &self.key.namespace, &http, domain);
            self.host = routes
                .into_iter()
                .next()
                .map(|route| route.host)
                .unwrap_or_default();
        }
        self
    }

    #[cfg(test)]
    pub fn with_targets(key: Key, targets: Vec<TunnelTarget>) -> Self {
        let spec = TunnelSpec {
            targets,
            ..TunnelSpec::default()
        };
        Self {
            key,
            uid: String::new(),
            generation: 1,
            created: String::new(),
            spec,
            host: String::new(),
        }
    }

    /// Where every controller is to listen for it.
    pub fn port(&self) -> Option<u16> {
        self.spec
            .port
            .filter(|_| self.spec.protocol == Protocol::Tcp)
    }
}

/// Ports where controllers listen for something else. Every controller has all tunnels, so what one of them
/// needs is none's.
fn taken(state: &State) -> BTreeMap<u16, (u64, &'static str)> {
    let ports = state.controllers().flat_map(|(id, member)| {
        [
            (&member.ingress, "ingress"),
            (&member.api, "API"),
            (&member.link, "links"),
        ]
        .map(|(endpoint, what)| {
            let port = endpoint.rsplit_once(':')?.1.parse().ok()?;
            Some((port, (id, what)))
        })
    });
    ports.flatten().collect()
}

/// Whether a change can be one of a tunnel. Those of controllers always are looked at.
pub fn may_matter(change: &Change) -> bool {
    change.key.resource == Resource::Tunnel || is_settings(change)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::access::tokens::SYSTEM_NAMESPACE;
    use crate::ingress::routes::SETTINGS;
    use crate::objects;
    use crate::state::{Command, Member};

    /// The key of a tunnel.
    fn key(name: &str) -> Key {
        Key::new(Resource::Tunnel, "default", name)
    }

    fn create(state: &mut State, key: Key, created: &str, extra: Value) {
        let mut body = objects::fresh(&key, json!({}), extra);
        body["metadata"]["creationTimestamp"] = json!(created);
        let body = body.into();
        state.apply(Command::Create { key, body }).unwrap();
    }

    fn tcp(state: &mut State, name: &str, second: u32, port: u16) {
        let targets = json!([{ "node": "pi", "port": 22 }]);
        let spec = json!({ "protocol": "TCP", "port": port, "targets": targets });
        let created = format!("2026-01-01T00:00:{second:02}Z");
        create(state, key(name), &created, json!({ "spec": spec }));
    }

    fn delete(state: &mut State, name: &str) {
        let (key, expect, uid) = (key(name), None, None);
        state.apply(Command::Delete { key, expect, uid }).unwrap();
    }

    fn change(state: &mut State, name: &str, change: impl FnOnce(&mut Value)) {
        let key = key(name);
        let mut body = state.get(&key).unwrap().body().clone();
        change(&mut body);
        let (body, expect) = (body.into(), None);
        state.apply(Command::Replace { key, body, expect }).unwrap();
    }

    /// `port name` of those that have one, and `name Reason` of those that do not.
    fn told(table: &Table) -> String {
        let ports = table.ports.iter();
        let ports = ports.map(|(port, key)| format!("{port} {}", key.name));
        let refused = table.refused.iter();
        let refused = refused.map(|(key, why)| format!("{} {}", key.name, why.reason()));
        let all: Vec<_> = ports.chain(refused).collect();
        all.join(", ")
    }

    #[test]
    fn of_several_tunnels_with_one_port_the_oldest_has_it() {
        let mut state = State::default();
        let mut follower = Follower::default();
        let mut after = |state: &State, expected: &str| {
            let table = follower.follow(state);
            assert_eq!(told(&table), expected);
            assert_eq!(table, Table::of(state));
        };
        after(&state, "");
        tcp(&mut state, "young", 3, 2222);
        after(&state, "2222 young");
        // Older, and applied later: as after a restore.
        tcp(&mut state, "old", 1, 2222);
        after(&state, "2222 old, young PortConflict");
        // Of one second, the first by name.
        tcp(&mut state, "other", 1, 2222);
        after(&state, "2222 old, other PortConflict, young PortConflict");
        tcp(&mut state, "alone", 9, 2223);
        after(
            &state,
            "2222 old, 2223 alone, other PortConflict, young PortConflict",
        );
        change(&mut state, "old", |body| {
            body["spec"]["maxConnections"] = json!(7)
        });
        after(
            &state,
            "2222 old, 2223 alone, other PortConflict, young PortConflict",
        );
        change(&mut state, "old", |body| body["spec"]["port"] = json!(2223));
        after(
            &state,
            "2222 other, 2223 old, alone PortConflict, young PortConflict",
        );
        delete(&mut state, "old");
        delete(&mut state, "other");
        after(&state, "2222 young, 2223 alone");
    }

    #[test]
    fn what_a_controller_listens_on_is_no_tunnel_s() {
        let mut state = State::default();
        let member = Member {
            link: "10.0.0.7:7443".into(),
            api: "[fd00::7]:6443".into(),
            ingress: "hive.example.org:8080".into(),
        };
        state.apply(Command::AdmitController { member }).unwrap();
        for (name, port) in [("a", 7443), ("b", 6443), ("c", 8080), ("d", 8081)] {
            tcp(&mut state, name, 0, port);
        }
        let table = Table::of(&state);
        assert_eq!(
            told(&table),
            "8081 d, a PortInUse, b PortInUse, c PortInUse"
        );
        let said = table.refused[&key("c")].to_string();
        assert!(
            said.contains("port 8080") && said.contains("controller 1"),
            "{said}"
        );
    }

    #[test]
    fn http_tunnels_have_a_host_and_no_port() {
        let mut state = State::default();
        let time = "2026-01-01T00:00:00Z";
        let targets = json!([{ "node": "pi", "port": 80 }]);
        let spec = json!({ "targets": targets });
        create(&mut state, key("photos"), time, json!({ "spec": spec }));
        let spec = json!({ "http": { "host": "Photos.example.org" }, "targets": targets });
        create(&mut state, key("named"), time, json!({ "spec": spec }));
        let mut follower = Follower::default();
        let mut hosts = |state: &State| {
            let table = follower.follow(state);
            assert!(table.ports.is_empty() && table.refused.is_empty());
            let hosts = table.tunnels.values().map(|tunnel| tunnel.host.clone());
            hosts.collect::<Vec<_>>()
        };
        assert_eq!(
            hosts(&state),
            ["photos.example.org", "photos.default.localhost"]
        );
        let settings = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
        let data = json!({ "data": { "domain": "swarm.example" } });
        create(&mut state, settings, time, data);
        assert_eq!(
            hosts(&state),
            ["photos.example.org", "photos.default.swarm.example"]
        );
    }

    #[test]
    fn what_cannot_be_read_leads_nowhere() {
        let mut state = State::default();
        let spec = json!({ "spec": { "protocol": "LATER", "port": 2222 } });
        create(&mut state, key("later"), "2026-01-01T00:00:00Z", spec);
        assert_eq!(Table::of(&state), Table::default());
    }
}
