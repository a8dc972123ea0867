//! Rules about the data of Secrets and ConfigMaps. The values of a Secret never reach a message.

use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use super::names;
use crate::FieldPath;

pub(super) fn check_secret(value: &Value, findings: &mut Findings) {
    // That values of data are base64 is part of the schema.
    for name in ["data", "stringData"] {
        check_keys(value, name, findings);
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
