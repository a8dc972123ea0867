//! Whose tunnels may run cloudflared: what the operator says in the swarm's settings. Pure.
//!
//! Where cloudflared leads is said at Cloudflare, by whoever owns the account of a token, and it runs as the
//! controller's user: it reaches loopback, Unix sockets and private networks. Who may create a Tunnel may not do all
//! that.

use hive_manifests::Resource;

use super::super::Trouble;
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::ingress::routes::SETTINGS;
use crate::state::{Key, State};

/// The swarm's setting: namespaces, separated by commas.
const NAMESPACES: &str = "cloudflare.namespaces";

/// In place of a name: every namespace.
const ALL: &str = "*";

/// Whether tunnels of a namespace may run cloudflared, or what helps.
pub fn given(state: &State, namespace: &str) -> Result<(), Trouble> {
    let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
    let settings = state.get(&key);
    let said = settings.and_then(|settings| settings.body()["data"][NAMESPACES].as_str());
    let mut named = said.unwrap_or_default().split(',').map(str::trim);
    if named.any(|named| named == namespace || named == ALL) {
        return Ok(());
    }
    let message = format!(
        "cloudflared reaches all that this controller does, and nobody has let tunnels of namespace {namespace} run it: \
         whoever runs the swarm adds {namespace} to {NAMESPACES} in the data of ConfigMap {SETTINGS} \
         (`hivectl edit configmap {SETTINGS} -n {SYSTEM_NAMESPACE}`)"
    );
    Err(Trouble::new("NotPermitted", message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::declare;

    #[test]
    fn only_namespaces_that_the_operator_names_run_cloudflared() {
        for (data, expected) in [
            (Value::Null, false),
            (json!({}), false),
            (json!({ "cloudflare.namespaces": "" }), false),
            (json!({ "cloudflare.namespaces": "default" }), false),
            (json!({ "cloudflare.namespaces": "photos" }), true),
            (json!({ "cloudflare.namespaces": "default, photos" }), true),
            (json!({ "cloudflare.namespaces": "default,photos2" }), false),
            (json!({ "cloudflare.namespaces": "phot*" }), false),
            (json!({ "cloudflare.namespaces": "*" }), true),
            (json!({ "cloudflare.namespaces": true }), false),
        ] {
            let mut state = State::default();
            if !data.is_null() {
                let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
                declare(&mut state, key, json!({ "data": data }));
            }
            let found = given(&state, "photos");
            assert_eq!(found.is_ok(), expected, "{data}");
            let Err(Trouble { reason, message }) = found else {
                continue;
            };
            assert_eq!(reason, "NotPermitted");
            for says in [
                "photos to cloudflare.namespaces",
                "ConfigMap swarm",
                "-n hive-system",
            ] {
                assert!(message.contains(says), "{message}");
            }
        }
    }
}
