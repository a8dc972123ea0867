//! Rules about the data of Secrets and ConfigMaps. The values of a Secret never reach a message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hive_registry::Credentials;
use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use super::{Reason, names};
use crate::FieldPath;
use crate::function::{DOCKER_CONFIG_KEY, DOCKER_CONFIG_TYPE};

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
