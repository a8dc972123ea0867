//! Ports that a tunnel would take from another namespace by a change. Of several that ask for one the oldest has it, and a
//! tunnel keeps its age whatever is changed in it.

use hive_manifests::Resource;
use hive_manifests::tunnel::Protocol;
use serde_json::Value;

use super::Tunnels;
use super::table::Tunnel;
use crate::state::{Key, Object};

/// A port is another namespace's. Nothing more is said of what is there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("port {port} belongs to namespace {namespace}: choose another port")]
pub struct PortTaken {
    port: u16,
    namespace: String,
}

impl Tunnels {
    /// Why a tunnel may not be changed so, if it may not.
    pub fn taken_by_change(&self, key: &Key, before: &Value, after: &Value) -> Option<PortTaken> {
        if key.resource != Resource::Tunnel || before["spec"] == after["spec"] {
            return None;
        }
        let read = |body: &Value| Tunnel::of(&Object::new(key.clone(), body.clone(), 0));
        let after = read(after)?;
        let wanted = wanted(&after)?;
        if read(before).is_some_and(|before| self::wanted(&before) == Some(wanted)) {
            return None;
        }
        let others = self.all().into_iter().map(|live| live.tunnel());
        let others = others.filter(|other| other.key != *key);
        let asking = others.filter(|other| self::wanted(other) == Some(wanted));
        let owner = asking.min_by(|a, b| age(a).cmp(&age(b)))?;
        let is_elsewhere = owner.key.namespace != key.namespace;
        (is_elsewhere && age(&after) < age(&owner)).then(|| PortTaken {
            port: wanted.0,
            namespace: owner.key.namespace.clone(),
        })
    }
}

/// A port, and whether it is of UDP.
fn wanted(tunnel: &Tunnel) -> Option<(u16, bool)> {
    Some((tunnel.port()?, tunnel.spec.protocol == Protocol::Udp))
}

/// The least is the oldest.
fn age(tunnel: &Tunnel) -> (&str, &Key) {
    (&*tunnel.created, &tunnel.key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::table::Table;
    use super::*;
    use crate::fixture::{made_in, put};
    use crate::state::State;

    fn declared(key: &Key, year: u16, (protocol, port): (&str, u16)) -> Value {
        let targets = json!([{ "node": "pi", "port": 22 }]);
        let spec = json!({ "protocol": protocol, "port": port, "targets": targets });
        made_in(year, key, json!({ "spec": spec }))
    }

    #[tokio::test]
    async fn no_change_of_an_older_tunnel_takes_a_port_from_another_namespace() {
        let mut state = State::default();
        let held = Key::new(Resource::Tunnel, "own", "database");
        let body = declared(&held, 2021, ("TCP", 5432));
        put(&mut state, held, &body);
        let tunnels = Tunnels::default();
        tunnels.take(&Table::of(&state));
        for (namespace, year, before, after, takes) in [
            ("other", 2020, ("TCP", 7000), ("TCP", 5432), true),
            ("other", 2020, ("UDP", 5432), ("TCP", 5432), true),
            ("other", 2020, ("TCP", 7000), ("UDP", 5432), false),
            ("other", 2020, ("TCP", 7000), ("TCP", 7001), false),
            // It comes after who has the port, as if it was made anew.
            ("other", 2022, ("TCP", 7000), ("TCP", 5432), false),
            ("own", 2020, ("TCP", 7000), ("TCP", 5432), false),
            // It asked for it before.
            ("other", 2020, ("TCP", 5432), ("TCP", 5432), false),
        ] {
            let key = Key::new(Resource::Tunnel, namespace, "it");
            let before = declared(&key, year, before);
            let mut after = declared(&key, year, after);
            after["spec"]["maxConnections"] = json!(7);
            let taken = tunnels.taken_by_change(&key, &before, &after);
            let message = taken.map(|taken| taken.to_string());
            let expected =
                takes.then_some("port 5432 belongs to namespace own: choose another port");
            assert_eq!(message.as_deref(), expected, "{namespace} {year} {after}");
        }
    }
}
