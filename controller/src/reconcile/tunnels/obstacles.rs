//! What is in the way of a tunnel before anything is tried, as far as the state says. Pure.

use hive_manifests::Resource;
use serde_json::Value;

use super::ask::Ask;
use super::{CERTIFICATE_READY, Why};
use crate::ingress::routes;
use crate::objects;
use crate::state::{Key, State};
use crate::tunnels::certificates::CertificateError;
use crate::tunnels::table::{Table, Tunnel};

/// Those of the addresses that a tunnel asks for which it has: not the controllers' where its port is somebody else's, nor
/// those at hosts of other namespaces.
pub fn had(
    tunnel: &Tunnel,
    table: &Table,
    routes: &routes::Follower,
    mut addresses: Vec<String>,
) -> Vec<String> {
    let key = &tunnel.key;
    if tunnel.port().is_some() {
        let is_refused = table.refused.contains_key(key);
        return if is_refused { Vec::new() } else { addresses };
    }
    addresses.retain(|address| {
        let authority = address.split_once("://").map_or(&**address, |(_, it)| it);
        let authority = authority.split('/').next().unwrap_or_default();
        let host = routes::without_port(authority);
        routes.held_elsewhere(host, &key.namespace).is_none()
    });
    addresses
}

/// Why there is no certificate to serve a tunnel with: of one that is ordered, what is in the way of the order.
pub fn no_certificate(tunnel: &Tunnel, error: &CertificateError, state: &State) -> Why {
    if tunnel.spec.wants_acme() {
        let declared = state.get(&tunnel.key).map(|it| it.to_value());
        let refused = declared
            .as_deref()
            .filter(|it| objects::condition(it, CERTIFICATE_READY) == Some("False"));
        let message = match refused.and_then(|it| message_of(it, CERTIFICATE_READY)) {
            Some(why) => format!("its certificate is not there yet: {why}"),
            None => "its certificate is not there yet".to_owned(),
        };
        return Why::new(error.reason(), message);
    }
    let name = tunnel.spec.certificate_secret(&tunnel.key.name);
    let name = name.unwrap_or_default();
    let message = format!("spec.tls.secretName: Secret {name}: {error}");
    Why::new(error.reason(), message)
}

/// Why no controller takes connections for what is reached by TLS.
pub fn no_door(tunnel: &Tunnel, ask: &Ask) -> Option<Why> {
    let by_tls = !tunnel.names.is_empty();
    (by_tls && ask.controllers.is_empty()).then(|| {
        let message = "no controller takes TLS: start them with --ingress-tls-port";
        Why::new("NoTlsPort", message)
    })
}

/// Why the function that is to answer does not.
pub fn no_function(tunnel: &Tunnel, state: &State) -> Option<Why> {
    let name = tunnel.spec.function.as_ref()?;
    let namespace = &tunnel.key.namespace;
    let key = Key::new(Resource::Function, &**namespace, &**name);
    let Some(function) = state.get(&key) else {
        let message = format!(
            "function {name} is not in namespace {namespace}: apply it, or correct spec.function"
        );
        return Some(Why::new("FunctionNotFound", message));
    };
    let function = function.to_value();
    if objects::condition(&function, "Available") != Some("False") {
        return None;
    }
    let why = message_of(&function, "Ready").unwrap_or("it was not looked at yet");
    let message = format!("function {name} has no copy that answers: {why}");
    Some(Why::new("FunctionNotReady", message))
}

/// What a condition of an object tells people.
fn message_of<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let mut conditions = object["status"]["conditions"].as_array()?.iter();
    conditions.find(|it| it["type"] == kind)?["message"].as_str()
}
