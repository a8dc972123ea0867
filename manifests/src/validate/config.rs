//! Rules about the data of Secrets and ConfigMaps. The values of a Secret never reach a message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hive_registry::Credentials;
use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use super::{Reason, hosts, names, suggest};
use crate::FieldPath;
use crate::function::{DOCKER_CONFIG_KEY, DOCKER_CONFIG_TYPE};

/// Namespace and name of the ConfigMap with the swarm's settings.
const SETTINGS: (&str, &str) = ("hive-system", "swarm");

/// All that it sets.
const KNOWN: [&str; 8] = [
    "acme.agreeToTerms",
    "acme.directory",
    "acme.email",
    "acme.rootCertificates",
    "cloudflare.namespaces",
    "domain",
    "proxyProtocolFrom",
    "trustedProxies",
];

/// Its settings that are networks, with commas between.
const NETWORKS: [&str; 2] = ["trustedProxies", "proxyProtocolFrom"];

pub(super) fn check_secret(value: &Value, findings: &mut Findings) {
    // That values of data are base64 is part of the schema.
    for name in ["data", "stringData"] {
        check_keys(value, name, findings);
    }
    if value.get("type").and_then(Value::as_str) == Some(DOCKER_CONFIG_TYPE) {
        check_docker_config(value, findings);
    }
}

/// Who cannot be read is asked for a password by the registry, long after this was written.
fn check_docker_config(value: &Value, findings: &mut Findings) {
    let of = |name: &str| value.get(name)?.get(DOCKER_CONFIG_KEY)?.as_str();
    let (field, config) = match (of("stringData"), of("data")) {
        (Some(plain), _) => ("stringData", Some(plain.as_bytes().to_vec())),
        // What is no base64 was said already.
        (None, Some(encoded)) => ("data", STANDARD.decode(encoded).ok()),
        (None, None) => {
            let message = format!(
                "required: a secret of type {DOCKER_CONFIG_TYPE} holds a Docker config here"
            );
            let path = FieldPath::of(["data", DOCKER_CONFIG_KEY]);
            return findings.push(&path, Reason::Required, message);
        }
    };
    if let Some(Err(error)) = config.map(|config| Credentials::parse(&config)) {
        findings.invalid(
            &FieldPath::of([field, DOCKER_CONFIG_KEY]),
            error.to_string(),
        );
    }
}

pub(super) fn check_config_map(value: &Value, findings: &mut Findings) {
    let data = check_keys(value, "data", findings);
    let binary = check_keys(value, "binaryData", findings);
    for key in binary.into_iter().flat_map(Map::keys) {
        if data.is_some_and(|data| data.contains_key(key)) {
            findings.duplicate(
                &FieldPath::of(["binaryData", key]),
                format!("{} is in data too", quoted(key)),
            );
        }
    }
    let metadata = &value["metadata"];
    if let Some(data) = data
        && metadata["namespace"] == SETTINGS.0
        && metadata["name"] == SETTINGS.1
    {
        check_settings(data, findings);
        check_domain(data, findings);
        check_networks(data, findings);
    }
}

/// As with fields: a name that nobody reads was misspelt, or is of another release.
fn check_settings(settings: &Map<String, Value>, findings: &mut Findings) {
    for name in settings.keys().filter(|it| !KNOWN.contains(&it.as_str())) {
        let free = KNOWN.into_iter().filter(|it| !settings.contains_key(*it));
        let near = suggest::nearest(name, free).map(str::to_owned);
        let message = match near {
            Some(_) => "unknown setting".to_owned(),
            None => format!("unknown setting; known here: {}", KNOWN.join(", ")),
        };
        let path = FieldPath::of(["data", name]);
        findings.suggest(&path, Reason::Unknown, message, near);
    }
}

/// It ends the names under which functions and tunnels answer, and says which of them are whose: none would be asked
/// under one that no client writes so.
fn check_domain(settings: &Map<String, Value>, findings: &mut Findings) {
    if let Some(domain) = settings.get("domain").and_then(Value::as_str) {
        hosts::check(domain, &FieldPath::of(["data", "domain"]), findings);
    }
}

/// The controllers take what is no network for nobody's: who wrote it would wonder why proxies are not believed.
fn check_networks(settings: &Map<String, Value>, findings: &mut Findings) {
    for name in NETWORKS {
        let said = settings.get(name).and_then(Value::as_str);
        let networks = said.unwrap_or_default().split(',').map(str::trim);
        for network in networks.filter(|network| !network.is_empty()) {
            hosts::check_network(network, &FieldPath::of(["data", name]), findings);
        }
    }
}

fn check_keys<'a>(
    value: &'a Value,
    name: &str,
    findings: &mut Findings,
) -> Option<&'a Map<String, Value>> {
    let data = value.get(name).and_then(Value::as_object)?;
    for key in data.keys() {
        if let Err(why) = names::data_key(key) {
            let message = format!("{} is not a key: {why}", quoted(key));
            findings.invalid(&FieldPath::of([name]), message);
        }
    }
    Some(data)
}
